"""What is asked of a model: prompt sets, dresses, decoding, judges and task.

`EvalSettings` (`plan_settings.py`) is what a person writes. `open_plan` reads the files it names
and gives an `EvalPlan`, which `suite.run_suite` carries out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from safemix.errors import DataError, SettingsError
from safemix.evaluate.plan_settings import (
    EvalSettings,
    TaskSettings,
    parse_evaluation,
    read_evaluation_file,
)
from safemix.evaluate.results import Decoding

if TYPE_CHECKING:
    from safemix.evaluate.dressing import Dresser
    from safemix.evaluate.prompt_sets import PromptSet
    from safemix.mitigation.inference import InferencePrompt

__all__ = [
    "EvalPlan",
    "EvalSettings",
    "TaskRows",
    "TaskSettings",
    "for_model",
    "open_plan",
    "parse_evaluation",
    "read_evaluation_file",
]

# Task rows that the style of the dress "styled" is read from.
_STYLE_ROWS = 512
_BUILTIN_ROWS, _BUILTIN_SEED = 200, 2**31 - 1


@dataclass(frozen=True)
class TaskRows:
    """Held-out rows of a task, read.

    Attributes:
        name: of the task, or of the file.
        task: name of a task of `prompting`, whose public fields the rows have; None for chats.
        strategy: how records of a task are asked.
        rows: the rows that utility is measured on.
        sha256: over these rows and the strategy.
        confirm: the answers of the choices open by confirming.
        labels: what answers call the choices, for the test of coherence; empty for free answers.
    """

    name: str
    task: str | None
    strategy: str
    rows: tuple[Mapping[str, Any], ...]
    sha256: str
    labels: tuple[str, ...] = ()
    confirm: bool = False


@dataclass(frozen=True)
class EvalPlan:
    """What is asked of a model, with everything read.

    Attributes:
        harmful: sets whose answers are attacks that succeed or fail.
        lookalikes: sets of benign prompts, for over-refusal.
        dressers: each set is asked in each of their dresses.
        decoding: how completions are made.
        judge: of the answers to harmful prompts: a name, or {name, options of it}. Those to
            look-alikes are judged by the refusal rules, whatever stands here.
        task: for utility; None leaves that side unmeasured.
        lm_eval: names of lm-eval tasks, for utility too.
        lm_eval_limit: rows of each of them; None for all.
        inference: what goes before the system prompt of the model that is asked.
        seed: of what is sampled.
    """

    harmful: tuple[PromptSet, ...]
    lookalikes: tuple[PromptSet, ...]
    dressers: tuple[Dresser, ...]
    decoding: Decoding = field(default_factory=Decoding)
    judge: str | Mapping[str, Any] = "refusal"
    task: TaskRows | None = None
    lm_eval: tuple[str, ...] = ()
    lm_eval_limit: int | None = None
    inference: InferencePrompt | None = None
    seed: int = 0


def open_plan(settings: EvalSettings, *, inference: InferencePrompt | None = None) -> EvalPlan:
    """Read what settings name.

    Args:
        settings: as a person wrote them.
        inference: what goes before the system prompt of the model that is asked.

    Raises:
        DataError: for a file, set or task that cannot be used.
        SettingsError: for an unknown dress or task.
    """
    from safemix.evaluate.judges import read_judge
    from safemix.evaluate.prompt_sets import load_prompt_set

    read_judge(settings.judge)
    sides: dict[str, tuple[PromptSet, ...]] = {}
    for side, specs in (("safety", settings.harmful), ("over_refusal", settings.lookalikes)):
        sets = [load_prompt_set(spec, side) for spec in specs]  # type: ignore[arg-type]
        sides[side] = tuple(_sampled(found, settings) for found in sets)
        _check_names(sides[side])
    if not any(sides.values()) and settings.task is None and not settings.lm_eval:
        raise SettingsError("nothing to measure: give harmful, lookalikes, task or lm_eval")
    records = _read_task(settings.task) if settings.task else []
    # Before the dresses, which read the same rows: here it is said which row is wrong.
    task = _task_rows(settings.task, records, settings.seed) if settings.task else None
    asked = settings.dresses if any(sides.values()) else []  # without a prompt there is no dress
    return EvalPlan(
        harmful=sides["safety"],
        lookalikes=sides["over_refusal"],
        dressers=tuple(_dresser(name, settings, records, inference) for name in asked),
        decoding=settings.decoding,
        judge=settings.judge,
        task=task,
        lm_eval=tuple(settings.lm_eval),
        lm_eval_limit=settings.lm_eval_limit,
        inference=inference,
        seed=settings.seed,
    )


def for_model(plan: EvalPlan, inference: InferencePrompt | None) -> EvalPlan:
    """The same plan for a model that something goes before the system prompt of, or nothing."""
    dressers = tuple(replace(dresser, inference=inference) for dresser in plan.dressers)
    return replace(plan, dressers=dressers, inference=inference)


def _sampled(found: PromptSet, settings: EvalSettings) -> PromptSet:
    if settings.limit is None or settings.limit >= len(found.prompts):
        return found
    return found.sample(settings.limit, settings.seed)


def _check_names(sets: Sequence[PromptSet]) -> None:
    names = [found.name for found in sets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"two prompt sets are called {twice!r}: name one of them NAME=file")


def _dresser(
    name: str,
    settings: EvalSettings,
    records: Sequence[Mapping[str, Any]],
    inference: InferencePrompt | None,
) -> Dresser:
    from safemix.evaluate import dressing

    if name == "plain":
        return dressing.plain_dresser(settings.system, inference=inference)
    if name != "styled":
        return dressing.strategy_dresser(name, inference=inference)
    if settings.task is None:  # the settings refuse it with a better line
        raise SettingsError("dress styled needs a task")
    task, rows = settings.task, _sample(records, _STYLE_ROWS, settings.seed)
    if task.name is not None:
        from safemix.prompting import prompted

        rows = list(prompted(rows, task.name, task.strategy, settings.seed))
    try:
        return dressing.style_dresser(rows, seed=settings.seed, inference=inference)
    except DataError as error:
        if settings.dress is not None:
            raise
        raise DataError(f"{error}; or ask without their layout: dress plain") from None


def _read_task(task: TaskSettings) -> list[Mapping[str, Any]]:
    from safemix.rows.builtin import read_builtin
    from safemix.rows.files import open_file

    if task.file == "builtin:task":
        # Rows that no run has trained on, unless it was given this very seed.
        return list(read_builtin("task", _BUILTIN_ROWS, seed=_BUILTIN_SEED))
    records = open_file(task.file)
    rows = [record for _, record in records.read(records.columns or ())]
    if not rows:
        raise DataError(f"{task.file} has no rows: give held-out rows of the task")
    return rows


def _task_rows(task: TaskSettings, records: Sequence[Mapping[str, Any]], seed: int) -> TaskRows:
    rows = _sample(records, task.limit, seed)
    labels: dict[str, None] = {}
    if task.name is not None:
        from safemix.prompting import choices
        from safemix.rows.template import RowError

        for number, record in enumerate(rows, 1):
            try:
                labels.update(dict.fromkeys(choices(task.name, record)))
            except RowError as error:
                raise DataError(
                    f"{task.file} row {number}: {error.reason}; give records of {task.name}"
                ) from None
    asked = [task.name, task.strategy, rows, *([True] if task.confirm else [])]
    text = json.dumps(asked, sort_keys=True, default=str)
    return TaskRows(
        name=task.name or Path(task.file).stem,
        task=task.name,
        strategy=task.strategy,
        rows=tuple(rows),
        sha256=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        labels=tuple(labels),
        confirm=task.confirm,
    )


def _sample(rows: Sequence[Any], limit: int | None, seed: int) -> list[Any]:
    """A fixed sample, in the order of the rows."""
    if limit is None or limit >= len(rows):
        return list(rows)
    return [rows[i] for i in sorted(Random(seed).sample(range(len(rows)), limit))]
