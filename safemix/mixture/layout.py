"""Which rows of a step go to which (rank, micro step) cell: dealt out like cards.

The rows of a step have an index 0..B-1, source after source. They are dealt round the cells one
by one, so each source, being a run of neighbours, reaches any two cells in numbers that differ
by at most one, and each cell gets the same number of rows. With two sources dealing starts at
the cell where the first source stopped in the step before: its rows, and so the other's, go
round all cells evenly over the whole run, whatever ratio and world size are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safemix.mixture.permutation import mix


def first_cells(
    cumulative: NDArray[np.int64], first_step: int, cells: int, key: int
) -> NDArray[np.int64]:
    """The cell at which dealing starts, for each of T steps.

    Args:
        cumulative: int64[T + 1, S], rows drawn per source before each step.
        first_step: step of the first row of `cumulative`.
        cells: micro steps x ranks.
        key: 64-bit key of the plan's seed.

    Returns:
        int64[T], each in [0, cells).
    """
    steps, sources = cumulative.shape[0] - 1, cumulative.shape[1]
    if sources <= 2:
        return cumulative[:-1, 0] % cells
    # Going on where the first source stopped can pin a third source to one cell for ever
    # (whenever the first source's count is a multiple of the cells). A seeded draw cannot.
    numbers = np.arange(first_step, first_step + steps, dtype=np.int64).astype(np.uint64)
    return (mix(numbers + np.uint64(key)) % np.uint64(cells)).astype(np.int64)


def deal(
    starts: NDArray[np.int64], chosen: NDArray[np.int64], cells: int, rows_per_cell: int
) -> NDArray[np.int64]:
    """Indices within the step of the rows dealt to some cells.

    Args:
        starts: int64[T], see `first_cells`.
        chosen: int64[C], the cells wanted.
        cells: micro steps x ranks.
        rows_per_cell: the micro batch.

    Returns:
        int64[T, C, rows_per_cell], each in [0, cells * rows_per_cell).
    """
    round_0 = (chosen[None, :] - starts[:, None]) % cells
    return round_0[:, :, None] + np.arange(rows_per_cell, dtype=np.int64) * cells


def spread(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order of a step's rows in which every source is spread evenly.

    Args:
        counts: int64[S], rows of each source in the step.

    Returns:
        int64[B]: indices within the step; the k-th of n rows of a source stands near
        (k + 1/2) / n of the way.
    """
    place = np.concatenate([(np.arange(n) + 0.5) / n for n in counts if n] or [np.empty(0)])
    return np.argsort(place, kind="stable").astype(np.int64)
