"""From places in a step to rows of sources."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from safemix.mixture.permutation import permute


def resolve(
    cumulative: NDArray[np.int64], index: NDArray[np.int64], sources: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Source and row of indices within steps.

    Args:
        cumulative: int64[T + 1, S], rows drawn per source before each step.
        index: int64[T, ...], places in each step, 0..B-1, source after source.
        sources: per source its size and its 64-bit key.

    Returns:
        Source int8 and row within the source int64, both of the shape of `index`.
    """
    steps = index.shape[0]
    bounds = np.cumsum(np.diff(cumulative, axis=0), axis=1)
    flat = index.reshape(steps, -1)
    source = np.zeros(flat.shape, dtype=np.int8)
    for s in range(len(sources) - 1):
        source += flat >= bounds[:, s : s + 1]
    row = np.empty(flat.shape, dtype=np.int64)
    for s, (size, key) in enumerate(sources):
        at_step, _ = where = np.nonzero(source == s)
        if not at_step.size:
            continue
        first = bounds[at_step, s - 1] if s else 0
        ordinal = cumulative[at_step, s] + flat[where] - first
        passes, position = np.divmod(ordinal, size)
        if passes[0] == passes[-1] and (passes == passes[0]).all():
            passes = passes[:1]
        row[where] = permute(position, size, key, passes)
    return source.reshape(index.shape), row.reshape(index.shape)
