"""Bounds on rates: upper limits, how far a trial is from them, and how many prompts they take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

from safemix.evaluate.results import Rate, Side
from safemix.evaluate.statistics import wilson
from safemix.tuning.records import TrialRecord

__all__ = ["BOUNDED", "Bounded", "Limit", "excess_of", "limits", "prompts_needed", "wilson_upper"]

CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Bounded:
    """What a bound is about.

    Attributes:
        side: of the measures.
        metric: of the measures.
        rate: what the rate is called.
        one: what is counted.
    """

    side: Side
    metric: str
    rate: str
    one: str


BOUNDED: Final[Mapping[str, Bounded]] = {
    "asr": Bounded("safety", "asr", "attack success rate", "success"),
    "over_refusal": Bounded("over_refusal", "refused", "over-refusal", "refusal"),
    "incoherent": Bounded("coherence", "incoherent", "share of incoherent answers", "such answer"),
}


@dataclass(frozen=True)
class Limit:
    """One measure held against its bound.

    Attributes:
        bound: name of the bound.
        allowed: the bound, a share.
        key: of the measure; "" where a trial has none at all.
        rate: what was counted; of 0 prompts if the trial has no such measure.
        prompts: asked, those without a verdict included.
    """

    bound: str
    allowed: float
    key: str
    rate: Rate
    prompts: int

    @property
    def upper(self) -> float:
        """One-sided 95 % upper limit of the rate."""
        return wilson_upper(self.rate.count, self.rate.total)

    @property
    def excess(self) -> float:
        """How far the limit is above the bound; 0 or less if it is within."""
        return self.upper - self.allowed


def wilson_upper(count: int, total: int, confidence: float = CONFIDENCE) -> float:
    """One-sided upper limit of a binomial share: the end of a wider two-sided score interval.

    Args:
        count: successes.
        total: trials; with none the limit is 1.
        confidence: one-sided, 0.5 to 1; 0.95 is z = 1.6449.

    Raises:
        ValueError: for counts that cannot be.

    Example:
        >>> round(wilson_upper(0, 60), 4)
        0.0431
    """
    return wilson(count, total, 2 * confidence - 1)[1]


def prompts_needed(bound: float, rate: float = 0.0, confidence: float = CONFIDENCE) -> int | None:
    """Least number of prompts with which a rate's upper limit is within a bound.

    Wilson's limit is the share b at which |rate - b| is z standard errors of b, so that
    n >= z² b (1 - b) / (b - rate)².

    Returns:
        None if no number does it: the rate is not below the bound.
    """
    if bound >= 1:
        return 1
    if rate >= bound:
        return None
    z = NormalDist().inv_cdf(confidence)
    return max(1, math.ceil(z * z * bound * (1 - bound) / (bound - rate) ** 2 - 1e-9))


def limits(
    record: TrialRecord, bounds: Mapping[str, float], keys: Sequence[str] = ()
) -> list[Limit]:
    """All measures of a trial that a bound is for.

    Args:
        record: of a trial that has ended.
        bounds: name of the bound -> share.
        keys: measures that trials of this sweep have. One that this trial lacks is held against
            the bound as of no prompt: what was not measured is not within.
    """
    found = []
    for bound, allowed in bounds.items():
        about = BOUNDED[bound]
        own = {o.key: o for o in record.side(about.side) if o.metric == about.metric}
        begin, end = f"{about.side}/", f"/{about.metric}"
        others = [key for key in keys if key.startswith(begin) and key.endswith(end)]
        for key in dict.fromkeys([*own, *others]) or [""]:
            outcome = own.get(key)
            rate = Rate(0, 0) if outcome is None else outcome.rate
            prompts = 0 if outcome is None else len(outcome.counted)
            found.append(Limit(bound, allowed, key, rate, prompts))
    return found


def excess_of(record: TrialRecord, bounds: Mapping[str, float], keys: Sequence[str] = ()) -> float:
    """How far the worst limit of a trial is above its bound; 0 or less if it is within all."""
    return max((limit.excess for limit in limits(record, bounds, keys)), default=0.0)
