"""What a plan gives: the rows of a step, of a grid, and what was drawn before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Step:
    """The rows of one optimizer step, sources spread evenly."""

    source: NDArray[np.int8]
    """int8[B]: index into `MixturePlan.sources`."""
    row: NDArray[np.int64]
    """int64[B]: row within its source."""
    counts: dict[str, int]
    """Rows per source; sums to B."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The rows of one optimizer step, split over micro steps and ranks."""

    source: NDArray[np.int8]
    """int8[micro steps, ranks, micro batch]."""
    row: NDArray[np.int64]
    """int64[micro steps, ranks, micro batch]."""


@dataclass(frozen=True, slots=True)
class Consumed:
    """What was drawn before a step."""

    rows: dict[str, int]
    """Rows drawn per source."""
    passes: dict[str, int]
    """Passes begun per source: 0 before the first row, 1 during the first pass."""

    def __getitem__(self, source: str) -> int:
        """Rows drawn of one source."""
        return self.rows[source]
