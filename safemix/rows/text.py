"""Bytes of a file as UTF-8 text, plain or gzip, with errors that name the file and the line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from safemix.errors import DataError

BOM: Final = b"\xef\xbb\xbf"
Record = Mapping[str, Any]
Numbered = Iterator[tuple[int, Record]]

_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


def reason(error: BaseException) -> str:
    """What a library says of an error, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def bytes_of(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unpacked, and turn what goes wrong while reading into one line."""
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path, "rb") as packed:
                yield cast(BinaryIO, packed)
        else:
            with path.open("rb") as plain:
                yield plain
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is not a whole gzip file: {reason(error)}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from error


def text_lines(path: Path) -> Iterator[str]:
    """Lines as text, each with its line end; a byte order mark is taken away."""
    with bytes_of(path) as stream:
        for number, line in enumerate(stream, 1):
            raw = line.removeprefix(BOM) if number == 1 else line
            yield decoded(raw, path, number)


def decoded(raw: bytes, path: Path, line: int) -> str:
    """Bytes as text; `line` is the number of the first line in them."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if line == 1 and raw.startswith(_UTF16):
            raise DataError(f"{path} is UTF-16, not UTF-8: save it as UTF-8") from None
        line += raw.count(b"\n", 0, error.start)
        raise DataError(
            f"{path} line {line}: byte 0x{raw[error.start]:02x} is not UTF-8: save it as UTF-8"
        ) from None
