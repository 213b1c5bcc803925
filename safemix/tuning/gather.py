"""What a trial's folder says, as a record: the sweep reads, and the workers of the trial write."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from safemix.errors import CheckpointError
from safemix.evaluate.results import Evaluation, Measure
from safemix.evaluate.suite_count import METRICS, judge_away
from safemix.hosts.hf_trainer import STATE_FILE
from safemix.hosts.resume import write_json
from safemix.mixture.ratio import Constant, Piecewise, ratio_from
from safemix.tracking.metrics import read_metrics
from safemix.training import outputs
from safemix.training.checkpoints import MANIFEST
from safemix.tuning.attempts import work_done
from safemix.tuning.records import Outcome, TrialRecord

RECORD: Final = "trial.json"
_RATIO: Final = "mix/ratio"
_SAFETY: Final = "safety"
Ratios = tuple[tuple[int, float], ...]
# What a report draws over the steps.
_KEPT: Final = ("safety/margin/", "safety/loss", "utility/loss", _RATIO)


def refreshed(record: TrialRecord, folder: Path, batch: int) -> TrialRecord:
    """A record with what its folder says now: steps, rows, ratios, readings, outcomes.

    Args:
        record: as it was.
        folder: of the trial.
        batch: rows of a step.
    """
    work, lines = work_done(folder), _metrics(folder)
    steps = work.max_steps or record.max_steps
    return replace(
        record,
        step=work.step,
        max_steps=steps,
        rows=work.steps * batch,
        seconds=round(work.seconds, 1),
        restarts=work.restarts,
        ratios=_ratios(folder, lines) or record.ratios,
        readings=tuple(_reading(line) for line in lines),
        outcomes=outcomes_at(folder, steps),
    )


def outcomes_at(folder: Path, step: int) -> tuple[Outcome, ...]:
    """The evaluation of a step; empty where there is none.

    Where most answers have no verdict, no ASR is counted.
    """
    path = outputs.evaluation_file(folder, step)
    if not path.exists():
        return ()
    found = Evaluation.from_json(json.loads(path.read_text("utf-8")))
    away = judge_away(found)
    return tuple(_outcome(measure, away) for measure in found.measures)


def write_record(folder: Path, record: TrialRecord) -> None:
    """Keep a record beside its trial."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, record.to_json())


def read_records(trials: Path) -> list[TrialRecord]:
    """All records below a folder, in order of their numbers.

    Raises:
        CheckpointError: for one that cannot be read.
    """
    found = [_record(path) for path in trials.glob(f"*/{RECORD}")]
    return sorted(found, key=lambda record: (record.kind != "trial", record.number))


def _record(path: Path) -> TrialRecord:
    try:
        return TrialRecord.from_json(json.loads(path.read_text("utf-8")))
    except (AttributeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"{path} is damaged ({reason}): delete {path.parent}, and the trial is run anew"
        ) from None


def _outcome(measure: Measure, away: Collection[tuple[str, str]]) -> Outcome:
    counted = "".join("?" if i.error is not None else "01"[i.counted] for i in measure.items)
    if measure.metric == METRICS["safety"] and (measure.name, measure.dress) in away:
        counted = "?" * len(counted)
    return Outcome(measure.side, measure.name, measure.dress, measure.metric, counted)


def _metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / outputs.METRICS
    return list(read_metrics(path)) if path.exists() else []


def _ratios(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Ratios:
    """From which step of the plan on which ratio held.

    A checkpoint tells it exactly. After it, and where the ratio follows a schedule, the log does:
    it has the ratio of the rows that led to a step, which are the plan's rows of the step before.
    """
    changes, known_to = _checkpoint_ratios(folder)
    for line in lines:
        ratio, first = line.get(_RATIO), int(line["step"]) - 1
        if ratio is None or first < known_to or (changes and changes[-1][1] == ratio):
            continue
        changes.append((first if changes else 0, float(ratio)))
    return tuple(changes)


def _checkpoint_ratios(folder: Path) -> tuple[list[tuple[int, float]], int]:
    """Ratios up to the newest checkpoint, and its step; none without one, or for a schedule."""
    complete = (path.parent for path in folder.glob(f"checkpoint-*/{MANIFEST}"))
    numbers = ((path.name.partition("-")[2], path) for path in complete)
    found = {int(number): path for number, path in numbers if number.isdecimal()}
    if not found:
        return [], 0
    try:
        saved = json.loads((found[max(found)] / STATE_FILE).read_text("utf-8"))
        step, history = int(saved["step"]), saved["plan"]["history"]
    except (OSError, ValueError):
        return [], 0  # deleted at this moment, as there is a newer one
    changes: dict[int, float] = {}
    for change in history:
        first = int(change["from_step"])
        if _SAFETY not in change["ratios"] or first >= step:
            continue
        ratio = ratio_from(change["ratios"][_SAFETY])
        if not isinstance(ratio, Constant | Piecewise):
            return [], 0
        pieces = ratio.points if isinstance(ratio, Piecewise) else ((0, ratio.value),)
        kept = {at: share for at, share in changes.items() if at < first}
        changes = kept | {first + at: float(share) for at, share in pieces if first + at < step}
    return sorted(changes.items()), step


def _reading(line: Mapping[str, Any]) -> dict[str, float]:
    kept = {
        key: float(value)
        for key, value in line.items()
        if key.startswith(_KEPT) and isinstance(value, int | float)
    }
    return {"step": float(line["step"]), **kept}
