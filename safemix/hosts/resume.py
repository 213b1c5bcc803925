"""The plan in a checkpoint: written last, restored first."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safemix.errors import CheckpointError, SafemixError
from safemix.hosts.guard import MixtureGuard
from safemix.mixture import MixturePlan

History = Sequence[Mapping[str, Any]]
"""A plan's ratio history, as it stands in its state: `from_step` and `ratios` a change."""


def write_state(path: Path, guard: MixtureGuard, asked: History, **extra: Any) -> None:
    """Write plan, position and the ratios asked for, atomically."""
    write_json(path, {**guard.state_dict(), "asked": list(asked), **extra})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    fresh = path.with_name(path.name + ".tmp")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def restored_plan(saved: Mapping[str, Any], now: MixturePlan, asked: History) -> MixturePlan:
    """The checkpoint's plan, with ratios asked for anew set from the step it resumes at.

    What was asked for is compared with what was asked for before, not with the ratio in force:
    a ratio that a controller set during the run stays until somebody asks for another one. A
    schedule asked for anew counts from the step it is set at.

    Args:
        saved: what `write_state` wrote.
        now: the plan that the run's settings give.
        asked: the ratio history that the run's settings give.

    Raises:
        PlanError: if the checkpoint belongs to other data, naming what differs.
        CheckpointError: if the state is damaged.
    """
    try:
        state, step = saved["plan"], int(saved["step"])
        due = _due(saved, _by_source(asked), step)
        if due:
            past = [change for change in state["history"] if change["from_step"] <= step]
            state = {**state, "history": past}
        plan = MixturePlan.from_state_dict(
            state,
            now.sizes,
            fingerprints=now.fingerprints,
            global_batch_size=now.global_batch_size,
            seed=now.seed,
        )
    except SafemixError:
        raise
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        raise CheckpointError("the checkpoint's plan state is damaged: use an older one") from None
    for from_step, name, ratio in due:
        plan.set_ratio(name, ratio, from_step)
    return plan


def _by_source(history: History) -> dict[str, list[tuple[int, Any]]]:
    """Per source its changes as (from_step, ratio), in order."""
    result: dict[str, list[tuple[int, Any]]] = {}
    for change in history:
        for name, ratio in change["ratios"].items():
            result.setdefault(name, []).append((int(change["from_step"]), ratio))
    return result


def _due(
    saved: Mapping[str, Any], asked: Mapping[str, list[tuple[int, Any]]], step: int
) -> list[tuple[int, str, Any]]:
    """Changes to make from `step` on, as (from_step, source, ratio); none if none was asked for.

    Of a source asked for anew the ratio due by `step` holds from there and later ones in their
    time; of the others what the checkpoint has for later.
    """
    before = _by_source(saved["asked"])
    changed = {name: changes for name, changes in asked.items() if changes != before.get(name)}
    if not changed:
        return []
    todo = []
    for name, changes in _by_source(saved["plan"]["history"]).items():
        if name not in changed:
            todo += [(at, name, ratio) for at, ratio in changes if at > step]
    for name, changes in changed.items():
        todo += [(step, name, ratio) for at, ratio in changes if at <= step][-1:]
        todo += [(at, name, ratio) for at, ratio in changes if at > step]
    return sorted(todo, key=lambda change: change[0])
