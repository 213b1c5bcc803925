"""ASR by dress, and utility, over the ratio."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from safemix.evaluate.report.figures import (
    COLOURS,
    GREY,
    INK,
    MARKERS,
    PAPER,
    dress_axes,
    label,
    new_figure,
)
from safemix.evaluate.report.words import metric_name
from safemix.tuning.records import Outcome, TrialRecord
from safemix.tuning.report.measures import RATIO, counted, level, ratio_words
from safemix.tuning.report.scale import RatioScale, share_formatter, tick_words

_BOUND: Final = COLOURS[1]
# The bound's colour is no series'.
_COLOURS: Final = (COLOURS[0], COLOURS[2], COLOURS[3], COLOURS[5], COLOURS[6], COLOURS[4])
_APART: Final = 0.14  # of the axis between the smallest ratio, ratio 0 and the untouched model
Series = dict[str, dict[int, Outcome]]


class _Places:
    """Where records stand on the level axis: log10 of the ratio, baselines at the left."""

    def __init__(self, records: Sequence[TrialRecord]) -> None:
        scale = RatioScale(record.ratio for record in records if record.kind == "trial")
        self.low, self.high = math.log10(scale.low), math.log10(scale.high)
        self.step = _APART * (self.high - self.low)
        self.zero, self.untouched = self.low - self.step, self.low - 2 * self.step
        self.ticks = scale.marks

    def of(self, record: TrialRecord) -> float | None:
        if record.kind == "untouched":
            return self.untouched
        if record.ratio is None:
            return None
        return math.log10(record.ratio) if record.ratio else self.zero


def ratio_figure(
    records: Sequence[TrialRecord], recommended: TrialRecord | None, bound: Mapping[str, float]
) -> Figure:
    """Draw the picture; see `plots.draw_by_ratio`."""
    figure = new_figure(8.6, 6.8)
    upper, lower = figure.subplots(2, 1, sharex=True)
    places = _Places(records)
    # Lines between points say something only where nothing but the ratio differs.
    alone = all(set(r.point) <= {RATIO} for r in records if r.kind == "trial")
    attacks, good = asr_by_dress(records), utility_by_task(records)
    _draw(upper, records, attacks, places, joined=alone)
    _draw(lower, records, good, places, joined=alone)
    upper.set_ylabel("ASR (down is better)")
    lower.set_ylabel("utility (up is better)")
    if "asr" in bound:
        upper.axhline(bound["asr"], color=_BOUND, linewidth=1.2, linestyle="--", zorder=1)
        upper.annotate(f"bound {tick_words(bound['asr'])}", (1.0, bound["asr"]), (4, 0),
                       xycoords=("axes fraction", "data"), textcoords="offset points",
                       va="center", fontsize=8.5, color=_BOUND, annotation_clip=False)  # fmt: skip
    _dress(upper, lower, places)
    _mark(upper, lower, recommended, places)
    for axes, series in ((upper, attacks), (lower, good)):
        _add_legend(axes, empty=not series)
    return figure


def asr_by_dress(records: Sequence[TrialRecord]) -> Series:
    """Dress -> number of a record -> its worst set in this dress."""
    series: Series = {}
    for record in records:
        for outcome in counted(record, "safety"):
            found = series.setdefault(outcome.dress, {})
            known = found.get(record.number)
            if known is None or outcome.rate.value > known.rate.value:
                found[record.number] = outcome
    return series


def utility_by_task(records: Sequence[TrialRecord]) -> Series:
    """Task with dress and metric -> number of a record -> its outcome."""
    series: Series = {}
    for record in records:
        for outcome in counted(record, "utility"):
            name = f"{outcome.name}, {outcome.dress}, {metric_name(outcome.metric)}"
            series.setdefault(name, {})[record.number] = outcome
    return series


def _draw(
    axes: Axes,
    records: Sequence[TrialRecord],
    series: Series,
    places: _Places,
    *,
    joined: bool,
) -> None:
    ordered = sorted(records, key=lambda r: (r.kind != "trial", places.of(r) or 0.0, r.number))
    for number, (name, found) in enumerate(series.items()):
        colour, marker = _COLOURS[number % len(_COLOURS)], MARKERS[number % len(MARKERS)]
        # Beside each other, so that the bars of two dresses can be told apart.
        aside = 0.012 * places.step / _APART * (number - (len(series) - 1) / 2)
        line: list[tuple[float, float]] = []
        for record in ordered:
            x, outcome = places.of(record), found.get(record.number)
            if x is None or outcome is None:
                continue
            one = level(outcome.rate)
            axes.errorbar(x + aside, one.value, [[one.value - one.low], [one.high - one.value]],
                          fmt="none", ecolor=colour, elinewidth=1.0, alpha=0.45)  # fmt: skip
            axes.plot(x + aside, one.value, marker, color=colour, markersize=6, clip_on=False,
                      markeredgecolor=PAPER, markeredgewidth=0.7, zorder=3)  # fmt: skip
            line += [(x + aside, one.value)] if record.kind == "trial" and record.ratio else []
        if joined:
            axes.plot(*zip(*line, strict=True) if line else ([], []), color=colour,
                      linewidth=0.9, alpha=0.45)  # fmt: skip
        axes.plot([], [], marker, color=colour, markersize=6, linestyle="none", label=label(name))


def _dress(upper: Axes, lower: Axes, places: _Places) -> None:
    marks = [places.untouched, places.zero, *map(math.log10, places.ticks)]
    words = ["untouched\nmodel", "0", *map(tick_words, places.ticks)]
    for axes in (upper, lower):
        dress_axes(axes, grid="both")
        axes.xaxis.set_major_locator(FixedLocator(marks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FixedFormatter(words))
        axes.yaxis.set_major_formatter(share_formatter())
        axes.set_xlim(places.untouched - places.step / 2, places.high + places.step / 3)
        # The axis is broken here: left of it there is no logarithm.
        axes.axvline(places.low - places.step / 2, color=GREY, linewidth=0.8, linestyle=":")
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.03), min(high, 1.03))
    upper.set_ylim(bottom=-0.03 * upper.get_ylim()[1])
    lower.set_xlabel("ratio: share of safety rows (logarithmic; 95 % intervals)")


def _mark(upper: Axes, lower: Axes, recommended: TrialRecord | None, places: _Places) -> None:
    place = None if recommended is None else places.of(recommended)
    if recommended is None or place is None:
        return
    name = f"recommended: {recommended.name}, {ratio_words(recommended.ratio)}"
    for axes in (upper, lower):
        axes.axvline(place, color=_BOUND, linewidth=6, alpha=0.16, zorder=0.5,
                     label=name if axes is upper else None)  # fmt: skip


def _add_legend(axes: Axes, *, empty: bool) -> None:
    if empty:
        axes.text(0.5, 0.5, "not measured yet", transform=axes.transAxes, ha="center", color=GREY,
                  style="italic")  # fmt: skip
    if not axes.get_legend_handles_labels()[0]:
        return
    legend = axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False,
                         fontsize=8.5, handletextpad=0.4, borderaxespad=0.2)  # fmt: skip
    for text in legend.get_texts():
        text.set_color(INK)
