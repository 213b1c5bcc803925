"""The evaluation with completions, at intervals of a run: what is asked, and its metrics."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from safemix.evaluate.plan import EvalPlan, EvalSettings, TaskSettings, open_plan
from safemix.evaluate.prompt_sets import PromptSet
from safemix.evaluate.results import Decoding, Evaluation
from safemix.evaluate.suite import run_suite
from safemix.evaluate.suite_judge import Judges
from safemix.mitigation.inference import InferencePrompt
from safemix.settings import Settings
from safemix.training import outputs
from safemix.training.evaluation import Evaluate
from safemix.training.evaluation_prompts import dressers_of, prompt_sets, task_chats
from safemix.training.evaluation_rates import evaluation_metrics
from safemix.training.process import rank, say, shared

# What the judges say alone, before the test of coherence.
_JUDGED: Final = ("complied", "refused")


def evaluator(
    settings: Settings, tokenizer: Any, inference: InferencePrompt
) -> tuple[Evaluate, str]:
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
    plan, folder = _whole_plan(settings, inference), Path(settings.output_dir)
    with same_draws():
        judges = Judges(plan)
        judges.rest()

    def evaluate(model: Any, step: int) -> tuple[Mapping[str, float], Evaluation]:
        with same_draws():
            found = carried_out(plan, model, tokenizer, settings, judges=judges)
            judges.rest()
        if rank() == 0:
            for warning in (_missing(found), _other_judge(outputs.before(folder, step), found)):
                if warning is not None:
                    say(f"warning: step {step}: {warning}")
            outputs.keep_evaluation(folder, step, found)
        return evaluation_metrics(found), found

    every = settings.evaluation.eval_every
    return evaluate, f"evaluation: every {every} steps, judge {judges.described['safety']}"


def carried_out(
    plan: EvalPlan,
    model: Any,
    tokenizer: Any,
    settings: Settings,
    *,
    judges: Judges | None = None,
    batch_size: int | None = None,
) -> Evaluation:
    """A plan asked of the run's model; all ranks call it, within `same_draws`.

    Args:
        plan: what is asked.
        model: of the run.
        tokenizer: of the model.
        settings: of the run.
        judges: of the plan, opened before; None opens them now.
        batch_size: chats generated at a time on each rank; None for the micro batch.
    """
    return run_suite(
        model,
        tokenizer,
        plan,
        name=settings.model,
        batch_size=batch_size or settings.micro_batch_size,
        template=settings.chat_template,
        judges=judges,
    )


def _missing(found: Evaluation) -> str | None:
    """What to say of answers without a verdict."""
    items = [
        item for measure in found.measures if measure.metric in _JUDGED for item in measure.items
    ]
    errors = [item.error for item in items if item.error is not None]
    if not errors:
        return None
    told = f"{len(errors)} of {len(items)} answers have no verdict ({errors[0]})"
    return f"{told}; training goes on"


def _other_judge(before: Evaluation | None, found: Evaluation) -> str | None:
    """What to say where a resumed run has another judge than it had."""
    earlier = {measure.key: measure.judge for measure in before.measures} if before else {}
    for measure in found.measures:
        judge = earlier.get(measure.key, measure.judge)
        if measure.metric in _JUDGED and judge != measure.judge:
            return (
                f"the side {measure.side} is judged by {measure.judge}, before by {judge}: its "
                "curves have a break here"
            )
    return None


def prompts_plan(
    settings: Settings,
    inference: InferencePrompt,
    counts: tuple[int, int],
    *,
    max_new_tokens: int,
    judge: str | Mapping[str, Any],
) -> EvalPlan:
    """The run's prompt sets in its dresses, to be answered and judged; all ranks make it.

    Args:
        settings: of the run.
        inference: what goes before the system prompt.
        counts: prompts of each harmful set, and of each benign one.
        max_new_tokens: of an answer.
        judge: of the answers to harmful prompts.

    Raises:
        SafemixError: on every rank, for a set or dress that cannot be used.
    """
    wanted, seed = settings.evaluation, settings.seed

    def read() -> dict[str, Any]:
        """Rank 0 reads, so that a public set is fetched once."""
        sides = prompt_sets(wanted, seed, *counts).items()
        return {side: [[s.name, s.side, list(s.prompts)] for s in named] for side, named in sides}

    tree = shared(read)
    sets = {side: [PromptSet(n, s, tuple(p)) for n, s, p in tree[side]] for side in tree}
    chats = shared(lambda: task_chats(settings))
    dressers, _ = dressers_of(settings, inference, chats)
    return EvalPlan(
        harmful=tuple(sets["harmful"]),
        lookalikes=tuple(sets["lookalikes"]),
        dressers=tuple(dressers),
        decoding=Decoding(max_new_tokens=max_new_tokens, seed=seed),
        judge=judge,
        seed=seed,
    )


def _whole_plan(settings: Settings, inference: InferencePrompt) -> EvalPlan:
    """The prompts of an evaluation, and the task's rows where there are some."""
    wanted, seed = settings.evaluation, settings.seed
    count = wanted.eval_prompts
    how: dict[str, Any] = {"max_new_tokens": wanted.max_new_tokens, "judge": wanted.judge}
    plan = prompts_plan(settings, inference, (count, count), **how)
    if wanted.task is None:
        return plan
    keys = wanted.task.model_dump()
    task = TaskSettings(**{**keys, "limit": wanted.task.limit or count})
    rows = open_plan(
        EvalSettings(harmful=[], lookalikes=[], task=task, seed=seed), inference=inference
    )
    return replace(plan, task=rows.task)


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
