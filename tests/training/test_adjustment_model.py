"""The model of the line: its formulas by hand, and what it does to lines that move as it says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from statistics import mean

import numpy as np
import pytest

from safemix.training.adjustment_model import LIMIT, LineModel

STEPS, EVERY = 84, 6
COSINE = [(1 + math.cos(math.pi * step / STEPS)) / 2 for step in range(STEPS)]


class Line:
    """A line as the model has it, of one tau, noise and place without an adjustment."""

    def __init__(self, place: float, tau: float, noise: float, draws: np.random.Generator) -> None:
        self.at, self.velocity = draws.normal(), 0.0
        self._place, self._tau, self._noise, self._draws = place, tau, noise, draws

    def step(self, rate: float, amount: float) -> None:
        pull = (self._place - amount - self.at) / self._tau + self._noise * self._draws.normal()
        self.velocity += (pull - self.velocity) / 10
        self.at += rate * self.velocity


Rule = Callable[[float, Sequence[float], Sequence[float]], float]


def proportional_integral() -> Rule:
    """What `auto` was before: it takes an adjustment to show at once."""
    total = 0.0

    def rule(shift: float, past: Sequence[float], ahead: Sequence[float]) -> float:
        nonlocal total
        error = max(-1.0, min(1.0, shift))
        total = max(-3.0, min(3.0, total + error / 4))
        gain = min(4.0, max(1.0, 5 / max(sum(past), 1e-9)))
        return max(-3.0, min(3.0, gain * error + total))

    return rule


def by_model() -> Rule:
    line, amount = LineModel(), 0.0

    def rule(shift: float, past: Sequence[float], ahead: Sequence[float]) -> float:
        nonlocal amount
        for rate in past:
            line.step(rate, amount)
        line.observe(shift)
        found = line.best_amount(ahead)
        amount = amount if found is None else found
        return amount

    return rule


def end(rule: Rule, tau: float, noise: float, seed: int) -> float:
    """How far from 0 a run ends, in nats."""
    draws = np.random.default_rng(seed)
    line, amount = Line(draws.normal(-0.3, 0.8), tau, noise, draws), 0.0
    for first in range(0, STEPS, EVERY):
        past = COSINE[first : first + EVERY]
        for rate in past:
            line.step(rate, amount)
        amount = rule(line.at + 0.05 * draws.normal(), past, COSINE[first + EVERY :])
    return abs(line.at)


@pytest.mark.parametrize(("tau", "most"), [(2.0, 0.15), (4.0, 0.2), (8.0, 0.4)])
def test_it_ends_nearer_than_a_rule_without_the_delay(tau: float, most: float) -> None:
    ends = {
        rule: mean(end(rule(), tau, 0.8, seed) for seed in range(40))
        for rule in (by_model, proportional_integral)
    }
    assert ends[by_model] < 0.8 * ends[proportional_integral]
    assert ends[by_model] < most


def test_a_quiet_line_is_found_and_brought_to_its_place() -> None:
    assert end(by_model(), 4.0, 0.0, 3) < 0.05


def test_a_step_and_a_reading_by_hand() -> None:
    """Of the first filter, tau 1.25 and noise 0.5, with L alone read."""
    model = LineModel()
    model.step(0.5, 0.4)
    state = model.state()
    # v' = (b - 0.4 - L) / 12.5 and L' = L + v' / 2, from a mean of 0.
    assert state["mean"][0] == pytest.approx([-0.016, -0.032, 0.0])
    # L' = 0.96 L + 0.04 b + 0.025 e, of variances 4, 1 and 1.
    wanted = 4 * 0.96**2 + 0.04**2 + 0.025**2
    assert state["cov"][0][0][0] == pytest.approx(wanted)
    assert state["cov"][0][2][2] == pytest.approx(1 + 0.005**2)
    model.observe(0.7)
    after, variance, error = model.state(), wanted + 0.08**2, 0.7 + 0.016
    assert after["mean"][0][0] == pytest.approx(-0.016 + wanted / variance * error)
    assert after["cov"][0][0][0] == pytest.approx(wanted - wanted**2 / variance)
    assert max(after["log_weight"]) == 0


def test_filters_that_expected_a_reading_count_more() -> None:
    model, draws = LineModel(), np.random.default_rng(0)
    line, amount = Line(0.5, 2.5, 0.5, draws), 0.0
    for number in range(40):
        for _ in range(3):
            line.step(1.0, amount)
            model.step(1.0, amount)
        model.observe(line.at)
        amount = 1.0 if number % 4 < 2 else -1.0
    weights = np.exp(model.state()["log_weight"])
    # Pairs of tau 1.25, 2.5, 5, 10, 20 and noise 0.5, 1.
    assert np.argmax(weights) == 2
    assert weights[2] > 0.8 * weights.sum()


def test_the_end_it_expects_is_0_where_the_limit_allows() -> None:
    model = LineModel()
    for _ in range(6):
        model.step(1.0, 0.0)
    model.observe(0.5)
    alone = LineModel({**model.state(), "log_weight": [0.0] + [-1e9] * 9})
    ahead = [0.5] * 12
    amount = alone.best_amount(ahead)
    assert amount is not None and 0 < amount < LIMIT
    for rate in ahead:
        alone.step(rate, amount)
    assert alone.state()["mean"][0][0] == pytest.approx(0, abs=1e-12)


def test_late_steps_ask_for_more_and_none_for_nothing() -> None:
    model = LineModel()
    for _ in range(6):
        model.step(1.0, 0.0)
    model.observe(0.5)
    long, short = model.best_amount([1.0] * 100), model.best_amount([0.05] * 6)
    assert long is not None and 0 < long < 1
    assert short == LIMIT
    assert model.best_amount([]) is None
    assert model.best_amount([0.0] * 5) is None
    assert model.best_amount([1.0] * 200 + [0.0] * 9000) == model.best_amount([1.0] * 200)


def test_a_shift_beyond_the_limit_counts_as_the_limit() -> None:
    far, near = LineModel(), LineModel()
    for model, shift in ((far, 40.0), (near, LIMIT)):
        model.step(1.0, 0.0)
        model.observe(shift)
    assert far.state() == near.state()


def test_it_goes_on_from_its_state_and_takes_no_other() -> None:
    model = LineModel()
    for rate in (1.0, 0.7, 0.4):
        model.step(rate, 0.3)
        model.observe(rate)
    state = json.loads(json.dumps(model.state()))
    again = LineModel(state)
    for one in (model, again):
        one.step(0.3, -1.0)
        one.observe(0.1)
    assert again.state() == model.state()
    for bad in (
        {**state, "mean": state["mean"][1:]},
        {**state, "cov": [[["x"] * 3] * 3] * 10},
        {**state, "log_weight": [math.nan] * 10},
    ):
        with pytest.raises(ValueError):
            LineModel(bad)
    with pytest.raises(KeyError):
        LineModel({"mean": state["mean"]})
