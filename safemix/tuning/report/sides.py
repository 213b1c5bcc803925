"""The four sides of each trial as plain cells: every measure, for the page."""

from __future__ import annotations

from collections.abc import Sequence

from safemix.evaluate.report.grid import NOT_MEASURED, Cell, Grid, Row
from safemix.evaluate.report.words import SIDE_NAMES, metric_name, printable, rate_words
from safemix.evaluate.results import SIDES
from safemix.tuning.records import Outcome, TrialRecord
from safemix.tuning.report.measures import by_ratio, choices, trial_ratio


def sides_grid(
    records: Sequence[TrialRecord], front: Sequence[TrialRecord], recommended: TrialRecord | None
) -> Grid:
    """A row for each trial that was evaluated, a column for each measure, sides in order.

    Baselines stand first, trials by their ratio. A side that no trial has is a column too.
    """
    evaluated = [record for record in by_ratio(records) if record.outcomes]
    columns: list[tuple[str, str]] = []  # key, heading
    for side in SIDES:
        found = {o.key: _heading(o) for r in evaluated for o in r.outcomes if o.side == side}
        columns += list(found.items()) or [("", SIDE_NAMES[side])]
    best = None if recommended is None else recommended.number
    on_front = {record.number for record in front}
    rows = []
    for place, record in enumerate(evaluated):
        known = {outcome.key: outcome for outcome in record.outcomes}
        cells = [
            _name(record, on_front, best),
            Cell(trial_ratio(record), "; ".join(choices(record))),
            *(_rate(known.get(key)) for key, _ in columns),
        ]
        first_trial = record.kind == "trial" and (not place or evaluated[place - 1].kind != "trial")
        rows.append(Row(tuple(cells), first_trial))
    headings = ("trial", "ratio and choices", *(heading for _, heading in columns))
    return Grid(headings, tuple(rows), 2)


def _heading(outcome: Outcome) -> str:
    return (
        f"{SIDE_NAMES[outcome.side]}: {printable(outcome.name)}, {printable(outcome.dress)}, "
        f"{printable(metric_name(outcome.metric))}"
    )


def _name(record: TrialRecord, on_front: set[int], best: int | None) -> Cell:
    words = {"unmixed": "ratio 0", "untouched": "before any training"}.get(record.kind, "")
    if record.number == best:
        return Cell(record.name, "recommended", "better")
    return Cell(record.name, "on the front" if record.number in on_front else words)


def _rate(outcome: Outcome | None) -> Cell:
    return Cell(NOT_MEASURED) if outcome is None else Cell(*rate_words(outcome.rate))
