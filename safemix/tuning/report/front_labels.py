"""Names beside the points of the front: none covers a point or another name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from safemix.evaluate.report.figures import GREY, INK, PAPER
from safemix.evaluate.report.placement import place_labels

_FONT: Final = 8.5
_SAME: Final = 4.0  # pixels: nearer points share a name
_MOST_TOGETHER: Final = 4


@dataclass(frozen=True)
class Named:
    """A point and what is written beside it.

    Attributes:
        words: "" for nothing.
        x: place on the level axis, in data.
        y: place on the upright axis.
        across: ends of its level error bar.
        up: ends of its upright error bar.
        plain: a number only; several at one place are put together.
    """

    words: str
    x: float
    y: float
    across: tuple[float, float]
    up: tuple[float, float]
    plain: bool


def add_names(figure: Figure, axes: Axes, points: Sequence[Named]) -> None:
    """Write the names where they cover neither points nor each other, with a line where far."""
    figure.draw_without_rendering()  # lays out, so that pixels are known
    figure.set_layout_engine("none")
    origin, frame = np.array(axes.bbox.p0), np.array([axes.bbox.width, axes.bbox.height])
    pixels = axes.transData.transform(np.array([[p.x, p.y] for p in points])) - origin
    words = together([p.words for p in points], [p.plain for p in points], pixels)
    halo = [withStroke(linewidth=2.5, foreground=PAPER, alpha=0.85)]  # error bars run behind
    texts = [
        axes.text(0, 0, name, fontsize=_FONT, color=INK, zorder=4, path_effects=halo)
        for name in words
    ]
    sizes = np.array([
        [box.width + 3.0, box.height + 3.0] if name else [0.5, 0.5]
        for name, box in zip(words, (text.get_window_extent() for text in texts), strict=True)
    ])  # fmt: skip
    gap = 11 * figure.dpi / 72  # a ringed marker's size in pixels
    bars = _bars(axes, points) - np.tile(origin, 2)
    corners = place_labels(pixels, sizes, (frame[0], frame[1]), gap=gap, bars=bars)
    for text, corner, size, pixel, point in zip(texts, corners, sizes, pixels, points, strict=True):
        if not text.get_text():
            text.remove()
            continue
        # Shares of the axes, not pixels: a file may be written at another resolution.
        text.set_transform(axes.transAxes)
        text.set_position(tuple((corner + 1.5) / frame))
        nearest = np.clip(pixel, corner, corner + size)
        if np.hypot(*(nearest - pixel)) > 1.3 * gap:
            axes.annotate("", (point.x, point.y), tuple(nearest / frame),
                          textcoords="axes fraction", zorder=2,
                          arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.7,
                                      "shrinkA": 0, "shrinkB": 3})  # fmt: skip


def together(words: Sequence[str], plain: Sequence[bool], pixels: NDArray[np.float64]) -> list[str]:
    """One name for plain ones at the same place: "02, 05, 07 and 9 more".

    Args:
        words: a name for each point.
        plain: which of them may be put together.
        pixels: places, shape [n, 2].
    """
    result, taken = list(words), np.zeros(len(words), bool)
    for place, name in enumerate(words):
        if not name or not plain[place] or taken[place]:
            continue
        near = np.hypot(*(pixels - pixels[place]).T) < _SAME
        same = [n for n in range(len(words)) if near[n] and plain[n] and words[n] and not taken[n]]
        for other in same:
            taken[other], result[other] = True, ""
        shown = ", ".join(words[n] for n in same[:_MOST_TOGETHER])
        more = len(same) - _MOST_TOGETHER
        result[place] = f"{shown} and {more} more" if more > 0 else shown
    return result


def _bars(axes: Axes, points: Sequence[Named]) -> NDArray[np.float64]:
    """Error bars as thin boxes in pixels, shape [2n, 4]."""
    boxes = []
    for p in points:
        for ends in (((p.across[0], p.y), (p.across[1], p.y)), ((p.x, p.up[0]), (p.x, p.up[1]))):
            first, second = axes.transData.transform(np.array(ends))
            boxes.append([*(first - 1.0), *(second + 1.0)])
    return np.array(boxes)
