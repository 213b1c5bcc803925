"""Keeping messages as an Arrow table outside the heap, and their fingerprint.

Rows are written in batches to a file without a name in the temporary folder (TMPDIR), which is
then mapped into memory: nothing stale can be read later, nothing is left behind even by a kill,
and the system may drop the pages while it needs the memory elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import tempfile
from contextlib import suppress
from typing import Any, Final, Self

import datasets
import pyarrow as pa
from datasets.table import InMemoryTable

from safemix.errors import DataError
from safemix.rows.schema import Message

MESSAGE: Final = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA: Final = pa.schema([("messages", pa.list_(MESSAGE))])

_BATCH_ROWS: Final = 4096
# Characters; a batch of four-byte characters stays far below Arrow's 2 GiB of text.
_BATCH_CHARACTERS: Final = 8 * 2**20
_canonical = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


class MessageStore:
    """Takes rows one by one and gives them back as a dataset."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._rows = 0
        self._clear()

    def __enter__(self) -> Self:
        try:
            self._file = tempfile.TemporaryFile(prefix="safemix-rows-")
        except OSError as error:
            raise _no_room(error) from error
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, "w"), SCHEMA)
        return self

    def __exit__(self, *_: object) -> None:
        # What is left in the buffer after a full disk cannot be written, and is not wanted.
        with suppress(OSError):
            self._file.close()

    def __len__(self) -> int:
        return self._rows

    def add(self, messages: list[Message]) -> None:
        """Append one row.

        Raises:
            DataError: if the temporary folder is full.
        """
        self._hash.update(_canonical(messages).encode("utf-8"))
        self._hash.update(b"\n")
        self._rows += 1
        for message in messages:
            self._roles.append(message["role"])
            self._contents.append(message["content"])
            self._characters += len(message["content"])
        self._offsets.append(len(self._roles))
        if len(self._offsets) > _BATCH_ROWS or self._characters > _BATCH_CHARACTERS:
            self._flush()

    def finish(self) -> tuple[Any, str]:
        """The dataset with its one column `messages`, and the fingerprint (sha256, hex).

        The fingerprint covers content and order of the rows alone: each row as JSON with sorted
        keys, UTF-8, one a line.
        """
        self._flush()
        try:
            self._writer.close()
            self._file.flush()
            # The mapping outlives the file object; the table holds it.
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            table = pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()
        except OSError as error:
            raise _no_room(error) from error
        fingerprint = self._hash.hexdigest()
        return datasets.Dataset(InMemoryTable(table), fingerprint=fingerprint), fingerprint

    def _flush(self) -> None:
        if len(self._offsets) == 1:
            return
        turns = pa.StructArray.from_arrays(
            [pa.array(self._roles, pa.string()), pa.array(self._contents, pa.string())],
            fields=list(MESSAGE),
        )
        rows = pa.ListArray.from_arrays(pa.array(self._offsets, pa.int32()), turns)
        try:
            self._writer.write_batch(pa.record_batch([rows], schema=SCHEMA))
        except OSError as error:
            raise _no_room(error) from error
        self._clear()

    def _clear(self) -> None:
        self._roles: list[str] = []
        self._contents: list[str] = []
        self._offsets = [0]
        self._characters = 0


def _no_room(error: OSError) -> DataError:
    return DataError(
        f"cannot keep rows in the temporary folder {tempfile.gettempdir()}: "
        f"{error.strerror or error}: free some space or set TMPDIR to another folder"
    )
