"""Safety against utility of the trials of a sweep, the front, the bound and the baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from safemix.evaluate.report.figures import COLOURS, GREY, INK, PAPER, dress_axes, new_figure
from safemix.tuning.records import Kind, TrialRecord
from safemix.tuning.report.front_labels import Named, add_names
from safemix.tuning.report.measures import Level, level, ratio_words, upper_limit, utility, worst
from safemix.tuning.report.scale import RatioScale, share_formatter, tick_words

MARKERS: Final[dict[Kind, str]] = {"trial": "o", "unmixed": "s", "untouched": "D"}
BOUND: Final = COLOURS[1]
_MOST_NAMED: Final = 14  # more trials: only those on the front have their number
_FARTHEST: Final = 2.0  # a baseline may widen an axis to this many times its length


@dataclass(frozen=True)
class Spot:
    """A trial with both sides, and where it is drawn.

    Attributes:
        record: the trial.
        safety: worst ASR over sets and dresses.
        utility: mean of the utility measures.
        limit: one-sided upper limit of the ASR.
        x: where its marker stands; not the ASR itself if that lies far beyond all trials.
        y: the same for the utility.
    """

    record: TrialRecord
    safety: Level
    utility: Level
    limit: float
    x: float
    y: float

    @property
    def moved(self) -> bool:
        """Whether it stands at the edge, as it lies beyond."""
        return (self.x, self.y) != (self.safety.value, self.utility.value)


def front_figure(
    records: Sequence[TrialRecord],
    front: Sequence[TrialRecord],
    recommended: TrialRecord | None,
    bound: Mapping[str, float],
) -> Figure:
    """Draw the picture; see `plots.draw_front`."""
    figure = new_figure(8.6, 5.8)
    axes = figure.add_subplot()
    scale = RatioScale(record.ratio for record in records if record.kind == "trial")
    spots, across, up = place_spots(records, bound.get("asr"))
    _dress(axes, across, up)
    if not spots:
        axes.text(0.5, 0.5, "no trial has both ASR and utility yet", transform=axes.transAxes,
                  ha="center", color=GREY, style="italic")  # fmt: skip
    on_front = {record.number for record in front}
    _draw_front(axes, [spot for spot in spots if spot.record.number in on_front], across, up)
    for spot in spots:
        best = recommended is not None and spot.record.number == recommended.number
        _draw(axes, spot, scale, front=spot.record.number in on_front, best=best)
    if "asr" in bound:
        _draw_bound(axes, bound["asr"])
    scale.add_bar(figure, axes)
    _add_legend(figure, spots, recommended, bound)
    note = _absent(records, spots)
    if note:
        figure.supxlabel(note, fontsize=8, color=GREY, wrap=True)
    if spots:
        add_names(figure, axes, _named(spots, on_front, recommended))
    return figure


def place_spots(
    records: Sequence[TrialRecord], bound: float | None
) -> tuple[list[Spot], tuple[float, float], tuple[float, float]]:
    """Trials with both sides, and the ends of the two axes (shares)."""
    found = [_spot(record) for record in records]
    spots = [spot for spot in found if spot is not None]
    trials = [spot for spot in spots if spot.record.kind == "trial"] or spots
    xs = [0.0, *(s.safety.high for s in trials), *([1.25 * bound] if bound else [])]
    ys = [end for s in trials for end in (s.utility.low, s.utility.high)]
    others = [spot for spot in spots if spot not in trials]
    across = _ends(xs, [(s.safety.low, s.safety.high) for s in others])
    up = _ends(ys, [(s.utility.low, s.utility.high) for s in others])
    inset_x, inset_y = 0.025 * (across[1] - across[0]), 0.025 * (up[1] - up[0])
    placed = [
        Spot(s.record, s.safety, s.utility, s.limit,
             _clamp(s.safety.value, across, inset_x), _clamp(s.utility.value, up, inset_y))
        for s in spots
    ]  # fmt: skip
    return placed, (across[0] - 0.03 * (across[1] - across[0]), across[1]), up


def _spot(record: TrialRecord) -> Spot | None:
    safety, good, limit = worst(record, "safety"), utility(record), upper_limit(record)
    if safety is None or good is None or limit is None:
        return None
    return Spot(record, level(safety.rate), good, limit, safety.rate.value, good.value)


def _ends(values: Sequence[float], others: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Ends of an axis: all trials, and those baselines that do not press them together."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    high = max(high, low + 0.04)
    span = high - low
    for one, other in others:
        wider = min(low, one), max(high, other)
        if wider[1] - wider[0] <= _FARTHEST * span:
            low, high = wider
    return low, min(1.0, high + 0.03 * span) if high <= 1.0 else high


def _clamp(value: float, ends: tuple[float, float], inset: float) -> float:
    if value > ends[1]:
        return ends[1] - inset
    return ends[0] + inset if value < ends[0] else value


def _dress(axes: Axes, across: tuple[float, float], up: tuple[float, float]) -> None:
    dress_axes(axes, grid="both")
    axes.set_xlim(*across)
    room = 0.04 * (up[1] - up[0])
    axes.set_ylim(up[0] - room, up[1] + room)
    axes.set_xlabel("ASR, the worst of all sets and dresses (left is better)")
    axes.set_ylabel("utility: right answers (up is better)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(share_formatter())
        axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))


def _draw_front(
    axes: Axes, spots: Sequence[Spot], across: tuple[float, float], up: tuple[float, float]
) -> None:
    """A stair: between two points of the front nothing better than the safer one was seen."""
    if not spots:
        return
    stairs = sorted((spot.x, spot.y) for spot in spots)
    first, last = stairs[0], stairs[-1]
    xs = [first[0], *(x for x, _ in stairs), across[1]]
    ys = [up[0] - up[1] + up[0], *(y for _, y in stairs), last[1]]
    axes.plot(xs, ys, drawstyle="steps-post", color=INK, linewidth=1.0, alpha=0.55, zorder=1.5)


def _draw(axes: Axes, spot: Spot, scale: RatioScale, *, front: bool, best: bool) -> None:
    kind = spot.record.kind
    colour = scale.colour(spot.record.ratio) if kind == "trial" else INK
    safety, good = spot.safety, spot.utility
    if not spot.moved:
        axes.errorbar(spot.x, spot.y, fmt="none", ecolor=colour, elinewidth=0.9, alpha=0.4,
                      xerr=[[safety.value - safety.low], [safety.high - safety.value]],
                      yerr=[[good.value - good.low], [good.high - good.value]],
                      zorder=1)  # fmt: skip
        axes.plot(spot.limit, spot.y, "|", color=colour, markersize=6, alpha=0.8, zorder=1)
    else:
        _point_beyond(axes, spot)
    edge = INK if front and kind == "trial" else PAPER
    axes.plot(spot.x, spot.y, MARKERS[kind], color=colour, markersize=7.5, markeredgecolor=edge,
              markeredgewidth=1.3 if edge == INK else 0.8, zorder=3, clip_on=False)  # fmt: skip
    if best:
        axes.plot(spot.x, spot.y, "o", markersize=15, markerfacecolor="none", markeredgecolor=BOUND,
                  markeredgewidth=2.0, zorder=2.9, clip_on=False)  # fmt: skip


def _point_beyond(axes: Axes, spot: Spot) -> None:
    """Small arrow heads to where it lies in truth."""
    across, up = spot.safety.value - spot.x, spot.utility.value - spot.y
    heads = [(">" if across > 0 else "<", across, 0.0), ("^" if up > 0 else "v", 0.0, up)]
    for marker, x, y in heads:
        if x or y:
            aside = ScaledTranslation(
                math.copysign(8 / 72, x) if x else 0.0,
                math.copysign(8 / 72, y) if y else 0.0,
                axes.figure.dpi_scale_trans,
            )
            axes.plot(spot.x, spot.y, marker, color=INK, markersize=4.5, zorder=3, clip_on=False,
                      transform=axes.transData + aside)  # fmt: skip


def _draw_bound(axes: Axes, bound: float) -> None:
    axes.axvline(bound, color=BOUND, linewidth=1.2, linestyle="--", zorder=1)
    # Above the frame, where no point can be.
    axes.annotate(f"bound {tick_words(bound)}", (bound, 1.0), (0, 3), fontsize=8.5, color=BOUND,
                  xycoords=("data", "axes fraction"), textcoords="offset points", ha="center",
                  va="bottom", annotation_clip=False)  # fmt: skip


def _add_legend(
    figure: Figure,
    spots: Sequence[Spot],
    recommended: TrialRecord | None,
    bound: Mapping[str, float],
) -> None:
    def mark(marker: str, colour: str, edge: str = PAPER, size: float = 7.5) -> Line2D:
        return Line2D([], [], color=colour, marker=marker, markeredgecolor=edge, markersize=size,
                      linestyle="none")  # fmt: skip

    kinds = {spot.record.kind for spot in spots}
    shown = [(mark("o", GREY), "trial")] if "trial" in kinds else []
    if "trial" in kinds:
        shown.append((mark("o", GREY, INK), "on the front"))
    if recommended is not None:
        shown.append((mark("o", "none", BOUND, 11), "recommended"))
    shown += [(mark("s", INK), "ratio 0")] if "unmixed" in kinds else []
    shown += [(mark("D", INK), "untouched model")] if "untouched" in kinds else []
    shown += [(mark("|", GREY, GREY), "held against the bound")] if spots and "asr" in bound else []
    if not shown:
        return
    handles, words = zip(*shown, strict=True)
    legend = figure.legend(handles, words, loc="outside upper left", ncols=6, frameon=False,
                           fontsize=8.5, handletextpad=0.2, columnspacing=1.2)  # fmt: skip
    for text in legend.get_texts():
        text.set_color(INK)


def _absent(records: Sequence[TrialRecord], spots: Sequence[Spot]) -> str:
    drawn = {spot.record.number for spot in spots}
    states = [record.status for record in records if record.number not in drawn]
    parts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return f"without both sides, not drawn: {', '.join(parts)}" if parts else ""


def _named(
    spots: Sequence[Spot], on_front: set[int], recommended: TrialRecord | None
) -> list[Named]:
    """What is written at each spot; "" for trials among too many."""
    few = len(spots) <= _MOST_NAMED
    named = []
    for spot in spots:
        record = spot.record
        words = f"{record.number:02d}" if few or record.number in on_front else ""
        if record.kind != "trial":
            words = {"unmixed": "ratio 0", "untouched": "untouched model"}[record.kind]
        elif recommended is not None and record.number == recommended.number:
            words = f"{record.name}, ratio {ratio_words(record.ratio)}"
        if spot.moved:
            words += f": ASR {_whole(spot.safety)}, utility {_whole(spot.utility)}"
        bars = ((spot.safety.low, spot.safety.high), (spot.utility.low, spot.utility.high))
        plain = record.kind == "trial" and words == f"{record.number:02d}"
        named.append(Named(words, spot.x, spot.y, *bars, plain=plain))
    return named


def _whole(share: Level) -> str:
    return f"{100 * share.value:.0f} %"
