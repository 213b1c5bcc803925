"""Keys of a report to Ray beside what was measured: for those who read it without training."""

from __future__ import annotations

from typing import Final

__all__ = ["CHECKPOINT", "STEP"]

STEP: Final = "step"
CHECKPOINT: Final = "checkpoint"
