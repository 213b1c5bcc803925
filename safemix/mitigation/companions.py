"""Companions of the safety rows: benign look-alikes in the same dress.

Where every row in the task's dress that sounds unsafe is refused, a model can learn the dress or
the sound of it. Look-alikes sound unsafe, are not, and are answered: dressed by the same mimicry
with the same backend, and in the same parts unless told otherwise, in a source of their own, so
that only what is asked tells the two apart. With the mitigation `base` they stay as they are, like
its safety rows.

Unless a share is given (`lookalikes: 0.02`) there are as many as safety rows, or as many times as
many as `per_safety_row` says, see `unset_share`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from safemix.errors import DataError
from safemix.mitigation.interface import Prepared
from safemix.mitigation.levels import Levels, dress_rows
from safemix.mitigation.rewrite import each_row, with_rows
from safemix.rows.read import SourceRows
from safemix.screening.refusal_rows import refuses
from safemix.settings import ControllerSettings, ScheduleSettings, Settings, SourceSettings
from safemix.settings_levers import LOOKALIKES, LookalikesSettings


@dataclass(frozen=True)
class UnsetShare:
    """The look-alikes' share where none is given.

    Attributes:
        share: of all rows, in [0, 1/2].
        why: how it was found, for a person.
    """

    share: Fraction
    why: str


def with_lookalikes(settings: Settings, lookalikes: LookalikesSettings | None) -> Settings:
    """Settings with the look-alikes as a further source; doing it twice is the same as once.

    Where none fit, the source has the ratio 0: with another ratio the run can still go on.
    """
    if lookalikes is None:
        return settings
    share = lookalikes.share
    own = str(unset_share(settings).share) if share is None else share
    source = SourceSettings(**lookalikes.source(own))
    return settings.model_copy(update={"sources": {**settings.sources, LOOKALIKES: source}})


def unset_share(settings: Settings) -> UnsetShare:
    """As many look-alikes to a safety row as asked for, as far as the task keeps half of the rows.

    With a the ratio at the first step, k look-alikes to a safety row and r the share of all rows
    that further sources leave, the look-alikes' share is

    - `ratio_of: rows`: k a, at most r / 2 - a;
    - `ratio_of: task`: k a r / (1 + a + k a), at most r (1 - a) / 2. That is where k times the
      safety rows' share, a (r - l) / (1 + a) beside l look-alikes (see `mixture.convert`), is l
      too, and where both together are r / 2;
    - `ratio_of: tokens`: as for rows. How many rows that ratio needs is not known before they are
      read.

    Args:
        settings: of the run; with or without the source that `with_lookalikes` makes.
    """
    asked = _at_first(settings.ratio)
    others = [spec.ratio for name, spec in settings.sources.items() if name != LOOKALIKES]
    left = max(1 - sum(map(_largest, others), Fraction(0)), Fraction(0))
    half = "the task would have less than half of the rows"
    half += " that other sources leave" if others else ""
    times = _times(settings)
    wanted, most = times * asked, left / 2 - asked
    if settings.ratio_of == "task":
        wanted, most = wanted * left / (1 + asked + wanted), left * (1 - asked) / 2
    if not asked:
        return UnsetShare(Fraction(0), "none, as the ratio at the first step is 0")
    if most <= 0:
        return UnsetShare(Fraction(0), f"none, as at ratio {float(asked):g} {half}")
    if most < wanted:
        return UnsetShare(most, f"{_percent(most)} of all rows: with more {half}")
    if settings.ratio_of == "tokens":
        number = "the ratio's number" if times == 1 else f"{float(times):g} times the ratio's"
        why = f"{number}, as rows of a share of tokens are not known before"
    else:
        why = "as many as safety rows" if times == 1 else f"{float(times):g} to a safety row"
    if isinstance(settings.ratio, ScheduleSettings | ControllerSettings):
        why += " at the first step"
    return UnsetShare(wanted, f"{_percent(wanted)} of all rows: {why}")


def lookalikes_line(lookalikes: LookalikesSettings | None) -> tuple[str, ...]:
    """What the key adds to a run, a line for a person."""
    if lookalikes is None:
        return ()
    if lookalikes.share is None:
        return ("benign look-alikes are a source of their own",)
    return (f"benign look-alikes are mixed in as a source of their own (ratio {lookalikes.share})",)


def share_note(settings: Settings) -> tuple[str, ...]:
    """The look-alikes' share of a run that was given none, and why it is that; a line or nothing.

    Args:
        settings: of the run, as they were given.
    """
    own: LookalikesSettings | None = getattr(settings.mitigation, LOOKALIKES, None)
    if own is None or own.share is not None:
        return ()
    return (f"{LOOKALIKES}: {unset_share(settings).why} (mitigation.lookalikes sets a share)",)


def _times(settings: Settings) -> Fraction:
    """Look-alikes to a safety row; 1 where the mitigation does not say."""
    own = getattr(settings.mitigation, LOOKALIKES, None)
    return Fraction(1) if own is None else Fraction(str(own.per_safety_row))


def _at_first(ratio: Any) -> Fraction:
    """A ratio of the settings, at step 0."""
    if isinstance(ratio, ControllerSettings):
        return ratio.first
    if isinstance(ratio, ScheduleSettings):
        points: Mapping[int, Any] = ratio.points or {}
        return Fraction(str(points[min(points)] if points else ratio.start))
    return Fraction(str(ratio))


def _largest(ratio: Any) -> Fraction:
    """The largest ratio of a further source, which has no controller."""
    if not isinstance(ratio, ScheduleSettings):
        return _at_first(ratio)
    values = [ratio.start, ratio.end, *(ratio.points or {}).values()]
    return max(Fraction(str(value)) for value in values if value is not None)


def _percent(share: Fraction) -> str:
    return f"{100 * float(share):.3g} %"


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
