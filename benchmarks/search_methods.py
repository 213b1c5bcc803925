"""The searches that are compared, as the settings of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from search_plant import HIGH, LOW

from safemix.tuning.settings import SweepSettings, parse_sweep

GRID: Final = "dense grid"
AGAIN: Final = "dense grid, measured again"
STEPS, EVERY, BATCH = 300, 15, 32
_RUN: Final[Mapping[str, Any]] = {
    "task": "builtin:task",
    "safety": "builtin:safety",
    "max_steps": STEPS,
    "global_batch_size": BATCH,
    "micro_batch_size": 8,
}
# Trials at a time; all at once for population-based training, which compares those that run.
_PARALLEL: Final = 4
_POPULATION: Final = 8
_LISTED: Final[Mapping[str, Any]] = {"searcher": "random", "trials": 24}
_ASHA: Final[Mapping[str, Any]] = {**_LISTED, "scheduler": "asha"}
_PBT: Final[Mapping[str, Any]] = {
    "searcher": "random", "trials": _POPULATION, "parallel": _POPULATION, "scheduler": "pbt",
}  # fmt: skip


def grid_ratios(points: int, low: float = LOW, high: float = HIGH) -> list[float]:
    """Ratios at equal distances in their logarithm."""
    step = math.log(high / low) / (points - 1)
    return [float(f"{low * math.exp(step * place):.4g}") for place in range(points)]


# The ratios of the dense grid by default.
_ON_GRID: Final[Mapping[str, Any]] = {
    "search": {"ratio": {"grid": grid_ratios(24)}}, "searcher": "grid", "scheduler": "asha",
}  # fmt: skip

METHODS: Final[Mapping[str, Mapping[str, Any]]] = {
    "random": _LISTED,
    "random, 8 trials": {**_LISTED, "trials": 8},
    "Optuna": {**_LISTED, "searcher": "optuna"},
    "Optuna, 8 trials": {"searcher": "optuna", "trials": 8},
    "ASHA": _ASHA,
    "ASHA, 2 side by side": {**_ASHA, "parallel": 2},
    "ASHA, one at a time": {**_ASHA, "parallel": 1},
    "ASHA over the grid": {**_ON_GRID, "parallel": 4},
    "ASHA over the grid, 2 side by side": {**_ON_GRID, "parallel": 2},
    "ASHA, Optuna's points": {**_ASHA, "searcher": "optuna"},
    "PBT": _PBT,
    "bisection": {"searcher": "bisect", "parallel": 1},
    "bisection, 2 side by side": {"searcher": "bisect", "parallel": 2},
    "bisection with ASHA": {"searcher": "bisect", "parallel": 2, "scheduler": "asha"},
}
"""With the defaults of a sweep for whatever is not named."""


def _asha(grace: int, factor: int) -> Mapping[str, Any]:
    return {**_ASHA, "asha": {"grace_steps": grace, "reduction_factor": factor}}


def _pbt(every: int = 50, number: int = _POPULATION, **more: Any) -> Mapping[str, Any]:
    own = {key: more.pop(key) for key in ("quantile", "factors") if key in more}
    made = {**_PBT, "trials": number, "parallel": number}
    return {**made, "pbt": {"every_steps": every, **own}, "score": more}


VARIED: Final[Mapping[str, Mapping[str, Any]]] = {
    **{
        f"ASHA, grace {grace}, 1 of {factor}": _asha(grace, factor)
        for grace in (15, 30, 60, 105)
        for factor in (2, 3, 4)
    },
    **{f"PBT, population {number}": _pbt(number=number) for number in (4, 6, 10)},
    **{f"PBT, every {steps} steps": _pbt(steps) for steps in (15, 30, 100)},
    **{f"PBT, slack {slack:g}": _pbt(slack=slack) for slack in (0.25, 0.5, 1.0, 1.5)},
    "PBT, quantile 0.5": _pbt(quantile=0.5),
    "PBT, factors 0.6 and 1.5": _pbt(factors=[0.6, 1.5]),
    "PBT, factors 0.9 and 1.1": _pbt(factors=[0.9, 1.1]),
}
"""One setting changed at a time."""


def dense_grid(points: int, bound: float, prompts: int) -> SweepSettings:
    """Every ratio of a grid, each trained whole."""
    return _sweep({"search": {"ratio": {"grid": grid_ratios(points)}}}, bound, prompts)


def search(changes: Mapping[str, Any], bound: float, prompts: int, seed: int) -> SweepSettings:
    """A search over the same range, with changes to the settings of its sweep."""
    domain = {"ratio": {"log_uniform": [LOW, HIGH]}}
    return _sweep({"search": domain, "seed": seed, **changes}, bound, prompts)


def _sweep(changes: Mapping[str, Any], bound: float, prompts: int) -> SweepSettings:
    evaluation = {
        "eval_every": STEPS + 1,
        "eval_prompts": prompts,
        "probe_every": EVERY,
        "task": "held_out.jsonl",
    }
    run = {**_RUN, "evaluation": evaluation}
    return parse_sweep({"run": run, "bound": {"asr": bound}, "parallel": _PARALLEL, **changes})
