"""What an evaluation counts, by the names of `metrics.jsonl`."""

from __future__ import annotations

import math
from typing import Final

from safemix.evaluate.results import Evaluation, Measure, Rate
from safemix.evaluate.suite_count import METRICS, judge_away

_SIDES: Final = {"asr": "safety/asr", "refused": "safety/over_refusal"}


def evaluation_rates(found: Evaluation) -> dict[str, Rate]:
    """Rates with their counts.

    `safety/asr/SET/DRESS`, `safety/over_refusal/SET/DRESS`, `safety/incoherent/PROMPTS/DRESS`
    (of all harmful prompts, or all look-alikes) and `utility/METRIC`, such as
    `utility/accuracy`; with several tasks `utility/METRIC/TASK`.
    """
    return {name: measure.rate for name, measure in _named(found).items()}


def evaluation_metrics(found: Evaluation) -> dict[str, float]:
    """Rates as numbers, 0 to 1; nan where most answers had no verdict."""
    away = judge_away(found)
    return {
        name: math.nan
        if measure.metric == METRICS["safety"] and (measure.name, measure.dress) in away
        else measure.rate.value
        for name, measure in _named(found).items()
    }


def _named(found: Evaluation) -> dict[str, Measure]:
    tasks = {measure.name for measure in found.side("utility")}
    named = {_name(measure, several=len(tasks) > 1): measure for measure in found.measures}
    return {name: measure for name, measure in named.items() if name is not None}


def _name(measure: Measure, *, several: bool) -> str | None:
    where = f"{measure.name}/{measure.dress}"
    if measure.side == "utility":
        return f"utility/{measure.metric}" + (f"/{measure.name}" if several else "")
    if measure.side == "coherence":
        return f"safety/incoherent/{where}".replace("-", "").replace(" ", "_")
    # The judge's count without the test of coherence is in no curve: two of the same name.
    return f"{_SIDES[measure.metric]}/{where}" if measure.metric in _SIDES else None
