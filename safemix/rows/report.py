"""What reading a source has found: rows read, kept, and skipped with their reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

SHOWN: Final = 20
# Reasons can quote the data (an unknown role); a broken file must not fill the memory with them.
_MAX_REASONS: Final = 50
_OTHER: Final = "other reasons"


@dataclass(frozen=True)
class ReadReport:
    """Counts of one source.

    Attributes:
        where: the file, dataset or built-in data read.
        read: rows looked at.
        kept: rows that can be used.
        skipped: reason -> rows.
        first: reason -> numbers of the first rows with it, at most `SHOWN`, from 1.
        unit: what the numbers count: lines of a file or rows.
    """

    where: str
    read: int
    kept: int
    skipped: Mapping[str, int]
    first: Mapping[str, tuple[int, ...]]
    unit: str = "row"

    def lines(self) -> list[str]:
        """Short lines for a person: the counts, then one line a reason, the most frequent first."""
        head = f"{self.where}: {self.read} rows read, {self.kept} kept"
        if self.read > self.kept:
            head += f", {self.read - self.kept} skipped"
        lines = [head]
        for reason, count in sorted(self.skipped.items(), key=lambda item: (-item[1], item[0])):
            numbers = self.first[reason]
            more = ", ..." if count > len(numbers) else ""
            unit = self.unit + ("s" if count > 1 else "")
            lines.append(f"  {count} x {reason} ({unit} {', '.join(map(str, numbers))}{more})")
        return lines


@dataclass
class Tally:
    """Counts rows while they are read."""

    read: int = 0
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[int]] = field(default_factory=dict)

    def skip(self, reason: str, number: int) -> None:
        """Count a row that cannot be used."""
        if reason not in self.skipped and len(self.skipped) >= _MAX_REASONS:
            reason = _OTHER
        self.skipped[reason] += 1
        numbers = self.first.setdefault(reason, [])
        if len(numbers) < SHOWN:
            numbers.append(number)

    def report(self, where: str, unit: str) -> ReadReport:
        """The counts, frozen."""
        first = {reason: tuple(numbers) for reason, numbers in self.first.items()}
        return ReadReport(where, self.read, self.kept, dict(self.skipped), first, unit)
