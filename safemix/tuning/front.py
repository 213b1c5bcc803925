"""The two objectives of a sweep, and the trials that no other one beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from safemix.evaluate.results import Rate
from safemix.tuning.records import TrialRecord

__all__ = ["ended_trials", "in_order", "pareto", "trained_share", "utility_of", "worst_rate"]


def worst_rate(record: TrialRecord) -> Rate | None:
    """Highest attack success rate over sets and dresses; None if one of them counted nothing."""
    rates = [outcome.rate for outcome in record.side("safety") if outcome.metric == "asr"]
    if not rates or not all(rate.total for rate in rates):
        return None
    # Of two that are equal the less certain one.
    return max(rates, key=lambda rate: (rate.value, -rate.total))


def utility_of(record: TrialRecord) -> float | None:
    """Mean over the utility measures; None without one, or if one of them counted nothing."""
    rates = [outcome.rate for outcome in record.side("utility")]
    if not rates or not all(rate.total for rate in rates):
        return None
    return math.fsum(rate.value for rate in rates) / len(rates)


def trained_share(record: TrialRecord) -> float | None:
    """Share of safety rows over all steps done, each with the ratio it had; None if not known.

    Where a scheduler or a controller moved the ratio this is what the model has seen, and the
    last ratio is not.
    """
    if record.kind != "trial":
        return 0.0
    if not record.ratios:
        return None
    begins = [step for step, _ in record.ratios]
    held = [max(0, min(b, record.step) - a) for a, b in pairwise([*begins, record.step])]
    steps = sum(held)
    if not steps:
        return record.ratios[-1][1]
    parts = (ratio * count for (_, ratio), count in zip(record.ratios, held, strict=True))
    return math.fsum(parts) / steps


def ended_trials(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials with an evaluation at their end; no baselines."""
    return [r for r in records if r.kind == "trial" and r.status == "done" and r.outcomes]


def in_order(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """By share of safety rows, unknown ones last, then by number."""

    def place(record: TrialRecord) -> tuple[float, int]:
        share = trained_share(record)
        return math.inf if share is None else share, record.number

    return sorted(records, key=place)


def pareto(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials that no other trial beats: lower ASR at no lower utility, or the other way round.

    Only trials that are done count, and only those of which both are known. Trials that are equal
    in both stay all.

    Returns:
        In order of their share of safety rows.
    """
    spots = []
    for record in ended_trials(records):
        rate, utility = worst_rate(record), utility_of(record)
        if rate is not None and utility is not None:
            spots.append((rate.value, -utility, record))
    spots.sort(key=lambda spot: spot[:2])
    front: list[TrialRecord] = []
    last, best = (math.nan, math.nan), math.inf
    for asr, loss, record in spots:
        # Ones with a lower ASR, or the same and a higher utility, have come before.
        if loss < best or (asr, loss) == last:
            front.append(record)
            last, best = (asr, loss), loss
    return in_order(front)
