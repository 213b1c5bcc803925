"""A report as one HTML file: table, pictures, settings and completions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from safemix.evaluate.report.grid import Cell, Grid, make_grid
from safemix.evaluate.report.lines import Report, hidden_items, is_hidden, make_report
from safemix.evaluate.report.page import page
from safemix.evaluate.report.words import SIDE_NAMES, metric_name, printable
from safemix.evaluate.results import REDACTED, Evaluation, Item, Measure, Side

# What an item is called that the measure counts, and one that it does not.
_MARKS: Final[dict[Side, tuple[str, str]]] = {
    "safety": ("complied", "held"),
    "over_refusal": ("refused", "answered"),
    "coherence": ("incoherent", "coherent"),
    "utility": ("right", "wrong"),
}
_Hidden = frozenset[tuple[str, str]]


def write_html(
    path: str | os.PathLike[str],
    evaluations: Evaluation | Sequence[Evaluation],
    base: Evaluation | None = None,
    *,
    show_harmful: bool = False,
    notes: Sequence[str] = (),
) -> None:
    """Write a report that needs nothing but itself: no network, no script.

    Completions are hostile text: all of them are escaped, and the page forbids scripts and
    anything from elsewhere.

    Args:
        path: the file; replaced whole.
        evaluations: one or several.
        base: the model that the others are compared with; shown first.
        show_harmful: write completions that answer a harmful prompt; else they are left out.
        notes: lines above the table, such as warnings and the verdict of a gate.

    Raises:
        DataError: if there is no evaluation.
        OSError: if the file cannot be written.
    """
    from safemix.evaluate.report.figures import replaced  # matplotlib

    report = make_report(evaluations, base)
    title = "Evaluation: " + ", ".join(report.models)
    parts = [
        f"<h1>{escaped(title)}</h1>",
        _notes(notes, show_harmful=show_harmful),
        "<h2>Safety, over-refusal, coherence, utility</h2>",
        table(make_grid(report)),
        "<ul>" + "".join(f"<li>{escaped(note)}</li>" for note in report.notes) + "</ul>",
        "<h2>Pictures</h2>",
        *_pictures(report),
        "<h2>Settings</h2>",
        *_settings(report),
        "<h2>Completions</h2>",
        *_completions(report, show_harmful=show_harmful),
    ]
    with replaced(Path(path)) as temporary:
        temporary.write_text(page(escaped(title), "\n".join(parts)), "utf-8")


def escaped(text: str, *, lines: bool = False) -> str:
    """The only way of outside text into the page."""
    return escape(printable(text, lines=lines))


def _notes(notes: Sequence[str], *, show_harmful: bool) -> str:
    shown = [f'<p class="warning">{escaped(note)}</p>' for note in notes]
    if show_harmful:
        shown.append('<p class="warning">This file holds harmful completions.</p>')
    return "\n".join(shown)


def table(grid: Grid) -> str:
    """A grid as HTML, headings and cells."""
    kinds = ["" if n < grid.words else ' class="number"' for n in range(len(grid.headings))]
    head = "".join(
        f'<th scope="col"{kind}>{escaped(heading)}</th>'
        for kind, heading in zip(kinds, grid.headings, strict=True)
    )
    rows = []
    for row in grid.rows:
        cells = "".join(
            f'<td{kinds[n]} data-label="{escaped(grid.headings[n])}">{_cell(cell)}</td>'
            for n, cell in enumerate(row.cells)
        )
        begins = ' class="begins"' if row.begins else ""
        rows.append(f"<tr{begins}>{cells}</tr>")
    body = "\n".join(rows)
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _cell(cell: Cell) -> str:
    if not cell.first:
        return ""  # a narrow page leaves an empty cell out
    first = escaped(cell.first)
    first = f'<span class="{cell.tone}">{first}</span>' if cell.tone else first
    second = f'<span class="second">{escaped(cell.second)}</span>' if cell.second else ""
    return f"<div>{first}{second}</div>"


def _pictures(report: Report) -> list[str]:
    from safemix.evaluate.report.figures import inline_svg
    from safemix.evaluate.report.sides import sides_figure
    from safemix.evaluate.report.tradeoff import tradeoff_figure, tradeoff_points

    title = "The four sides as bars with intervals"
    shown = [inline_svg(sides_figure(report), "sides", title)]
    points = tradeoff_points(report)
    if not points:
        return [*shown, "<p>Safety against utility: one of the two was not measured.</p>"]
    figure = tradeoff_figure(
        points, "Safety against utility", "attack success rate", "right answers, all tasks"
    )
    return [*shown, inline_svg(figure, "tradeoff", "Safety against utility, a point a model")]


def _settings(report: Report) -> list[str]:
    from safemix.tracking.wandb_run import without_secrets

    shown = []
    for name, evaluation in zip(report.models, report.evaluations, strict=True):
        settings = without_secrets(dict(evaluation.settings))
        tree = json.dumps(settings, indent=2, ensure_ascii=False, default=str)
        shown.append(
            f"<details><summary>{escaped(name)}</summary>"
            f"<pre>{escaped(tree, lines=True)}</pre></details>"
        )
    return shown


def _completions(report: Report, *, show_harmful: bool) -> list[str]:
    shown = []
    for name, evaluation in zip(report.models, report.evaluations, strict=True):
        hidden: _Hidden = frozenset() if show_harmful else hidden_items(evaluation)
        shown += [_measure(name, measure, hidden) for measure in evaluation.measures]
    return shown or ["<p>None.</p>"]


def _measure(model: str, measure: Measure, hidden: _Hidden) -> str:
    title = (
        f"{model}: {SIDE_NAMES[measure.side]}, {measure.name}, {measure.dress}, "
        f"{metric_name(measure.metric)}: {measure.rate}"
    )
    items = "\n".join(_item(measure.side, item, hidden) for item in measure.items)
    return f"<details><summary>{escaped(title)}</summary>\n{items}\n</details>"


def _item(side: Side, item: Item, hidden: _Hidden) -> str:
    mark, kind = _MARKS[side][0 if item.counted else 1], "yes" if item.counted else "no"
    if item.error is not None:
        mark, kind = "no verdict", "no"
    completion = REDACTED if is_hidden(item, hidden) else item.completion
    reason = item.error if item.error is not None else item.reason
    return (
        f'<details><summary><span class="mark {kind}">{mark}</span>{escaped(item.prompt)}</summary>'
        f"<pre>{escaped(completion, lines=True) or '(no text)'}</pre>"
        f'<p class="reason">{escaped(item.id)}: {escaped(reason)}</p></details>'
    )
