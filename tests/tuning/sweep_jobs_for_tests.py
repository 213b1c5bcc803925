"""Starts real sweeps for tests, watches their folders, and finds their processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
MARK = "SAFEMIX_TEST_SWEEP"
# Two workers with a tiny model; steps of a few hundredths of a second.
RUN: dict[str, Any] = {
    "model": "tiny",
    "task": "builtin:task",
    "safety": "builtin:safety",
    "mitigation": "base",
    "max_steps": 40,
    "global_batch_size": 8,
    "micro_batch_size": 4,
    "max_length": 256,
    "learning_rate": 1e-3,
    "lora": False,
    "ds_config": "zero2",
    "device": "cpu",
    "precision": "fp32",
    "save_steps": 4,
    "save_total_limit": 3,
    "audit_rows": True,
    "evaluation": {
        "probe_every": 4,
        "eval_every": 1000,
        "prompts": 4,
        "eval_prompts": 6,
        "max_new_tokens": 4,
        "dress": ["plain"],
        "task": {"file": "builtin:task", "limit": 4},
    },
}


@dataclass
class SweepJob:
    """A sweep's process and its folder."""

    process: subprocess.Popen[str]
    folder: Path
    mark: str
    log: Path

    def wait(self, seconds: float = 240) -> int:
        """Its exit code; one that does not end is ended, with all its processes, and fails."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for process in self.left():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            raise AssertionError(f"not at an end in {seconds:g} s:\n{self.text[-3000:]}") from None

    @property
    def text(self) -> str:
        """All it said."""
        return self.log.read_text("utf-8")

    def left(self, after: float = 0) -> list[psutil.Process]:
        """Processes of the sweep that still run, Ray's included; after so many seconds at most."""
        end = time.monotonic() + after
        while True:
            found = [p for p in psutil.process_iter() if p.pid != os.getpid() and self._mine(p)]
            if not found or time.monotonic() >= end:
                return found
            time.sleep(0.2)

    def kill_worker(self, trial: str, rank: int) -> int:
        """SIGKILL the worker that writes to a trial's log; its process id."""
        return self.signal_worker(trial, rank, signal.SIGKILL)

    def signal_worker(self, trial: str, rank: int, number: signal.Signals) -> int:
        """Send a signal to the worker that writes to a trial's log; its process id."""
        log = str(self.folder / "trials" / trial / "logs" / f"rank{rank}.log")
        for process in self.left():
            try:
                if str(Path(f"/proc/{process.pid}/fd/1").readlink()) == log:
                    process.send_signal(number)
                    return process.pid
            except (OSError, psutil.Error):
                continue
        raise AssertionError(f"no process writes to {log}")

    def _mine(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark
        except psutil.Error:
            return False


def sweep_file(folder: Path, *, run: Mapping[str, Any] | None = None, **keys: Any) -> Path:
    """Write a sweep file; its results go to `out` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = {
        "run": RUN | dict(run or {}),
        "search": {"ratio": {"choice": [0.125, 0.25]}},
        "searcher": "random",
        "trials": 2,
        "bound": {"asr": 0.9},
        "workers": 2,
        "output_dir": str(folder / "out"),
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(tree | keys), "utf-8")
    return path


def start(*arguments: str, folder: Path) -> SweepJob:
    """Start `safemix tune` with arguments; `folder` holds the sweep's `out`."""
    mark, log = uuid.uuid4().hex, folder / f"log-{uuid.uuid4().hex[:6]}.txt"
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")},
        "PYTHONPATH": path,
        MARK: mark,
        "WANDB_MODE": "offline",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        # Ray starts its workers with a low priority: on a busy machine they would never begin.
        "RAY_worker_niceness": "0",
        # One process less to start for each trial; nothing here is preempted.
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "safemix.cli.app", "tune", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            text=True,
            start_new_session=True,
        )
    return SweepJob(process, (folder / "out").resolve(), mark, log)


def record(folder: Path, trial: str) -> dict[str, Any]:
    """A trial's record; empty before there is one."""
    path = folder / "trials" / trial / "trial.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def step_of(folder: Path, trial: str) -> int:
    """The last step that a trial's workers noted."""
    path = folder / "trials" / trial / "attempts.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def starts_of(folder: Path, trial: str) -> list[int]:
    """The step at which each start of a trial began."""
    path = folder / "trials" / trial / "attempts.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    noted = (json.loads(line) for line in lines if line.endswith("}"))
    return [line["step"] for line in noted if "begins" in line]


def until(condition: Callable[[], Any], job: SweepJob, seconds: float = 180) -> None:
    """Wait for something; it fails with what the sweep said if that does not come."""
    end = time.monotonic() + seconds
    while not condition():
        if job.process.poll() is not None or time.monotonic() > end:
            raise AssertionError(f"it did not come to that:\n{job.text[-3000:]}")
        time.sleep(0.02)


def rows_of(folder: Path) -> dict[int, list[tuple[str, int]]]:
    """Step -> the rows that all ranks trained on, sorted, by a run's audit."""
    found: dict[int, list[tuple[str, int]]] = {}
    for path in sorted((folder / "audit").glob("rank*.jsonl")):
        for line in map(json.loads, path.read_text("utf-8").splitlines()):
            found.setdefault(line["step"], []).extend((name, row) for name, row in line["rows"])
    return {step: sorted(rows) for step, rows in sorted(found.items())}
