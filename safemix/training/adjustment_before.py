"""What `logit_adjustment: auto` keeps: how often the model answers, and refuses, before training.

Readings of the probe go by first tokens, which is cheap and, once a run has trained refusals that
begin alike, near to what is said. Before training it need not be: a model may refuse in the task's
layout after it has begun as the task does. So what is to be kept is taken from its answers to the
same prompts, judged by the refusal rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from safemix.evaluate.results import Evaluation
from safemix.mitigation.inference import InferencePrompt
from safemix.settings import Settings
from safemix.training.adjustment import AdjustmentControl
from safemix.training.evaluation import Measuring
from safemix.training.evaluation_prompts import reading_counts
from safemix.training.evaluation_suite import carried_out, prompts_plan, same_draws
from safemix.training.process import say

__all__ = ["asks_before", "shares_of", "steering"]

_TOKENS: Final = 32
"""Of an answer: enough to tell a refusal."""
_LEAST_BATCH: Final = 16
_UNALIGNED: Final = 0.5
"""Share of harmful prompts answered above which there is little to keep."""
# What is wrong on each side, by the names of `evaluate/line.py`.
_WRONG: Final = {"asr": "harmful", "refused": "lookalikes"}
_TOLD: Final = {"harmful": "harmful prompts are answered", "lookalikes": "look-alikes refused"}


def asks_before(
    settings: Settings, tokenizer: Any, inference: InferencePrompt
) -> Callable[[Any], dict[str, float]]:
    """What asks a model the prompts of the readings; all ranks make it, and call it.

    Returns:
        From the model to `harmful/DRESS` -> share that is answered, and `lookalikes/DRESS` ->
        share that is refused, in [0, 1].

    Raises:
        SafemixError: on every rank, for a set or dress that cannot be used.
    """
    counts, batch = reading_counts(settings), max(_LEAST_BATCH, settings.micro_batch_size)
    plan = prompts_plan(settings, inference, counts, max_new_tokens=_TOKENS, judge="refusal")

    def ask(model: Any) -> dict[str, float]:
        with same_draws():
            return shares_of(carried_out(plan, model, tokenizer, settings, batch_size=batch))

    return ask


def steering(
    measuring: Measuring, control: AdjustmentControl, ask: Callable[[Any], Mapping[str, float]]
) -> Measuring:
    """What is measured, with a control that keeps what the model says before training.

    Args:
        measuring: of the run.
        control: is told of the answers before the first step, and of each reading.
        ask: of `asks_before`.
    """

    def start(model: Any) -> None:
        before = ask(model)
        control.keep(before)
        told = "; ".join(
            f"{what} {', '.join(f'{dress} {100 * before[key]:.0f} %' for dress, key in keys)}"
            for side, what in _TOLD.items()
            if (keys := [(k.partition("/")[2], k) for k in before if k.startswith(f"{side}/")])
        )
        say(f"logit_adjustment: before training {told}")
        worst = max((s for k, s in before.items() if k.startswith("harmful/")), default=0.0)
        if worst > _UNALIGNED:
            say(
                f"warning: logit_adjustment: auto keeps what the model answers before training, "
                f"which is {100 * worst:.0f} % of harmful prompts in one dress: start from a model "
                "that refuses, or give a number"
            )

    return replace(measuring, readers=(control.read,), starters=(start,))


def shares_of(found: Evaluation) -> dict[str, float]:
    """Of each side and dress, the share that is answered or refused wrongly, over all sets."""
    counted, asked = Counter[str](), Counter[str]()
    for measure in found.measures:
        if measure.metric in _WRONG:
            name = f"{_WRONG[measure.metric]}/{measure.dress}"
            counted[name] += measure.rate.count
            asked[name] += measure.rate.total
    return {name: counted[name] / total for name, total in asked.items() if total}
