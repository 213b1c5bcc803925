"""The Trainer of a run: tracking, and checkpoints that survive what happens to runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors import SafetensorError
from transformers import TrainerCallback

from safemix.errors import CheckpointError
from safemix.hosts.hf_trainer import SafeMixTrainer
from safemix.tracking.tracker import Tracking
from safemix.training.averaging import AVERAGED, AveragingCallback
from safemix.training.checkpoints import find_checkpoint, rotate, write_manifest
from safemix.training.process import lost_peer

_RENAMED = {
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "learning_rate": "train/learning_rate",
    "epoch": "train/epoch",
}
# A source without a row in the reading has no loss; its key is there all the same, as null.
_ALWAYS = ("utility/loss", "safety/loss")


WRITE_ERRORS = (OSError, RuntimeError, SafetensorError)
"""What a full disk shows itself as: Python's error, torch's, and safetensors'."""


class RunTrainer(SafeMixTrainer):
    """`SafeMixTrainer` with complete-or-absent checkpoints.

    Args:
        keep: complete checkpoints that are kept; None for all.
        fixed: settings that may not change on resume; noted in each checkpoint.
        averaging: keeps an average of the weights, saved in each checkpoint and the result.
        **kwargs: as for `SafeMixTrainer`.
    """

    def __init__(
        self,
        *,
        keep: int | None,
        fixed: Mapping[str, Any],
        averaging: AveragingCallback | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._keep, self._fixed, self._averaging = keep, fixed, averaging
        self.with_checkpoints: list[Path] = []
        """Files of the run's folder that every checkpoint gets a copy of."""
        if averaging is not None:
            self.add_callback(averaging)

    def save_result(self, folder: Path) -> None:
        """Save the adapter or model that the run is for: the average where there is one."""
        average = self._averaging.average if self._averaging is not None else None
        with nullcontext() if average is None else average.in_place():
            self.save_model(str(folder))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{step}"
        try:
            super()._save_checkpoint(model, trial)
            if self._averaging is not None and self._averaging.average is not None:
                self._averaging.average.save(folder, writer=self.args.should_save)
                self.save_result(folder / AVERAGED)
            if self.args.should_save:
                for path in self.with_checkpoints:
                    shutil.copyfile(path, folder / path.name)
            if dist.is_available() and dist.is_initialized():
                # Every rank has written its part before the checkpoint is declared complete.
                dist.barrier()
            if self.args.should_save:
                ranks = self.args.world_size
                write_manifest(folder, step=step, world_size=ranks, fixed=self._fixed)
                rotate(folder.parent, self._keep)
        except WRITE_ERRORS as error:
            if lost_peer(error):
                raise
            raise CheckpointError(self._save_failed(folder, error)) from error

    def _save_failed(self, folder: Path, error: Exception) -> str:
        if self.args.should_save:
            # What was half-written is of no use and takes the space that is missing.
            shutil.rmtree(folder, ignore_errors=True)
        try:
            last = find_checkpoint(folder.parent, lambda line: None)
        except CheckpointError:
            last = None
        kept = f"the last complete one is {last.folder}" if last else "there is none before it"
        reason = " ".join(str(error).split())[:160]
        return (
            f"checkpoint {folder} cannot be written ({reason}); {kept}: free disk space, then run "
            "the same command again to go on from there"
        )

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        super()._save(output_dir, state_dict)
        # The Trainer adds a pickle of its arguments; settings.yaml says the same in plain text.
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)


class TrackingCallback(TrainerCallback):
    """Hands every log of the Trainer to `Tracking`, under the field's names."""

    def __init__(
        self, tracking: Tracking, show: Callable[[int, dict[str, float | None]], None]
    ) -> None:
        """`show` gets step and metrics as well, for the progress line."""
        self._tracking, self._show = tracking, show

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log one reading; the Trainer's closing summary, which has no loss, is left out."""
        logs = kwargs.get("logs") or {}
        if "loss" not in logs:
            return
        metrics: dict[str, float | None] = dict.fromkeys(_ALWAYS)
        metrics |= {_RENAMED.get(name, name): float(value) for name, value in logs.items()}
        self._tracking.log(state.global_step, metrics)
        self._show(state.global_step, metrics)
