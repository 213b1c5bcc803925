"""A sweep on the plant: the product's searchers, schedulers and rule, with Ray's interface.

Ray's schedulers decide when a trial reports. `Controller` is what they see of Ray Tune: it holds
the trials and does what they ask for, in one process and without a cluster. Trials that run have
one reading each before any has the next, as equal workers would.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from search_plant import State, Surface, advance, begin, outcomes, reading

from safemix.hosts.ray_keys import STEP
from safemix.tuning.driver import ENTRY, RATIO, TRIAL
from safemix.tuning.front import utility_of, worst_rate
from safemix.tuning.limits import excess_of
from safemix.tuning.records import Kind, Outcome, TrialRecord
from safemix.tuning.scheduler import scheduler_of
from safemix.tuning.score import Score
from safemix.tuning.settings import SweepSettings
from safemix.tuning.space import Point
from safemix.tuning.tune import points_of


@dataclass(frozen=True)
class Moment:
    """A trial has ended.

    Attributes:
        rows: trained so far, by all trials.
        records: of the trials that are done, and of the baseline.
    """

    rows: int
    records: tuple[TrialRecord, ...]


@dataclass(frozen=True)
class Course:
    """A sweep from its start to its end.

    Attributes:
        moments: each time that a trial was done.
        rows: trained in all.
        stopped: trials that the scheduler stopped.
        changes: of the ratio of a running trial.
    """

    moments: tuple[Moment, ...]
    rows: int
    stopped: int
    changes: int


class PlantTrial:
    """A trial as a scheduler of Ray sees it, with the plant in place of a run."""

    def __init__(self, number: int, point: Point, state: State, draw: np.random.Generator) -> None:
        self.number, self.point, self.state, self.draw = number, point, state, draw
        self.trial_id, self.experiment_tag = f"trial-{number:02d}", ""
        self.custom_dirname = self.trial_id
        self.readings: list[dict[str, float]] = []
        entry = {TRIAL: self.trial_id, RATIO: point[RATIO]}
        self.config: dict[str, Any] = {ENTRY: entry}
        self.status = "PENDING"
        self.rows = 0
        self.score = Score()
        self.last_result: dict[str, Any] = {}
        self.evaluated_params: dict[str, Any] = {}
        self.temporary_state = SimpleNamespace(saving_to=None)
        manager = SimpleNamespace(
            checkpoint_config=SimpleNamespace(num_to_keep=None), _latest_checkpoint_result=None
        )
        self.run_metadata = SimpleNamespace(checkpoint_manager=manager)

    @property
    def ratio(self) -> float:
        """That it trains with now."""
        return float(self.config[ENTRY][RATIO])

    @property
    def checkpoint(self) -> State:
        """What a paused trial goes on from."""
        return self.state

    def is_finished(self) -> bool:
        """Whether it will not run again."""
        return self.status == "TERMINATED"

    def set_config(self, config: dict[str, Any]) -> None:
        """A scheduler changes the ratio."""
        self.config = config

    def set_experiment_tag(self, tag: str) -> None:
        """A name that Ray shows."""
        self.experiment_tag = tag

    def take_over(self) -> bool:
        """Go on from what the scheduler has left, if it has; whether it had."""
        manager = self.run_metadata.checkpoint_manager
        given, manager._latest_checkpoint_result = manager._latest_checkpoint_result, None
        if given is not None:
            self.state = given.checkpoint
        return given is not None


@dataclass
class Controller:
    """What Ray's schedulers use of Ray Tune's controller."""

    trials: list[PlantTrial] = field(default_factory=list)
    search_alg: Any = None

    def get_trials(self) -> list[PlantTrial]:
        """All of them."""
        return self.trials

    def get_live_trials(self) -> list[PlantTrial]:
        """Those that have not ended."""
        return [trial for trial in self.trials if not trial.is_finished()]

    def pause_trial(self, trial: PlantTrial, should_checkpoint: bool = True) -> None:
        """Take the workers away."""
        trial.status = "PAUSED"

    def _schedule_trial_save(self, trial: PlantTrial, result: dict[str, Any]) -> State:
        """Keep what another trial may go on from."""
        return trial.state


class PlantSweep:
    """One sweep on one surface.

    Args:
        settings: of the sweep, `parallel` a number.
        surface: that its trials live on.
        seed: of the noise of its trials.
        sizes: harmful prompts, and held-out task rows.
    """

    def __init__(
        self, settings: SweepSettings, surface: Surface, seed: int, sizes: tuple[int, int]
    ) -> None:
        self.settings, self.surface, self.seed, self.sizes = settings, surface, seed, sizes
        run = settings.run
        self.batch, self.steps = int(run["global_batch_size"]), int(run["max_steps"])
        self.every = int(run["evaluation"]["probe_every"])
        self.rows = self.stopped = self.changes = 0
        self.records: list[TrialRecord] = []
        self.moments: list[Moment] = []

    def run(self) -> Course:
        """All trials, and the baseline without mixing: it is the first, with PBT the last."""
        # Ray's population-based training draws from Python's own generator.
        random.seed(f"{self.surface.seed}/{self.seed}/{self.settings.seed}")
        population = self.settings.scheduler == "pbt"
        if not population:
            self._unmixed()
        self._points, self._controller = points_of(self.settings), Controller()
        self._scheduler = scheduler_of(self.settings, self._all)
        while population and self._add():  # it compares trials that run at the same time
            pass
        while running := self._started():
            for trial in running:
                self._go_on(trial)
        if population:
            self._unmixed()
        return Course(tuple(self.moments), self.rows, self.stopped, self.changes)

    def _unmixed(self) -> None:
        """The baseline runs whole: no scheduler compares it with trials."""
        draw, noise = self._draw(-1), np.random.default_rng([self.surface.seed, 3, self.seed])
        state, read = begin(self.surface, draw), []
        while state.step < self.steps:
            steps = min(self.every, self.steps - state.step)
            state = advance(self.surface, state, 0.0, steps, self.steps)
            read.append(self._reading(state, noise))
        self.rows += self.steps * self.batch
        found = outcomes(self.surface, state, draw, self.sizes)
        made = self._record(-1, state, found, self.steps * self.batch, {})
        self.records.append(replace(made, readings=tuple(read)))

    def _add(self) -> bool:
        number = len(self._controller.trials)
        point = self._points.ask(number)
        if point is None:
            return False
        draw = self._draw(number)
        trial = PlantTrial(number, point, begin(self.surface, draw), draw)
        trial.score = Score(**self.settings.score.model_dump())
        self._scheduler.on_trial_add(self._controller, trial)
        self._controller.trials.append(trial)
        return True

    def _started(self) -> list[PlantTrial]:
        """Trials that run, as many as there is place for."""
        trials, slots = self._controller.trials, int(self.settings.parallel)
        while sum(trial.status == "RUNNING" for trial in trials) < slots:
            chosen = self._scheduler.choose_trial_to_run(self._controller)
            if chosen is None and not self._add():
                break
            if chosen is not None:
                chosen.status = "RUNNING"
                self.changes += chosen.take_over()
        return [trial for trial in trials if trial.status == "RUNNING"]

    def _go_on(self, trial: PlantTrial) -> None:
        """Train to the next reading, and let the scheduler decide."""
        if trial.status != "RUNNING":  # another trial's report has ended this turn
            return
        if not trial.last_result and self._report(trial) == "STOP":
            self._end(trial, done=False)
            return
        steps = min(self.every, self.steps - trial.state.step)
        trial.state = advance(self.surface, trial.state, trial.ratio, steps, self.steps)
        trial.rows += steps * self.batch
        self.rows += steps * self.batch
        decision = self._report(trial)
        if trial.status == "PAUSED":
            return
        if trial.state.step >= self.steps:
            self._end(trial, done=True)
        elif decision == "STOP":
            self._end(trial, done=False)
        elif decision == "PAUSE":
            self._controller.pause_trial(trial)

    def _report(self, trial: PlantTrial) -> str:
        step, found = trial.state.step, self._reading(trial.state, trial.draw)
        trial.readings.append(found)
        trial.last_result = {**found, **trial.score(step, found)}
        decision = self._scheduler.on_trial_result(self._controller, trial, trial.last_result)
        return str(decision)

    def _reading(self, state: State, draw: np.random.Generator) -> dict[str, float]:
        found = reading(self.surface, state, self.batch, self.steps, draw)
        return {STEP: state.step, **found}

    def _all(self) -> list[TrialRecord]:
        """How the trials stand, as the sweep's records say it to a scheduler."""
        ended = {record.number for record in self.records}
        running = (trial for trial in self._controller.trials if trial.number not in ended)
        return [*self.records, *map(self._running, running)]

    def _running(self, trial: PlantTrial) -> TrialRecord:
        made = self._record(trial.number, trial.state, (), trial.rows, trial.point)
        return replace(made, status="running", readings=tuple(trial.readings))

    def _end(self, trial: PlantTrial, *, done: bool) -> None:
        trial.status = "TERMINATED"
        self._scheduler.on_trial_complete(self._controller, trial, trial.last_result)
        if not done:
            self.stopped += 1
            self._points.tell(trial.number, None, None, 0.0)
            return
        found = outcomes(self.surface, trial.state, trial.draw, self.sizes)
        made = self._record(trial.number, trial.state, found, trial.rows, trial.point)
        made = replace(made, readings=tuple(trial.readings))
        self.records.append(made)
        rate = worst_rate(made)
        self._points.tell(
            trial.number,
            None if rate is None else rate.value,
            utility_of(made),
            excess_of(made, self.settings.bounds),
        )
        self.moments.append(Moment(self.rows, tuple(self.records)))

    def _record(
        self, number: int, state: State, found: Sequence[Outcome], rows: int, point: Point
    ) -> TrialRecord:
        kind: Kind = "trial" if number >= 0 else "unmixed"
        return TrialRecord(
            number, kind, dict(point), "done", step=state.step, max_steps=self.steps, rows=rows,
            ratios=state.ratios, outcomes=tuple(found),
        )  # fmt: skip

    def _draw(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.surface.seed, 2, self.seed, number + 1])
