"""The joined dataset: all sources end to end, each item tagged with where it came from."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from torch.utils.data import Dataset

from safemix.errors import DataError


class MixedDataset(Dataset[dict[str, Any]]):
    """Concatenation of the sources, in the plan's order of sources.

    Item `i` is the row's own mapping plus the integers `source` and `row`, which
    `SafeMixCollator` carries to the loss. Raises `IndexError` past the end, because some hosts
    measure a dataset by walking it.

    Args:
        sources: name -> map-style dataset of mappings (`messages`, or `input_ids` + `labels`).
    """

    def __init__(self, sources: Mapping[str, Any]) -> None:
        if not sources:
            raise DataError("a joined dataset needs at least one source")
        self.sources = dict(sources)
        self._parts: Sequence[Any] = list(sources.values())
        self._ends = list(accumulate(len(part) for part in self._parts))

    @property
    def sizes(self) -> dict[str, int]:
        """Rows per source, as `MixturePlan` takes them."""
        return {name: len(part) for name, part in self.sources.items()}

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is outside the {len(self)} rows of the mixture")
        source = bisect.bisect_right(self._ends, index)
        row = index - (self._ends[source - 1] if source else 0)
        return {**self._parts[source][row], "source": source, "row": row}
