"""The state of a sweep: its trials, what became of them, and which one comes next."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from safemix.evaluate.results import Rate
from safemix.settings import Settings
from safemix.training import outputs
from safemix.tuning import points as to_settings
from safemix.tuning.attempts import FAILED, failure
from safemix.tuning.driver import RATIO, SCORED, TRIAL
from safemix.tuning.front import utility_of, worst_rate
from safemix.tuning.gather import outcomes_at, read_records, refreshed, write_record
from safemix.tuning.limits import excess_of
from safemix.tuning.records import ENDED, TrialRecord
from safemix.tuning.searcher import Points
from safemix.tuning.settings import SweepSettings

TRIALS: Final = "trials"
CACHE: Final = "cache"
UNMIXED: Final = "unmixed"
UNTOUCHED: Final = "untouched"
# Steps between two checkpoints of a trial where the run gives none.
SAVE_EVERY: Final = 50
_KEPT_FOR_OTHERS: Final = 4
_INTERRUPTED: Final = "interrupted, goes on by --resume"


class Sweep:
    """All trials of a sweep; lives in the process that drives Ray Tune.

    Args:
        settings: of the sweep.
        points: says which point is tried next.
    """

    def __init__(self, settings: SweepSettings, points: Points) -> None:
        self.settings, self.folder = settings, Path(settings.output_dir)
        self._points = points
        self.changed: Callable[[], object] = lambda: None
        """Called when a record changed."""
        self.needless: Callable[[TrialRecord], str | None] = lambda record: None
        """Why a trial that comes next need not start; None if it is to."""
        self.records: dict[str, TrialRecord] = {}
        self._queue: list[str] = []
        self._batch = to_settings.unmixed_settings(
            settings, self._folder(UNMIXED)
        ).global_batch_size
        self._begin()

    def next(self) -> dict[str, Any] | None:
        """The configuration of the trial that starts next, see `drive`; None when none is left."""
        while (name := self._next_name()) is not None:
            reason = self.needless(self.records[name])
            if reason is None:
                break
            told = f"{self.settings.scheduler}: {reason}"
            self._set(replace(self.records[name], status="stopped", reason=told))
            self._tell(self.records[name])
        if name is None:
            return None
        record = self.records[name]
        tree = self._tree(record)
        scored = record.kind == "trial"
        return {TRIAL: name, "settings": tree, SCORED: scored, RATIO: self._ratio(record, tree)}

    def _next_name(self) -> str | None:
        # Population-based training compares trials while they run: they start together, before
        # the baseline.
        late = self.settings.scheduler == "pbt"
        waiting = [n for n in self._queue if n != UNMIXED or not late]
        name = (waiting[0] if waiting else self._new()) or next(iter(self._queue), None)
        if name in self._queue:
            self._queue.remove(name)
        return name

    def started(self, name: str) -> None:
        """A trial has its workers."""
        self._set(replace(self.records[name], status="running", reason=""))

    def heard(self, name: str) -> None:
        """A trial reported something: its folder says what."""
        record = refreshed(self.records[name], self._folder(name), self._batch)
        self._set(record)

    def ended(self, name: str, *, reason: str = "", failed: bool = False) -> None:
        """A trial has no workers any more.

        Args:
            name: of the trial.
            reason: why it did not come to its end.
            failed: by itself, and not by the scheduler.
        """
        record = refreshed(self.records[name], self._folder(name), self._batch)
        if record.status in ENDED:
            return
        at_end = record.step >= record.max_steps > 0
        if failed:
            told = failure(self._folder(name)) or reason or f"see {TRIALS}/{name}/logs"
            record = replace(record, status="failed", reason=told)
        elif not at_end:
            record = replace(record, status="stopped", reason=reason)
        elif record.outcomes:
            record = replace(record, status="done", reason="")
        else:
            record = replace(record, status="failed", reason="it ended without an evaluation")
        self._set(record)
        if record.kind == "trial":
            self._tell(record)
        else:
            self._add_untouched()
        self._free()

    def interrupted(self) -> None:
        """The sweep ends before its trials have: those that ran wait to be gone on with."""
        for record in self.all():
            if record.status == "running":
                now = refreshed(record, self._folder(record.name), self._batch)
                self._set(replace(now, status="waiting", reason=_INTERRUPTED))

    def all(self) -> list[TrialRecord]:
        """Baselines first, then the trials by number."""
        return sorted(self.records.values(), key=lambda r: (r.kind == "trial", r.number))

    def _begin(self) -> None:
        """Take up what lies in the folder; the baseline without mixing comes first."""
        for record in read_records(self.folder / TRIALS):
            self.records[record.name] = record
        self._points.repeat([(r.number, r.point) for r in self._trials()])
        for record in self._trials():
            if record.status in ENDED:
                self._tell(record)
        self._add_untouched()
        unmixed = self.records.get(UNMIXED)
        if unmixed is None:
            unmixed = TrialRecord(-1, "unmixed", folder=f"{TRIALS}/{UNMIXED}")
            self.records[UNMIXED] = unmixed
        waiting = [r for r in (unmixed, *self._trials()) if r.status not in ENDED]
        for record in waiting:
            # What stopped it may have been mended: only an ended trial keeps its reason.
            (self._folder(record.name) / FAILED).unlink(missing_ok=True)
            self._set(replace(record, status="waiting", reason=""))
        self._queue = [record.name for record in waiting]
        self._free()

    def _new(self) -> str | None:
        used = {record.number for record in self._trials()}
        number = next(n for n in itertools.count() if n not in used)
        point = self._points.ask(number)
        if point is None:
            return None
        settled = to_settings.settle_point(self.settings, point)
        record = TrialRecord(number, "trial", dict(settled.values))
        self._set(replace(record, folder=f"{TRIALS}/{record.name}"))
        return record.name

    def _trials(self) -> list[TrialRecord]:
        found = (record for record in self.records.values() if record.kind == "trial")
        return sorted(found, key=lambda record: record.number)

    def _tree(self, record: TrialRecord) -> dict[str, Any]:
        """The run's settings, with what a trial of a sweep has in common with the others."""
        folder = self._folder(record.name)
        if record.kind == "trial":
            made = to_settings.trial_settings(self.settings, record.point, folder)
        else:
            made = to_settings.unmixed_settings(self.settings, folder)
        tree: dict[str, Any] = made.model_dump(mode="json", exclude_unset=True)
        # The model before training is evaluated once for all trials, and rows are made once.
        evaluation = made.evaluation.model_dump(mode="json", exclude_unset=True)
        tree["evaluation"] = {**evaluation, "eval_at_start": record.kind == "unmixed"}
        tracking = made.tracking.model_dump(mode="json", exclude_unset=True)
        tree["tracking"] = {**tracking, "progress_bar": False}
        tree |= {"cache_dir": str((self.folder / CACHE).resolve()), "resume": "auto"}
        return tree | self._saving(made)

    def _saving(self, run: Settings) -> dict[str, Any]:
        """When a trial saves: a lost worker goes on from there, and so does whoever copies it."""
        if self.settings.scheduler != "pbt":
            return {} if run.save_steps else {"save_steps": SAVE_EVERY}
        # Another trial may take a checkpoint over some time after it was written.
        keep = max(run.save_total_limit or 0, _KEPT_FOR_OTHERS)
        return {"save_steps": self.settings.pbt.every_steps, "save_total_limit": keep}

    def _ratio(self, record: TrialRecord, tree: dict[str, Any]) -> Any:
        """The ratio to go on with: that of the last start, where a scheduler has changed it."""
        before = self._folder(record.name) / outputs.SETTINGS
        if self.settings.scheduler != "pbt" or record.kind != "trial" or not before.exists():
            return tree.get(RATIO, 0.0)
        return float(yaml.safe_load(before.read_text("utf-8"))[RATIO])

    def _tell(self, record: TrialRecord) -> None:
        rate: Rate | None = worst_rate(record)
        keys = list(dict.fromkeys(o.key for r in self._trials() for o in r.outcomes))
        self._points.tell(
            record.number,
            None if rate is None else rate.value,
            utility_of(record),
            excess_of(record, self.settings.bounds, keys),
        )

    def _add_untouched(self) -> None:
        """The model before training was evaluated at step 0 of the baseline without mixing."""
        outcomes = outcomes_at(self._folder(UNMIXED), 0)
        if outcomes and UNTOUCHED not in self.records:
            made = TrialRecord(-2, "untouched", status="done", outcomes=outcomes)
            self._set(replace(made, folder=f"{TRIALS}/{UNTOUCHED}"))

    def _free(self) -> None:
        """Remove checkpoints of trials that have come to their end, if they are not to be kept.

        A failed trial's stay: they may show why. So do all while population-based training goes
        on, where a trial may still take over one of a trial that has ended.
        """
        copied = self.settings.scheduler == "pbt"
        if self.settings.keep_checkpoints or (
            copied and any(record.status not in ENDED for record in self.records.values())
        ):
            return
        for record in self.records.values():
            if record.status in ("done", "stopped"):
                for checkpoint in self._folder(record.name).glob("checkpoint-*"):
                    shutil.rmtree(checkpoint, ignore_errors=True)

    def _set(self, record: TrialRecord) -> None:
        self.records[record.name] = record
        write_record(self._folder(record.name), record)
        self.changed()

    def _folder(self, name: str) -> Path:
        return (self.folder / TRIALS / name).resolve()
