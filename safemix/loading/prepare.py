"""Encode a source once, before training, and keep the result by its content.

The folder of a source is named after all that decides its tokens: the rows, the tokenizer, the
template, the lengths. It appears whole or not at all, so several processes can share it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from safemix.errors import DataError
from safemix.loading.encode import Encoder
from safemix.loading.prepare_store import (
    EncodedRows,
    record_batches,
    trained_spans,
    write_batches,
)

SHOWN = 20
_ROWS_FILE = "rows.arrow"
_REPORT_FILE = "report.json"
_FORMAT = 1
# Reasons may quote a template; a broken source must not fill the memory with them.
_MAX_REASONS = 50
_OTHER = "other reasons"


class Rows(Protocol):
    """What is needed of `safemix.rows.read.SourceRows`."""

    @property
    def name(self) -> str:
        """Name of the source."""

    @property
    def dataset(self) -> Any:
        """A `datasets.Dataset` with the column `messages`."""

    @property
    def fingerprint(self) -> str:
        """Hash of the rows and their order."""


@dataclass(frozen=True)
class EncodeReport:
    """Counts of one source.

    Attributes:
        rows: rows given.
        kept: rows encoded.
        cut_rows: kept rows that were over-long and cut.
        cut_tokens: tokens removed from them.
        dropped: reason -> rows.
        first_dropped: reason -> numbers of the first rows with it, from 0, at most `SHOWN`.
        trained_tokens: tokens with a label, in the kept rows.
        prompt_tokens: tokens without one.
    """

    rows: int
    kept: int
    cut_rows: int
    cut_tokens: int
    dropped: Mapping[str, int]
    first_dropped: Mapping[str, tuple[int, ...]]
    trained_tokens: int
    prompt_tokens: int

    @property
    def mean_trained_tokens(self) -> float:
        """Trained tokens of a kept row, on average."""
        return self.trained_tokens / self.kept if self.kept else 0.0

    def lines(self) -> list[str]:
        """Short lines for a person: the counts, then one line a reason."""
        head = (
            f"{self.kept} of {self.rows} rows encoded, {self.trained_tokens} trained tokens "
            f"(mean {self.mean_trained_tokens:.1f} a row), {self.prompt_tokens} prompt tokens"
        )
        if self.cut_rows:
            head += f", {self.cut_rows} over-long rows cut by {self.cut_tokens} tokens"
        return [head, *(f"  dropped {reason}" for reason in self.reasons())]

    def reasons(self) -> list[str]:
        """Why rows were dropped, the most frequent reason first."""
        found = []
        for reason, count in sorted(self.dropped.items(), key=lambda item: (-item[1], item[0])):
            numbers = self.first_dropped[reason]
            more = ", ..." if count > len(numbers) else ""
            found.append(f"{count} x {reason} (from 0: {', '.join(map(str, numbers))}{more})")
        return found


@dataclass(frozen=True)
class EncodedSource:
    """The encoded rows of one source.

    Attributes:
        name: of the source.
        rows: map-style dataset of `input_ids` and `labels`.
        row_ids: number of each of them in the source as it was read, from 0, int64 [kept].
        report: what was kept, cut and dropped.
        path: folder they lie in; None if they are in memory.
    """

    name: str
    rows: EncodedRows
    row_ids: np.ndarray
    report: EncodeReport
    path: Path | None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class _Tally:
    rows: int = 0
    kept: int = 0
    cut_rows: int = 0
    cut_tokens: int = 0
    trained_tokens: int = 0
    prompt_tokens: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    first_dropped: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def drop(self, reason: str, number: int) -> None:
        if reason not in self.dropped and len(self.dropped) >= _MAX_REASONS:
            reason = _OTHER
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        first = self.first_dropped.get(reason, ())
        if len(first) < SHOWN:
            self.first_dropped[reason] = (*first, number)

    def report(self) -> EncodeReport:
        return EncodeReport(**asdict(self))


def prepare_source(rows: Rows, encoder: Encoder, cache_dir: Path | None) -> EncodedSource:
    """Encode all rows of a source, or find them in the cache.

    Args:
        rows: the source.
        encoder: how rows become tokens.
        cache_dir: folder for the encoded rows, safe to share between processes; None keeps
            them in memory.

    Raises:
        DataError: if no row can be used, naming counts and reasons; if the cache cannot be
            written or is damaged.
    """
    tally = _Tally()
    if cache_dir is None:
        batches = list(record_batches(_encode(rows, encoder, tally)))
        _check_any(rows.name, tally.report())
        encoded = EncodedRows(batches)
        return EncodedSource(rows.name, encoded, encoded.row_ids(), tally.report(), None)
    key = f"{_FORMAT}:{rows.fingerprint}:{encoder.fingerprint()}"
    folder = cache_dir / f"rows-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    if not folder.exists():
        try:
            _write(rows, encoder, folder, tally)
        except OSError as error:
            raise DataError(
                f"{rows.name}: encoded rows cannot be written to {cache_dir}: {error.strerror}: "
                "make room there, or use another folder"
            ) from error
    return load_encoded(rows.name, folder)


def load_encoded(name: str, path: Path) -> EncodedSource:
    """Open what `prepare_source` wrote.

    Args:
        name: of the source.
        path: its folder, `EncodedSource.path`.

    Raises:
        DataError: if the folder is not there or damaged.
    """
    try:
        tree = json.loads((path / _REPORT_FILE).read_text("utf-8"))
        first = {reason: tuple(numbers) for reason, numbers in tree["first_dropped"].items()}
        report = EncodeReport(**{**tree, "first_dropped": first})
        encoded = EncodedRows(path / _ROWS_FILE)
        row_ids = encoded.row_ids()
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(
            f"{name}: encoded rows in {path} cannot be read ({type(error).__name__}): "
            "delete that folder; it will be made again"
        ) from error
    if len(encoded) != report.kept:
        raise DataError(
            f"{name}: encoded rows in {path} are damaged: {len(encoded)} rows, expected "
            f"{report.kept}: delete that folder; it will be made again"
        )
    return EncodedSource(name, encoded, row_ids, report, path)


def _write(rows: Rows, encoder: Encoder, folder: Path, tally: _Tally) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each writer: what a killed one leaves is never taken for a result.
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    draft.mkdir()
    try:
        write_batches(draft / _ROWS_FILE, record_batches(_encode(rows, encoder, tally)))
        report = tally.report()
        _check_any(rows.name, report)
        (draft / _REPORT_FILE).write_text(json.dumps(asdict(report), indent=1), "utf-8")
        for file in draft.iterdir():
            _to_disk(file)
        try:
            draft.rename(folder)
        except OSError:
            # Another process was quicker; its folder has the same content by its name.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _to_disk(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(
    rows: Rows, encoder: Encoder, tally: _Tally
) -> Iterator[tuple[list[int], list[int], int]]:
    """Encode row by row, counting in `tally`; yields what `record_batches` takes."""
    for batch in rows.dataset.iter(batch_size=1024):
        for messages in batch["messages"]:
            number = tally.rows
            tally.rows += 1
            encoded = encoder.encode(messages)
            if encoded.reason is not None:
                tally.drop(encoded.reason, number)
                continue
            tally.kept += 1
            tally.cut_rows += encoded.cut > 0
            tally.cut_tokens += encoded.cut
            tally.trained_tokens += encoded.trained
            tally.prompt_tokens += len(encoded.input_ids) - encoded.trained
            yield encoded.input_ids, trained_spans(encoded.labels), number


def _check_any(name: str, report: EncodeReport) -> None:
    if report.kept:
        return
    why = "; ".join(report.reasons()) or "the source is empty"
    raise DataError(f"{name}: none of {report.rows} rows can be used: {why}")
