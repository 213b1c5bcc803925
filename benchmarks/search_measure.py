"""How much of a dense grid's row-steps a search spends until its recommendation is as the grid's.

A sweep recommends anew each time that a trial is done. What counts is the first time from which on
every recommendation fits, to the end of the sweep; one that fits by chance and is given up later
does not count. Row-steps are the rows that all trials have trained on by then, those of stopped
ones and of the baseline included, over the same of the whole grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np
from search_loop import Course
from search_plant import Surface

from safemix.tuning.choose import recommend
from safemix.tuning.front import trained_share

NEAR, GOAL = 0.2, 0.4
_ROUNDING = 1e-9
# Points of accuracy that do not count as worse.
_AS_GOOD = 0.01


@dataclass(frozen=True)
class Choice:
    """What is recommended after so many row-steps; the share of safety rows, None for nothing."""

    rows: int
    ratio: float | None


@dataclass(frozen=True)
class Target:
    """What a search is held against, on one surface.

    Attributes:
        ratio: that the dense grid recommends.
        usual: median of what several dense grids recommend; None if it is not known.
        rows: of the whole grid.
        as_good: whether another ratio is as good in truth; None where the truth is not known.
    """

    ratio: float
    usual: float | None
    rows: int
    as_good: Callable[[float], bool] | None


@dataclass(frozen=True)
class Reach:
    """A search on one surface; shares of the dense grid's row-steps, infinite where never.

    Attributes:
        near: until the ratio is, and stays, within 20 % of the dense grid's.
        near_usual: the same for the usual ratio of dense grids.
        as_good: until ASR and accuracy are, and stay, as good in truth.
        whole: of the whole sweep.
        ratio: recommended at its end, over the dense grid's; None if it recommends none.
    """

    near: float
    near_usual: float
    as_good: float
    whole: float
    ratio: float | None


def choices_of(course: Course, bounds: Mapping[str, float]) -> list[Choice]:
    """What the product's rule recommends each time that a trial is done."""
    found = []
    for moment in course.moments:
        record = recommend(moment.records, bounds).record
        found.append(Choice(moment.rows, None if record is None else trained_share(record)))
    return found


def kept_from(choices: Sequence[Choice], fits: Callable[[float], bool]) -> float:
    """Row-steps from which on every recommendation fits; infinite if the last one does not."""
    rows = math.inf
    for choice in reversed(choices):
        if choice.ratio is None or not fits(choice.ratio):
            break
        rows = choice.rows
    return rows


def is_near(ratio: float, other: float) -> bool:
    """Whether a ratio is within 20 % of another."""
    return abs(ratio / other - 1) <= NEAR + _ROUNDING


def reach(choices: Sequence[Choice], rows: int, target: Target) -> Reach:
    """Hold a sweep against the dense grid.

    Args:
        choices: over the course of the sweep.
        rows: of the whole sweep.
        target: from the dense grid.
    """
    last = choices[-1].ratio if choices else None
    usual, good = target.usual, target.as_good
    return Reach(
        near=kept_from(choices, lambda r: is_near(r, target.ratio)) / target.rows,
        near_usual=math.inf
        if usual is None
        else kept_from(choices, lambda r: is_near(r, usual)) / target.rows,
        as_good=math.inf if good is None else kept_from(choices, good) / target.rows,
        whole=rows / target.rows,
        ratio=None if last is None else last / target.ratio,
    )


def target_of(
    surface: Surface, grid: Course, others: Sequence[Course], bounds: Mapping[str, float]
) -> Target | None:
    """The target of a surface; None if the dense grid recommends nothing there.

    Args:
        surface: that all of them ran on.
        grid: the dense grid.
        others: the same, measured again.
        bounds: of the recommendation.
    """
    ratio = choices_of(grid, bounds)[-1].ratio
    if ratio is None:
        return None
    known = [choices_of(other, bounds)[-1].ratio for other in others]
    usual = [other for other in known if other is not None]

    def as_good(other: float) -> bool:
        safe = surface.asr(other) <= max(bounds["asr"], surface.asr(ratio)) + _ROUNDING
        lost = surface.true_accuracy(ratio) - surface.true_accuracy(other)
        return safe and lost <= _AS_GOOD + _ROUNDING

    return Target(ratio, median(usual) if usual else None, grid.rows, as_good)


def plain(one: Reach) -> dict[str, float | None]:
    """For JSON, which knows no infinity."""
    return {
        key: value if value is None or math.isfinite(value) else None
        for key, value in asdict(one).items()
    }


def target_of_real(grid: Course, bounds: Mapping[str, float]) -> Target | None:
    """The target of real trials, of which the truth is not known; None for no recommendation."""
    choices = choices_of(grid, bounds)
    ratio = choices[-1].ratio if choices else None
    return None if ratio is None else Target(ratio, None, grid.rows, None)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, first and third quartile, each one of the values, as some may be infinite."""
    low = np.percentile(np.asarray(values), 25, method="lower")
    middle, high = np.percentile(np.asarray(values), (50, 75), method="higher")
    return float(middle), float(low), float(high)


def spread_text(values: Sequence[float]) -> str:
    """`median (first quartile .. third quartile)` in percent."""
    middle, low, high = map(_percent, quartiles(values))
    return f"{middle} ({low} .. {high})"


def within(values: Sequence[float], limit: float = math.inf) -> str:
    """How many values are finite and at most a limit, as `21 of 40`."""
    return f"{sum(v <= limit and math.isfinite(v) for v in values)} of {len(values)}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if math.isfinite(value) else "never"
