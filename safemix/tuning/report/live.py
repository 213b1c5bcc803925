"""What the terminal shows while a sweep runs: a table, or a line a change in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from safemix.evaluate.report.words import printable
from safemix.tuning.records import ENDED, Status, TrialRecord
from safemix.tuning.report.measures import (
    duration,
    last_margin,
    ratio_words,
    trial_ratio,
    utility,
    worst,
)
from safemix.tuning.report.summary import summary
from safemix.tuning.report.time_left import TimeLeft

__all__ = ["LiveTable", "summary"]

_STYLES: Final[dict[Status, str]] = {
    "running": "cyan", "done": "green", "stopped": "yellow", "failed": "bold red", "waiting": "dim",
}  # fmt: skip
_MOST_ROWS: Final = 24
_AROUND: Final = 7  # lines of headings, counts and the shell's prompt
_WIDE: Final = 76  # columns from which the time of a trial is shown, and its reason


class LiveTable:
    """Shows how a sweep stands.

    In a terminal it is a table that is drawn again at each update: running trials first, then
    those that ended last. Elsewhere it is one plain line for each change.

    Args:
        total: trials of the sweep, baselines included.
        max_steps: of a whole trial.
        console: where to; standard output unless given.
        clock: seconds that do not jump.

    Example:
        >>> with LiveTable(total=8, max_steps=60) as table:
        ...     table.update([])
    """

    def __init__(
        self,
        total: int,
        max_steps: int,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console if console is not None else Console()
        self._total, self._clock = total, clock
        self._left = TimeLeft(total, max_steps)
        self._live: Live | None = None
        self._before: dict[int, TrialRecord] = {}
        self._ended: list[int] = []  # numbers, the newest last

    def __enter__(self) -> LiveTable:
        if self._console.is_terminal:
            # Drawn at updates alone: no thread of its own beside Ray's.
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Take the newest state of all trials."""
        seconds = self._left.estimate(records, self._clock())
        self._note_ended(records)
        counts = count_words(records, self._total)
        left = left_words(records, self._total, seconds)
        if self._live is not None:
            self._live.update(self._draw(records, counts, left), refresh=True)
        else:
            for record in records:
                change = _change(self._before.get(record.number), record)
                if change:
                    # One line whatever the width: a log is searched by lines.
                    line = f"safemix: {change}; {counts}; {left}"
                    self._console.print(Text(line), soft_wrap=True)
        self._before = {record.number: record for record in records}

    def _note_ended(self, records: Sequence[TrialRecord]) -> None:
        ended = [r.number for r in records if r.status in ENDED]
        self._ended = [n for n in self._ended if n in ended]  # one may be taken up again
        self._ended += [n for n in ended if n not in self._ended]

    def _draw(self, records: Sequence[TrialRecord], counts: str, left: str) -> Group:
        numbers = {record.number: record for record in records}
        running = [record for record in records if record.status == "running"]
        ended = [numbers[number] for number in reversed(self._ended)]
        room = max(3, min(_MOST_ROWS, self._console.height - _AROUND))
        shown = [*running, *ended][:room]
        hidden = len(running) + len(ended) - len(shown)
        table = _table(shown, wide=self._console.width >= _WIDE)
        parts: list[RenderableType] = [table, Text(counts), Text(left)]
        if hidden:
            parts.insert(1, Text(f"and {hidden} more that began", style="dim"))
        return Group(*parts)


def count_words(records: Sequence[TrialRecord], total: int) -> str:
    """How many are done, running and so on; those not asked for yet are waiting."""
    states = [record.status for record in records]
    waiting = states.count("waiting") + max(0, total - len(states))
    parts = [f"{states.count('done')} of {max(total, len(states))} done"]
    parts += [f"{states.count('running')} running", f"{waiting} waiting"]
    parts += [f"{states.count('stopped')} stopped"] if "stopped" in states else []
    parts.append(f"{states.count('failed')} failed")
    return ", ".join(parts)


def left_words(records: Sequence[TrialRecord], total: int, seconds: float | None) -> str:
    """The time left in words."""
    if len(records) >= total and all(record.status in ENDED for record in records):
        return "all ended"
    if seconds is None:
        return "time left: unknown"
    return f"time left: about {duration(seconds)}" if seconds else "time left: evaluation alone"


def _table(records: Sequence[TrialRecord], *, wide: bool) -> Table:
    # Expanded, so that it is the reasons that are cut, and not the numbers.
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, expand=wide
    )
    table.add_column("trial", no_wrap=True)
    for head in ("ratio", "step", "safety", "utility"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    if wide:
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
    for record in records:
        good = utility(record)
        cells = [
            Text(record.name),
            Text(trial_ratio(record)),
            Text(_step(record)),
            Text(safety_words(record)),
            Text(f"{100 * good.value:.1f} %" if good else ""),
            Text(record.status, style=_STYLES[record.status]),
        ]
        if wide:
            cells += [Text(duration(record.seconds)), Text(printable(_note(record)), style="dim")]
        table.add_row(*cells)
    return table


def safety_words(record: TrialRecord) -> str:
    """The worst ASR once it was evaluated, before that the newest margin in nats."""
    outcome = worst(record, "safety")
    if outcome is not None:
        return f"ASR {100 * outcome.rate.value:.1f} %"
    found = last_margin(record)
    return f"margin {found:+.2f}" if found is not None else ""


def _step(record: TrialRecord) -> str:
    return f"{record.step}/{record.max_steps}" if record.max_steps else str(record.step)


def _note(record: TrialRecord) -> str:
    """The reason of its end, or how often it was taken up again."""
    if record.reason:
        return record.reason
    return f"restarts: {record.restarts}" if record.restarts else ""


def _change(before: TrialRecord | None, record: TrialRecord) -> str:
    """What is new about a trial, as one line; "" for nothing that a log should say."""
    if before is None and record.status == "waiting":
        return ""
    if before is not None and before.status == record.status:
        if record.restarts > before.restarts:
            return f"{record.name} lost a worker and goes on from its checkpoint"
        if before.ratio is not None and record.ratio != before.ratio:
            words = f"{ratio_words(before.ratio)} to {ratio_words(record.ratio)}"
            return f"{record.name} ratio {words} at step {record.step}"
        return ""
    good = utility(record)
    parts = [f"{record.name} {record.status}", f"ratio {ratio_words(record.ratio)}"]
    if record.status in ENDED:
        parts += [f"step {_step(record)}", safety_words(record)]
        parts += [f"utility {100 * good.value:.1f} %" if good else "", duration(record.seconds)]
        parts.append(printable(record.reason))
    return ", ".join(part for part in parts if part)
