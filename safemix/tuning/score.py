"""One number for a trial while it trains: what population-based training compares trials by.

The outcome that counts, ASR and utility, is known only at the end, from completions. On the way
there are the task's loss and the refusal margin, which falls with safety. A trial is good where
the loss is low and the margin has not fallen below that of the model before training:

    score = - task loss - weight * max(0, floor - margin)

with the margin of the dress where it is lowest, and the floor: the same margin at step 0 less a
slack. A sum of the two alone would always ask for more safety rows, or for none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SCORE: Final = "score"
MARGIN: Final = "safety/margin/"
LOSS: Final = "utility/loss"
WORST: Final = -1e6
"""Score of what cannot be told: a loss that is not there yet, or not finite, must not look good."""


@dataclass
class Score:
    """Scores the readings of one trial.

    Attributes:
        weight: of a margin below the floor, in nats of task loss per nat of margin.
        slack: how far the margin may fall before that counts, in nats.
        start: margin of each dress at step 0; taken from the first reading where it is empty.
        last: margin of each dress when it was read last: an evaluation between reads none.
    """

    weight: float = 0.2
    slack: float = 0.0
    start: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)

    def __call__(self, step: int, reading: Mapping[str, float]) -> dict[str, float]:
        """The score of a reading, higher is better; -1e6 where it cannot be told."""
        margins = {key: value for key, value in reading.items() if key.startswith(MARGIN)}
        if step == 0 or not self.start:
            finite = {key: value for key, value in margins.items() if math.isfinite(value)}
            self.start = {**finite, **self.start}
        self.last = {**self.last, **margins}
        return {SCORE: self._score(self.last, reading.get(LOSS)) if step else WORST}

    def _score(self, margins: Mapping[str, float], loss: float | None) -> float:
        if loss is None or not math.isfinite(loss) or not margins:
            return WORST
        falls = [
            self.start.get(key, margin) - self.slack - margin for key, margin in margins.items()
        ]
        if any(not math.isfinite(fall) for fall in falls):
            return WORST
        return -loss - self.weight * max(0.0, *falls, 0.0)
