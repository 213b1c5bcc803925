"""Companions of the safety rows: benign look-alikes in the same dress.

Where every row in the task's dress that sounds unsafe is refused, a model can learn the dress or
the sound of it. Look-alikes (`lookalikes: 0.02`) sound unsafe, are not, and are answered: dressed
by the same mimicry with the same backend and in the same parts, in a source of their own, so that
only what is asked tells the two apart. With the mitigation `base` they stay as they are, like its
safety rows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safemix.errors import DataError
from safemix.mitigation.interface import Prepared
from safemix.mitigation.levels import Levels, dress_rows
from safemix.mitigation.rewrite import each_row, with_rows
from safemix.rows.read import SourceRows
from safemix.screening.refusal_rows import refuses
from safemix.settings import Settings, SourceSettings
from safemix.settings_levers import LOOKALIKES, LookalikesSettings


def with_lookalikes(settings: Settings, lookalikes: LookalikesSettings | None) -> Settings:
    """Settings with the look-alikes as a further source; doing it twice is the same as once."""
    if lookalikes is None:
        return settings
    source = SourceSettings(**lookalikes.source())
    return settings.model_copy(update={"sources": {**settings.sources, LOOKALIKES: source}})


def lookalikes_line(lookalikes: LookalikesSettings | None) -> tuple[str, ...]:
    """What the key adds to a run, a line for a person."""
    if lookalikes is None:
        return ()
    return (f"benign look-alikes are mixed in as a source of their own (ratio {lookalikes.share})",)


def lookalike_rows(
    task: SourceRows,
    lookalikes: SourceRows,
    dress: Levels | None,
    cache: Path | None,
    *,
    answered: bool,
) -> Prepared:
    """The look-alikes ready to be mixed in.

    Args:
        task: whose dress they get.
        lookalikes: benign requests with their answers.
        dress: how the safety rows are dressed; None leaves the rows as they are.
        cache: see `mimic_source`.
        answered: the answers are known to help; else rows whose answer refuses are left out,
            since they would teach what they are here to prevent.

    Raises:
        DataError: if no row is left.
    """
    rows, notes = (lookalikes, []) if answered else _without_refusals(lookalikes)
    if dress is None:
        return Prepared(rows, tuple(notes))
    kept = replace(dress, options=replace(dress.options, keep_non_refusals=True))
    try:
        made, report, parts = dress_rows(task, rows, kept, cache)
    except DataError as error:
        # Mimicry calls whatever it dresses the safety rows.
        raise DataError(str(error).replace("safety: ", f"{LOOKALIKES}: ", 1)) from error
    # The task's styles are told with the safety rows.
    lines = [*parts, *replace(report, notes=()).lines()]
    return Prepared(made, (*notes, *(line.replace("safety rows", "look-alikes") for line in lines)))


def _without_refusals(rows: SourceRows) -> tuple[SourceRows, list[str]]:
    kept = [n for n, row in enumerate(each_row(rows)) if not refuses(row)]
    left_out = len(rows) - len(kept)
    if not kept:
        raise DataError(
            f"{LOOKALIKES}: {rows.report.where}: all {len(rows)} answers refuse: give benign "
            "requests with helpful answers"
        )
    if not left_out:
        return rows, []
    selected = replace(rows, dataset=rows.dataset.select(kept))
    note = f"{left_out} of {len(rows)} look-alikes left out: their answer is a refusal"
    return with_rows(selected, each_row(selected)), [note]
