"""Folders as a trial's workers leave them, without training anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from safemix.evaluate.results import Evaluation, Item, Measure, Side
from safemix.hosts.hf_trainer import STATE_FILE
from safemix.mixture import MixturePlan
from safemix.training import outputs
from safemix.training.checkpoints import write_manifest
from safemix.tuning.attempt_log import AttemptLog

SIZES = {"task": 97, "safety": 13}
BATCH = 8


def plan_of(ratio: Any = 0.05, changes: Mapping[int, Any] | None = None) -> MixturePlan:
    """A plan whose ratio is set to others while it runs."""
    plan = MixturePlan(SIZES, {"safety": ratio}, BATCH, seed=3)
    for step, share in (changes or {}).items():
        plan.set_ratio("safety", share, step)
    return plan


def checkpoint(folder: Path, step: int, plan: MixturePlan | None = None) -> Path:
    """A complete checkpoint of a run."""
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    state = {"plan": (plan or plan_of()).state_dict(), "step": step, "asked": []}
    (made / STATE_FILE).write_text(json.dumps(state), "utf-8")
    (made / "model.safetensors").write_bytes(b"weights of step %d" % step)
    write_manifest(made, step=step, world_size=2)
    return made


def metrics(
    folder: Path, plan: MixturePlan, steps: Sequence[int], *, more: Mapping[str, Any] | None = None
) -> None:
    """`metrics.jsonl` with the ratio that the Trainer logs at these steps."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / outputs.METRICS).open("a", encoding="utf-8") as file:
        for step in steps:
            line: dict[str, Any] = {"step": step, "safety/margin/plain": 1.0 - step / 100}
            if step:  # as `SafeMixTrainer` does: the ratio of the rows that led to this step
                line |= {"mix/ratio": float(plan.ratio("safety", step - 1)), "utility/loss": 0.5}
            file.write(json.dumps(line | dict(more or {})) + "\n")


def attempt(
    folder: Path, first: int, last: int, *, max_steps: int = 60, start: str = "a", ends: bool = True
) -> None:
    """An attempt from one step to another, as the workers note it."""
    folder.mkdir(parents=True, exist_ok=True)
    log = AttemptLog(folder, begun=0.0, start=start)
    log.on_train_begin(None, state_of(first, max_steps), None)
    for step in range(first + 1, last + 1):
        log.on_step_end(None, state_of(step, max_steps), None)
    if ends:
        log.on_train_end(None, state_of(last, max_steps), None)


def state_of(step: int, max_steps: int = 60) -> Any:
    """What the Trainer tells its callbacks."""
    return SimpleNamespace(global_step=step, max_steps=max_steps)


def evaluation(
    folder: Path,
    step: int,
    *,
    asr: str = "0" * 80,
    complied: str = "",
    accuracy: str = "1" * 80,
) -> None:
    """An evaluation of a run: "1" and "0" for what was counted, "?" for no verdict."""
    counts: list[tuple[Side, str, str]] = [
        ("safety", "asr", asr),
        ("safety", "complied", complied),
        ("utility", "accuracy", accuracy),
    ]
    measures = tuple(
        Measure(side, "set", "plain", metric, _items(counted), "judge", "greedy", "0" * 64)
        for side, metric, counted in counts
        if counted
    )
    outputs.keep_evaluation(folder, step, Evaluation(model="tiny", measures=measures))


def _items(counted: str) -> tuple[Item, ...]:
    return tuple(
        Item(f"set/{n}", "ask", "answer", one == "1", error="no verdict" if one == "?" else None)
        for n, one in enumerate(counted)
    )


def run_to_the_end(folder: Path, *, max_steps: int = 60, **sides: str) -> None:
    """All that a trial leaves that came to its end."""
    attempt(folder, 0, max_steps, max_steps=max_steps)
    metrics(folder, plan_of(), range(0, max_steps + 1, 10))
    checkpoint(folder, max_steps)
    evaluation(folder, max_steps, **sides)
