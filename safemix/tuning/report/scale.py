"""Ratios as places on a logarithmic axis and as colours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from safemix.evaluate.report.figures import GREY, INK

# Viridis without its yellow, which is too faint on paper; dark is more safety rows.
_MAP: Final = LinearSegmentedColormap.from_list(
    "ratio", colormaps["viridis_r"](np.linspace(0.14, 1.0, 256))
)
_STEPS: Final = ((1, 2, 5), (1, 2, 3, 5, 7), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))


def ticks(low: float, high: float) -> list[float]:
    """Round ratios between two, three at least where so many are to be had."""
    found: list[float] = []
    for steps in _STEPS:
        tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        every = (step * 10.0**ten for ten in tens for step in steps)
        found = [tick for tick in every if low * 0.999 <= tick <= high * 1.001]
        if len(found) >= 3:
            break
    return found or [math.sqrt(low * high)]


def tick_words(share: float) -> str:
    """A share at an axis: "2 %"."""
    return f"{100 * share:.3g} %"


def share_formatter() -> FuncFormatter:
    """Ticks as "2 %", with digits only where they differ."""
    return FuncFormatter(lambda share, _: tick_words(round(share, 6)))


class RatioScale:
    """Colours of the ratios of a sweep.

    Args:
        ratios: of all trials; 0 and None have a colour of their own.
    """

    def __init__(self, ratios: Iterable[float | None]) -> None:
        known = sorted(ratio for ratio in ratios if ratio)
        low, high = (known[0], known[-1]) if known else (0.01, 0.1)
        # One ratio alone, or several alike, still need two ends.
        wide = high / low < 1.2
        self.low, self.high = (low / 1.5, high * 1.5) if wide else (low, high)
        # Ratios to write at an axis: the one alone, or round ones.
        self.marks = ticks(self.low, self.high) if low < high and known else known[:1]
        self._several = bool(known) and low < high
        self._norm = LogNorm(self.low, self.high)

    def colour(self, ratio: float | None) -> str:
        """Of a ratio, as "#rrggbb"; grey for 0 and for one that is not known."""
        return str(to_hex(_MAP(self._norm(ratio)))) if ratio else GREY

    def add_bar(self, figure: Figure, axes: Axes | list[Axes]) -> None:
        """Draw the scale beside the axes, if there are ratios to tell apart."""
        if not self._several:
            return
        mappable: Any = ScalarMappable(self._norm, _MAP)
        bar = figure.colorbar(mappable, ax=axes, fraction=0.035, pad=0.02, aspect=30)
        bar.set_label("ratio: share of safety rows", color=INK)
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_locator(FixedLocator(self.marks))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        bar.ax.yaxis.set_ticklabels([tick_words(mark) for mark in self.marks])
        bar.ax.tick_params(color=GREY, labelcolor=INK)
