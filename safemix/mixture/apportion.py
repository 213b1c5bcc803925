"""How many rows of each source a step takes: exact in every step and over the run.

Two sources: the first `n` steps hold `floor(target + 1/2)` rows of one and the rest of the
other. The difference between two steps is then the floor or the ceiling of ratio x batch, the
run is never more than half a row off, and any step is one line of integer arithmetic.

Three or more: no such line keeps all sources within one row at once. Each step gives every
source the floor of its part and hands out what is left by Tijdeman's rule for the chairman
assignment problem ("The chairman assignment problem", Discrete Mathematics 32, 1980): among
those far enough behind, first the one that would be a row behind soonest. Under constant ratios
the remainders come back after the ratios' common denominator, so a far step is a jump and a
short walk.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from safemix.mixture.ratio import Ratio

_INT64_SAFE = 2**61
# Remainders carried over a change of ratio are kept in units of 2**-32 rows. Without a common
# unit a thousand changes would multiply a thousand denominators; with it a million changes are
# off by less than a thousandth of a row.
GRID = 1 << 32
_SNAPSHOT_EVERY = 128


class Segment(Protocol):
    """The counts of a stretch of steps in which no ratio is set anew."""

    first_step: int

    def cumulative(self, start: int, stop: int) -> NDArray[np.int64]:
        """Units drawn per source before steps start..stop: int64[stop - start + 1, S]."""
        ...

    def remainders(self, step: int) -> tuple[Fraction, ...]:
        """Per source: target minus units drawn, before `step`."""
        ...


class Targets:
    """Exact targets of one segment: units x sum of ratios, per source, from its first step."""

    def __init__(
        self, ratios: Sequence[tuple[Ratio, int]], rest: int, first_step: int, units: int
    ) -> None:
        """Set up the targets.

        Args:
            ratios: per source the ratio and the step it counts from; `rest`'s entry is unused.
            rest: index of the source that takes what the others leave.
            first_step: first step of the segment.
            units: units a step, the global batch (or 1 where whole steps are dealt).
        """
        self.ratios, self.rest, self.first_step, self.units = list(ratios), rest, first_step, units
        self._before = [ratio.total(first_step - origin) for ratio, origin in self.ratios]
        moving = [pair for source, pair in enumerate(self.ratios) if source != rest]
        self.settles = max(origin + ratio.settles() for ratio, origin in moving)
        """First step from which all ratios are constant."""
        self.constant = first_step >= self.settles

    def drawn(self, step: int) -> list[Fraction]:
        """Target units per source in steps first_step..step - 1; sums to units x steps."""
        targets = [
            self.units * (ratio.total(step - origin) - before)
            for (ratio, origin), before in zip(self.ratios, self._before, strict=True)
        ]
        targets[self.rest] = Fraction(0)
        targets[self.rest] = self.units * (step - self.first_step) - sum(targets, Fraction(0))
        return targets


class TwoSources:
    """Closed form for two sources; see the module's text."""

    def __init__(self, targets: Targets, drawn: Sequence[int], behind: Sequence[Fraction]) -> None:
        """Start from `drawn` units per source and `behind` carried remainders."""
        self._targets, self._drawn = targets, list(drawn)
        self.first_step = targets.first_step
        self._other = 1 - targets.rest
        self._behind = behind[self._other]

    def cumulative(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Segment.cumulative`."""
        counts = self._counts(start, stop)
        other, rest = self._other, self._targets.rest
        table = np.empty((stop - start + 1, 2), dtype=np.int64)
        table[:, other] = counts + self._drawn[other]
        steps = np.arange(start - self.first_step, stop - self.first_step + 1, dtype=np.int64)
        table[:, rest] = self._drawn[rest] + steps * self._targets.units - counts
        return table

    def _counts(self, start: int, stop: int) -> NDArray[np.int64]:
        """floor(behind + target + 1/2) before each step: int64[stop - start + 1]."""
        first, half = self.first_step, Fraction(1, 2)
        if self._targets.constant:
            # (a + b n) // d with whole a, b, d; in numpy where int64 holds it.
            slope = self._targets.drawn(first + 1)[self._other]
            at_start = self._behind + half + slope * (start - first)
            whole = math.floor(at_start)
            part = at_start - whole
            d = math.lcm(part.denominator, slope.denominator)
            a, b = int(part * d), int(slope * d)
            steps = stop - start
            if max(d, b, a + b * steps) < _INT64_SAFE:
                return whole + (a + b * np.arange(steps + 1, dtype=np.int64)) // d
            return np.array([whole + (a + b * n) // d for n in range(steps + 1)], dtype=np.int64)
        return np.array(
            [
                math.floor(self._behind + self._targets.drawn(step)[self._other] + half)
                for step in range(start, stop + 1)
            ],
            dtype=np.int64,
        )

    def remainders(self, step: int) -> tuple[Fraction, ...]:
        """See `Segment.remainders`."""
        target = self._behind + self._targets.drawn(step)[self._other]
        part = target - int(self._counts(step, step)[0])
        return (-part, part) if self._other else (part, -part)


class ManySources:
    """Tijdeman's rule for three or more sources, with snapshots for random access."""

    def __init__(self, targets: Targets, drawn: Sequence[int], behind: Sequence[Fraction]) -> None:
        """Start from `drawn` units per source and `behind` carried remainders."""
        self._targets = targets
        self.first_step = targets.first_step
        self._start_drawn = tuple(drawn)
        self._sources = len(drawn)
        if targets.constant:
            slopes = targets.drawn(self.first_step + 1)
            common = math.lcm(*(v.denominator for v in [*slopes, *behind]))
            self._slopes = [int(v * common) for v in slopes]
            self._common = common
            self._period = math.lcm(*(v.denominator for v in slopes))
        else:
            self._common = 0
            self._period = 0
        lags = [int(v * self._common) if self._common else v for v in behind]
        # (steps since the segment's start, units drawn since then, lags), in order of step
        self._walked: list[tuple[int, tuple[int, ...], tuple[Fraction | int, ...]]] = [
            (0, (0,) * self._sources, tuple(lags))
        ]
        self._loops: dict[tuple[Fraction | int, ...], int] = {tuple(lags): 0}
        self._cycle: tuple[int, int, tuple[int, ...]] | None = None

    def cumulative(self, start: int, stop: int) -> NDArray[np.int64]:
        """See `Segment.cumulative`."""
        table = np.empty((stop - start + 1, self._sources), dtype=np.int64)
        step, drawn, lags = self._seek(start - self.first_step)
        for index in range(stop - start + 1):
            table[index] = [a + b for a, b in zip(self._start_drawn, drawn, strict=True)]
            if index < stop - start:
                drawn, lags = self._advance(step, drawn, lags)
                step += 1
        return table

    def remainders(self, step: int) -> tuple[Fraction, ...]:
        """See `Segment.remainders`."""
        lags = self._seek(step - self.first_step)[2]
        if self._common:
            return tuple(Fraction(int(lag), self._common) for lag in lags)
        return tuple(Fraction(lag) for lag in lags)

    def _seek(self, offset: int) -> tuple[int, tuple[int, ...], tuple[Fraction | int, ...]]:
        """State before the step `offset` steps after the segment's start."""
        jumps, per_cycle = 0, (0,) * self._sources
        if offset > self._walked[-1][0] and self._cycle is None:
            self._walk_to(offset)
        if self._cycle is not None and offset >= self._cycle[0]:
            start, length, per_cycle = self._cycle
            jumps, inside = divmod(offset - start, length)
            offset = start + inside
        place = bisect.bisect_right(self._walked, offset, key=lambda entry: entry[0]) - 1
        step, drawn, lags = self._walked[place]
        while step < offset:
            drawn, lags = self._advance(step, drawn, lags)
            step += 1
        return step, tuple(d + jumps * c for d, c in zip(drawn, per_cycle, strict=True)), lags

    def _walk_to(self, offset: int) -> None:
        """Walk on from the last snapshot until `offset` or until the remainders repeat."""
        step, drawn, lags = self._walked[-1]
        while step < offset:
            drawn, lags = self._advance(step, drawn, lags)
            step += 1
            at_period = self._period and step % self._period == 0
            if at_period and lags in self._loops:
                first = self._loops[lags]
                self._keep(step, drawn, lags)
                before = next(d for s, d, _ in self._walked if s == first)
                gained = tuple(b - a for a, b in zip(before, drawn, strict=True))
                self._cycle = (first, step - first, gained)
                return
            if at_period:
                self._loops[lags] = step
            if at_period or step % _SNAPSHOT_EVERY == 0:
                self._keep(step, drawn, lags)

    def _keep(self, step: int, drawn: tuple[int, ...], lags: tuple[Fraction | int, ...]) -> None:
        self._walked.append((step, drawn, lags))

    def _advance(
        self, step: int, drawn: tuple[int, ...], lags: tuple[Fraction | int, ...]
    ) -> tuple[tuple[int, ...], tuple[Fraction | int, ...]]:
        """One step on: units drawn and lags after it."""
        if self._common:
            gains: Sequence[Fraction | int] = self._slopes
            one: int = self._common
        else:
            now = self._targets.drawn(self.first_step + step)
            after = self._targets.drawn(self.first_step + step + 1)
            gains, one = [b - a for a, b in zip(now, after, strict=True)], 1
        counts = step_counts(gains, lags, one, self._targets.units)
        new_lags = tuple(
            lag + gain - count * one for lag, gain, count in zip(lags, gains, counts, strict=True)
        )
        return tuple(d + c for d, c in zip(drawn, counts, strict=True)), new_lags


def step_counts(
    gains: Sequence[Fraction | int], lags: Sequence[Fraction | int], one: int, units: int
) -> list[int]:
    """Units of each source in one step, by Tijdeman's rule.

    Args:
        gains: the step's exact targets per source, in units of 1 / `one`.
        lags: what each source is behind before the step, in units of 1 / `one`.
        one: the denominator.
        units: units of the step; the counts sum to it.

    Returns:
        Per source the floor or the ceiling of its target.
    """
    counts = [int(gain // one) for gain in gains]
    left = units - sum(counts)
    if not left:
        return counts
    parts = [gain - count * one for gain, count in zip(gains, counts, strict=True)]
    # Far enough behind: at least 1 / (2 S - 2); too far behind: 1 - 1 / (2 S - 2).
    scale = 2 * len(counts) - 2

    def urgency(source: int) -> tuple[int, Fraction | int, Fraction | int, int]:
        due = lags[source] + parts[source]
        if not parts[source]:
            return (3, 0, -due, source)
        if due * scale < one:
            return (2, 0, -due, source)
        spare = one * (scale - 1) - due * scale
        return (1, max(0, -(-spare // (parts[source] * scale))), -due, source)

    for source in sorted(range(len(counts)), key=urgency)[:left]:
        counts[source] += 1
    return counts


def on_grid(value: Fraction) -> Fraction:
    """Round down to the grid on which remainders are carried; floor(value + 1/2) is kept."""
    return Fraction(math.floor(value * GRID), GRID)
