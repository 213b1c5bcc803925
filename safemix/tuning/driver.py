"""One trial in Ray Tune: a function that runs Ray Train's torch trainer and passes reports on.

This is Ray's present form for a distributed trial (Train V2): the function itself takes no
resources, the trainer asks for those of its workers. Nothing of a trial lives in Ray: settings,
checkpoints, metrics and evaluations lie in the trial's folder, so that a sweep goes on from there.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from safemix.errors import CheckpointError
from safemix.hosts.ray_keys import CHECKPOINT
from safemix.tuning.attempts import failure, write_failure
from safemix.tuning.release import release_places
from safemix.tuning.worker import train

RATIO: Final = "ratio"
TRIAL: Final = "trial"
ENTRY: Final = "entry"
SCORED: Final = "scored"
_POINTER: Final = "checkpoint.json"
# A worker's report waits until Ray Train has asked for the one before, by default every 2 s: with
# quick steps training would wait at each reading.
_ASKS: Final = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")


@dataclass(frozen=True)
class Shared:
    """What all trials of a sweep have in common; it travels through Ray's object store once.

    Attributes:
        workers: processes of a trial.
        resources: of one worker, such as {"CPU": 1, "GPU": 1}.
        use_gpu: whether workers train on GPUs.
        max_restarts: how often a trial goes on after a lost worker.
        score: options of `Score`.
        changes_ratio: a scheduler changes the ratio of running trials.
        ray_folder: where Ray keeps what it needs itself; nothing there is read again.
        environment: of the workers.
        cwd: what relative paths of the run's files are relative to.
    """

    workers: int
    resources: Mapping[str, float]
    use_gpu: bool
    max_restarts: int
    score: Mapping[str, float]
    changes_ratio: bool
    ray_folder: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "."


def drive(config: Mapping[str, Any], shared: Shared) -> None:
    """Run a trial to its end; Ray Tune calls it, with `shared` through `tune.with_parameters`.

    Args:
        config: under `entry`: `trial`, its name; `settings`, the tree of its run; `scored`, whether
            the scheduler may stop or change it; and `ratio`, where the scheduler changes it.
        shared: see `Shared`.

    Raises:
        RuntimeError: if the trial failed; the reason is its text.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    os.environ.setdefault(*_ASKS)
    entry, name = config[ENTRY], trial_name()
    settings = dict(entry["settings"])
    # A trial that goes on from another one has that one's configuration, and a name of its own.
    folder = Path(settings["output_dir"]).parent / name
    settings["output_dir"] = str(folder)
    release_places(folder)  # of a start that the scheduler has ended
    if shared.changes_ratio and entry[SCORED]:
        settings[RATIO] = entry[RATIO]
        try:
            _take_over(folder)
        except CheckpointError as error:
            write_failure(folder, str(error))
            raise
    passing, start = _Passing(with_checkpoints=shared.changes_ratio), f"{name}-{_unique()}"
    trainer = TorchTrainer(
        train,
        train_loop_config={
            "settings": settings,
            "score": dict(shared.score) if entry[SCORED] else None,
            "at_saves": shared.changes_ratio,
            "cwd": shared.cwd,
            "start": start,
        },
        scaling_config=ScalingConfig(
            num_workers=shared.workers,
            use_gpu=shared.use_gpu,
            resources_per_worker=dict(shared.resources),
        ),
        run_config=RunConfig(
            name=start,
            storage_path=shared.ray_folder,
            callbacks=[passing.callback],
            failure_config=FailureConfig(max_failures=shared.max_restarts),
            worker_runtime_env={"env_vars": dict(shared.environment)},
        ),
    )
    try:
        with passing:
            trainer.fit()
    except TrainingFailedError as error:
        # Here, and not through Ray: what Ray keeps of an error is a pickle.
        write_failure(folder, _lost(error, shared.max_restarts))
        raise RuntimeError(failure(folder)) from None
    # Workers that were started again after an error of their own end without one.
    if (reason := failure(folder)) is not None:
        raise RuntimeError(reason)


class _Passing:
    """Hands reports of the workers on to Ray Tune while the trainer runs.

    Ray's own callback does it, but drops the checkpoint, without which population-based training
    does nothing; so where checkpoints count, a thread of this process reports with them. What
    Tune keeps of a checkpoint is a file that says where it lies.
    """

    def __init__(self, *, with_checkpoints: bool) -> None:
        self._queue: Any = None
        self._thread: threading.Thread | None = None
        if not with_checkpoints:
            from ray.tune.integration.ray_train import TuneReportCallback

            self.callback: Any = TuneReportCallback()
            return
        from ray.util.queue import Queue

        from safemix.tuning.forward import Forward

        self._queue = Queue(actor_options={"num_cpus": 0})
        self.callback = Forward(self._queue)

    def __enter__(self) -> None:
        if self._queue is not None:
            self._thread = threading.Thread(target=self._pass_on, daemon=True)
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _pass_on(self) -> None:
        from ray import tune

        while (report := self._queue.get()) is not None:
            path = report.pop(CHECKPOINT, None)
            if path is None:
                tune.report(report)
                continue
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / _POINTER).write_text(json.dumps({"path": path}), "utf-8")
                tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))


def _take_over(folder: Path) -> None:
    """Bring what the scheduler says to go on from into the trial's folder."""
    from ray import tune

    from safemix.tuning.clone import clone_run

    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return
    with checkpoint.as_directory() as given:
        path = Path(json.loads((Path(given) / _POINTER).read_text("utf-8"))["path"])
    clone_run(path, folder)


def _lost(error: Exception, restarts: int) -> str:
    text = " ".join(str(error).split())
    return f"workers were lost more than {restarts} times (out of memory?): {text[:300]}"


def trial_name() -> str:
    """The name of the trial that this process drives."""
    from ray import tune

    return Path(tune.get_context().get_trial_dir()).name


def _unique() -> str:
    from uuid import uuid4

    return uuid4().hex[:8]
