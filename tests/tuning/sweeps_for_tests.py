"""A sweep to vary in tests."""

from __future__ import annotations

from typing import Any

from safemix.tuning.settings import SweepSettings, parse_sweep

RUN: dict[str, Any] = {
    "task": "builtin:task",
    "safety": "builtin:safety",
    "max_steps": 60,
    "global_batch_size": 8,
    "micro_batch_size": 2,
    "evaluation": {"eval_every": 1000, "probe_every": 10, "task": "held_out.jsonl"},
}
SWEEP: dict[str, Any] = {
    "run": RUN,
    "search": {"ratio": {"log_uniform": [0.01, 0.3]}},
    "bound": {"asr": 0.05},
}


def sweep(*, run: dict[str, Any] | None = None, **changes: Any) -> SweepSettings:
    return parse_sweep(SWEEP | {"run": RUN | (run or {})} | changes, "sweep.yaml")
