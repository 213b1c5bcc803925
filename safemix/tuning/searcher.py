"""Which point is tried next: a list made beforehand, or Optuna's multi-objective sampler.

Optuna is asked and told by its own interface, and not through Ray's `OptunaSearch`: that one has
no constraints with several objectives, and what it knows is kept as a pickle, which a sweep that
goes on would have to trust. Here a sweep goes on by telling a new study the trials that have ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from safemix.tuning.space import Point, Space, to_optuna

__all__ = ["ListedPoints", "OptunaPoints", "Points"]

# Points drawn at random before the sampler has something to go by.
_RANDOM_FIRST: Final = 4
_EXCESS: Final = "excess"


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


class ListedPoints:
    """Points of a list, one after the other: a grid, or a random draw."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._points = list(points)

    def ask(self, number: int) -> Point | None:
        """The point at that place of the list."""
        return dict(self._points[number]) if number < len(self._points) else None

    def tell(self, number: int, safety: float | None, utility: float | None, excess: float) -> None:
        """A list learns nothing."""


class OptunaPoints:
    """Optuna's TPE sampler: safety rate down, utility up, under the constraint.

    Sources: Ozaki et al., "Multiobjective Tree-Structured Parzen Estimator" (JAIR 2022); Watanabe
    and Hutter, "c-TPE" (2023), for the constraint.

    Args:
        space: to search.
        trials: how many there will be.
        seed: of the sampler.
    """

    def __init__(self, space: Space, trials: int, seed: int) -> None:
        import optuna
        from optuna.samplers import TPESampler

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._trials = space, trials
        self._running: dict[int, Any] = {}
        sampler = TPESampler(
            seed=seed,
            n_startup_trials=min(_RANDOM_FIRST, max(1, trials // 2)),
            multivariate=True,
            # Trials run side by side: one that has not ended counts as a bad one nearby.
            constant_liar=True,
        )
        self._study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)

    def ask(self, number: int) -> Point | None:
        """The sampler's next point."""
        if number >= self._trials:
            return None
        trial = self._study.ask()
        self._running[number] = trial
        return {name: to_optuna(trial, name, domain) for name, domain in self._space.items()}

    def tell(self, number: int, safety: float | None, utility: float | None, excess: float) -> None:
        """Let the sampler learn from a trial."""
        from optuna.trial import TrialState

        trial = self._running.pop(number, None)
        if trial is None:
            return
        if safety is None or utility is None or not math.isfinite(safety + utility):
            self._study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_constraint(_EXCESS, excess)
        self._study.tell(trial, [safety, utility])

    def repeat(self, known: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Ask for points that were given out before, by number: a sweep that goes on.

        What became of them is told as for any other.
        """
        for number, point in known:
            labels = {name: _label(self._space[name], value) for name, value in point.items()}
            self._study.enqueue_trial(labels)
            self.ask(number)


def _label(domain: Any, value: Any) -> Any:
    """What Optuna knows a value by."""
    from safemix.tuning.space import Values, same

    if not isinstance(domain, Values):
        return value
    place = next(n for n, one in enumerate(domain.values) if same(one, value))
    return domain.labels[place]
