"""Progress on rank 0: a bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_LINE_EVERY_S = 15.0


class Progress:
    """Shows steps done and the latest losses.

    Args:
        first: steps done before.
        total: steps of the run.
        enabled: whether to show anything; False on all ranks but 0.
    """

    def __init__(self, first: int, total: int, *, enabled: bool) -> None:
        self._first, self._total, self._enabled = first, total, enabled
        self._bar: Bar | None = None
        self._last = 0.0

    def __enter__(self) -> Progress:
        if self._enabled and sys.stderr.isatty():
            self._bar = Bar(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=self._total, completed=self._first, note="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Take the latest metrics."""
        if not self._enabled:
            return
        sides = (("task", "utility/loss"), ("safety", "safety/loss"))
        known = {key: value for key, value in metrics.items() if value is not None}
        losses = [f"{name} {known[key]:.3f}" for name, key in sides if key in known]
        note = f"loss {', '.join(losses)}, {known.get('perf/tokens_per_s', 0):.0f} tokens/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, note=note)
            return
        now = time.monotonic()
        if now - self._last >= _LINE_EVERY_S or step in (self._first + 1, self._total):
            self._last = now
            print(f"safemix: step {step}/{self._total}: {note}", file=sys.stderr, flush=True)
