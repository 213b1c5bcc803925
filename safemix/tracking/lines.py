"""Progress of asking a model."""

from __future__ import annotations

import sys
import time

_LINE_S = 10.0  # between two lines of progress


class Lines:
    """Progress as lines on standard error, one every few seconds and one at each end.

    Args:
        name: what every line begins with.
        enabled: whether to say anything; True on rank 0 alone.
    """

    def __init__(self, name: str, *, enabled: bool = True) -> None:
        self._name, self._enabled = name, enabled
        self._said = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say what is done, unless a line was said just now."""
        now = time.monotonic()
        if not self._enabled:
            return
        if done < total and now - self._said < _LINE_S:
            return
        self._said = now
        print(f"safemix: {self._name}: {what} {done}/{total}", file=sys.stderr, flush=True)
