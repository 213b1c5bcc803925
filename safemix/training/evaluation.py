"""Measuring while a run trains: the refusal margin often, completions at longer intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

from safemix.evaluate.probe import RefusalProbe
from safemix.evaluate.probe_reading import ProbeReading
from safemix.evaluate.results import Evaluation

__all__ = ["Evaluate", "EvaluationCallback", "Measuring", "Observer", "Reader"]

Metrics = Mapping[str, float]
# Called on every rank, with the same numbers: step and metrics; nan for what is not finite.
Observer = Callable[[int, Metrics], None]
# Likewise, with all that the probe read.
Reader = Callable[[int, ProbeReading], None]
# Called on every rank with the model before the first step.
Starter = Callable[[Any], object]
# From a model and the step to metrics and what they were counted over; all ranks call it.
Evaluate = Callable[[Any, int], tuple[Metrics, Evaluation]]


@dataclass(frozen=True)
class Measuring:
    """What is measured, and how often.

    Attributes:
        probe: reads the refusal margin; None for never.
        probe_every: optimizer steps between two readings.
        evaluate: answers prompts and judges them; None for never.
        eval_every: optimizer steps between two evaluations.
        eval_at_start: evaluate before the first step too.
        notes: for a person, a line each.
        readers: are told of each reading of the probe, on every rank.
        starters: are given the model before the first step, after the first reading.
    """

    probe: RefusalProbe | None = None
    probe_every: int = 0
    evaluate: Evaluate | None = None
    eval_every: int = 0
    eval_at_start: bool = True
    notes: tuple[str, ...] = ()
    readers: tuple[Reader, ...] = ()
    starters: tuple[Starter, ...] = ()


class EvaluationCallback(TrainerCallback):
    """Measures at step 0, every so many steps, and at the last step.

    A reading goes into the log of its step, which it asks for where the Trainer would not log. A
    run that goes on does not read again at the step it goes on from: that reading stands in
    `metrics.jsonl`. `perf/probe_share` and `perf/eval_share` say which part of the time since the
    last reading it took. Add it before the callback that writes the logs.

    Args:
        measuring: what and how often.
        log: takes step and metrics where there is no log of the Trainer: at step 0.
        say: takes one line for a person; spoken on rank 0.
        first: optimizer steps done before this process started.
        weights: gives a context in which the model has the weights to measure, such as their
            average; by default those that are trained.
        settle: called after the probe, on every rank: no weight may be on its way any more.
        spent: takes the seconds that a reading took.
        observers: are told of each reading.
        tables: takes step and evaluation where completions are shown.
    """

    def __init__(
        self,
        measuring: Measuring,
        log: Callable[[int, Metrics], None],
        say: Callable[[str], None],
        *,
        first: int = 0,
        weights: Callable[[], AbstractContextManager[Any]] = nullcontext,
        settle: Callable[[], object] = lambda: None,
        spent: Callable[[float], object] = lambda seconds: None,
        observers: Sequence[Observer] = (),
        tables: Callable[[int, Evaluation], object] = lambda step, found: None,
    ) -> None:
        self._measuring, self._log, self._say = measuring, log, say
        self._first, self._weights, self._settle = first, weights, settle
        self._note_spent, self._tables = spent, tables
        self._observers = list(observers)
        self._waiting: dict[str, float] = {}
        self._spent: dict[str, float] = {}  # seconds, in the reading under way
        self._since = time.perf_counter()

    def add_observer(self, observer: Observer) -> None:
        """Tell one more of each reading from now on."""
        self._observers.append(observer)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read the model as it is before the first step."""
        if self._first == 0 and state.global_step == 0:
            metrics = self._measure(0, kwargs["model"], last=False)
            for starter in self._measuring.starters:
                with self._weights():
                    starter(kwargs["model"])
            if metrics:
                self._log(0, metrics)
                self._tell(0, metrics)
        self._since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read where it is due; the log of this step takes the metrics."""
        step = state.global_step
        metrics = self._measure(step, kwargs["model"], last=step >= state.max_steps)
        if not metrics:
            return
        self._tell(step, metrics)
        now = time.perf_counter()
        passed = max(now - self._since, 1e-9)
        shares = {f"perf/{name}_share": spent / passed for name, spent in self._spent.items()}
        self._waiting, self._since = {**metrics, **shares}, now
        self._note_spent(sum(self._spent.values()))
        control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add what was read to the log of the step."""
        logs = kwargs.get("logs")
        if logs is not None and "loss" in logs and self._waiting:
            logs.update(self._waiting)
            self._waiting = {}

    def _measure(self, step: int, model: Any, *, last: bool) -> dict[str, float]:
        """What is due at a step; every rank does the same."""
        wanted = self._measuring
        metrics: dict[str, float] = {}
        probes = wanted.probe is not None and _due(step, wanted.probe_every, last)
        evaluates = wanted.evaluate is not None and _due(step, wanted.eval_every, last)
        evaluates = evaluates and (step > 0 or wanted.eval_at_start)
        if not probes and not evaluates:
            return metrics
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # what training has queued is not the probe's time
        self._spent = {}
        begin = time.perf_counter()
        with self._weights():
            if probes and wanted.probe is not None:
                reading = wanted.probe.measure(model)
                self._settle()
                for reader in wanted.readers:
                    reader(step, reading)
                metrics |= reading.metrics()
                if reading.error is not None:
                    self._say(f"warning: step {step}: {reading.error}")
                self._spent["probe"] = time.perf_counter() - begin
            if evaluates and wanted.evaluate is not None:
                rates, found = wanted.evaluate(model, step)
                metrics |= rates
                self._tables(step, found)
                self._spent["eval"] = time.perf_counter() - begin - self._spent.get("probe", 0.0)
        return metrics

    def _tell(self, step: int, metrics: Metrics) -> None:
        for observer in self._observers:
            observer(step, metrics)


def _due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (last or step % every == 0)
