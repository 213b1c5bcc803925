"""How the line between refusing and answering follows `logit_adjustment`, step by step.

With the learning rate rho of a step (1 at its largest), the adjustment d in nats and a normal
draw e, the line L (the best shift of `evaluate/line.py`) and its velocity v move by

    v' = v + ((b - d - L) / tau + q e - v) / M,        L' = L + rho v'.

The line settles at b - d: what is learned under an adjustment has odds of refusing that are lower
by exp(d) (`hosts/adjustment.py`), and b is where the rows lead without one. M = 10 steps is the
memory of Adam's first moment, 1 / (1 - beta_1) at beta_1 = 0.9. So an adjustment shows late, and
one that answers each reading as if it showed at once swings to and fro.

b is not known, nor how fast a model follows (tau) and how restless it is (q). A bank of Kalman
filters, one for each pair of tau and q, is read with every shift, and their weights go with how
likely they made what was read (Magill, "Optimal adaptive estimation of sampled stochastic
processes", IEEE Transactions on Automatic Control 10, 1965).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice, product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["LIMIT", "LineModel"]

LIMIT: Final = 3.0
"""Largest adjustment, in nats, and largest shift that is believed."""
MEMORY: Final = 10.0
# Steps at the largest learning rate, and nats a step. Over twelve runs of the study 92 % of the
# weight or more went to 2.5, 5 and 10 steps.
_TAUS: Final = (1.25, 2.5, 5.0, 10.0, 20.0)
_NOISES: Final = (0.5, 1.0)
# In nats: of a reading; of b in a step at the largest learning rate; of L, v and b at the start.
_READING: Final = 0.08
_DRIFT: Final = 0.01
_START: Final = (2.0, 0.0, 1.0)
# A longer way is not looked along: by then the line has settled.
_HORIZON: Final = 200

_Floats = NDArray[np.float64]


class LineModel:
    """Where the line is, and where an adjustment takes it.

    Args:
        state: of `state`, to go on from; None for a fresh start.

    Raises:
        KeyError, TypeError, ValueError: if `state` is not one.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        pairs = list(product(_TAUS, _NOISES))
        self._tau, self._noise = np.array(pairs).T
        # L, v and b of each filter, with their covariances, and the log of its weight.
        self._mean: _Floats = np.zeros((len(pairs), 3))
        self._cov: _Floats = np.tile(np.diag(np.square(_START)), (len(pairs), 1, 1))
        self._log_weight: _Floats = np.zeros(len(pairs))
        if state is not None:
            self._mean = _like(self._mean, state["mean"])
            self._cov = _like(self._cov, state["cov"])
            self._log_weight = _like(self._log_weight, state["log_weight"])

    def state(self) -> dict[str, Any]:
        """All that is known, as plain JSON."""
        parts = {"mean": self._mean, "cov": self._cov, "log_weight": self._log_weight}
        return {name: part.tolist() for name, part in parts.items()}

    def step(self, rate: float, amount: float) -> None:
        """One optimizer step.

        Args:
            rate: its learning rate over the largest one, in [0, 1].
            amount: the adjustment in it, in nats.
        """
        move, pull = self._moves(rate)
        self._mean = np.einsum("kij,kj->ki", move, self._mean) + amount * pull
        self._cov = move @ self._cov @ move.swapaxes(1, 2)
        kick = np.array([rate, 1.0, 0.0])[None] * (self._noise / MEMORY)[:, None]
        self._cov += kick[:, :, None] * kick[:, None, :]
        self._cov[:, 2, 2] += (_DRIFT * rate) ** 2

    def observe(self, shift: float) -> None:
        """A reading: the best shift, in nats."""
        variance = self._cov[:, 0, 0] + _READING**2
        error = _within(shift) - self._mean[:, 0]
        self._log_weight = self._log_weight - (np.log(variance) + error**2 / variance) / 2
        self._log_weight -= self._log_weight.max()
        gain = self._cov[:, :, 0] / variance[:, None]
        self._mean = self._mean + gain * error[:, None]
        self._cov = self._cov - gain[:, :, None] * self._cov[:, None, 0, :]

    def best_amount(self, rates: Iterable[float]) -> float | None:
        """The adjustment that, kept from now on, is expected to bring the line to 0 at the end.

        With each filter's last line x + d u the best d of all is -E[x u] / E[u u] by the weights,
        within [-LIMIT, LIMIT]: a filter counts as much as an adjustment matters to it.

        Args:
            rates: of the steps to come, as in `step`; the first 200 are looked at.

        Returns:
            In nats; None where no step to come moves anything.
        """
        line, slope = self._mean.copy(), np.zeros_like(self._mean)
        for rate in islice(rates, _HORIZON):
            move, pull = self._moves(rate)
            line = np.einsum("kij,kj->ki", move, line)
            slope = np.einsum("kij,kj->ki", move, slope) + pull
        weight, slopes = np.exp(self._log_weight), slope[:, 0]
        strength = float(weight @ slopes**2)
        if not strength:
            return None
        return _within(-float(weight @ (line[:, 0] * slopes)) / strength)

    def _moves(self, rate: float) -> tuple[_Floats, _Floats]:
        """Of a step, for each filter: what L, v, b are multiplied by, and what a nat adds."""
        pull = 1 / (self._tau * MEMORY)
        velocity = np.stack([-pull, np.full_like(pull, 1 - 1 / MEMORY), pull], axis=1)
        move = np.tile(np.eye(3), (len(pull), 1, 1))
        move[:, 1] = velocity
        move[:, 0] += rate * velocity
        return move, np.stack([-rate * pull, -pull, np.zeros_like(pull)], axis=1)


def _like(pattern: _Floats, given: Any) -> _Floats:
    made = np.array(given, dtype=np.float64)
    if made.shape != pattern.shape or not np.isfinite(made).all():
        raise ValueError(f"expected {pattern.shape} finite numbers, got {made.shape}")
    return made


def _within(nats: float) -> float:
    return max(-LIMIT, min(LIMIT, nats))
