"""The report of a sweep as one HTML file."""

from __future__ import annotations

import base64
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

# The one escaping and the one table of all pages.
from safemix.evaluate.report.html import escaped, table
from safemix.evaluate.report.page import page
from safemix.tuning.records import ENDED, TrialRecord
from safemix.tuning.report.measures import by_ratio, choices, duration, ratio_words
from safemix.tuning.report.sides import sides_grid

BEST: Final = "best.yaml"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PICTURE: Final = "width:100%;height:auto;max-width:60rem;border-radius:.4rem"
_LEGEND: Final = (
    "Lower is better for safety, over-refusal and coherence; higher for utility. Intervals: 95 %, "
    "Wilson, two-sided. A bound is held against the upper end of the one-sided 95 % interval, "
    "which lies a little below the end shown here."
)


def write_html(
    path: str | os.PathLike[str],
    settings: Mapping[str, Any],
    records: Sequence[TrialRecord],
    front: Sequence[TrialRecord],
    *,
    recommended: TrialRecord | None,
    why: str,
    pictures: Mapping[str, str | os.PathLike[str]],
) -> None:
    """Write a page that needs nothing but itself: no network, no script.

    Args:
        path: the file; replaced whole. `best.yaml` is taken to lie beside it.
        settings: of the sweep, as plain data; secrets in it are blanked.
        records: all trials and baselines.
        front: those that no other beats on both sides.
        recommended: one of the records, or None.
        why: plain sentences that say why, or why none.
        pictures: heading -> PNG file.

    Raises:
        OSError: if a file cannot be read or written.
        ValueError: if a picture is no PNG.
    """
    from safemix.evaluate.report.figures import replaced  # matplotlib
    from safemix.tracking.wandb_run import without_secrets

    tree = json.dumps(without_secrets(settings), indent=2, ensure_ascii=False, default=str)
    parts = [
        "<h1>Search for the mixing ratio</h1>",
        _recommendation(recommended, why),
        f"<p>{escaped(_counts(records))}</p>",
        *_run_it(recommended, Path(path).parent),
        *(_picture(heading, Path(file)) for heading, file in pictures.items()),
        "<h2>Safety, over-refusal, coherence, utility</h2>",
        _sides(records, front, recommended),
        "<h2>Stopped, failed and not finished</h2>",
        _unfinished(records),
        "<h2>Settings</h2>",
        f"<pre>{escaped(tree, lines=True)}</pre>",
    ]
    with replaced(Path(path)) as temporary:
        body = "\n".join(parts)
        temporary.write_text(page("Search for the mixing ratio", body), "utf-8")


def sentence(recommended: TrialRecord | None) -> str:
    """The recommendation in one sentence."""
    if recommended is None:
        return "No trial is recommended."
    others = choices(recommended)
    chosen = f" with {', '.join(others)}" if others else ""
    ratio = f"a ratio of {ratio_words(recommended.ratio)}"
    if len(recommended.ratios) > 1:
        ends = ratio_words(recommended.ratios[0][1]), ratio_words(recommended.ratio)
        ratio = f"a ratio that begins at {ends[0]} and ends at {ends[1]}"
    return f"Use {ratio}{chosen} ({recommended.name})."


def _recommendation(recommended: TrialRecord | None, why: str) -> str:
    kind = ' class="warning"' if recommended is None else ""
    return f"<p{kind}><strong>{escaped(sentence(recommended))}</strong> {escaped(why)}</p>"


def _counts(records: Sequence[TrialRecord]) -> str:
    trials = [record for record in records if record.kind == "trial"]
    states = [record.status for record in trials]
    parts = [f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states))]
    rows, work = sum(r.rows for r in records), sum(r.seconds for r in records)
    number = f"{len(trials)} trial{'' if len(trials) == 1 else 's'}"
    said = f"{number} ({', '.join(parts)})" if trials else number
    return f"{said}; {rows:,} rows trained on with the baselines, {duration(work)} of work."


def _run_it(recommended: TrialRecord | None, folder: Path) -> list[str]:
    if recommended is None:
        return []
    command = f"deepspeed launchers/train.py --config {shlex.quote(str(folder / BEST))}"
    return [
        "<h2>How to run it</h2>",
        f"<p>{BEST} is a run file with what was recommended. It trains on the same rows as "
        f"{escaped(recommended.name)}, on any number of processes:</p>",
        f"<pre>{escaped(command)}</pre>",
    ]


def _picture(heading: str, file: Path) -> str:
    data = file.read_bytes()
    if not data.startswith(_PNG):
        raise ValueError(f"{file} is no PNG")
    source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f"<h2>{escaped(heading)}</h2>\n"
        f'<img style="{_PICTURE}" alt="{escaped(heading)}" src="{source}">'
    )


def _sides(
    records: Sequence[TrialRecord], front: Sequence[TrialRecord], recommended: TrialRecord | None
) -> str:
    grid = sides_grid(records, front, recommended)
    if not grid.rows:
        return "<p>No trial has been evaluated.</p>"
    return f"{table(grid)}\n<ul><li>{escaped(_LEGEND)}</li></ul>"


def _unfinished(records: Sequence[TrialRecord]) -> str:
    lines = [_line(record) for record in by_ratio(records) if record.status != "done"]
    lines += [
        f"{record.name}: went on from a checkpoint {_times(record.restarts)} after a lost worker"
        for record in by_ratio(records)
        if record.restarts
    ]
    if not lines:
        return "<p>None: every trial was trained to its end.</p>"
    return "<ul>" + "\n".join(f"<li>{escaped(line)}</li>" for line in lines) + "</ul>"


def _line(record: TrialRecord) -> str:
    words = [f"ratio {ratio_words(record.ratio)}", *choices(record)]
    head = f"{record.name} ({', '.join(words)}): {record.status}"
    if record.status not in ENDED and not record.step:
        return head
    reason = f": {record.reason}" if record.reason else ""
    return f"{head} at step {record.step} of {record.max_steps}{reason}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
