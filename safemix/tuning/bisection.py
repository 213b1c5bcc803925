"""Which ratio is tried next where only one end of the range is wanted: the smallest safe ratio.

The safety rate falls as the ratio rises, so the ratios within the bound begin somewhere, and what
lies above costs utility and gains nothing. Each trial halves the range in which that place is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from safemix.tuning.space import Point, Range

__all__ = ["BisectedPoints"]

# Ratios closer together than this factor are not told apart by a few hundred prompts.
_FINE: Final = 1.1
_DIGITS: Final = 4


class BisectedPoints:
    """Halves the range between the largest value that is not safe and the smallest that is.

    Trials on their way divide the range too, so several can run side by side. A point depends on
    the points given before it and on what is known of them, and on nothing else. So a sweep that
    goes on gives the points that it would have given without a cut.

    Args:
        key: what is searched.
        domain: its range; halved in the logarithm where it is logarithmic.
        trials: points at most; fewer once the range is narrower than a tenth of its value.
    """

    def __init__(self, key: str, domain: Range, trials: int) -> None:
        self._key, self._domain, self._trials = key, domain, trials
        self._points: dict[int, float] = {}
        self._safe: dict[int, bool | None] = {}

    def ask(self, number: int) -> Point | None:
        """The middle of the widest part that is left; None when all of it is narrow."""
        if number >= self._trials:
            return None
        low, high = self._ends()
        inside = sorted(value for value in self._points.values() if low < value < high)
        edges = [low, *inside, high]
        # Of two that are as wide the upper one: a trial there is the safer one to have.
        _, begin, end = max(
            (round(self._width(a, b), 9), a, b) for a, b in itertools.pairwise(edges)
        )
        if begin > 0 and end / begin <= _FINE:
            return None
        value = float(f"{self._middle(begin, end):.{_DIGITS}g}")
        if value in self._points.values():
            return None
        self._points[number] = value
        return {self._key: value}

    def tell(self, number: int, safety: float | None, utility: float | None, excess: float) -> None:
        """Keep which side of the bound a trial is on; a trial without a rate says nothing."""
        known = safety is not None and math.isfinite(safety)
        self._safe[number] = excess <= 0 if known else None

    def repeat(self, known: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Take up points that were given before, by number: a sweep that goes on."""
        self._points |= {number: float(point[self._key]) for number, point in known}

    def _ends(self) -> tuple[float, float]:
        """Between which values the smallest safe one is; the ends of the range where none is known.

        One verdict that is wrong by chance does not close the range for good: a value counts as
        not safe only below every one that is safe.
        """
        told = [(value, self._safe.get(number)) for number, value in self._points.items()]
        high = min((value for value, safe in told if safe), default=self._domain.high)
        unsafe = (value for value, safe in told if safe is False and value < high)
        return max(unsafe, default=self._domain.low), high

    def _middle(self, low: float, high: float) -> float:
        return math.sqrt(low * high) if self._domain.log else (low + high) / 2

    def _width(self, low: float, high: float) -> float:
        return math.log(high / low) if self._domain.log else high - low
