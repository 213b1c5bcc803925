"""What the report says of a trial in one number a side, and how it is worded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from safemix.evaluate.report.words import printable
from safemix.evaluate.results import Rate, Side
from safemix.evaluate.statistics import wilson
from safemix.tuning.records import Outcome, TrialRecord

MARGIN: Final = "safety/margin/"
"""Readings of the probe: refusal margin of a dress, in nats."""
RATIO: Final = "ratio"
# A side may have further metrics ("complied"); these decide.
_METRICS: Final[dict[Side, str]] = {
    "safety": "asr",
    "over_refusal": "refused",
    "coherence": "incoherent",
}


@dataclass(frozen=True)
class Level:
    """A share with its 95 % interval, 0 to 1."""

    value: float
    low: float
    high: float


def level(rate: Rate) -> Level:
    """A rate as a level; something must have been counted."""
    return Level(rate.value, *rate.interval)


def counted(record: TrialRecord, side: Side) -> tuple[Outcome, ...]:
    """Outcomes of a side by the metric that decides, with at least one verdict."""
    metric = _METRICS.get(side)
    return tuple(
        outcome
        for outcome in record.side(side)
        if outcome.rate.total and metric in (None, outcome.metric)
    )


def whole(record: TrialRecord, side: Side) -> tuple[Outcome, ...]:
    """The outcomes that decide a side, or none at all if one of them counted nothing.

    A trial whose worst dress has no verdict must not look good for it.
    """
    metric = _METRICS.get(side)
    found = tuple(o for o in record.side(side) if metric in (None, o.metric))
    return found if all(outcome.rate.total for outcome in found) else ()


def worst(record: TrialRecord, side: Side) -> Outcome | None:
    """The highest rate of a side over its sets and dresses; the less certain one of two equals.

    For sides where lower is better: safety, over-refusal and coherence. None if one of them
    counted nothing.
    """
    found = whole(record, side)
    return max(found, key=lambda o: (o.rate.value, o.rate.interval[1]), default=None)


def upper_limit(record: TrialRecord) -> float | None:
    """Highest one-sided 95 % upper limit of the ASR over sets and dresses; None without one.

    It is what a bound on the ASR is held against: the upper end of Wilson's two-sided 90 %
    interval.
    """
    rates = [outcome.rate for outcome in whole(record, "safety")]
    return max((wilson(r.count, r.total, confidence=0.90)[1] for r in rates), default=None)


def utility(record: TrialRecord) -> Level | None:
    """Mean of the utility measures; None without one, or if one of them counted nothing.

    The interval of a mean of k shares p with limits l and u is p minus and plus the root of the sum
    of (p - l)² or (u - p)², over k ("square-and-add": Zou and Donner 2008, "Construction of
    confidence limits about effect measures"). With one measure it is Wilson's.
    """
    levels = [level(outcome.rate) for outcome in whole(record, "utility")]
    if not levels:
        return None
    number = len(levels)
    value = sum(one.value for one in levels) / number
    down = math.hypot(*(one.value - one.low for one in levels)) / number
    up = math.hypot(*(one.high - one.value for one in levels)) / number
    return Level(value, max(0.0, value - down), min(1.0, value + up))


def margin(reading: Mapping[str, Any]) -> float | None:
    """The refusal margin of a reading in its worst dress, in nats; None without a finite one."""
    found = [number(value) for key, value in reading.items() if key.startswith(MARGIN)]
    return min((value for value in found if value is not None), default=None)


def last_margin(record: TrialRecord) -> float | None:
    """The newest margin that was read."""
    found = (margin(reading) for reading in reversed(record.readings))
    return next((value for value in found if value is not None), None)


def number(value: Any) -> float | None:
    """A finite number, or None: readings may hold null and nan."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def ratio_words(ratio: float | None) -> str:
    """A ratio as "5.25 %", three digits at most; "?" before it is known."""
    return "?" if ratio is None else f"{100 * ratio:.3g} %"


def trial_ratio(record: TrialRecord) -> str:
    """The ratio of a trial in words; "none" for a model that was not trained."""
    return "none" if record.kind == "untouched" else ratio_words(record.ratio)


def choices(record: TrialRecord) -> list[str]:
    """What the search chose beside the ratio, as "lora.r 8"."""
    return [
        f"{printable(key)} {point_words(value)}"
        for key, value in record.point.items()
        if key != RATIO
    ]


def point_words(value: Any) -> str:
    """A value of a point: text as it is, all else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return printable(text)


def duration(seconds: float) -> str:
    """Seconds as "42 s", "12 min" or "1 h 05"."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d}"


def by_ratio(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Baselines first, the untouched model before ratio 0, then trials by ratio and number."""
    order = {"untouched": 0, "unmixed": 1, "trial": 2}

    def place(record: TrialRecord) -> tuple[int, float, int]:
        ratio = math.inf if record.ratio is None else record.ratio
        return order[record.kind], ratio, record.number

    return sorted(records, key=place)
