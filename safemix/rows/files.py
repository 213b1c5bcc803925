"""Reading records from a file, one at a time: JSONL, JSON, CSV and Parquet.

Nothing here knows of chats.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from safemix.errors import DataError
from safemix.rows.csv_files import csv_header, read_csv
from safemix.rows.json_files import is_json_lines, read_json, read_jsonl
from safemix.rows.text import Numbered, reason

SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class Records:
    """Records of one place, not yet read.

    Attributes:
        where: the place, for errors.
        unit: what the numbers of records count.
        columns: known columns, or None where only the records tell.
        read: gives the (number, record) pairs; takes the columns needed, a hint that a format
            in columns uses to load less.
    """

    where: str
    unit: Literal["line", "row"]
    columns: tuple[str, ...] | None
    read: Callable[[Collection[str]], Numbered]


def open_file(given: str) -> Records:
    """Find out the format of a file by its name, and prepare to read it.

    Raises:
        DataError: if there is no such file, it is empty, or its kind is unknown.
    """
    path = local_path(given)
    _check_file(path)
    suffixes = [s.lower() for s in path.suffixes[-2:]]
    packed = suffixes[-1:] == [".gz"]
    suffix = (suffixes[:-1] if packed else suffixes)[-1:] or [""]
    if suffix[0] not in SUFFIXES or (packed and suffix[0] == ".parquet"):
        raise DataError(
            f"{path}: unknown kind of file {path.suffix!r}: "
            f"legal are {', '.join(SUFFIXES)}, and .gz of the text formats"
        )
    if suffix[0] == ".parquet":
        return _open_parquet(path)
    if suffix[0] == ".csv":
        header = csv_header(path)
        return Records(str(path), "line", header, lambda _: read_csv(path, header))
    if suffix[0] == ".json" and not is_json_lines(path):
        return Records(str(path), "row", None, lambda _: read_json(path))
    return Records(str(path), "line", None, lambda _: read_jsonl(path))


def local_path(given: str) -> Path:
    """A path of the user, with `~` resolved where that can be done."""
    try:
        return Path(given).expanduser()
    except RuntimeError:
        return Path(given)


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder: give a file in it, or the folder as `hub:`")
        if not path.exists():
            raise DataError(f"{path}: no such file{_near(path)}")
        if not path.is_file():
            raise DataError(f"{path} is not a regular file")
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty")
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{str(path)!r} cannot be read: {reason(error)}") from error


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor is there a folder {path.parent})"
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=3)
    return f", did you mean {' or '.join(near)}?" if near else f" in {path.parent.resolve()}"


def _open_parquet(path: Path) -> Records:
    try:
        with pq.ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a Parquet file: {reason(error)}") from error
    return Records(str(path), "row", columns, lambda needed: _read_parquet(path, needed))


def _read_parquet(path: Path, needed: Collection[str]) -> Numbered:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024, columns=list(needed)):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} row {number + 1}: broken Parquet: {reason(error)}") from error
