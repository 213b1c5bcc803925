"""Ray Train's side of a report on its way to Ray Tune; a file of its own, Ray is imported here."""

from __future__ import annotations

from typing import Any

from ray.train import UserCallback

__all__ = ["Forward"]


class Forward(UserCallback):
    """Puts what rank 0 reported into a queue, checkpoints included; runs in Train's controller."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        """All ranks have reported."""
        self._queue.put(dict(metrics[0]))
