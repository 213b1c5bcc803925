"""Ratios: a source's share of all rows, constant or moving with the step, in exact arithmetic.

A ratio answers two questions: what is it at a step, and what is its sum over the first n steps.
The plan uses only the sum, so a schedule costs the same at step 10 and at step 10**7, and the
count of rows never drifts: all sums are rationals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from numbers import Rational
from typing import Any, Protocol

from safemix.errors import PlanError

# Floats are read as the decimal that a person wrote (0.05 is 1/20). This bound keeps the
# integers small: 10**-9 of a row in a row is far below one row in any run.
MAX_DENOMINATOR = 10**9
# Fixed-point bits for the cosine schedule. Integer arithmetic gives every rank and every
# machine the same digits, which a C library's cos() does not promise.
_BITS = 128
_PI = 1069028584064966747859680373161870783300  # floor(pi * 2**128)


class Ratio(Protocol):
    """A share of rows as a function of the step, counted from the step where it was set."""

    def at(self, step: int) -> Fraction:
        """Ratio of one step."""
        ...

    def total(self, steps: int) -> Fraction:
        """Sum of the ratios of the first `steps` steps."""
        ...

    def maximum(self) -> Fraction:
        """Largest ratio of any step."""
        ...

    def settles(self) -> int:
        """First step from which the ratio is constant."""
        ...

    def to_json(self) -> Any:
        """A JSON value from which `ratio_from` makes an equal ratio."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """The same ratio at every step."""

    value: Fraction

    def at(self, step: int) -> Fraction:
        """See `Ratio.at`."""
        return self.value

    def total(self, steps: int) -> Fraction:
        """See `Ratio.total`."""
        return self.value * steps

    def maximum(self) -> Fraction:
        """See `Ratio.maximum`."""
        return self.value

    def settles(self) -> int:
        """See `Ratio.settles`."""
        return 0

    def to_json(self) -> Any:
        """See `Ratio.to_json`."""
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Linear:
    """From `start` at step 0 to `end` at step `steps`, then constant."""

    start: Fraction
    end: Fraction
    steps: int

    def at(self, step: int) -> Fraction:
        """See `Ratio.at`."""
        done = Fraction(min(step, self.steps), self.steps)
        return self.start + (self.end - self.start) * done

    def total(self, steps: int) -> Fraction:
        """See `Ratio.total`. The moving part is an arithmetic series."""
        n = min(steps, self.steps)
        moving = self.start * n + (self.end - self.start) * Fraction(n * (n - 1), 2 * self.steps)
        return moving + self.end * (steps - n)

    def maximum(self) -> Fraction:
        """See `Ratio.maximum`."""
        return max(self.start, self.end)

    def settles(self) -> int:
        """See `Ratio.settles`."""
        return self.steps

    def to_json(self) -> Any:
        """See `Ratio.to_json`."""
        return _schedule_json("linear", self.start, self.end, self.steps)


@dataclass(frozen=True, slots=True)
class Cosine:
    """Half a cosine wave from `start` at step 0 to `end` at step `steps`, then constant."""

    start: Fraction
    end: Fraction
    steps: int

    def at(self, step: int) -> Fraction:
        """See `Ratio.at`."""
        return self.total(step + 1) - self.total(step)

    def total(self, steps: int) -> Fraction:
        """See `Ratio.total`.

        The cosines add up to Dirichlet's kernel: sum of cos(u h) for u < n is
        1/2 + sin((n - 1/2) h) / (2 sin(h / 2)), with h = pi / steps.
        """
        n = min(steps, self.steps)
        waves = Fraction(0)
        if n > 0:
            sine, half = _sin_pi(2 * n - 1, 2 * self.steps), _sin_pi(1, 2 * self.steps)
            waves = Fraction(1, 2) + Fraction((sine << _BITS) // (2 * half), 1 << _BITS)
        middle, swing = (self.start + self.end) / 2, (self.start - self.end) / 2
        return middle * n + swing * waves + self.end * (steps - n)

    def maximum(self) -> Fraction:
        """See `Ratio.maximum`."""
        return max(self.start, self.end)

    def settles(self) -> int:
        """See `Ratio.settles`."""
        return self.steps

    def to_json(self) -> Any:
        """See `Ratio.to_json`."""
        return _schedule_json("cosine", self.start, self.end, self.steps)


@dataclass(frozen=True, slots=True)
class Piecewise:
    """Constant pieces: from each step in `points` on, the ratio beside it."""

    points: tuple[tuple[int, Fraction], ...]

    def at(self, step: int) -> Fraction:
        """See `Ratio.at`."""
        return next(value for first, value in reversed(self.points) if first <= step)

    def total(self, steps: int) -> Fraction:
        """See `Ratio.total`."""
        ends = [first for first, _ in self.points[1:]] + [steps]
        return sum(
            (
                value * max(0, min(end, steps) - first)
                for (first, value), end in zip(self.points, ends, strict=True)
            ),
            Fraction(0),
        )

    def maximum(self) -> Fraction:
        """See `Ratio.maximum`."""
        return max(value for _, value in self.points)

    def settles(self) -> int:
        """See `Ratio.settles`."""
        return self.points[-1][0]

    def to_json(self) -> Any:
        """See `Ratio.to_json`."""
        return {
            "schedule": "piecewise",
            "points": {str(first): str(value) for first, value in self.points},
        }


def ratio_from(value: Any, name: str = "ratio") -> Ratio:
    """Make a ratio from a number, a fraction such as "1/20", a schedule, or their JSON form.

    Args:
        value: number, `Fraction`, text, `Ratio`, or a mapping such as
            `{"schedule": "linear", "start": 0.2, "end": 0.05, "steps": 100}`.
        name: what to call it in an error.

    Raises:
        PlanError: if it is no number, outside [0, 1], or an unknown schedule.
    """
    if isinstance(value, (Constant, Linear, Cosine, Piecewise)):
        return value
    if not isinstance(value, Mapping):
        return Constant(_share(value, name))
    kind = value.get("schedule")
    if kind == "constant":
        return Constant(_share(value.get("start"), name))
    if kind in ("linear", "cosine"):
        steps = value.get("steps")
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise PlanError(f"{name}: a {kind} schedule needs steps >= 1, got {steps!r}")
        make = Linear if kind == "linear" else Cosine
        return make(_share(value.get("start"), name), _share(value.get("end"), name), steps)
    if kind == "piecewise":
        return _piecewise(value.get("points"), name)
    raise PlanError(
        f"{name}: unknown schedule {kind!r}; legal: constant, linear, cosine, piecewise"
    )


def _piecewise(points: Any, name: str) -> Piecewise:
    if not isinstance(points, Mapping) or not points:
        raise PlanError(f"{name}: a piecewise schedule needs points, such as {{0: 0.2, 100: 0.05}}")
    pairs = tuple(sorted((int(first), _share(share, name)) for first, share in points.items()))
    if pairs[0][0] != 0:
        raise PlanError(f"{name}: a piecewise schedule starts at step 0, got {pairs[0][0]}")
    return Piecewise(pairs)


def _share(value: Any, name: str) -> Fraction:
    """Read one share in [0, 1] as an exact rational."""
    try:
        if isinstance(value, (Rational, str)):
            share = Fraction(value)
        else:
            # repr gives the shortest decimal: 0.1 means one tenth, not its binary neighbour.
            share = Fraction(repr(float(value)))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        raise PlanError(f"{name} {value!r} is no number: use 0.05, '1/20' or a schedule") from None
    if not 0 <= share <= 1:
        raise PlanError(f"{name} {value} is outside [0, 1]: 0.05 means five rows of a hundred")
    return _at_most(share)


def _at_most(share: Fraction) -> Fraction:
    """The share with a denominator that exact arithmetic can live with, never rounded up.

    Shares that fill a batch to the last row must not sum to more than it. Where the nearest
    fraction is larger, its left neighbour in the Farey sequence is taken: the a/b with the
    largest b that p/q - a/b = 1/(q b) allows.

    Example:
        >>> _at_most(Fraction(1, 3))
        Fraction(1, 3)
    """
    near = share.limit_denominator(MAX_DENOMINATOR)
    if near <= share:
        return near
    p, q = near.numerator, near.denominator
    b = MAX_DENOMINATOR - (MAX_DENOMINATOR - pow(p, -1, q)) % q
    return Fraction(p * b - 1, q * b)


def _schedule_json(kind: str, start: Fraction, end: Fraction, steps: int) -> dict[str, Any]:
    return {"schedule": kind, "start": str(start), "end": str(end), "steps": steps}


@lru_cache(maxsize=4096)
def _sin_pi(numerator: int, denominator: int) -> int:
    """sin(pi * numerator / denominator) in units of 2**-128, for 0 <= angle <= pi.

    Taylor's series in integers. The angle is folded into [0, pi/2], where 40 terms leave an
    error below 2**-120.
    """
    if 2 * numerator > denominator:
        numerator = denominator - numerator
    angle = _PI * numerator // denominator
    square = angle * angle >> _BITS
    term = result = angle
    for k in range(1, 40):
        term = -(term * square >> _BITS) // ((2 * k) * (2 * k + 1))
        result += term
        if term in (0, -1):
            break
    return result
