"""The Ray cluster of a sweep: started here or joined, and whether a trial fits on it."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from safemix.errors import SettingsError
from safemix.tuning.points import trial_count
from safemix.tuning.settings import SweepSettings

_EVERY_S: Final = 2.0
_REACH_S: Final = 20
_SILENT: Final = (
    "still trying {!r}: something listens there, but has not answered as Ray yet; Ctrl-C ends this"
)


def connect(sweep: SweepSettings, say: Callable[[str], None]) -> int:
    """Join the cluster, or start Ray here; wait for its resources only if told to.

    Args:
        sweep: says where, what a trial takes, and how long to wait.
        say: takes a line for a person.

    Returns:
        Trials at a time.

    Raises:
        SettingsError: if the address cannot be reached, or a trial does not fit.
    """
    import ray

    _start(sweep, say)
    needed = per_trial(sweep)
    deadline = time.monotonic() + sweep.wait_for_resources
    told = False
    while (fitting := _fitting(needed, ray.cluster_resources())) < 1:
        left = deadline - time.monotonic()
        if left <= 0:
            raise SettingsError(
                f"a trial needs {_words(needed)} ({sweep.workers} workers), the cluster has "
                f"{_words(ray.cluster_resources(), needed)}: lower workers or resources, or give "
                "wait_for_resources: SECONDS where nodes are still to come"
            )
        if not told:
            say(f"waiting up to {sweep.wait_for_resources:g} s for {_words(needed)}")
            told = True
        time.sleep(min(_EVERY_S, left))
    trials = trial_count(sweep)
    if sweep.scheduler == "pbt" and fitting < trials:
        raise SettingsError(
            f"population-based training runs its {trials} trials side by side, each with "
            f"{_words(needed)}, and {fitting} fit on the cluster: lower trials, workers or "
            "resources"
        )
    if sweep.parallel == "auto":
        return fitting
    if sweep.parallel > fitting:
        say(f"parallel: {sweep.parallel} trials asked for, {fitting} fit at a time")
    return min(sweep.parallel, fitting)


def per_trial(sweep: SweepSettings) -> dict[str, float]:
    """What all workers of a trial take together, by Ray's names."""
    return {name: sweep.workers * amount for name, amount in per_worker(sweep).items()}


def per_worker(sweep: SweepSettings) -> dict[str, float]:
    """What one worker takes, by Ray's names."""
    found = {"CPU": float(sweep.resources.cpus_per_worker)}
    if sweep.resources.gpus_per_worker:
        found["GPU"] = float(sweep.resources.gpus_per_worker)
    return found


def _start(sweep: SweepSettings, say: Callable[[str], None]) -> None:
    import ray
    from ray.exceptions import RaySystemError

    if ray.is_initialized():
        return
    # Ray would hide GPUs from processes that asked for none; trials ask for what they use.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Nothing of a sweep is to leave the machine unasked.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if sweep.address in (None, "local"):
            ray.init(address="local", include_dashboard=False, **common)
        else:
            _knock(str(sweep.address))
            # Where something other than Ray listens, Ray tries for minutes and says nothing.
            told = threading.Timer(_REACH_S, say, [_SILENT.format(sweep.address)])
            told.daemon = True
            told.start()
            try:
                ray.init(address=sweep.address, **common)
            finally:
                told.cancel()
    except (ConnectionError, RaySystemError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"address {sweep.address!r} cannot be reached: {reason}; start Ray there "
            "(`ray start --head`), or leave address out to start Ray here"
        ) from None


def _knock(address: str) -> None:
    """Find an address where nobody answers: Ray would try for minutes, then end this process.

    Raises:
        OSError: if nobody does.
        ValueError: for a port that is no number.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname is not None and parts.port is not None:  # "auto" is Ray's to find
        socket.create_connection((parts.hostname, parts.port), timeout=_REACH_S).close()


def _fitting(needed: Mapping[str, float], there: Mapping[str, float]) -> int:
    """Trials at a time, by the cluster's sums; which nodes they fit on is Ray's to find."""
    return min(math.floor(there.get(name, 0.0) / amount) for name, amount in needed.items())


def _words(amounts: Mapping[str, float], names: Mapping[str, float] | None = None) -> str:
    kept = names or amounts
    return ", ".join(f"{amounts.get(name, 0):g} {name}" for name in kept)
