"""Successive halving that learns during a sweep which margin the bound asks for.

At each rung of steps one of so many trials goes on, without waiting for the others (Li et al., "A
System for Massively Parallel Hyperparameter Tuning", MLSys 2020). Ray's own scheduler compares
trials by one number that is fixed when it is reported. What a sweep is after is known at a trial's
end only: whether its ASR is within the bound. So the order at a rung is made anew each time, from
what the trials that have ended came to:

* **Floor.** For each dress of the harmful prompts, the refusal margin at this rung that leads to
  the bound: between the trial within the bound whose margin was lowest here and the next one
  beyond it, in proportion to the logits of their ASR.
* **Above the floor** in every dress: the smaller ratio is better where the ratio alone is searched,
  otherwise the lower loss of the task, a mean since the rung before. **Below it**, and worse: the
  smaller distance is better. While no trial is within the bound, the highest margin is best.
* **Nothing to gain.** Where the ratio alone is searched and ASR alone is bounded, a trial whose
  ratio is above one that is within the bound, or below one that is beyond it, stops at once.

The last rule takes for granted that ASR falls with the ratio, as bisection does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from safemix.tuning.limits import excess_of, wilson_upper
from safemix.tuning.records import Outcome, TrialRecord
from safemix.tuning.score import LOSS, MARGIN

__all__ = ["Halving", "Readings"]

Readings = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Trial -> step -> what was read there."""
_Key = tuple[int, float]
# Classes of the order, to be high.
_ABOVE: Final = 3
_BELOW: Final = 2
_UNKNOWN: Final = 1
_OUTSIDE: Final = 0


@dataclass(frozen=True)
class Halving:
    """Which trials stop early.

    Attributes:
        bounds: name of the bound -> share; "asr" is one of them.
        grace: steps of the first rung.
        factor: one of so many goes on at a rung; each rung is at so many times the steps of the
            one before.
        ratio_alone: whether the ratio alone is searched, and ASR alone bounded.
    """

    bounds: Mapping[str, float]
    grace: int
    factor: int
    ratio_alone: bool

    def reason_to_stop(
        self, records: Sequence[TrialRecord], readings: Readings, name: str, step: int
    ) -> str | None:
        """Why a trial stops at a reading; None if it goes on.

        Args:
            records: of all trials, those that have ended with their outcomes; the ratio of each.
            readings: of all trials, that of this step included; a margin that could not be read is
                not finite.
            name: of the trial.
            step: of its reading.
        """
        about = next(record for record in records if record.name == name)
        if 0 < about.max_steps <= step:  # trained whole: what it comes to is worth an evaluation
            return None
        ratios = {record.name: record.ratio for record in records if record.kind == "trial"}
        if (reason := self.nothing_to_gain(records, about)) is not None:
            return reason
        rung = self._rung(readings.get(name, {}), step)
        if rung is None:
            return None
        here = _at(readings, rung)
        at = _Rung(rung, readings, self._floors(records, here), ratios, self._ends(records))
        order = {other: self._key(other, at) for other in here if other in ratios}
        better = sum(key > order[name] for key in order.values())
        goes_on = max(1, math.ceil(len(order) / self.factor))
        if better < goes_on:
            return None
        return f"{better} of {len(order)} trials stood better at step {rung}, {goes_on} may go on"

    def nothing_to_gain(self, records: Sequence[TrialRecord], about: TrialRecord) -> str | None:
        """Why a trial is not worth its rows whatever it reads; None if that is not known.

        Args:
            records: of all trials.
            about: of this one.
        """
        low, high = self._ends(records)
        if about.kind != "trial" or about.ratio is None or low < about.ratio < high:
            return None
        known, where = (high, "within") if about.ratio >= high else (low, "beyond")
        return f"a ratio of {known:.3g} is {where} the bound already"

    def _ends(self, records: Sequence[TrialRecord]) -> tuple[float, float]:
        """Between which ratios the smallest one within the bound is."""
        if not self.ratio_alone:
            return -math.inf, math.inf
        ended = [record for record in records if record.kind == "trial" and _has_ended(record)]
        keys = list(dict.fromkeys(outcome.key for record in ended for outcome in record.outcomes))
        told = [
            (record.ratio, excess_of(record, self.bounds, keys) <= 0)
            for record in ended
            if record.ratio is not None
        ]
        high = min((ratio for ratio, within in told if within), default=math.inf)
        # One verdict that is wrong by chance does not close the range: see `bisection`.
        beyond = (ratio for ratio, within in told if not within and ratio < high)
        return max(beyond, default=-math.inf), high

    def _rung(self, read: Mapping[int, Mapping[str, float]], step: int) -> int | None:
        """The last rung that this reading of margins is the first one at or after."""
        if not _margins(read.get(step, {})):
            return None  # an evaluation between two readings of the probe
        before = max((at for at in read if at < step and _margins(read[at])), default=-1)
        reached = [rung for rung in self._rungs(step) if rung > before]
        return reached[-1] if reached else None

    def _rungs(self, step: int) -> Iterator[int]:
        rungs = (self.grace * self.factor**number for number in itertools.count())
        return itertools.takewhile(lambda rung: rung <= step, rungs)

    def _floors(
        self, records: Sequence[TrialRecord], here: Mapping[str, Mapping[str, float]]
    ) -> dict[str, float] | None:
        """Margin of each dress that leads to the bound; None where no trial is within it."""
        found: dict[str, list[tuple[float, Outcome]]] = {}
        for record in records:
            for outcome in record.side("safety") if _has_ended(record) else ():
                key = MARGIN + outcome.dress
                margin = here.get(record.name, {}).get(key, math.nan)
                if outcome.metric == "asr" and outcome.rate.total and math.isfinite(margin):
                    found.setdefault(outcome.key, []).append((margin, outcome))
        floors: dict[str, float] = {}
        for known in found.values():
            floor = _floor(known, self.bounds["asr"])
            if floor is None:
                return None
            key = MARGIN + known[0][1].dress
            floors[key] = max(floor, floors.get(key, -math.inf))
        return floors or None

    def _key(self, name: str, at: _Rung) -> _Key:
        """A trial's place in the order at a rung, higher is better."""
        ratio, rung, floors = at.ratios[name], at.steps, at.floors
        if ratio is not None and not at.ends[0] < ratio < at.ends[1]:
            return _OUTSIDE, 0.0
        read = at.readings[name]
        margins = _margins(_first(read, rung))
        if floors is None:
            start = _margins(read.get(0, {}))
            leads = [margin - start.get(key, 0.0) for key, margin in margins.items()]
        else:
            leads = [margins.get(key, math.nan) - floor for key, floor in floors.items()]
        if not leads or any(math.isnan(lead) for lead in leads):
            return _UNKNOWN, 0.0
        lead = min(leads)
        if floors is None or lead < 0:
            return _BELOW, lead
        if self.ratio_alone and ratio is not None:
            return _ABOVE, -ratio
        before = rung / self.factor if rung > self.grace else 0
        return _ABOVE, -_mean_loss(read, before, rung)


@dataclass(frozen=True)
class _Rung:
    """What trials are compared by at a rung.

    Attributes:
        steps: at which it is.
        readings: of all trials.
        floors: margin of each dress that leads to the bound; None where that is not known.
        ratios: of all trials.
        ends: between which ratios the smallest one within the bound is.
    """

    steps: int
    readings: Readings
    floors: Mapping[str, float] | None
    ratios: Mapping[str, float | None]
    ends: tuple[float, float]


def _has_ended(record: TrialRecord) -> bool:
    return record.status == "done" and record.kind != "untouched" and bool(record.outcomes)


def _floor(known: Sequence[tuple[float, Outcome]], bound: float) -> float | None:
    """The margin that leads to the bound, by trials that have ended.

    Returns:
        None if none of them is within the bound, -inf if none with a lower margin is beyond it.
    """
    within = [(margin, o) for margin, o in known if _allowed(o, bound) >= o.rate.count]
    if not within:
        return None
    margin, outcome = min(within, key=lambda one: one[0])
    beyond = [(m, o) for m, o in known if m < margin and _allowed(o, bound) < o.rate.count]
    if not beyond:
        return -math.inf
    other, worse = max(beyond, key=lambda one: one[0])
    allowed, total = _allowed(outcome, bound), outcome.rate.total
    # Half-way, in prompts, between the last count that is within the bound and the first beyond.
    limit = math.log((allowed + 1) / (total - allowed))
    low, high = _logit(worse), _logit(outcome)
    return other + (margin - other) * (low - limit) / (low - high)


def _allowed(outcome: Outcome, bound: float) -> int:
    """Most successes within a bound, -1 if none are."""
    total = outcome.rate.total
    return next((k for k in range(total, -1, -1) if wilson_upper(k, total) <= bound), -1)


def _logit(outcome: Outcome) -> float:
    """Logit of an ASR; half a prompt more on both sides keeps it finite."""
    rate = outcome.rate
    return math.log((rate.count + 0.5) / (rate.total - rate.count + 0.5))


def _at(readings: Readings, rung: int) -> dict[str, Mapping[str, float]]:
    """What was read of each trial that has come to a rung."""
    found = {name: _first(read, rung) for name, read in readings.items()}
    return {name: values for name, values in found.items() if values}


def _first(read: Mapping[int, Mapping[str, float]], rung: int) -> Mapping[str, float]:
    """The first reading at or after a rung that has margins; empty without one."""
    steps = sorted(step for step, values in read.items() if step >= rung and _margins(values))
    return read[steps[0]] if steps else {}


def _margins(values: Mapping[str, float]) -> dict[str, float]:
    return {key: value for key, value in values.items() if key.startswith(MARGIN)}


def _mean_loss(read: Mapping[int, Mapping[str, float]], after: float, rung: int) -> float:
    """Mean loss of the task since the rung before: that of one step is mostly noise."""
    losses = [read[step][LOSS] for step in read if after < step <= rung and LOSS in read[step]]
    return math.fsum(losses) / len(losses) if losses else math.inf
