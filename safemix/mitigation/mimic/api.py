"""Mimicry from Python, and inside a run."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from safemix.errors import DataError
from safemix.llm.options import LlmOptions
from safemix.mitigation.mimic.kept import kept_folder, load_kept, write_kept
from safemix.mitigation.mimic.options import choices
from safemix.mitigation.mimic.pipeline import AnswerDesign, Backend, MimicOptions, OnFailed, run
from safemix.mitigation.mimic.report import MimicReport, Outcome, SafetyRow, Tally, Written
from safemix.mitigation.mimic.source import (
    SAMPLE_ROWS,
    Row,
    TaskSample,
    given_rows,
    kept_rows,
    sample_kept,
)
from safemix.rows.read import SourceRows
from safemix.rows.store import MessageStore
from safemix.styles.infer import infer
from safemix.styles.layout import Layout, Slot
from safemix.styles.style import Style, Styles

__all__ = [
    "MimicOptions",
    "MimicReport",
    "mimic",
    "mimic_source",
    "mimic_stream",
    "nothing_written",
    "style_notes",
    "styles_of",
]

_SHOWN_STYLES: Final = 10


def mimic(
    task_rows: Iterable[Row],
    safety_rows: Iterable[Row],
    seed: int = 0,
    *,
    backend: Backend = "offline",
    answer_design: AnswerDesign = "text",
    on_failed: OnFailed = "offline",
    keep_non_refusals: bool = False,
    llm: LlmOptions | None = None,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Rewrite safety rows so that they look like task rows.

    Args:
        task_rows: records with messages, prompt and completion, or instruction and output; or
            lists of messages. A sample of them is looked at.
        safety_rows: rows of the same kinds, whose answers are refusals.
        seed: equal seeds give equal rows.
        backend: "offline", or an LLM: "openai" for any server of that protocol, "hf" for a local
            model.
        answer_design: where tasks have options, the refusal is the answer's "text", or one
            "option" that the answer names.
        on_failed: a row whose LLM text fails a check is rendered "offline", or set aside: "reject".
        keep_non_refusals: mimic safety rows too whose answer is not a refusal.
        llm: the model to ask; needed by the backends other than offline.
        progress: show how far the LLM is.

    Returns:
        Rows with `messages`, `source_row` (place among the safety rows, from 0), `style` and
        `backend`. Rows set aside are missing, and a warning counts them.

    Raises:
        DataError: if the task rows have no style, or no safety row can be mimicked.
        SettingsError: if the options contradict each other.
    """
    options = MimicOptions(
        backend=backend,
        seed=seed,
        answer_design=answer_design,
        on_failed=on_failed,
        keep_non_refusals=keep_non_refusals,
        llm=llm,
    )
    styles = _with_styles(infer(task_rows, seed=seed), "the task rows")
    for note in _without_options(styles) if answer_design == "option" else ():
        warnings.warn(note, stacklevel=2)
    tally = Tally()
    made: list[dict[str, Any]] = []
    for outcome in mimic_stream(given_rows(safety_rows), styles, options, progress=progress):
        tally.add(outcome)
        if isinstance(outcome, Written):
            made.append(outcome.as_dict())
    report = tally.report()
    if not made:
        raise nothing_written(report, "the safety rows")
    if report.rejected:
        warnings.warn("; ".join(map(str.strip, report.lines())), stacklevel=2)
    return made


def mimic_stream(
    rows: Iterable[SafetyRow], styles: Styles, options: MimicOptions, *, progress: bool = False
) -> Iterator[Outcome]:
    """Mimic safety rows one at a time; see `pipeline.run`."""
    return run(rows, styles, options, progress=progress)


def styles_of(sample: TaskSample, seed: int, where: str) -> Styles:
    """The styles of a task, from a sample of its rows; numbers are those of the whole task.

    Raises:
        DataError: if no style is found.
    """
    found = _with_styles(infer(sample.rows, seed=seed, limit=SAMPLE_ROWS), where)
    styles = tuple(
        replace(s, samples=tuple(replace(x, row=sample.numbers[x.row]) for x in s.samples))
        for s in found.styles
    )
    unfit = tuple((sample.numbers[number], reason) for number, reason in found.unfit)
    return replace(found, styles=styles, unfit=unfit, rows=sample.total)


def _with_styles(styles: Styles, where: str) -> Styles:
    if not styles.styles:
        why = f": {styles.unfit[0][1]}" if styles.unfit else ""
        raise DataError(
            f"task: no style found in {where} ({styles.sampled} rows looked at{why}): "
            "give rows that have a prompt and an answer"
        )
    return styles


def mimic_source(
    task: SourceRows, safety: SourceRows, options: MimicOptions, cache: Path | None
) -> tuple[SourceRows, MimicReport]:
    """Mimic the safety rows of a run.

    Args:
        task: whose styles are taken.
        safety: rows to rewrite.
        options: how.
        cache: folder where the rows are kept, by content: equal rows, options and code are not
            made twice. Several processes may use it at once. None keeps nothing.

    Returns:
        The mimicked rows under the safety source's name, in its order, with what was read of it;
        and what was done.

    Raises:
        DataError: if the task has no style, or no safety row can be mimicked.
        ModelError: if a model cannot be loaded or does not exist.
        HostError: if the server cannot be asked at all.
    """
    folder = None if cache is None else kept_folder(cache, task, safety, options)
    found = None if folder is None else load_kept(folder, safety)
    if found is not None:
        return found
    styles = styles_of(sample_kept(task, options.seed), options.seed, task.report.where)
    tally = Tally()
    with MessageStore() as store:
        for outcome in run(kept_rows(safety), styles, options, progress=True):
            tally.add(outcome)
            if isinstance(outcome, Written):
                store.add(outcome.messages)
        report = tally.report(style_notes(styles, options.answer_design))
        if not report.written:
            raise nothing_written(report, safety.report.where)
        dataset, fingerprint = store.finish()
    made = SourceRows(safety.name, dataset, safety.report, fingerprint)
    if folder is not None:
        write_kept(folder, made, report)
    return made, report


def nothing_written(report: MimicReport, where: str) -> DataError:
    """The error of a source none of whose rows could be mimicked."""
    if not report.read:
        return DataError(f"safety: {where} has no rows")
    reason, count = max(report.rejected.items(), key=lambda item: item[1])
    mend = " (--keep-non-refusals takes such rows too)" if "refusal" in reason else ""
    return DataError(
        f"safety: {where}: none of {report.read} rows could be mimicked: "
        f"{reason} ({count} rows){mend}"
    )


def style_notes(styles: Styles, answer_design: AnswerDesign = "text") -> tuple[str, ...]:
    """What was found in the task rows, a line for each style and warning."""
    notes = [_note(style) for style in styles.styles[:_SHOWN_STYLES]]
    more = len(styles.styles) - _SHOWN_STYLES
    notes += [f"{more} further styles"] if more > 0 else []
    if styles.unfit:
        notes.append(f"{len(styles.unfit)} of {styles.sampled} sampled task rows fit no style")
    if answer_design == "option":
        notes += _without_options(styles)
    return (*notes, *styles.warnings)


def _without_options(styles: Styles) -> list[str]:
    """Where the design cannot be had, so that it does not go unseen."""
    names = [s.name for s in styles.styles if s.samples and not choices(s, s.samples[0].fills)]
    if not names:
        return []
    more = " and others" if len(names) > _SHOWN_STYLES else ""
    where = ", ".join(names[:_SHOWN_STYLES]) + more
    return [f"answer_design option: {where}: answers name no option, so they are text there"]


def _note(style: Style) -> str:
    system = "system prompt, " if style.system is not None else ""
    return (
        f"{style.name}: {style.share:.1%} of the task rows: {system}"
        f"prompt {_shown(style.prompt)}, answer {style.answer.kind}"
    )


def _shown(layout: Layout, most: int = 100) -> str:
    """A layout in one line: fixed text as it is, slots as their kinds in brackets."""
    marked = "".join(f"<{p.kind}>" if isinstance(p, Slot) else p for p in layout.parts)
    text = ascii_controls(marked)
    return repr(text if len(text) <= most else text[: most - 3] + "...")


def ascii_controls(text: str) -> str:
    """A text in one line, with its control characters as spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
