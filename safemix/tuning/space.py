"""What a search may choose from: ranges of numbers, and lists of values.

A space is a mapping of dotted keys of the run's settings to domains. A point is a mapping of the
same keys to values.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

__all__ = [
    "Domain",
    "Point",
    "Range",
    "Space",
    "Values",
    "all_values",
    "crossings",
    "edges",
    "grid_points",
    "halving_order",
    "random_points",
    "same",
    "size",
    "text_of",
    "tidy",
    "to_optuna",
    "to_tune",
]

T = TypeVar("T")
# Digits that a number drawn from a range keeps: more say nothing about a ratio, and a run file
# with few is easier to read. They also keep the denominators of the plan's rationals small.
DIGITS: Final = 4
# Draws in vain, in a row, after which a space of few values counts as used up.
_PATIENCE: Final = 20_000
# Points up to which a space of lists is shuffled instead: then none is drawn in vain.
_SHUFFLED: Final = 20_000


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included.

    Attributes:
        low: smallest number.
        high: largest number, above `low`.
        log: drawn evenly over the logarithm.
        whole: whole numbers only.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"the ends {self.low:g} and {self.high:g} must be finite numbers")
        if self.low == self.high:
            raise ValueError(f"the range {self.low:g} to {self.high:g} is empty: give two ends")
        if self.low > self.high:
            raise ValueError(
                f"the ends are inverted: write the smaller one first, [{self.high:g}, {self.low:g}]"
            )
        if self.log and self.low <= 0:
            raise ValueError(
                f"log_uniform needs ends above 0 (given {self.low:g}): give a smallest value, or "
                "uniform; for the ratio, 0 is in every sweep as a baseline"
            )
        if self.whole and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ValueError(f"ends of whole numbers are whole (given {self.low:g}, {self.high:g})")


@dataclass(frozen=True)
class Values:
    """One of some values.

    Attributes:
        values: what may be chosen; any plain data.
        grid: each of them is to be tried; otherwise a searcher picks.
    """

    values: tuple[Any, ...]
    grid: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("there is no value to choose from: give one or more")
        for one, other in itertools.combinations(self.values, 2):
            if same(one, other):
                raise ValueError(f"{other!r} is given twice: give each value once")

    @property
    def labels(self) -> tuple[Any, ...]:
        """The values where all are plain; else their JSON text, as searchers know only those."""
        plain = all(
            value is None or isinstance(value, bool | int | float | str) for value in self.values
        )
        # A searcher cannot tell 1 from true.
        if plain and len(set(self.values)) == len(self.values):
            return self.values
        return tuple(map(text_of, self.values))


Domain = Range | Values
Space = Mapping[str, Domain]
Point = dict[str, Any]


def same(one: Any, other: Any) -> bool:
    """Whether two values mean the same; 1 and 1.0 do, 1 and true do not."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def text_of(value: Any) -> str:
    """A value as text, the same for the same value."""
    return json.dumps(value, sort_keys=True, default=str)


def all_values(domain: Domain) -> tuple[Any, ...] | None:
    """All values of a domain; None where they are endless."""
    if isinstance(domain, Values):
        return domain.values
    return tuple(range(int(domain.low), int(domain.high) + 1)) if domain.whole else None


def edges(domain: Domain) -> tuple[Any, ...]:
    """What to try of a domain so that the rest is legal too: both ends, or each value."""
    if isinstance(domain, Values):
        return domain.values
    return tuple(tidy(domain, end) for end in (domain.low, domain.high))


def size(space: Space) -> int | None:
    """Number of points; None where there is no end of them."""
    product = 1
    for domain in space.values():
        if isinstance(domain, Values):
            product *= len(domain.values)
        elif domain.whole:
            product *= int(domain.high) - int(domain.low) + 1
        else:
            return None
    return product


def grid_points(space: Space) -> list[Point]:
    """Every combination; the last key changes fastest.

    Raises:
        ValueError: if a domain has no end of values.
    """
    columns = {key: all_values(domain) for key, domain in space.items()}
    endless = [key for key, values in columns.items() if values is None]
    if endless:
        raise ValueError(f"{endless[0]} has no end of values: a grid needs a list of them")
    rows = itertools.product(*(values for values in columns.values() if values is not None))
    return [dict(zip(space, row, strict=True)) for row in rows]


def halving_order(items: Sequence[T]) -> list[T]:
    """The same items: that in the middle first, then those in the middles of what is left.

    Example:
        >>> "".join(halving_order("abcdefg"))
        'dfbgeca'
    """
    found, parts = [], deque([items])
    while parts:
        part = parts.popleft()
        if part:
            middle = len(part) // 2
            found.append(part[middle])
            parts += [part[middle + 1 :], part[:middle]]
    return found


def random_points(
    space: Space, n: int, seed: int, settle: Callable[[Point], Mapping[str, Any]] = dict
) -> list[Point]:
    """Points drawn at random, all different.

    The first m of them are the same for every n >= m, on every machine and under any order of
    the keys, so that a sweep may be given more trials later.

    Args:
        space: to draw from.
        n: how many.
        seed: of the draws.
        settle: what a point comes to in the end; two that come to the same count as one.

    Raises:
        ValueError: if the space has fewer points.
    """
    found: dict[str, Point] = {}
    vain = 0
    draws = _drawn(space, random.Random(seed))
    while len(found) < n:
        point = next(draws, None)
        if point is None or vain > _PATIENCE:
            raise ValueError(f"{n} points asked for, but the space has only {len(found)}")
        name = text_of(settle(point))
        vain = vain + 1 if name in found else 0
        found.setdefault(name, point)
    return list(found.values())


def _drawn(space: Space, source: random.Random) -> Iterator[Point]:
    """Points in a random order; `Random.random` alone gives the same numbers for ever."""
    keys = sorted(space)
    lists = all(isinstance(domain, Values) for domain in space.values())
    if lists and (size(space) or 0) <= _SHUFFLED:
        rows = grid_points({key: space[key] for key in keys})
        places = [source.random() for _ in rows]
        for place in sorted(range(len(rows)), key=places.__getitem__):
            yield {key: rows[place][key] for key in space}
        return
    while True:
        drawn = {key: _draw(space[key], source.random()) for key in keys}
        yield {key: drawn[key] for key in space}


def _draw(domain: Domain, share: float) -> Any:
    """The value at a place from 0 to below 1."""
    if isinstance(domain, Values):
        return domain.values[int(share * len(domain.values))]
    # A whole number stands for the interval of one around it, so that the ends get their part.
    around = 0.5 if domain.whole else 0.0
    low, high = domain.low - around, domain.high + around
    if domain.log:
        value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    else:
        value = low + share * (high - low)
    return tidy(domain, value)


def tidy(domain: Domain, value: Any) -> Any:
    """A value as a run takes it.

    A number of a range is rounded to four digits, or to a whole one, and kept between the ends; a
    label of `Values.labels` becomes its value.

    Raises:
        ValueError: for a value that is not of the domain.
    """
    if isinstance(domain, Range):
        if domain.whole:
            return min(max(round(value), int(domain.low)), int(domain.high))
        if not math.isfinite(value):
            raise ValueError(f"{value} is no finite number")
        return min(max(float(f"{value:.{DIGITS}g}"), float(domain.low)), float(domain.high))
    for known, label in zip(domain.values, domain.labels, strict=True):
        if same(value, known) or same(value, label):
            return known
    raise ValueError(f"{value!r} is none of {', '.join(map(repr, domain.values))}")


def to_tune(domain: Domain) -> Any:
    """The domain for Ray Tune; give what it draws to `tidy`."""
    from ray import tune

    if isinstance(domain, Values):
        labels = list(domain.labels)
        return tune.grid_search(labels) if domain.grid else tune.choice(labels)
    if domain.whole:
        whole = tune.lograndint if domain.log else tune.randint
        return whole(int(domain.low), int(domain.high) + 1)  # Ray leaves the upper end out
    return (tune.loguniform if domain.log else tune.uniform)(domain.low, domain.high)


def to_optuna(trial: Any, name: str, domain: Domain) -> Any:
    """Let an Optuna trial choose.

    Args:
        trial: an `optuna.Trial`.
        name: of the parameter.
        domain: what it may be.

    Returns:
        The value as a run takes it.
    """
    if isinstance(domain, Values):
        return tidy(domain, trial.suggest_categorical(name, list(domain.labels)))
    suggest = trial.suggest_int if domain.whole else trial.suggest_float
    ends = edges(domain) if domain.whole else (domain.low, domain.high)
    return tidy(domain, suggest(name, *ends, log=domain.log))


def crossings(space: Space, at_most: int) -> Iterator[Point]:
    """Points at the edges: all combinations, or if those are too many one key at a time."""
    columns = {key: edges(domain) for key, domain in space.items()}
    if math.prod(map(len, columns.values())) <= at_most:
        for row in itertools.product(*columns.values()):
            yield dict(zip(space, row, strict=True))
        return
    first = {key: values[0] for key, values in columns.items()}
    yield first
    for key, values in columns.items():
        for value in values[1:]:
            yield {**first, key: value}
