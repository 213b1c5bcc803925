"""Notes of a trial's workers on how far an attempt has come; `attempts` reads them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import TrainerCallback

from safemix.tuning.attempts import ATTEMPTS

__all__ = ["AttemptLog"]


class AttemptLog(TrainerCallback):
    """Notes each step of an attempt; give it to the run on rank 0 only.

    Args:
        folder: of the trial.
        begun: when this attempt began, in seconds of `time.monotonic`.
        start: names the start by the sweep that this attempt belongs to. Workers that Ray starts
            again after one was lost belong to the same.
    """

    def __init__(self, folder: Path, begun: float, start: str = "") -> None:
        self._path, self._begun, self._start = folder / ATTEMPTS, begun, start

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A new attempt, from the step it goes on from."""
        _end_last_line(self._path)
        begins = {"begins": True, "start": self._start, "max_steps": state.max_steps}
        self._write(state.global_step, begins)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step more."""
        self._write(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last step again, with the time that measuring after it took."""
        self._write(state.global_step)

    def _write(self, step: int, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        seconds = round(time.monotonic() - self._begun, 3)
        line = {"step": step, "seconds": seconds, **more}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _end_last_line(path: Path) -> None:
    """A line that a kill has cut must not swallow the next one."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        if not file.seek(0, 2):
            return
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")
