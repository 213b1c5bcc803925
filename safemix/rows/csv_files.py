"""Records of a CSV file with a header, comma-separated, quoted as RFC 4180 has it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from safemix.errors import DataError
from safemix.rows.text import Numbered, text_lines

# One CSV field may hold a whole document; the default of the csv module is 128 KiB.
_CSV_FIELD_BYTES: Final = 2**31 - 1


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV file with the line each starts on; blank lines are passed over."""
    csv.field_size_limit(max(csv.field_size_limit(), _CSV_FIELD_BYTES))
    reader = csv.reader(text_lines(path), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path} line {line}: broken CSV: {error}") from None
        if row:
            yield line, row


def csv_header(path: Path) -> tuple[str, ...]:
    """The columns."""
    _, header = next(_csv_rows(path), (0, []))
    if not header:
        raise DataError(f"{path} is empty")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataError(f"{path}: column {twice[0]!r} stands twice in the header")
    return tuple(header)


def read_csv(path: Path, header: tuple[str, ...]) -> Numbered:
    """Records with the line that each starts on; a row of another length stops with an error."""
    rows = _csv_rows(path)
    next(rows)
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"{path} line {line}: {len(row)} fields, but the header has {len(header)}: "
                'put a field with a comma or a line break in "quotes"'
            )
        yield line, dict(zip(header, row, strict=True))
