"""Ray Tune's side of a sweep: trials side by side, a scheduler, and what they tell the sweep."""

from __future__ import annotations

import logging
import os
import random
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
from ray import tune
from ray.tune.search import Searcher

from safemix.hosts.ray_keys import STEP
from safemix.tuning.cluster import per_worker
from safemix.tuning.driver import ENTRY, Shared, drive
from safemix.tuning.release import release_places
from safemix.tuning.scheduler import HalvingScheduler, scheduler_of, trial_name_of
from safemix.tuning.score import SCORE
from safemix.tuning.settings import SweepSettings
from safemix.tuning.sweep import TRIALS, Sweep

__all__ = ["run_trials"]

# Ray's own files; they hold pickles, and nothing of ours reads them.
RAY: Final = ".ray"
# The function that drives a trial only waits. Ray wants it to take something, and a share of a CPU
# would leave too little for the last trial's workers.
_DRIVER: Final = {"memory": 2**20}
# Ray writes what a worker prints a second time otherwise.
_OF_RAY: Final = {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}
# What a cluster's nodes need not have been started with. No keys: Ray shows a worker's environment
# in its logs and on its dashboard, so keys have to be in the environment of the nodes.
_PASSED: Final = ("WANDB_MODE", "WANDB_BASE_URL", "HF_HUB_OFFLINE", "OMP_NUM_THREADS")


def run_trials(sweep: Sweep, parallel: int) -> bool:
    """Run all trials that are left; Ray is up already.

    Args:
        sweep: hands out trials, and is told what becomes of them.
        parallel: trials at a time.

    Returns:
        Whether it came to its end; False after an interruption.
    """
    settings, folder = sweep.settings, (sweep.folder / RAY).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    # Tune's own reports would talk over the live table. Why a trial failed is said there, in one
    # line, and in its folder at length.
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # The baseline reports no score: no scheduler is to stop or change it.
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    # Population-based training draws from the generators of the process.
    random.seed(settings.seed)
    np.random.seed(settings.seed)
    trainable = tune.with_resources(
        tune.with_parameters(drive, shared=_shared(settings, folder)), _DRIVER
    )
    # Population-based training takes no searcher: all its trials are known when it starts.
    listed = settings.scheduler == "pbt"
    given: dict[str, Any] = {} if listed else {"search_alg": _Suggestions(sweep), "num_samples": -1}
    scheduler = scheduler_of(settings, sweep.all)
    if isinstance(scheduler, HalvingScheduler):
        sweep.needless = scheduler.needless
    tuner = tune.Tuner(
        trainable,
        param_space={ENTRY: tune.grid_search(list(iter(sweep.next, None)))} if listed else None,
        tune_config=tune.TuneConfig(
            **given,
            scheduler=scheduler,
            max_concurrent_trials=parallel,
            trial_name_creator=trial_name_of,
            trial_dirname_creator=trial_name_of,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            verbose=0,
            callbacks=[_Watch(sweep, scheduler)],
        ),
    )
    try:
        tuner.fit()
    except KeyboardInterrupt:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return not any(record.status in ("waiting", "running") for record in sweep.all())


def _shared(settings: SweepSettings, folder: Path) -> Shared:
    return Shared(
        workers=settings.workers,
        resources=per_worker(settings),
        use_gpu=settings.resources.gpus_per_worker > 0,
        max_restarts=settings.max_restarts,
        score={"weight": settings.score.weight, "slack": settings.score.slack},
        changes_ratio=settings.scheduler == "pbt",
        ray_folder=str(folder / "train"),
        cwd=str(Path.cwd()),
        environment={name: os.environ[name] for name in _PASSED if name in os.environ} | _OF_RAY,
    )


class _Suggestions(Searcher):
    """Hands Ray Tune the sweep's next trial."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(metric=SCORE, mode="max")
        self._sweep = sweep

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration."""
        found = self._sweep.next()
        return Searcher.FINISHED if found is None else {ENTRY: found}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The sweep hears of it from `_Watch`, by the trial's own name."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of the sweep goes into Ray's own files."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the trials' records say all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""


class _Watch(tune.Callback):
    """Tells the sweep what Ray Tune sees."""

    def __init__(self, sweep: Sweep, scheduler: Any) -> None:
        self._sweep = sweep
        self._reasons = scheduler.reasons if isinstance(scheduler, HalvingScheduler) else {}

    def __getstate__(self) -> dict[str, Any]:
        """As above."""
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial got its place."""
        self._sweep.started(trial_name_of(trial))

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any
    ) -> None:
        """A reading, or a checkpoint."""
        self._sweep.heard(trial_name_of(trial))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """At its end, or stopped by the scheduler."""
        name, last = trial_name_of(trial), trial.last_result or {}
        told = self._reasons.get(name, f"at step {last.get(STEP)}")
        release_places(self._sweep.folder / TRIALS / name)
        self._sweep.ended(name, reason=f"{self._sweep.settings.scheduler}: {told}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Failed by itself; the others go on."""
        release_places(self._sweep.folder / TRIALS / trial_name_of(trial))
        self._sweep.ended(trial_name_of(trial), failed=True)
