"""One number for a trial while it trains."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.tuning.score import LOSS, MARGIN, SCORE, Score

PLAIN, STYLED = f"{MARGIN}plain", f"{MARGIN}styled"
WORST = -1e6
nats = st.floats(-50, 50)


def scored(score: Score, step: int, loss: float | None, **margins: float) -> float:
    reading = {f"{MARGIN}{dress}": value for dress, value in margins.items()}
    return score(step, reading | ({} if loss is None else {LOSS: loss}))[SCORE]


def test_a_margin_that_has_not_fallen_costs_nothing():
    score = Score()
    assert scored(score, 0, None, plain=1.0, styled=0.5) == WORST
    assert scored(score, 10, 0.7, plain=1.0, styled=0.5) == -0.7
    assert scored(score, 20, 0.7, plain=3.0, styled=0.9) == -0.7


def test_the_dress_that_fell_most_counts():
    score = Score(weight=2.0, slack=0.1)
    scored(score, 0, None, plain=1.0, styled=0.5)
    assert scored(score, 10, 0.7, plain=0.8, styled=0.0) == pytest.approx(-0.7 - 2 * 0.4)


@given(loss=nats, low=nats, high=nats, start=nats, weight=st.floats(0, 10))
def test_it_never_rises_with_the_loss_or_with_a_lower_margin(loss, low, high, start, weight):
    low, high = sorted((low, high))
    at = {m: scored(Score(weight, 0.0, {PLAIN: start}), 5, loss, plain=m) for m in (low, high)}
    assert at[low] <= at[high] <= -loss
    worse = scored(Score(weight, 0.0, {PLAIN: start}), 5, loss + 1, plain=low)
    assert worse < at[low]


@pytest.mark.parametrize("loss", [None, math.nan, math.inf, -math.inf])
def test_without_a_loss_a_trial_looks_bad(loss):
    score = Score()
    scored(score, 0, None, plain=1.0)
    assert scored(score, 10, loss, plain=9.0) == WORST


def test_a_margin_that_is_no_number_looks_bad_until_the_next_one():
    score = Score(start={PLAIN: 1.0})
    assert scored(score, 10, 0.5, plain=math.nan) == WORST
    assert scored(score, 20, 0.5, plain=1.0) == -0.5


def test_no_number_at_step_0_does_not_condemn_all_that_follows():
    score = Score(weight=1.0)
    scored(score, 0, None, plain=math.nan, styled=0.5)
    assert scored(score, 10, 0.7, plain=0.3, styled=0.4) == pytest.approx(-0.8)


def test_an_evaluation_between_two_probes_goes_by_the_margin_read_last():
    score = Score(weight=1.0)
    scored(score, 0, None, plain=1.0)
    assert scored(score, 10, 0.5, plain=0.2) == pytest.approx(-1.3)
    assert scored(score, 15, 0.4) == pytest.approx(-1.2), "not as if nothing had fallen"
    assert scored(Score(), 15, 0.4) == WORST, "no margin was ever read"


def test_a_run_that_goes_on_keeps_its_floor():
    score = Score(weight=1.0, start={PLAIN: 1.0})
    assert scored(score, 30, 0.5, plain=0.0) == -1.5
    assert scored(Score(), 30, 0.5, plain=0.0) == -0.5, "else the first reading is the floor"
    assert scored(Score(start={PLAIN: 1.0}), 0, None, plain=5.0) == WORST
