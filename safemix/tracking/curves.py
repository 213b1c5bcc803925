"""A picture of a run: losses, safety shares, speed and what was measured, over the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from safemix.tracking.measured import measured_names
from safemix.tracking.metrics import read_metrics

_Label = Callable[[Axes], None]
Numbers = NDArray[np.float64]

_MAX_POINTS = 1500  # more than the picture has pixels in a panel
_UTILITY, _SAFETY, _OTHER, _GREY = "#1f6fb4", "#d1495b", "#6a994e", "#5c6370"


def plot_curves(metrics_path: Path, png_path: Path) -> None:
    """Draw the curves of a metrics file.

    Args:
        metrics_path: `metrics.jsonl` of a run, from one step to millions.
        png_path: the picture; replaced atomically.

    Raises:
        OSError: if a file cannot be read or written.
    """
    lines = list(read_metrics(metrics_path))
    steps = np.array([line["step"] for line in lines], dtype=np.float64)
    below = _readings(lines)
    rows = ceil(len(below) / 2)
    figure = Figure(figsize=(11, 7.2 + 3 * rows), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)  # no global state, no display
    heights = (1.25, 1, *([1] * rows))
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    losses, shares, speed = (
        figure.add_subplot(grid[0, :]),
        figure.add_subplot(grid[1, 0]),
        figure.add_subplot(grid[1, 1]),
    )
    _draw_losses(losses, steps, lines)
    _draw_shares(shares, steps, lines)
    _draw_speed(speed, steps, lines)
    panels = [losses, shares, speed]
    for number, (names, label) in enumerate(below):
        row, column = divmod(number, 2)
        alone = column == 0 and number + 1 == len(below)
        panels.append(figure.add_subplot(grid[2 + row, :] if alone else grid[2 + row, column]))
        _draw_readings(panels[-1], steps, lines, names)
        label(panels[-1])
    for axes in panels:
        _dress(axes, steps)
    temporary = png_path.with_name(f".{png_path.name}.tmp")
    figure.savefig(temporary, format="png")
    temporary.replace(png_path)


def _readings(
    lines: Sequence[dict[str, Any]],
) -> list[tuple[Sequence[str], Callable[[Axes], None]]]:
    """Names of each kind of reading that there is, with what labels its panel."""
    measured = measured_names(lines)
    kinds = (
        (measured.margins, _label_margins),
        (measured.separations, _label_separations),
        (measured.rates, _label_rates),
    )
    return [kind for kind in kinds if kind[0]]


def _draw_losses(axes: Axes, steps: Numbers, lines: Sequence[dict[str, Any]]) -> None:
    names = dict.fromkeys(name for line in lines for name in line if name.endswith("/loss"))
    names.pop("train/loss", None)
    colours = {"utility/loss": _UTILITY, "safety/loss": _SAFETY}
    for name in names:
        values = _column(lines, name)
        _draw(
            axes, steps, values, trailing_mean(values), colour=colours.get(name, _OTHER), label=name
        )
    axes.set_title("Loss of each source (faint: every reading, bold: running mean)", loc="left")
    axes.set_ylabel("loss per trained token")


def _draw_shares(axes: Axes, steps: Numbers, lines: Sequence[dict[str, Any]]) -> None:
    # Since the start, not a window: the promise is that the share of all rows stays exact.
    rows, tokens = _column(lines, "safety/row_share"), _column(lines, "safety/token_share")
    done = mean_since_start(steps, rows)
    _draw(axes, steps, rows, done, colour=_SAFETY, label="rows, mean so far")
    if _any(tokens):
        x, y = _thin(steps, mean_since_start(steps, tokens))
        label = "trained tokens, mean so far"
        axes.plot(x, y, color=_OTHER, linewidth=2.0, label=label, **_dot(x, "o"))
    asked = _column(lines, "mix/ratio")
    if _any(asked):
        x, y = _thin(steps, asked)
        axes.plot(x, y, "--", color="black", linewidth=1.2, label="rows, asked", **_dot(x, "_"))
    axes.set_title("Safety share (faint: rows of every reading)", loc="left")
    axes.set_ylabel("share of the mixture")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))


def _draw_speed(axes: Axes, steps: Numbers, lines: Sequence[dict[str, Any]]) -> None:
    values = _column(lines, "perf/tokens_per_s")
    _draw(axes, steps, values, trailing_mean(values), colour=_GREY, label="running mean")
    wait = _column(lines, "perf/data_wait_share")
    waited = f", {np.nanmean(wait):.1%} of the time waiting for data" if _any(wait) else ""
    axes.set_title(f"Speed{waited}", loc="left")
    axes.set_ylabel("tokens per second")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _draw_readings(
    axes: Axes, steps: Numbers, lines: Sequence[dict[str, Any]], names: Sequence[str]
) -> None:
    """What is read now and then: a dot for each reading, a line of its own for each metric."""
    for name in names:
        values = _column(lines, name)
        seen = np.isfinite(values)
        if not seen.any():
            continue
        x, y = _thin(steps[seen], values[seen])
        style = "-" if name.endswith("/plain") or name.startswith("utility/") else "--"
        colour = _colour(name)
        axes.plot(x, y, style, color=colour, linewidth=1.6, marker="o", markersize=3.5, label=name)


def _label_margins(axes: Axes) -> None:
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    axes.set_title("Refusal margin (below 0 the model would rather comply)", loc="left")
    axes.set_ylabel("nats")


def _label_separations(axes: Axes) -> None:
    axes.axhline(0.5, color=_GREY, linewidth=0.8)
    axes.set_title("Harmful told from look-alikes (50 %: chance)", loc="left")
    axes.set_ylabel("share of pairs")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))


def _label_rates(axes: Axes) -> None:
    axes.set_title("Answers on fixed prompts", loc="left")
    axes.set_ylabel("share")
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))


def _colour(name: str) -> str:
    kinds = {
        "safety/margin/": _SAFETY,
        "safety/separation/": _SAFETY,
        "safety/asr/": _SAFETY,
        "safety/margin_lookalikes/": _OTHER,
        "safety/over_refusal/": _OTHER,
        "utility/": _UTILITY,
    }
    return next((colour for kind, colour in kinds.items() if name.startswith(kind)), _GREY)


def _draw(
    axes: Axes, steps: Numbers, raw: Numbers, smooth: Numbers, *, colour: str, label: str
) -> None:
    """Faint readings with a bold line over them; one reading alone is a dot."""
    seen = np.isfinite(raw)
    if not seen.any():
        return
    x, low, high = _band(steps[seen], raw[seen])
    if low is high:
        axes.plot(x, low, color=colour, alpha=0.3, linewidth=0.9)
    else:
        axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    x, y = _thin(steps[seen], smooth[seen])
    axes.plot(x, y, color=colour, linewidth=2.0, label=label, **_dot(x, "o"))


def _dot(steps: Numbers, marker: str) -> dict[str, Any]:
    """A line of one point is invisible without a marker."""
    return {"marker": marker, "markersize": 7} if len(steps) == 1 else {}


def _dress(axes: Axes, steps: Numbers) -> None:
    axes.set_xlabel("optimizer step")
    axes.grid(alpha=0.25, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if len(steps) == 1:
        axes.set_xlim(steps[0] - 1, steps[0] + 1)
    elif len(steps):
        axes.set_xlim(steps[0], steps[-1])
    if axes.lines:
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low) if low >= 0 else low, high)
        axes.legend(fontsize=9, framealpha=0.75, edgecolor="none")
    else:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color=_GREY)


def _column(lines: Sequence[dict[str, Any]], name: str) -> Numbers:
    """One metric over the lines; NaN where it is absent or null."""
    values = (line.get(name) for line in lines)
    return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)


def _any(values: Numbers) -> bool:
    return bool(np.isfinite(values).any())


def trailing_mean(values: Numbers, window: int | None = None) -> Numbers:
    """Mean of the last `window` readings that are numbers; by default a thirtieth of all.

    Args:
        values: shape [n], NaN where there is none.
        window: readings to look back on.

    Returns:
        Shape [n]; NaN where none of the window is a number.
    """
    count = len(values)
    window = window or max(1, min(count, max(5, count // 30)))
    seen = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(seen, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(seen)])
    first = np.maximum(np.arange(count) + 1 - window, 0)
    total, number = sums[1:] - sums[first], counts[1:] - counts[first]
    return np.divide(total, number, out=np.full(count, np.nan), where=number > 0)


def mean_since_start(steps: Numbers, values: Numbers) -> Numbers:
    """Mean over all steps so far; a reading counts as many steps as it covers. Shape [n]."""
    covered = np.maximum(np.diff(steps, prepend=0.0), 1.0)
    weight = np.where(np.isfinite(values), covered, 0.0)
    sums, weights = np.cumsum(np.nan_to_num(values) * weight), np.cumsum(weight)
    return np.divide(sums, weights, out=np.full(len(values), np.nan), where=weights > 0)


def _thin(steps: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """At most `_MAX_POINTS` points, the last one among them."""
    if len(steps) <= _MAX_POINTS:
        return steps, values
    chosen = np.unique(np.linspace(0, len(steps) - 1, _MAX_POINTS).astype(np.int64))
    return steps[chosen], values[chosen]


def _band(steps: Numbers, values: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The readings themselves (low is high), or the range of each bin if there are many."""
    if len(steps) <= _MAX_POINTS:
        return steps, values, values
    edges = np.linspace(0, len(steps), _MAX_POINTS // 3 + 1).astype(np.int64)[:-1]
    return steps[edges], np.minimum.reduceat(values, edges), np.maximum.reduceat(values, edges)
