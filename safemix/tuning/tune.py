"""A sweep from its settings to its report; what `safemix tune` does."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from filelock import FileLock, Timeout

from safemix.errors import SettingsError
from safemix.hosts.resume import write_json
from safemix.tuning.bisection import BisectedPoints
from safemix.tuning.choose import Recommendation
from safemix.tuning.identity import changed_keys, pinned
from safemix.tuning.points import RATIO, planned_points, settle_point, trial_count
from safemix.tuning.records import TrialRecord
from safemix.tuning.results import write_results
from safemix.tuning.searcher import ListedPoints, OptunaPoints, Points
from safemix.tuning.settings import SweepSettings, load_sweep
from safemix.tuning.space import Range

SWEEP: Final = "sweep.yaml"
_PINNED: Final = "sweep.json"
_LOCK: Final = ".lock"
# Beside the trials: ratio 0, and the model before any training.
_BASELINES: Final = 2


class Done(NamedTuple):
    """A sweep that has ended."""

    recommendation: Recommendation
    whole: bool
    """It ran to its end; False after an interruption."""
    records: tuple[TrialRecord, ...]


def tune(settings: SweepSettings, *, resume: bool = False) -> Done:
    """Run a sweep, or go on with it, and write its results.

    Args:
        settings: of the sweep.
        resume: go on with the sweep in its folder: trials that have ended are not run again.

    Returns:
        What it comes to, whether it ran to its end, and its trials.

    Raises:
        SettingsError: for a folder that holds another sweep, a cluster that cannot be reached, or
            a trial that does not fit on it.
    """
    folder = Path(settings.output_dir)
    if not resume:
        _refuse_taken(folder)
    from safemix.tuning.cluster import connect
    from safemix.tuning.report.live import LiveTable
    from safemix.tuning.search import run_trials
    from safemix.tuning.sweep import Sweep

    with contextlib.ExitStack() as held:
        if resume:
            held.enter_context(_alone(folder))
        held.enter_context(_ray())
        parallel = connect(settings, _say)
        # Not before: a sweep that never began does not take the folder.
        _claim(settings)
        if not resume:
            held.enter_context(_alone(folder))
        count = trial_count(settings)
        most = "up to " if settings.searcher == "bisect" else ""
        _say(f"{most}{count} trials and the baselines, {parallel} at a time")
        sweep = Sweep(settings, points_of(settings))
        steps = max((record.max_steps for record in sweep.all()), default=0)
        with LiveTable(count + _BASELINES, steps) as table:
            sweep.changed = lambda: table.update(sweep.all())
            whole = run_trials(sweep, parallel)
            sweep.interrupted()
    records = tuple(sweep.all())
    return Done(write_results(settings, records), whole, records)


def resumed(folder: Path, config: Path | None, overrides: list[str]) -> SweepSettings:
    """Settings of the sweep in a folder, or those given anew if they are of the same sweep.

    Raises:
        SettingsError: for a folder without a sweep, or settings of another one.
    """
    if not (folder / _PINNED).is_file():
        raise SettingsError(f"{folder} holds no sweep to go on with: give its output_dir")
    # Trials may be more or fewer than before; what makes it this sweep may not change.
    where = [*overrides, f"output_dir={json.dumps(str(folder))}"]
    settings = load_sweep(config or folder / SWEEP, where)
    try:
        old = json.loads((folder / _PINNED).read_text("utf-8"))["pinned"]
    except (ValueError, KeyError, TypeError):
        raise SettingsError(
            f"{folder / _PINNED} is damaged: what the sweep was is not known; begin another one "
            "in a new output_dir"
        ) from None
    changed = changed_keys(old, pinned(settings))
    if changed:
        raise SettingsError(
            f"{folder} holds another sweep: {', '.join(changed[:5])} "
            f"{'differs' if len(changed) == 1 else 'differ'}: give the same settings, or another "
            "output_dir"
        )
    return settings


def _refuse_taken(folder: Path) -> None:
    if (folder / _PINNED).exists():
        raise SettingsError(
            f"{folder} holds a sweep already: go on with it by --resume {folder}, or give another "
            "output_dir"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second process away from the sweep in a folder.

    Raises:
        SettingsError: if one is at work there.
    """
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SettingsError(
            f"another `safemix tune` is at work in {folder}: let it end, or stop it first"
        ) from None
    except NotImplementedError:
        _say(
            f"the file system of {folder} has no locks: a second `safemix tune` there would not be "
            "noticed"
        )
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _claim(settings: SweepSettings) -> None:
    folder = Path(settings.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    settings.save(folder / SWEEP)
    write_json(folder / _PINNED, {"pinned": pinned(settings)})


def points_of(settings: SweepSettings) -> Points:
    """Where the points of a sweep's trials come from: a list, or Optuna."""
    planned = planned_points(settings)
    if settings.searcher == "bisect":
        domain = settings.space[RATIO]
        if not isinstance(domain, Range):
            raise TypeError("bisection halves a range")
        return BisectedPoints(RATIO, domain, trial_count(settings))
    if planned is None:
        return OptunaPoints(
            settings.space,
            trial_count(settings),
            settings.seed,
            lambda point: settle_point(settings, point).values,
        )
    return ListedPoints(planned)


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    """Leave Ray as it was found: one that was started here ends here, with all its processes."""
    import ray

    found = ray.is_initialized()
    try:
        yield
    finally:
        if not found and ray.is_initialized():
            ray.shutdown()


def _say(text: str) -> None:
    print(f"safemix: {text}", file=sys.stderr, flush=True)
