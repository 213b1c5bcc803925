"""Ray Train: readings of a run go to Ray, from every rank the same number of times.

`ray.train.report` waits for all ranks, so a rank that reports once more than the others hangs the
run (ray-project/ray#40875). Ray's own callback for the HF Trainer reports when a checkpoint is
saved, with whatever was logged before (`RayTrainReportCallback`), so that a scheduler sees few
points, and old ones. This one reports each reading of the probe at its own step: readings are taken
on all ranks in step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from safemix.hosts.ray_keys import CHECKPOINT, STEP

__all__ = ["RayReports"]

Metrics = Mapping[str, float]


class RayReports(TrainerCallback):
    """Reports each reading to Ray, with the losses of its step.

    Give it to `safemix.training.run.run` as a callback, and its `observe` as an observer.

    Args:
        add: what else belongs into a report, made of the reading and the log of its step.
        at_saves: report where a checkpoint is saved, with its path as `checkpoint`, and not at
            the readings between: population-based training goes on from checkpoints alone. The
            last step is reported in any case.
        report: takes the place of `ray.train.report`.
    """

    def __init__(
        self,
        add: Callable[[int, Metrics], Metrics] = lambda step, reading: {},
        *,
        at_saves: bool = False,
        report: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._add, self._at_saves, self._send = add, at_saves, report
        self._reading: dict[str, float] = {}
        self._read_at = -1
        self.reported = 0
        """Reports so far; the same on all ranks."""

    def observe(self, step: int, reading: Metrics) -> None:
        """Take a reading; all ranks call it, in step."""
        self._reading, self._read_at = dict(reading), step
        if step == 0:  # there is no log of the Trainer before the first step
            self._report(0, {})

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the reading of this step, if there is one."""
        step, logs = state.global_step, kwargs.get("logs") or {}
        if step == 0 or self._read_at != step or "loss" not in logs:
            return
        losses = {key: value for key, value in logs.items() if key.endswith("/loss")}
        self._reading |= losses
        if not self._at_saves:
            self._report(step, {})
        elif step >= state.max_steps:
            # Without what a scheduler compares: at its end no trial is to go on from another.
            self._report(step, {}, compared=False)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the checkpoint with the last reading, where that is asked for."""
        step = state.global_step
        if self._at_saves and self._reading and step < state.max_steps:
            self._report(step, {CHECKPOINT: str(Path(args.output_dir) / f"checkpoint-{step}")})

    def _report(self, step: int, more: Mapping[str, Any], *, compared: bool = True) -> None:
        send = self._send
        if send is None:
            from ray import train

            send = train.report
        reading = {**self._reading, **(self._add(step, self._reading) if compared else {})}
        # Schedulers compare numbers, and nothing compares with nan.
        finite = {key: value for key, value in reading.items() if math.isfinite(value)}
        send({STEP: step, **finite, **more})
        self.reported += 1
