"""How much of the task's dress each row gets: none, its wrapper alone, or the whole layout.

`plain_share` of the rows stay as they are, `wrapper_share` stand bare in the task's wrapper, and
the rest is mimicked. Each row is in one of the three parts, so nothing is taught twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from math import ceil, floor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from safemix.mitigation.rewrite import each_row, with_rows
from safemix.mitigation.wrapper import find_wrappers, wrap_all
from safemix.rows.read import SourceRows
from safemix.rows.schema import Message

if TYPE_CHECKING:
    from safemix.mitigation.mimic.pipeline import MimicOptions
    from safemix.mitigation.mimic.report import MimicReport


@dataclass(frozen=True)
class Levels:
    """Which part of the rows gets how much of the dress.

    Attributes:
        options: of mimicry, for the part in the whole layout.
        plain: part of the rows that stays as it is, in [0, 1).
        wrapper: part that stands in the task's wrapper alone, in [0, 1); the two together below 1.
    """

    options: MimicOptions
    plain: float = 0.0
    wrapper: float = 0.0


def dress_rows(
    task: SourceRows, rows: SourceRows, levels: Levels, cache: Path | None
) -> tuple[SourceRows, MimicReport, list[str]]:
    """Rows in their dresses, one part after the other: the plan draws in an order of its own.

    A task without a wrapper leaves none to put rows in: they get the whole layout then.

    Returns:
        The rows; the report of mimicry; a line for each of the other two parts.

    Raises:
        DataError: if no row could be mimicked.
    """
    from safemix.mitigation.mimic.api import mimic_source

    count, seed = len(rows), levels.options.seed
    plain, rest = split_part(rows, levels.plain, f"plain rows {seed}")
    wrappers = find_wrappers(each_row(task)) if levels.wrapper else []
    bare = None
    if wrappers:
        share = Fraction(str(levels.wrapper)) / (1 - Fraction(str(levels.plain)))
        bare, rest = split_part(rest, share, f"wrapper rows {seed}")
    made, report = mimic_source(task, rest, levels.options, cache)
    lines = []
    parts = []
    if plain is not None:
        lines.append(f"plain_share: {len(plain)} of {count} rows stay as they are")
        parts.append(each_row(plain))
    if bare is not None:
        lines.append(f"wrapper_share: {len(bare)} of {count} rows stand in the task's wrapper")
        parts.append(iter(wrap_all(each_row(bare), wrappers, seed)))
    elif levels.wrapper and not wrappers:
        lines.append("wrapper_share: nothing stands around every request of the task: not used")
    if not parts:
        return made, report, lines
    return with_rows(rows, chain(*parts, each_row(made))), report, lines


def part_places(rows: int, share: float | Fraction, salt: str) -> list[int]:
    """Which rows belong to a part: one at random out of every 1/share rows.

    Every n-th row would not do: the categories of a source often take turns, so that the part
    would hold only some of them.

    Args:
        rows: of the source.
        share: of the part, in [0, 1).
        salt: another one gives another choice.

    Returns:
        Places from 0, in order; floor(share x rows) of them.

    Example:
        >>> len(part_places(336, 0.25, "plain rows 0"))
        84
    """
    part = Fraction(str(share))
    if not part:
        return []
    rng = Random(f"safemix {salt}")
    ends = [ceil(k / part) for k in range(floor(rows * part) + 1)]
    # A block ends where the share of the rows so far reaches the next whole number.
    return [rng.randrange(begin, end) for begin, end in pairwise(ends)]


def split_part(
    rows: SourceRows, share: float | Fraction, salt: str
) -> tuple[SourceRows | None, SourceRows]:
    """A source as a part of it, None if that is empty, and the rest."""
    places = frozenset(part_places(len(rows), share, salt))
    if not places:
        return None, rows

    def some(wanted: bool) -> Iterator[list[Message]]:
        return (row for n, row in enumerate(each_row(rows)) if (n in places) == wanted)

    return with_rows(rows, some(True)), with_rows(rows, some(False))
