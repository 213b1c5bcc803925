"""`trials.csv`: one line a trial, to be opened in a spreadsheet without harm."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from safemix.evaluate.report.words import printable
from safemix.tuning.records import Outcome, TrialRecord
from safemix.tuning.report.measures import point_words

Cell = str | int | float | None
_FIRST: Final = ("number", "kind", "ratio")
_LAST: Final = ("status", "reason", "step", "max_steps", "rows", "seconds", "restarts")
_PARTS: Final = ("value", "count", "total", "low", "high")
# What begins a formula in a spreadsheet, full-width forms included (OWASP, "CSV injection").
_FORMULA: Final = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def write_csv(path: str | os.PathLike[str], records: Sequence[TrialRecord]) -> None:
    """Write the table whole or not at all.

    Columns: number, kind, ratio, `point/KEY` for each key that the search chose, status, reason,
    step, max_steps, rows, seconds, restarts, and for each outcome `KEY/value`, `/count`, `/total`,
    `/low`, `/high` (95 %, Wilson). An empty cell is a number that there is not. Texts stand in
    quotes; one that a spreadsheet would take for a formula begins with an apostrophe.

    Args:
        path: the file; replaced whole. UTF-8.
        records: in the order of the lines.

    Raises:
        OSError: if it cannot be written.
    """
    from safemix.evaluate.report.figures import replaced  # matplotlib

    chosen = list(dict.fromkeys(key for record in records for key in record.point))
    measured = list(dict.fromkeys(o.key for record in records for o in record.outcomes))
    heads: list[Cell] = [*_FIRST, *(f"point/{key}" for key in chosen), *_LAST]
    heads += [f"{key}/{part}" for key in measured for part in _PARTS]
    with replaced(Path(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as to:
        # Quotes around every text: a comma or semicolon in it begins no new cell.
        writer = csv.writer(to, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writerow([_safe(head) for head in heads])
        for record in records:
            writer.writerow([_safe(cell) for cell in _line(record, chosen, measured)])


def _line(record: TrialRecord, chosen: Sequence[str], measured: Sequence[str]) -> list[Cell]:
    cells: list[Cell] = [record.number, record.kind, record.ratio]
    cells += [_value(record.point[key]) if key in record.point else None for key in chosen]
    cells += [record.status, record.reason, record.step, record.max_steps, record.rows]
    cells += [record.seconds, record.restarts]
    found = {outcome.key: outcome for outcome in record.outcomes}
    for key in measured:
        cells += _numbers(found.get(key))
    return cells


def _value(value: Any) -> Cell:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return point_words(value)


def _numbers(outcome: Outcome | None) -> list[Cell]:
    if outcome is None:
        return [None] * len(_PARTS)
    rate = outcome.rate
    low, high = rate.interval
    return [rate.value, rate.count, rate.total, low, high]


def _safe(cell: Cell) -> Cell:
    """Text that runs nothing and holds no line break; no nan."""
    if isinstance(cell, str):
        text = printable(cell)
        return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
