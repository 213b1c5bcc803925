"""Why a trial is recommended, or none, in plain sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from safemix.evaluate.report.words import printable
from safemix.tuning.differences import Difference, utility_difference
from safemix.tuning.front import trained_share, utility_of
from safemix.tuning.limits import BOUNDED, Limit, limits, prompts_needed, wilson_upper
from safemix.tuning.records import Outcome, TrialRecord

if TYPE_CHECKING:
    from safemix.tuning.choose import Recommendation

__all__ = ["why"]

# Above it the other rates say little: nothing that makes no sense counts as an attack.
_BROKEN: Final = 0.5


def why(
    made: Recommendation,
    trials: Sequence[TrialRecord],
    bounds: Mapping[str, float],
    keys: Sequence[str],
) -> str:
    """The sentences of a recommendation.

    Args:
        made: what is recommended.
        trials: that ended with an evaluation.
        bounds: name -> share.
        keys: measures that the trials have.
    """
    if not trials:
        return "No trial has ended with an evaluation, so none can be recommended."
    if made.record is not None:
        said = _chosen(made, made.record, len(trials), bounds, keys)
    elif made.nearest is not None:
        said = _none(made, made.nearest, len(trials), bounds, keys)
    else:
        number = len(made.feasible)
        return (
            f"{number} of {len(trials)} trials {_are(number)} within {_bound(bounds)}, but none of "
            "them has a utility, so none can be recommended."
        )
    about = made.record or made.nearest
    return " ".join([*said, *_baselines(made), *(_doubts(about, bounds, keys) if about else [])])


def _chosen(
    made: Recommendation,
    record: TrialRecord,
    trials: int,
    bounds: Mapping[str, float],
    keys: Sequence[str],
) -> list[str]:
    said: list[str] = []
    for name in bounds:
        worst = _worst(record, {name: bounds[name]}, keys)
        said.append(
            f"Its {BOUNDED[name].rate} is at most {_percent(worst.upper)} with 95 % "
            f"confidence, within the bound of {_percent(worst.allowed)} ({_counted(worst)})."
        )
    number, best = len(made.feasible), made.best_utility
    within = f"{number} of {trials} trials {_are(number)} within {_bound(bounds)}"
    if best is None or best.number == record.number:
        highest = ", this one with the highest utility" if number > 1 else ""
        return [*said, f"{within}{highest}; its utility is {_utility(record)}."]
    difference = utility_difference(best, record)
    said.append(
        f"{within}; {_named(best)} has the highest utility, {_utility(best)}. Here it is "
        f"{_utility(record)}: {difference}, which is within noise, so the smaller share "
        "of safety rows wins."
    )
    return said


def _none(
    made: Recommendation,
    nearest: TrialRecord,
    trials: int,
    bounds: Mapping[str, float],
    keys: Sequence[str],
) -> list[str]:
    worst = _worst(nearest, bounds, keys)
    about = BOUNDED[worst.bound]
    said = [
        f"None of {trials} trials is within {_bound(bounds)}."
        if trials > 1
        else f"The only trial is not within {_bound(bounds)}."
    ]
    if not worst.rate.total:
        return [*said, f"The nearest, {_named(nearest)}, has no verdict for its {about.rate}."]
    said.append(
        f"The nearest is {_named(nearest)}: its {about.rate} is at most {_percent(worst.upper)} "
        f"with 95 % confidence, {100 * worst.excess:.1f} points above the bound of "
        f"{_percent(worst.allowed)} ({_counted(worst)})."
    )
    needed = prompts_needed(worst.allowed, worst.rate.value)
    if made.prompts_needed is not None:
        said.append(
            f"With {worst.rate.total} prompts even no {about.one} at all would leave a limit of "
            f"{_percent(wilson_upper(0, worst.rate.total))}: give at least "
            f"{made.prompts_needed} prompts of each set."
        )
    elif needed is not None:
        said.append(
            f"Its rate itself, {_percent(worst.rate.value)}, is below the bound; about {needed} "
            "prompts of this set could show it."
        )
    else:
        said.append(
            f"Its rate itself, {_percent(worst.rate.value)}, is not below the bound: search larger "
            "ratios or another mitigation, or raise the bound."
            if worst.bound == "asr"
            else f"Its rate itself, {_percent(worst.rate.value)}, is not below the bound."
        )
    return said


def _baselines(made: Recommendation) -> list[str]:
    said = []
    if made.utility_to_unmixed is not None:
        said.append(
            "Against training without safety rows its utility differs by "
            f"{made.utility_to_unmixed}."
        )
    if made.asr_to_untouched:
        worst = max(made.asr_to_untouched, key=lambda found: (found.value, found.high))
        said.append(
            "Against the untouched model its attack success rate differs by "
            f"{_where_most(worst, len(made.asr_to_untouched))}."
        )
    return said


def _where_most(worst: Difference, number: int) -> str:
    _, *place, _ = worst.what.split("/")
    most = "at most " if number > 1 else ""
    return f"{most}{worst}, on {printable('/'.join(place))}"


def _doubts(record: TrialRecord, bounds: Mapping[str, float], keys: Sequence[str]) -> list[str]:
    """What a reader must know before the numbers are believed."""
    said = []
    unjudged = sum(limit.prompts - limit.rate.total for limit in limits(record, bounds, keys))
    if unjudged:
        said.append(
            f"Warning: {unjudged} of its answers have no verdict and are in no rate; they may be "
            "the harmful ones."
        )
    broken = [o for o in record.side("coherence") if o.rate.total and o.rate.value > _BROKEN]
    if broken:
        most = max(broken, key=_value)
        said.append(
            f"Warning: {_percent(most.rate.value)} of its answers to {printable(most.name)} "
            f"({printable(most.dress)}) are incoherent: its attack success rate says little."
        )
    return said


def _value(outcome: Outcome) -> float:
    return outcome.rate.value


def _worst(record: TrialRecord, bounds: Mapping[str, float], keys: Sequence[str]) -> Limit:
    return max(limits(record, bounds, keys), key=lambda limit: (limit.excess, limit.key))


def _counted(limit: Limit) -> str:
    _, *place, _ = limit.key.split("/") if limit.key else ("", "no measure", "")
    return f"{printable('/'.join(place))}, {limit.rate.count} of {limit.rate.total}"


def _bound(bounds: Mapping[str, float]) -> str:
    parts = [f"{BOUNDED[name].rate} {_percent(value)}" for name, value in bounds.items()]
    return f"the bound{'s' if len(parts) > 1 else ''} ({', '.join(parts)})"


def _named(record: TrialRecord) -> str:
    share = trained_share(record)
    parts = [] if share is None else [f"{100 * share:.3g} % safety rows"]
    for key, value in record.point.items():
        if key != "ratio":
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            parts.append(f"{printable(key)} {printable(text)}")
    return f"{record.name} ({', '.join(parts)})" if parts else record.name


def _utility(record: TrialRecord) -> str:
    utility = utility_of(record)
    return "not known" if utility is None else _percent(utility)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
