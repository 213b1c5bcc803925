"""What a trial's folder says, as a record: the sweep reads, and the workers of the trial write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from safemix.hosts.resume import write_json
from safemix.training import outputs
from safemix.tuning.attempts import work_done
from safemix.tuning.records import Outcome, TrialRecord

RECORD: Final = "trial.json"
_RATIO: Final = "mix/ratio"
# What a report draws over the steps.
_KEPT: Final = ("safety/margin/", "safety/loss", "utility/loss", _RATIO)


def refreshed(record: TrialRecord, folder: Path, batch: int) -> TrialRecord:
    """A record with what its folder says now: steps, rows, ratios, readings, outcomes.

    Args:
        record: as it was.
        folder: of the trial.
        batch: rows of a step.
    """
    work, lines = work_done(folder), list(_metrics(folder))
    steps = work.max_steps or record.max_steps
    return replace(
        record,
        step=work.step,
        max_steps=steps,
        rows=work.steps * batch,
        seconds=round(work.seconds, 1),
        restarts=max(0, work.attempts - 1),
        ratios=_ratios(lines) or record.ratios,
        readings=tuple(_reading(line) for line in lines),
        outcomes=outcomes_at(folder, steps),
    )


def outcomes_at(folder: Path, step: int) -> tuple[Outcome, ...]:
    """The evaluation of a step; empty where there is none."""
    path = outputs.evaluation_file(folder, step)
    if not path.exists():
        return ()
    measures = json.loads(path.read_text("utf-8"))["measures"]
    return tuple(_outcome(measure) for measure in measures)


def write_record(folder: Path, record: TrialRecord) -> None:
    """Keep a record beside its trial."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, record.to_json())


def read_records(trials: Path) -> list[TrialRecord]:
    """All records below a folder, in order of their numbers."""
    found = [
        TrialRecord.from_json(json.loads(path.read_text("utf-8")))
        for path in trials.glob(f"*/{RECORD}")
    ]
    return sorted(found, key=lambda record: (record.kind != "trial", record.number))


def _outcome(measure: Mapping[str, Any]) -> Outcome:
    items = measure["items"]
    counted = "".join("?" if i["error"] is not None else "01"[i["counted"]] for i in items)
    return Outcome(measure["side"], measure["name"], measure["dress"], measure["metric"], counted)


def _metrics(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / outputs.METRICS
    if not path.exists():
        return
    for line in path.read_text("utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # being written at this moment


def _ratios(lines: list[dict[str, Any]]) -> tuple[tuple[int, float], ...]:
    """From which step on which ratio held."""
    changes: list[tuple[int, float]] = []
    for line in lines:
        ratio = line.get(_RATIO)
        if ratio is not None and (not changes or changes[-1][1] != ratio):
            changes.append((int(line["step"]), float(ratio)))
    return tuple(changes)


def _reading(line: Mapping[str, Any]) -> dict[str, float]:
    kept = {
        key: float(value)
        for key, value in line.items()
        if key.startswith(_KEPT) and isinstance(value, int | float)
    }
    return {"step": float(line["step"]), **kept}
