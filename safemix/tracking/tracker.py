"""Where a job's metrics go: `metrics.jsonl` always, Weights & Biases if it can."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safemix.settings import TrackingSettings
from safemix.tracking.metrics import MetricsLog
from safemix.tracking.wandb_run import WandbRun

METRICS_FILE = "metrics.jsonl"


class Tracking:
    """Logs the metrics of one job. Make one on each rank, enabled on rank 0 only.

    Args:
        settings: the tracking part of the settings.
        output_dir: the job's folder.
        config: the job's settings as plain data, shown in W&B.
        resume_step: step the job goes on from; later lines of `metrics.jsonl` are removed.
        enabled: whether this process logs at all.

    Raises:
        OSError: if `metrics.jsonl` cannot be written. Trouble with W&B is one warning line.
    """

    def __init__(
        self,
        settings: TrackingSettings,
        output_dir: Path,
        config: dict[str, Any],
        resume_step: int = 0,
        enabled: bool = True,
    ) -> None:
        self._metrics: MetricsLog | None = None
        self._wandb: WandbRun | None = None
        if enabled:
            self._metrics = MetricsLog(output_dir / METRICS_FILE, resume_step)
            self._wandb = WandbRun(settings, output_dir, config, resume_step)

    @property
    def wandb_dir(self) -> Path | None:
        """Folder of the W&B run, or None if there is none."""
        return self._wandb.directory if self._wandb else None

    @property
    def wandb_run(self) -> Any:
        """The W&B run itself, for more than numbers; None if there is none."""
        return self._wandb.run if self._wandb else None

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Log metrics at an optimizer step.

        The loss of a source that had no row is written as null: NaN would look like a fault.

        Raises:
            OSError: if `metrics.jsonl` cannot be written.
        """
        known = {name: None if _is_idle(name, metrics) else metrics[name] for name in metrics}
        if self._metrics is not None:
            self._metrics.log(step, known)
        if self._wandb is not None:
            self._wandb.log(step, {k: v for k, v in known.items() if v is not None})

    def close(self) -> None:
        """End the logs. May be called twice."""
        if self._metrics is not None:
            self._metrics.close()
        if self._wandb is not None:
            self._wandb.close()


def _is_idle(name: str, metrics: Mapping[str, Any]) -> bool:
    """Whether `name` is the loss of a source of which there was no row."""
    source, slash, last = name.rpartition("/")
    return bool(slash) and last == "loss" and metrics.get(f"{source}/row_share") == 0
