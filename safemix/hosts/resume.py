"""The plan in a checkpoint: written last, restored first."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safemix.errors import CheckpointError
from safemix.hosts.guard import MixtureGuard
from safemix.mixture import MixturePlan


def write_state(
    path: Path, guard: MixtureGuard, asked: Sequence[Mapping[str, Any]], **extra: Any
) -> None:
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


def restored_plan(
    saved: Mapping[str, Any], now: MixturePlan, asked: Sequence[Mapping[str, Any]]
) -> MixturePlan:
    """The checkpoint's plan, with ratios asked for anew set from the step it resumes at.

    Args:
        saved: what `write_state` wrote.
        now: the plan that the run's settings give.
        asked: the ratio history that the run's settings give.

    Raises:
        PlanError: if the checkpoint belongs to other data, naming what differs.
        CheckpointError: if the state is damaged.
    """
    try:
        state, step, before = saved["plan"], int(saved["step"]), saved["asked"]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError("the checkpoint's plan state is damaged: use an older one") from None
    plan = MixturePlan.from_state_dict(
        state,
        now.sizes,
        fingerprints=now.fingerprints,
        global_batch_size=now.global_batch_size,
        seed=now.seed,
    )
    if list(before) != list(asked):
        for name, ratio in asked[0]["ratios"].items():
            if before[0]["ratios"].get(name) != ratio:
                plan.set_ratio(name, ratio, step)
    return plan
