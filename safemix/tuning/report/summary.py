"""The end of a sweep in the terminal: what to use, why, and the four sides of each trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from safemix.evaluate.report.words import SIDE_NAMES, printable
from safemix.evaluate.results import SIDES, Rate, Side
from safemix.tuning.records import TrialRecord
from safemix.tuning.report.html import sentence
from safemix.tuning.report.measures import (
    Level,
    by_ratio,
    choices,
    trial_ratio,
    utility,
    worst,
)

_WIDE: Final = 96  # columns that the table takes with counts and intervals in two lines
_HEADS: Final[dict[Side, str]] = {
    "safety": "ASR",
    "over_refusal": "refused",
    "coherence": "incoherent",
    "utility": "right",
}


def summary(
    records: Sequence[TrialRecord], recommended: TrialRecord | None, why: str
) -> RenderableType:
    """What to print with rich at the end.

    Args:
        records: all trials and baselines.
        recommended: one of the records, or None.
        why: plain sentences that say why, or why none.
    """
    return _Summary(tuple(records), recommended, why)


@dataclass(frozen=True)
class _Summary:
    """Takes its form from the width of the terminal."""

    records: tuple[TrialRecord, ...]
    recommended: TrialRecord | None
    why: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if any(record.outcomes for record in self.records):
            yield _table(self.records, self.recommended, narrow=options.max_width < _WIDE)
        missing = [r for r in by_ratio(self.records) if not r.outcomes]
        for record in missing:
            yield Text(printable(_missing(record)))
        if missing:
            yield Text()
        style = "bold yellow" if self.recommended is None else "bold green"
        yield Text.assemble((sentence(self.recommended), style), f" {printable(self.why)}")


def _table(
    records: Sequence[TrialRecord], recommended: TrialRecord | None, *, narrow: bool
) -> Table:
    result = Table(
        box=box.SIMPLE_HEAD,
        title=Text("Trials by ratio; the worst of all sets and dresses", style="bold"),
        title_justify="left",
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    result.add_column("trial", no_wrap=True)
    if not narrow:
        result.add_column("ratio", justify="right", overflow="fold")
    for side in SIDES:
        name = SIDE_NAMES[side]
        head = name if side == "utility" else f"{name}\n{_HEADS[side]}"
        result.add_column(head, justify="right", no_wrap=True)
    before = ""
    for record in by_ratio(records):
        if not record.outcomes:
            continue
        if before and before != "trial" and record.kind == "trial":
            result.add_section()
        before = record.kind
        best = recommended is not None and record.number == recommended.number
        # In a narrow terminal the ratio stands below the name, and choices in the report alone.
        first = [record.name, *([trial_ratio(record)] if narrow else [])]
        first += ["recommended"] if best else []
        cells = [Text("\n".join(first), style="bold green" if best else "")]
        cells += [] if narrow else [Text("\n".join([trial_ratio(record), *choices(record)]))]
        sides = (Text(_side(record, side, narrow=narrow)) for side in SIDES)
        result.add_row(*cells, *sides)
    return result


def _side(record: TrialRecord, side: Side, *, narrow: bool) -> str:
    if side == "utility":
        found = utility(record)
        # Of several tasks the counts stand in the report; their mean has none.
        tasks = [o.rate for o in record.side("utility") if o.rate.total]
        rate = tasks[0] if len(tasks) == 1 else None
        return _words(found, rate, narrow=narrow) if found is not None else "not measured"
    outcome = worst(record, side)
    if outcome is None:
        return "not measured"
    return _words(Level(outcome.rate.value, *outcome.rate.interval), outcome.rate, narrow=narrow)


def _words(found: Level, rate: Rate | None, *, narrow: bool) -> str:
    share = f"{100 * found.value:.1f} %"
    ends = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
    count = f"{rate.count}/{rate.total}" if rate is not None else "mean"
    if narrow:
        return f"{share}\n{count}\n{ends.replace(' to ', '-')}"
    return f"{share} ({count})\n{ends}"


def _missing(record: TrialRecord) -> str:
    reason = f": {record.reason}" if record.reason else ""
    at = f" at step {record.step} of {record.max_steps}" if record.step else ""
    return f"{record.name} ({trial_ratio(record)}): {record.status}{at}{reason}"
