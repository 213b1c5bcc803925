"""The ratio history and the counts that follow from it, over all steps of a run."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safemix.errors import PlanError
from safemix.mixture.apportion import ManySources, Segment, Targets, TwoSources, on_grid
from safemix.mixture.ratio import Constant, Piecewise, Ratio


@dataclass(frozen=True, slots=True)
class Change:
    """Ratios set at one step."""

    from_step: int
    changed: dict[str, Ratio]
    placed: dict[str, tuple[Ratio, int]]
    """All ratios in force from here on, with the step each counts from."""


class Timeline:
    """Counts per source before any step, under ratios that change at steps.

    Steps are cut into segments: one begins at every change, and one where the last moving
    schedule comes to rest, so that far steps are reached by closed forms.
    """

    def __init__(self, sources: Sequence[str], rest: int, units: int) -> None:
        """Begin with no ratio; call `change` for step 0 first.

        Args:
            sources: names, in order.
            rest: index of the source that takes what the others leave.
            units: units drawn a step.
        """
        self._sources, self._rest, self._units = tuple(sources), rest, units
        self.history: list[Change] = []
        self._segments: list[Segment] = []
        self._targets: list[Targets] = []

    def change(self, from_step: int, changed: Mapping[str, Ratio]) -> None:
        """Set ratios from a step on.

        Raises:
            PlanError: if `from_step` is before the last change.
        """
        placed: dict[str, tuple[Ratio, int]] = {}
        if self.history:
            last = self.history[-1]
            if from_step < last.from_step:
                raise PlanError(
                    f"from_step {from_step} is before the last change at step {last.from_step}: "
                    "rows already planned stay as they are"
                )
            placed = dict(last.placed)
            if from_step == last.from_step:
                # Two changes at one step are one change.
                changed = {**self.history.pop().changed, **changed}
        placed.update({name: (ratio, from_step) for name, ratio in changed.items()})
        while self._segments and self._segments[-1].first_step > from_step:
            self._segments.pop(), self._targets.pop()
        drawn, behind = self._state_before(from_step)
        if self._segments and self._segments[-1].first_step == from_step:
            self._segments.pop(), self._targets.pop()
        self.history.append(Change(from_step, dict(changed), placed))
        self._begin(from_step, drawn, behind)
        for step in _pieces_after(placed, from_step):
            self._begin(step, *self._state_before(step))

    def cumulative(self, start: int, stop: int) -> NDArray[np.int64]:
        """Units drawn per source before steps start..stop: int64[stop - start + 1, S]."""
        parts: list[NDArray[np.int64]] = []
        at = start
        while True:
            place = self._segment_at(at)
            following = self._segments[place + 1 :]
            end = min(stop, following[0].first_step) if following else self._settled(place, stop)
            parts.append(self._segments[place].cumulative(at, end))
            if end == stop:
                break
            # The row at `end` is the next segment's to give.
            parts[-1] = parts[-1][:-1]
            at = end
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def ratio(self, source: int, step: int) -> Fraction:
        """The ratio asked for a source at a step."""
        if source == self._rest:
            others = (index for index in range(len(self._sources)) if index != self._rest)
            return 1 - sum((self.ratio(index, step) for index in others), Fraction(0))
        place = bisect.bisect_right(self.history, step, key=lambda change: change.from_step) - 1
        ratio, origin = self.history[place].placed[self._sources[source]]
        return ratio.at(step - origin)

    def _settled(self, place: int, stop: int) -> int:
        """`stop`, or where the last segment's schedules come to rest if that is before."""
        targets = self._targets[place]
        return stop if targets.constant else min(stop, max(targets.settles, targets.first_step + 1))

    def _segment_at(self, step: int) -> int:
        last = self._targets[-1]
        if not last.constant and step >= last.settles:
            drawn, behind = self._state_before(last.settles)
            self._begin(last.settles, drawn, behind)
        return bisect.bisect_right(self._segments, step, key=lambda s: s.first_step) - 1

    def _begin(self, first_step: int, drawn: list[int], behind: list[Fraction]) -> None:
        nothing = Constant(Fraction(0))
        placed = self.history[-1].placed
        aligned = [
            _held(*placed.get(name, (nothing, first_step)), first_step) for name in self._sources
        ]
        targets = Targets(aligned, self._rest, first_step, self._units)
        make: Any = TwoSources if len(self._sources) == 2 else ManySources
        self._segments.append(make(targets, drawn, behind))
        self._targets.append(targets)

    def _state_before(self, step: int) -> tuple[list[int], list[Fraction]]:
        """Units drawn and remainders carried into a segment that begins at `step`."""
        count = len(self._sources)
        if not self._segments:
            return [0] * count, [Fraction(0)] * count
        previous = self._segments[-1]
        if not self._targets[-1].constant and step > self._targets[-1].settles:
            previous = self._segments[self._segment_at(step)]
        drawn = [int(n) for n in previous.cumulative(step, step)[0]]
        behind = [on_grid(part) for part in previous.remainders(step)]
        others = (part for source, part in enumerate(behind) if source != self._rest)
        behind[self._rest] = -sum(others, Fraction(0))
        return drawn, behind


def _pieces_after(placed: Mapping[str, tuple[Ratio, int]], step: int) -> list[int]:
    """Steps at which a piecewise ratio goes on with its next piece.

    Each is counted as a change set at that step is, so that a schedule draws the very rows of a
    run whose ratio was set while it ran.
    """
    pieces = {
        origin + first
        for ratio, origin in placed.values()
        if isinstance(ratio, Piecewise)
        for first, _ in ratio.points
    }
    return sorted(piece for piece in pieces if piece > step)


def _held(ratio: Ratio, origin: int, step: int) -> tuple[Ratio, int]:
    """A ratio from a step on: of a piecewise one the piece that holds there."""
    if isinstance(ratio, Piecewise):
        return Constant(ratio.at(step - origin)), step
    return ratio, origin
