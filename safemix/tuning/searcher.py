"""Which point is tried next: a list made beforehand, or Optuna's multi-objective sampler.

Optuna is asked and told by its own interface, and not through Ray's `OptunaSearch`: that one has
no constraints with several objectives, and what it knows is kept as a pickle, which a sweep that
goes on would have to trust. Here a sweep goes on by telling a new study the trials that have ended.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from safemix.tuning.space import (
    Domain,
    Point,
    Space,
    Values,
    random_points,
    same,
    text_of,
    to_optuna,
)

__all__ = ["ListedPoints", "OptunaPoints", "Points"]

# Points drawn at random before the sampler has something to go by.
_RANDOM_FIRST: Final = 4
_EXCESS: Final = "excess"
# Times the sampler is asked, and points are drawn evenly after that, before a point that was tried
# already is tried again.
_ASKED: Final = 4
_DRAWN: Final = 16


class Points(Protocol):
    """Gives points, and learns what became of them."""

    def ask(self, number: int) -> Point | None:
        """The point of a trial; None when there are no more."""

    def tell(self, number: int, safety: float | None, utility: float | None, excess: float) -> None:
        """What a trial came to; None for both where it failed or was stopped.

        Args:
            number: of the trial.
            safety: its worst safety rate, to be low.
            utility: to be high.
            excess: by how much the constraint is missed; 0 or less where it is met.
        """

    def repeat(self, known: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Take up points that were given before, by number: a sweep that goes on.

        What became of them is told as for any other.
        """


class ListedPoints:
    """Points of a list, one after the other: a grid, or a random draw."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = list(points)

    def ask(self, number: int) -> Point | None:
        """The point at that place of the list."""
        return dict(self._points[number]) if number < len(self._points) else None

    def tell(self, number: int, safety: float | None, utility: float | None, excess: float) -> None:
        """A list learns nothing."""

    def repeat(self, known: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """A list gives the same points again."""


class OptunaPoints:
    """Optuna's TPE sampler: safety rate down, utility up, under the constraint.

    A point depends on the seed, its number, and what is known of the points before it, and on
    nothing else. So a sweep that goes on gives the points that it would have given without a cut.

    Sources: Ozaki et al., "Multiobjective Tree-Structured Parzen Estimator" (JAIR 2022); Watanabe
    and Hutter, "c-TPE" (2023), for the constraint.

    Args:
        space: to search.
        trials: how many there will be.
        seed: of the sampler.
        settle: what a point comes to in the end; two that come to the same are one.
    """

    def __init__(
        self,
        space: Space,
        trials: int,
        seed: int,
        settle: Callable[[Point], Mapping[str, Any]] = dict,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._trials, self._seed, self._settle = space, trials, seed, settle
        self._points: dict[int, Point] = {}
        self._told: dict[int, tuple[float, float, float] | None] = {}

    def ask(self, number: int) -> Point | None:
        """The sampler's next point, settled; one given before only if hardly any is left."""
        from optuna.trial import TrialState

        if number >= self._trials:
            return None
        study = self._study()
        known = {text_of(point) for point in self._points.values()}
        point: Point = {}
        for again in range(_ASKED + _DRAWN):
            study.sampler = self._sampler(number, again)
            trial = study.ask()
            point = dict(self._settle(self._suggested(trial)))
            if text_of(point) not in known:
                break
            study.tell(trial, state=TrialState.FAIL)
        self._points[number] = point
        return dict(point)

    def tell(self, number: int, safety: float | None, utility: float | None, excess: float) -> None:
        """Let the sampler learn from a trial; of one that failed it learns nothing."""
        if safety is None or utility is None or not math.isfinite(safety + utility):
            self._told[number] = None
        else:
            self._told[number] = safety, utility, excess

    def repeat(self, known: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Take up points that were given before."""
        self._points |= {number: dict(point) for number, point in known}

    def _study(self) -> Any:
        """What is known, as Optuna takes it: trials that have ended, and those on their way."""
        import optuna

        study = optuna.create_study(
            directions=["minimize", "maximize"], sampler=optuna.samplers.RandomSampler(seed=0)
        )
        for number, point in sorted(self._points.items()):
            told = self._told.get(number)
            if number in self._told and told is None:
                continue
            study.enqueue_trial(self._whole(number, point))
            trial = study.ask()
            self._suggested(trial)
            if told is not None:
                trial.set_constraint(_EXCESS, told[2])
                study.tell(trial, list(told[:2]))
        return study

    def _sampler(self, number: int, again: int) -> Any:
        from optuna.samplers import RandomSampler, TPESampler

        seed = _seed(self._seed, number, again)
        if again >= _ASKED:
            return RandomSampler(seed=seed)
        return TPESampler(
            seed=seed,
            n_startup_trials=min(_RANDOM_FIRST, max(1, self._trials // 2)),
            multivariate=True,
            # Trials run side by side: one that has not ended counts as a bad one nearby.
            constant_liar=True,
        )

    def _suggested(self, trial: Any) -> Point:
        return {name: to_optuna(trial, name, domain) for name, domain in self._space.items()}

    def _whole(self, number: int, point: Point) -> dict[str, Any]:
        """A point with some value for each key that does nothing in it.

        The sampler draws the keys together that all trials have. Values that do nothing are drawn
        evenly, and so teach it nothing.
        """
        missing = [name for name in self._space if name not in point]
        drawn = random_points(self._space, 1, _seed(self._seed, number))[0] if missing else {}
        return {
            name: _label(domain, point[name] if name in point else drawn[name])
            for name, domain in self._space.items()
        }


def _seed(*parts: int) -> int:
    """A seed of 32 bits made of numbers; the same on every machine."""
    return random.Random("/".join(map(str, parts))).getrandbits(32)


def _label(domain: Domain, value: Any) -> Any:
    """What Optuna knows a value by."""
    if not isinstance(domain, Values):
        return value
    place = next(n for n, one in enumerate(domain.values) if same(one, value))
    return domain.labels[place]
