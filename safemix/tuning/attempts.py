"""What a trial's attempts did: how far each came, how long it took, and why it failed.

The workers write it and the sweep reads it, through the trial's folder: what is in memory is lost
with a worker, and a report to Ray that never arrived is too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

ATTEMPTS: Final = "attempts.jsonl"
FAILED: Final = "failed.json"


@dataclass(frozen=True)
class Work:
    """What was done in a trial's folder, over all attempts.

    Attributes:
        step: optimizer steps of the run that are done.
        steps: that were trained, those trained again after a restart included.
        seconds: spent by the workers, their start included.
        attempts: starts that came so far as to train.
        restarts: of these, those after the loss of a worker: the sweep had not started it anew.
        max_steps: of the whole run; 0 before it is known.
    """

    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    attempts: int = 0
    restarts: int = 0
    max_steps: int = 0


def work_done(folder: Path) -> Work:
    """Read what the attempts in a folder did; nothing for a folder without any."""
    path = folder / ATTEMPTS
    if not path.exists():
        return Work()
    attempts: list[list[dict[str, Any]]] = []
    for line in path.read_text("utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # cut by a kill in the middle of a line
        if entry.get("begins") or not attempts:
            attempts.append([])
        attempts[-1].append(entry)
    return Work(
        step=attempts[-1][-1]["step"] if attempts else 0,
        steps=sum(entries[-1]["step"] - entries[0]["step"] for entries in attempts),
        seconds=sum(entries[-1]["seconds"] for entries in attempts),
        attempts=len(attempts),
        restarts=sum(
            one[0].get("start") == other[0].get("start") for one, other in pairwise(attempts)
        ),
        max_steps=attempts[-1][0].get("max_steps", 0) if attempts else 0,
    )


def write_failure(folder: Path, reason: str) -> None:
    """Keep why a trial failed by itself: it would fail again, so nothing starts it again.

    Ranks may fail together; the word of the first one stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / FAILED).exists():
        return
    partial = folder / f".{FAILED}.{uuid4().hex}"  # of this rank alone
    partial.write_text(json.dumps({"reason": reason}), "utf-8")
    partial.replace(folder / FAILED)


def failure(folder: Path) -> str | None:
    """Why a trial failed by itself; None if it did not."""
    path = folder / FAILED
    if not path.exists():
        return None
    return str(json.loads(path.read_text("utf-8"))["reason"])
