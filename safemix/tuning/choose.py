"""Which trial to use: the rule, and what it says of a sweep.

* **The bound.** A trial is within a bound if each measure that the bound is for, set by set and
  dress by dress, has its one-sided 95 % upper limit (Wilson) at or below it. Few prompts then keep
  a trial out, however well it did: a bound of 5 % takes 52 prompts without a success.
* **The best.** Of the trials within all bounds, the one of highest utility.
* **Noise.** Of the trials within all bounds whose utility is not shown to be lower than the
  best's (95 % interval of the paired difference reaches 0), the one with the fewest safety rows.

The limit holds for one trial. The more trials are looked at, the likelier one of them is within by
luck: measure the recommended one again, on other prompts, before it is relied on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from safemix.tuning import choose_words
from safemix.tuning.differences import Difference, asr_differences, utility_difference
from safemix.tuning.front import ended_trials, trained_share, utility_of, worst_rate
from safemix.tuning.limits import (
    BOUNDED,
    Bounded,
    Limit,
    excess_of,
    limits,
    prompts_needed,
    wilson_upper,
)
from safemix.tuning.records import TrialRecord

__all__ = [
    "BOUNDED",
    "Bounded",
    "Limit",
    "Recommendation",
    "excess_of",
    "limits",
    "prompts_needed",
    "recommend",
    "utility_of",
    "wilson_upper",
    "worst_rate",
]

_ROUNDING: Final = 1e-12


@dataclass(frozen=True)
class Recommendation:
    """What a sweep comes to.

    Attributes:
        record: the trial to use; None if none is within the bounds.
        best_utility: of those within the bounds, the one of highest utility.
        feasible: trials within all bounds.
        why: plain sentences.
        nearest: where none is within the bounds, the one that misses them least.
        shortfall: how far its worst limit is above the bound, a share.
        prompts_needed: prompts of a set that the bound takes, where there were too few for any
            trial to be within it.
        utility_to_unmixed: of the trial to use, or the nearest: its utility minus that of
            training without safety rows.
        asr_to_untouched: its ASR minus that of the untouched model, for each set and dress.
    """

    record: TrialRecord | None
    best_utility: TrialRecord | None
    feasible: tuple[TrialRecord, ...]
    why: str
    nearest: TrialRecord | None = None
    shortfall: float | None = None
    prompts_needed: int | None = None
    utility_to_unmixed: Difference | None = None
    asr_to_untouched: tuple[Difference, ...] = ()


def recommend(records: Sequence[TrialRecord], bounds: Mapping[str, float]) -> Recommendation:
    """Choose the trial to use by the rule of this module.

    Args:
        records: trials and baselines, in any state. Only trials that are done can be chosen.
        bounds: "asr", and perhaps "over_refusal" and "incoherent" -> share.
    """
    trials = ended_trials(records)
    keys = list(dict.fromkeys(outcome.key for r in trials for outcome in r.outcomes))
    missed = {record.number: excess_of(record, bounds, keys) for record in trials}
    feasible = tuple(r for r in trials if missed[r.number] <= _ROUNDING)
    usable = [record for record in feasible if utility_of(record) is not None]
    best = min(usable, key=_by_utility, default=None)
    if best is None:
        made = _nearest(trials, feasible, missed, bounds, keys)
    else:
        equal = [record for record in usable if record is best or _as_good(best, record)]
        made = Recommendation(min(equal, key=_by_share), best, feasible, "")
    about = made.record or made.nearest
    if about is not None:
        made = _beside_baselines(made, about, records)
    return replace(made, why=choose_words.why(made, trials, bounds, keys))


def _nearest(
    trials: Sequence[TrialRecord],
    feasible: tuple[TrialRecord, ...],
    missed: Mapping[int, float],
    bounds: Mapping[str, float],
    keys: Sequence[str],
) -> Recommendation:
    """None can be used: which one comes nearest, and whether any could have."""
    if feasible or not trials:
        return Recommendation(None, None, feasible, "")
    nearest = min(trials, key=lambda r: (missed[r.number], *_by_utility(r)))
    few = [
        need
        for limit in limits(nearest, bounds, keys)
        if limit.rate.total
        and wilson_upper(0, limit.rate.total) > limit.allowed + _ROUNDING
        and (need := prompts_needed(limit.allowed)) is not None
    ]
    return Recommendation(
        None,
        None,
        (),
        "",
        nearest=nearest,
        shortfall=missed[nearest.number],
        prompts_needed=max(few, default=None),
    )


def _beside_baselines(
    made: Recommendation, about: TrialRecord, records: Sequence[TrialRecord]
) -> Recommendation:
    kinds = {record.kind: record for record in records if record.outcomes}
    unmixed, untouched = kinds.get("unmixed"), kinds.get("untouched")
    return replace(
        made,
        utility_to_unmixed=None if unmixed is None else utility_difference(unmixed, about),
        asr_to_untouched=() if untouched is None else asr_differences(untouched, about),
    )


def _as_good(best: TrialRecord, other: TrialRecord) -> bool:
    """Whether a trial's utility is not shown to be lower; False where nothing can be shown."""
    difference = utility_difference(best, other)
    return difference is not None and difference.high >= 0


def _share(record: TrialRecord) -> float:
    share = trained_share(record)
    return math.inf if share is None else share


def _merit(record: TrialRecord) -> tuple[float, float]:
    """To be small: utility first, then the ASR; what is not known comes last."""
    utility, rate = utility_of(record), worst_rate(record)
    return math.inf if utility is None else -utility, math.inf if rate is None else rate.value


def _by_utility(record: TrialRecord) -> tuple[float, float, float, int]:
    loss, asr = _merit(record)
    return loss, _share(record), asr, record.number


def _by_share(record: TrialRecord) -> tuple[float, float, float, int]:
    return _share(record), *_merit(record), record.number
