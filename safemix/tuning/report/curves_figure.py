"""The refusal margin and the losses of all trials over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from safemix.evaluate.report.figures import COLOURS, GREY, INK, dress_axes, label, new_figure
from safemix.evaluate.report.words import printable
from safemix.tracking.curves import trailing_mean
from safemix.tuning.records import TrialRecord
from safemix.tuning.report.measures import margin, number
from safemix.tuning.report.scale import RatioScale

Numbers = NDArray[np.float64]
Read = Callable[[Mapping[str, Any]], float | None]

_MOST_POINTS: Final = 400  # of a line
_SMOOTH: Final = 20  # a loss is the mean over this part of the readings
_LOSS: Final = "/loss"
_MARKS: Final = {"stopped": ("x", INK), "failed": ("X", COLOURS[1])}


def curves_figure(records: Sequence[TrialRecord], recommended: TrialRecord | None) -> Figure:
    """Draw the picture; see `plots.draw_curves`."""
    losses = loss_names(records)
    rows = 1 + math.ceil(len(losses) / 2)
    figure = new_figure(9.0, 3.4 * rows + 0.4)
    grid = figure.add_gridspec(rows, 2)
    scale = RatioScale(ratio for r in records if r.kind == "trial" for _, ratio in r.ratios)
    best = None if recommended is None else recommended.number
    panels = [figure.add_subplot(grid[0, :])]
    drawn = [_draw(panels[0], records, margin, scale, best, changes=True)]
    panels[0].axhline(0.0, color=GREY, linewidth=0.8, zorder=0.5)
    _title(panels[0], "refusal margin, worst dress (below 0: rather complies)", "nats a token")
    for place, name in enumerate(losses):
        axes = figure.add_subplot(grid[1 + place // 2, place % 2])
        panels.append(axes)
        # Without a margin the changes of the ratio stand on the first loss.
        changes = not drawn[0] and place == 0
        read = _reader(name)
        drawn.append(_draw(axes, records, read, scale, best, smooth=True, changes=changes))
        source = printable(name.removesuffix(_LOSS)).replace("utility", "task")
        _title(axes, f"{source} loss, mean over 5 % of the readings", "loss a trained token")
    for axes, any_line in zip(panels, drawn, strict=True):
        _dress(axes, any_line=any_line)
    scale.add_bar(figure, panels)
    _add_legend(figure, records, recommended)
    return figure


def loss_names(records: Sequence[TrialRecord]) -> list[str]:
    """Losses of the sources: the task's, the safety rows', then the others by name."""
    names = {key for r in records for reading in r.readings for key in reading}
    order = {"utility/loss": 0, "safety/loss": 1}
    found = [n for n in names if n.endswith(_LOSS) and n != "train/loss"]
    return sorted(found, key=lambda name: (order.get(name, 2), name))


def series(record: TrialRecord, read: Read, *, smooth: bool) -> tuple[Numbers, Numbers]:
    """Steps and values of the readings that have one; by step, the newest of a step read twice.

    After a restart from a checkpoint some steps are read again.
    """
    found: dict[int, float] = {}
    for reading in record.readings:
        step, value = number(reading.get("step")), read(reading)
        if step is not None and value is not None:
            found[int(step)] = value
    steps = np.array(sorted(found), dtype=np.float64)
    values = np.array([found[int(step)] for step in steps], dtype=np.float64)
    if smooth and len(values):
        values = trailing_mean(values, max(1, len(values) // _SMOOTH))
    if len(steps) > _MOST_POINTS:
        chosen = np.unique(np.linspace(0, len(steps) - 1, _MOST_POINTS).astype(np.int64))
        steps, values = steps[chosen], values[chosen]
    return steps, values


def _reader(name: str) -> Read:
    return lambda reading: number(reading.get(name))


def _draw(
    axes: Axes,
    records: Sequence[TrialRecord],
    read: Read,
    scale: RatioScale,
    best: int | None,
    *,
    smooth: bool = False,
    changes: bool,
) -> bool:
    """Draw a line a trial; whether there was any."""
    any_line = False
    for record in records:
        steps, values = series(record, read, smooth=smooth)
        if not len(steps):
            continue
        any_line = True
        if record.kind == "untouched":
            axes.axhline(values[-1], color=INK, linewidth=1.0, linestyle=":", zorder=2)
            continue
        wide = 2.6 if record.number == best else 1.5 if record.kind == "unmixed" else 0.9
        _line(axes, record, steps, values, scale=scale, wide=wide)
        mark = _MARKS.get(record.status)
        if mark:
            axes.plot(steps[-1], values[-1], mark[0], color=mark[1], markersize=5.5, zorder=4,
                      markeredgewidth=1.2 if mark[0] == "x" else 0.4)  # fmt: skip
        if changes:
            _mark_changes(axes, record, steps, values, scale)
    axes.autoscale_view()
    return any_line


def _line(
    axes: Axes,
    record: TrialRecord,
    steps: Numbers,
    values: Numbers,
    *,
    scale: RatioScale,
    wide: float,
) -> None:
    """A line whose pieces have the colour of the ratio that they were trained with."""
    if record.kind == "unmixed":
        axes.plot(steps, values, color=INK, linewidth=wide, linestyle="--", zorder=2.5)
        return
    if len(steps) == 1:
        axes.plot(steps, values, ".", color=scale.colour(record.ratio), zorder=2)
        return
    spots = np.stack([steps, values], axis=1)
    pieces = np.stack([spots[:-1], spots[1:]], axis=1)
    colours = [scale.colour(ratio_at(record, step)) for step in steps[1:]]
    axes.add_collection(
        LineCollection(list(pieces), colors=colours, linewidths=wide, zorder=2, capstyle="round")
    )
    axes.update_datalim(spots)


def ratio_at(record: TrialRecord, step: float) -> float | None:
    """Ratio of the rows that led to a step."""
    known = [ratio for first, ratio in record.ratios if first < step]
    return known[-1] if known else record.ratio


def _mark_changes(
    axes: Axes, record: TrialRecord, steps: Numbers, values: Numbers, scale: RatioScale
) -> None:
    for (_, before), (step, ratio) in zip(record.ratios, record.ratios[1:], strict=False):
        if steps[0] <= step <= steps[-1]:
            height = float(np.interp(step, steps, values))
            axes.plot(step, height, "^" if ratio > before else "v", color=scale.colour(ratio),
                      markersize=7, markeredgecolor=INK, markeredgewidth=0.5,
                      zorder=3)  # fmt: skip


def _title(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(label(title), loc="left", fontsize=10)
    axes.set_ylabel(unit)


def _dress(axes: Axes, *, any_line: bool) -> None:
    dress_axes(axes, grid="both")
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    if not any_line:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.55, "not read", transform=axes.transAxes, ha="center", color=GREY,
                  style="italic")  # fmt: skip


def _add_legend(
    figure: Figure, records: Sequence[TrialRecord], recommended: TrialRecord | None
) -> None:
    def line(style: str, width: float, colour: str = INK) -> Line2D:
        return Line2D([], [], color=colour, linestyle=style, linewidth=width)

    def mark(marker: str, colour: str) -> Line2D:
        return Line2D([], [], color=colour, marker=marker, markersize=6, linestyle="none")

    trials = [record for record in records if record.readings]
    kinds, states = {r.kind for r in trials}, {r.status for r in trials}
    shown = [(line("-", 0.9, GREY), "trial")] if "trial" in kinds else []
    if recommended is not None:
        shown.append((line("-", 2.6, GREY), f"recommended: {recommended.name}"))
    shown += [(line("--", 1.5), "ratio 0")] if "unmixed" in kinds else []
    shown += [(line(":", 1.0), "untouched model")] if "untouched" in kinds else []
    shown += [(mark(*_MARKS[state]), state) for state in _MARKS if state in states]
    if any(len(record.ratios) > 1 for record in trials):
        shown += [(mark("^", GREY), "ratio raised"), (mark("v", GREY), "lowered")]
    if not shown:
        return
    handles, words = zip(*shown, strict=True)
    legend = figure.legend(handles, words, loc="outside upper left", ncols=len(shown),
                           frameon=False, fontsize=8.5, columnspacing=1.2)  # fmt: skip
    for text in legend.get_texts():
        text.set_color(INK)
