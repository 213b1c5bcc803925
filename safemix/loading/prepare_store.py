"""Encoded rows on disk or in memory: Arrow, read in place, with labels kept as spans.

A row is stored as its token ids and the (start, end) pairs of its trained tokens, about half of
what ids and labels take. Rows lie in Arrow batches of equal size, so that row `i` is found
without a search, and each process maps the file instead of reading it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from safemix.loading.encode import IGNORE

BATCH_ROWS = 1024
SCHEMA = pa.schema(
    [("input_ids", pa.list_(pa.int32())), ("spans", pa.list_(pa.int32())), ("row", pa.int64())]
)


@dataclass(frozen=True)
class _Columns:
    ids: np.ndarray
    ids_at: np.ndarray
    spans: np.ndarray
    spans_at: np.ndarray


def trained_spans(labels: list[int]) -> list[int]:
    """Trained tokens as a flat list: start, end, start, end, ... (end exclusive)."""
    is_trained = np.asarray(labels) != IGNORE
    edges = np.flatnonzero(np.diff(is_trained, prepend=False, append=False))
    return [int(edge) for edge in edges]


def record_batches(rows: Iterable[tuple[list[int], list[int], int]]) -> Iterator[pa.RecordBatch]:
    """Arrow batches of `BATCH_ROWS` rows, the last one shorter.

    Args:
        rows: (input ids, trained spans, row number).
    """
    ids: list[list[int]] = []
    spans: list[list[int]] = []
    numbers: list[int] = []
    for row_ids, row_spans, number in rows:
        ids.append(row_ids)
        spans.append(row_spans)
        numbers.append(number)
        if len(ids) == BATCH_ROWS:
            yield pa.record_batch([ids, spans, numbers], schema=SCHEMA)
            ids, spans, numbers = [], [], []
    if ids:
        yield pa.record_batch([ids, spans, numbers], schema=SCHEMA)


def write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    """Write batches as an Arrow file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(batch)


class EncodedRows:
    """Map-style dataset of encoded rows.

    Item `i` is `{"input_ids": int64 [n], "labels": int64 [n]}`, numpy arrays of its own. Pickles
    as a path where it lies on disk, so that workers map the same file.

    Args:
        source: Arrow file, or batches in memory.

    Raises:
        OSError, pyarrow.ArrowInvalid: if the file cannot be read.
    """

    def __init__(self, source: Path | list[pa.RecordBatch]) -> None:
        self._source = source
        self._open()

    def _open(self) -> None:
        self._cache: dict[int, _Columns] = {}
        if isinstance(self._source, Path):
            self._reader = pa.ipc.open_file(pa.memory_map(str(self._source)))
            self._batches = self._reader.num_record_batches
            self._read = self._reader.get_batch
        else:
            self._batches = len(self._source)
            self._read = self._source.__getitem__
        last = self._read(self._batches - 1).num_rows if self._batches else 0
        self._length = max(self._batches - 1, 0) * BATCH_ROWS + last

    def __getstate__(self) -> dict[str, Any]:
        return {"_source": self._source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._source = state["_source"]
        self._open()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < self._length:
            raise IndexError(f"row {index} is outside the {self._length} rows")
        number, at = divmod(index, BATCH_ROWS)
        columns = self._cache.get(number) or self._columns(number)
        begin, end = columns.ids_at[at], columns.ids_at[at + 1]
        ids = columns.ids[begin:end].astype(np.int64)
        labels = np.full(len(ids), IGNORE, np.int64)
        spans = columns.spans[columns.spans_at[at] : columns.spans_at[at + 1]].tolist()
        for start, stop in zip(spans[::2], spans[1::2], strict=True):
            labels[start:stop] = ids[start:stop]
        return {"input_ids": ids, "labels": labels}

    def row_ids(self) -> np.ndarray:
        """Row number of each encoded row in the source it was made from, int64 [rows]."""
        parts = [self._read(n).column(2).to_numpy() for n in range(self._batches)]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _columns(self, number: int) -> _Columns:
        batch = self._read(number)
        ids, spans = batch.column(0), batch.column(1)
        self._cache[number] = _Columns(
            ids.values.to_numpy(),
            ids.offsets.to_numpy(),
            spans.values.to_numpy(),
            spans.offsets.to_numpy(),
        )
        return self._cache[number]
