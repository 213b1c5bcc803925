"""How long a sweep still takes, from the rows trained on so far."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from safemix.tuning.records import ENDED, TrialRecord


class TimeLeft:
    """Seconds left, from rows still to train on and rows a second since the first look.

    The speed is that of the whole sweep: trials side by side, evaluation and starting included.
    Rows of an earlier start of a resumed sweep are not counted.

    Args:
        total: trials of the sweep, baselines included.
        max_steps: of a whole trial; 0 for what the longest that has begun is to have.
    """

    def __init__(self, total: int, max_steps: int) -> None:
        self._total, self._max_steps = total, max_steps
        self._first: tuple[float, int] | None = None

    def estimate(self, records: Sequence[TrialRecord], now: float) -> float | None:
        """Seconds left; None while nothing has been trained since the first call.

        Args:
            records: all that are known.
            now: of a clock that does not jump, in seconds.
        """
        rows = sum(record.rows for record in records)
        if self._first is None:
            self._first = now, rows
        began, before = self._first
        left = rows_left(records, self._total, self._max_steps)
        if left is None or now <= began or rows <= before:
            return None
        return left * (now - began) / (rows - before)


def rows_left(records: Sequence[TrialRecord], total: int, max_steps: int) -> float | None:
    """Rows still to train on; None before the first step.

    A trial that has not begun is taken to be as long as those that ended so far: a scheduler may
    stop most of them early.

    Args:
        records: all that are known.
        total: trials of the sweep, baselines included.
        max_steps: of a whole trial; 0 for what the longest that has begun is to have.
    """
    # After a restart some rows count twice, but not their steps.
    begun = [r for r in records if r.step and not r.restarts] or [r for r in records if r.step]
    if not begun:
        return None
    rows_a_step = sum(r.rows for r in begun) / sum(r.step for r in begun)
    # Epochs are counted in steps by the trials themselves.
    max_steps = max_steps or max(r.max_steps for r in records)
    ended = [r.step for r in records if r.kind == "trial" and r.status in ENDED]
    usual = fmean(ended) if ended else float(max_steps)
    steps = 0.0
    for record in records:
        if record.kind == "untouched" or record.status in ENDED:
            continue
        whole = record.max_steps or max_steps
        steps += max(0, whole - record.step) if record.status == "running" else usual
    steps += usual * max(0, total - len(records))
    return steps * rows_a_step
