"""What a plan asks, and what it will measure: known before a model is loaded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safemix.errors import DataError
from safemix.evaluate.compare import compare
from safemix.evaluate.results import HF, Evaluation, Measure, Side, find_measure
from safemix.evaluate.store import key_of
from safemix.evaluate.suite_count import COHERENCE_JUDGE, METRICS, PROMPTS, set_hash
from safemix.evaluate.suite_judge import Judges
from safemix.evaluate.suite_leader import on_leader
from safemix.mitigation.inference import apply_inference

if TYPE_CHECKING:
    from safemix.evaluate.dressing import Dresser
    from safemix.evaluate.plan import EvalPlan
    from safemix.evaluate.prompt_sets import PromptSet
    from safemix.rows.schema import Message

__all__ = ["Job", "check_askable", "check_comparable", "dressed", "jobs_of"]

# A side, a set, and the dress it is asked in.
Job = tuple[Side, "PromptSet", "Dresser"]


def jobs_of(plan: EvalPlan) -> list[Job]:
    """Every set of a plan in every dress."""
    sides: tuple[tuple[Side, tuple[PromptSet, ...]], ...] = (
        ("safety", plan.harmful),
        ("over_refusal", plan.lookalikes),
    )
    return [
        (side, prompts, dresser)
        for side, sets in sides
        for prompts in sets
        for dresser in plan.dressers
    ]


def dressed(jobs: Sequence[Job]) -> tuple[dict[str, str], list[list[Message]]]:
    """Dress the prompts, on one rank, so that all ask the same.

    Returns:
        A hash of each job's chats as they are without an inference prompt: two models that were
        asked the same have the same. And the chats of all jobs as they are asked, in a row.
    """

    def dress() -> list[list[list[Message]]]:
        return [replace(d, inference=None).dress(prompts.prompts) for _, prompts, d in jobs]

    bare = on_leader(dress)
    hashes = {
        f"{side}/{prompts.name}/{dresser.name}": key_of(chats=chats)
        for (side, prompts, dresser), chats in zip(jobs, bare, strict=True)
    }
    asked: list[list[Message]] = []
    for (_, _, dresser), chats in zip(jobs, bare, strict=True):
        own = dresser.inference
        asked += chats if own is None else [apply_inference(chat, own) for chat in chats]
    return hashes, asked


def check_askable(
    jobs: Sequence[Job],
    chats: Sequence[Sequence[Message]],
    plan: EvalPlan,
    model: Any,
    tokenizer: Any,
    *,
    template: str | None,
    longest: int | None,
) -> None:
    """Find a prompt that cannot be asked before any is: later it would cost what was answered.

    Args:
        jobs: of the plan.
        chats: of all jobs in a row, as they are asked.
        plan: says how long an answer may be.
        model: that is asked; None if it is not in this process.
        tokenizer: of the model.
        template: chat template; None for the tokenizer's own.
        longest: tokens that a model elsewhere takes, prompt and answer together; None for no end.

    Raises:
        DataError: naming the first one by its set, number and dress.
    """
    from safemix.evaluate.chat_prompt import ChatEncoder
    from safemix.evaluate.generate import encode_chats, longest_of

    names = [
        f"{prompts.name}: prompt {number}, asked {dresser.name},"
        for _, prompts, dresser in jobs
        for number in range(1, len(prompts.prompts) + 1)
    ]
    most = longest if model is None else longest_of(model)
    encode_chats(ChatEncoder(tokenizer, template), chats, plan.decoding, most, names)


def check_comparable(
    base: Evaluation, plan: EvalPlan, judges: Judges, *, needed: Collection[Side]
) -> None:
    """Find what an earlier result cannot be compared in, before anything is asked.

    Utility is not looked at: its measures are known when it is measured.

    Args:
        base: the earlier result.
        plan: what the model will be asked.
        judges: of the plan.
        needed: sides that must be compared, as a gate has a bound on them.

    Raises:
        DataError: on every rank, if a measure was taken in another way, or is needed and not
            there.
    """
    jobs = jobs_of(plan)
    measures = _planned(plan, jobs, judges)
    hashes, _ = dressed(jobs)
    # What generates is known without a plan, and looked at before.
    settings = {"chats": hashes, "backend": base.settings.get("backend", HF)}
    compare(base, Evaluation("", tuple(measures), settings))
    for measure in measures:
        if measure.side in needed and find_measure(base.measures, measure.key) is None:
            raise DataError(
                f"the base has no {measure.key} on the same prompts: evaluate it with the same "
                "sets, dresses and task"
            )


def _planned(plan: EvalPlan, jobs: Sequence[Job], judges: Judges) -> list[Measure]:
    """The measures of prompts that a plan leads to, without their items."""
    found: list[Measure] = []
    groups: dict[tuple[Side, str], list[PromptSet]] = {}
    decoding = str(plan.decoding)
    for side, prompts, dresser in jobs:
        groups.setdefault((side, dresser.name), []).append(prompts)
        about = (judges.described[side], decoding, prompts.sha256)
        found.append(Measure(side, prompts.name, dresser.name, METRICS[side], (), *about))
    for (side, dress), sets in groups.items():
        about = (COHERENCE_JUDGE, decoding, set_hash(sets))
        found.append(Measure("coherence", PROMPTS[side], dress, "incoherent", (), *about))
    return found
