"""The evaluation with completions, at intervals of a run: what is asked, and its metrics."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from safemix.evaluate.plan import EvalPlan, EvalSettings, TaskSettings, open_plan
from safemix.evaluate.prompt_sets import PromptSet
from safemix.evaluate.results import Decoding, Evaluation, Measure
from safemix.evaluate.suite import run_suite
from safemix.evaluate.suite_judge import Judges
from safemix.mitigation.inference import InferencePrompt
from safemix.settings import Settings
from safemix.training import outputs
from safemix.training.evaluation_prompts import dressers_of, prompt_sets, task_chats
from safemix.training.process import rank, say, shared

_SIDES: Final = {"asr": "safety/asr", "refused": "safety/over_refusal"}
# What the judges say alone, before the test of coherence.
_JUDGED: Final = ("complied", "refused")


def evaluator(
    settings: Settings, tokenizer: Any, inference: InferencePrompt
) -> tuple[Callable[[Any, int], Mapping[str, float]], str]:
    """What evaluates the model of a run at a step; all ranks make it, and call it.

    The judge is opened here, before training, and stays the same to the end: where it fails
    later, answers have no verdict, which is said in one line, and training goes on.

    Rank 0 keeps each evaluation in the run's folder, prompt by prompt, without what the model
    said to harmful prompts that it complied with.

    Returns:
        It, and a line for a person on how often who judges.

    Raises:
        SafemixError: on every rank, for a set, dress, judge or task that cannot be used.
    """
    plan, folder = _plan(settings, inference), Path(settings.output_dir)
    with same_draws():
        judges = Judges(plan)
        judges.rest()

    def evaluate(model: Any, step: int) -> Mapping[str, float]:
        with same_draws():
            found = run_suite(
                model,
                tokenizer,
                plan,
                name=settings.model,
                batch_size=settings.micro_batch_size,
                template=settings.chat_template,
                judges=judges,
            )
            judges.rest()
        if rank() == 0:
            for warning in (_missing(found), _other_judge(outputs.before(folder, step), found)):
                if warning is not None:
                    say(f"warning: step {step}: {warning}")
            outputs.keep_evaluation(folder, step, found)
        return evaluation_metrics(found)

    every = settings.evaluation.eval_every
    return evaluate, f"evaluation: every {every} steps, judge {judges.described['safety']}"


def _missing(found: Evaluation) -> str | None:
    """What to say of answers without a verdict."""
    items = [
        item for measure in found.measures if measure.metric in _JUDGED for item in measure.items
    ]
    errors = [item.error for item in items if item.error is not None]
    if not errors:
        return None
    return (
        f"{len(errors)} of {len(items)} answers have no verdict and are in no rate ({errors[0]}); "
        "training goes on"
    )


def _other_judge(before: Evaluation | None, found: Evaluation) -> str | None:
    """What to say where a resumed run has another judge than it had."""
    earlier = {measure.key: measure.judge for measure in before.measures} if before else {}
    for measure in found.measures:
        judge = earlier.get(measure.key, measure.judge)
        if measure.metric in _SIDES and judge != measure.judge:
            return (
                f"{measure.metric} is judged by {measure.judge}, before by {judge}: its curve has "
                "a break here"
            )
    return None


def _plan(settings: Settings, inference: InferencePrompt) -> EvalPlan:
    wanted, seed = settings.evaluation, settings.seed
    count = wanted.eval_prompts

    def read() -> dict[str, Any]:
        """Rank 0 reads, so that a public set is fetched once."""
        sides = prompt_sets(wanted, seed, count, count).items()
        return {side: [[s.name, s.side, list(s.prompts)] for s in named] for side, named in sides}

    tree = shared(read)
    sets = {side: [PromptSet(n, s, tuple(p)) for n, s, p in tree[side]] for side in tree}
    chats = shared(lambda: task_chats(settings))
    dressers, _ = dressers_of(settings, inference, chats)
    plan = EvalPlan(
        harmful=tuple(sets["harmful"]),
        lookalikes=tuple(sets["lookalikes"]),
        dressers=tuple(dressers),
        decoding=Decoding(max_new_tokens=wanted.max_new_tokens, seed=seed),
        judge=wanted.judge,
        seed=seed,
    )
    if wanted.task is None:
        return plan
    keys = wanted.task.model_dump()
    task = TaskSettings(**{**keys, "limit": wanted.task.limit or count})
    rows = open_plan(
        EvalSettings(harmful=[], lookalikes=[], task=task, seed=seed), inference=inference
    )
    return replace(plan, task=rows.task)


def evaluation_metrics(found: Evaluation) -> dict[str, float]:
    """Rates by the names of `metrics.jsonl`; nan where most answers had no verdict.

    `safety/asr/SET/DRESS`, `safety/over_refusal/SET/DRESS`, `safety/incoherent/PROMPTS/DRESS`
    (of all harmful prompts, or all look-alikes) and `utility/METRIC`, such as
    `utility/accuracy`; with several tasks `utility/METRIC/TASK`.
    """
    tasks = {measure.name for measure in found.side("utility")}
    judged = {(m.name, m.dress): m for m in found.measures if m.metric == "complied"}
    metrics: dict[str, float] = {}
    for measure in found.measures:
        name = _name(measure, several=len(tasks) > 1)
        if name is None:
            continue
        raw = judged.get((measure.name, measure.dress)) if measure.metric == "asr" else None
        # An incoherent answer needs no verdict: with the judge away the ASR would be theirs, 0.
        away = raw is not None and 2 * raw.unjudged > len(raw.items)
        metrics[name] = math.nan if away else measure.rate.value
    return metrics


def _name(measure: Measure, *, several: bool) -> str | None:
    where = f"{measure.name}/{measure.dress}"
    if measure.side == "utility":
        return f"utility/{measure.metric}" + (f"/{measure.name}" if several else "")
    if measure.side == "coherence":
        return f"safety/incoherent/{where}".replace("-", "").replace(" ", "_")
    # The judge's count without the test of coherence is in no curve: two of the same name.
    return f"{_SIDES[measure.metric]}/{where}" if measure.metric in _SIDES else None


@contextmanager
def same_draws() -> Iterator[None]:
    """Afterwards all generators stand where they stood: training draws what it would have."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
