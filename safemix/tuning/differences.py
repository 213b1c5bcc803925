"""Two trials on the same prompts: what one is better or worse than the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

from safemix.evaluate.statistics import Paired, paired_difference
from safemix.tuning.records import Outcome, TrialRecord

__all__ = ["Difference", "asr_differences", "paired", "utility_difference"]


@dataclass(frozen=True)
class Difference:
    """A rate of one trial minus that of another, on the prompts that both have a verdict for.

    Attributes:
        what: "utility", or the key of a measure.
        value: -1 to 1.
        low: lower end of its 95 % interval.
        high: upper end.
        pairs: prompts compared.
    """

    what: str
    value: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        low, high = 100 * self.low, 100 * self.high
        return f"{100 * self.value:+.1f} points (95 %: {low:+.1f} to {high:+.1f})"


def paired(first: Outcome, second: Outcome) -> Paired:
    """Two trials' verdicts on the same prompts, those without one left out.

    Without a pair where the numbers of prompts differ: then they were not the same ones.
    """
    both = only_first = only_second = neither = 0
    if len(first.counted) == len(second.counted):
        for pair in zip(first.counted, second.counted, strict=True):
            both += pair == ("1", "1")
            only_first += pair == ("1", "0")
            only_second += pair == ("0", "1")
            neither += pair == ("0", "0")
    return Paired(both, only_first, only_second, neither)


def utility_difference(base: TrialRecord, other: TrialRecord) -> Difference | None:
    """Mean utility of `other` minus that of `base`, on the same prompts.

    With one measure the interval is Newcombe's. The interval of a mean of k differences d with
    limits l and u is d minus and plus the root of the sum of (d - l)² or (u - d)², over k.
    Source: Zou and Donner 2008, "Construction of confidence limits about effect measures".

    Returns:
        None if they have other measures, or one without a pair.
    """
    firsts = {outcome.key: outcome for outcome in base.side("utility")}
    seconds = {outcome.key: outcome for outcome in other.side("utility")}
    if not firsts or firsts.keys() != seconds.keys():
        return None
    pairs = [paired(firsts[key], seconds[key]) for key in firsts]
    if not all(pair.total for pair in pairs):
        return None
    number = len(pairs)
    value = math.fsum(pair.difference for pair in pairs) / number
    ends = [(pair.difference, *paired_difference(pair)) for pair in pairs]
    down = math.hypot(*(middle - low for middle, low, _ in ends)) / number
    up = math.hypot(*(high - middle for middle, _, high in ends)) / number
    total = sum(pair.total for pair in pairs)
    return Difference("utility", value, max(-1.0, value - down), min(1.0, value + up), total)


def asr_differences(base: TrialRecord, other: TrialRecord) -> tuple[Difference, ...]:
    """Attack success rate of `other` minus that of `base`, for each set and dress both have."""
    firsts = {outcome.key: outcome for outcome in base.side("safety")}
    found = []
    for outcome in other.side("safety"):
        if outcome.metric != "asr" or outcome.key not in firsts:
            continue
        pair = paired(firsts[outcome.key], outcome)
        if pair.total:
            ends = paired_difference(pair)
            found.append(Difference(outcome.key, pair.difference, *ends, pair.total))
    return tuple(found)
