"""One worker of a trial: the main job, as one rank among those that Ray Train has started."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from safemix.tracking.metrics import read_metrics
from safemix.tuning.attempts import failure, write_failure
from safemix.tuning.release import note_places
from safemix.tuning.score import MARGIN, Score

LOGS: Final = "logs"
Add = Callable[[int, Mapping[str, float]], Mapping[str, float]]


def train(config: Mapping[str, Any]) -> None:
    """Run one rank of a trial; Ray Train calls it on every worker.

    A rank that fails by an error that would come again leaves its reason in the trial's folder:
    the workers that Ray starts anew after that end at once. After a worker that was lost they find
    no such file, and go on from the last checkpoint.

    Args:
        config: `settings` (the run's tree), `score` (options of `Score`; None for a baseline, which
            no scheduler compares), `at_saves` (see `RayReports`), `cwd` (what the run's paths are
            relative to), `start` (see `AttemptLog`).

    Raises:
        Exception: whatever ended the run; Ray ends the other ranks then.
    """
    begun = time.monotonic()
    # Torch is told before it is loaded, so this comes before the imports that load it.
    from safemix.training.process import quieten

    quieten()
    if Path(config["cwd"]).is_dir():  # Ray starts workers in a folder of its own
        os.chdir(config["cwd"])
    from safemix.hosts.ray import RayReports
    from safemix.settings import parse_settings
    from safemix.training.process import lost_peer, plain_words, rank, world_size
    from safemix.training.run import run
    from safemix.tuning.attempt_log import AttemptLog

    settings = parse_settings(config["settings"])
    folder = Path(settings.output_dir)
    if failure(folder) is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    _speak_to(folder / LOGS / f"rank{rank()}.log")
    if rank() == 0:
        note_places(folder)
    add: Add = _nothing
    if config["score"] is not None:
        add = Score(**config["score"], start=_margins_before(folder))
    reports = RayReports(add, at_saves=config["at_saves"])
    log = [AttemptLog(folder, begun, config.get("start", ""))] if rank() == 0 else []
    try:
        run(settings, callbacks=[*log, reports], observers=[reports.observe])
    except Exception as error:
        if not (lost_peer(error) or _group_is_gone(world_size())):
            write_failure(folder, plain_words(error))
        raise
    print(f"safemix: rank {rank()}: {reports.reported} readings reported", flush=True)


def _group_is_gone(ranks: int) -> bool:
    """Whether this rank failed because Ray is ending it.

    When a rank is lost, Ray destroys the process group of those that are left, which then fail by
    whatever they were doing.
    """
    import torch.distributed as dist

    return ranks > 1 and not dist.is_initialized()


def _nothing(step: int, reading: Mapping[str, float]) -> Mapping[str, float]:
    return {}


def _margins_before(folder: Path) -> dict[str, float]:
    """The margins at step 0 of a run that goes on."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return {}
    first = next(read_metrics(path), {})
    if first.get("step") != 0:
        return {}
    return {k: v for k, v in first.items() if k.startswith(MARGIN) and v is not None}


def _speak_to(path: Path) -> None:
    """Let this process write to a file of the trial, libraries in C included.

    With many trials side by side a terminal would show a mixture that nobody can read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
