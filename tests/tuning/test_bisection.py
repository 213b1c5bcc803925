"""Bisection: the smallest safe ratio in few trials, side by side, cut and gone on with."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.tuning.bisection import BisectedPoints
from safemix.tuning.space import Range

RATIOS = Range(0.01, 0.3, log=True)


def run(points: BisectedPoints, edge: float, side_by_side: int = 1) -> list[float]:
    """All ratios that are tried where those from `edge` on are safe."""
    tried: list[float] = []
    while batch := [
        point
        for number in range(len(tried), len(tried) + side_by_side)
        if (point := points.ask(number)) is not None
    ]:
        first = len(tried)
        tried += [point["ratio"] for point in batch]
        for number in range(first, len(tried)):
            points.tell(number, 0.1, None, edge - tried[number])
    return tried


@given(st.floats(0.0101, 0.299), st.integers(1, 4))
def test_the_smallest_safe_ratio_is_found_to_a_tenth(edge: float, side_by_side: int) -> None:
    tried = run(BisectedPoints("ratio", RATIOS, 40), edge, side_by_side)
    assert len(set(tried)) == len(tried)
    assert all(0.01 < ratio < 0.3 for ratio in tried)
    best = min([ratio for ratio in tried if ratio >= edge], default=0.3)
    assert edge <= best <= edge * 1.1 * 1.001
    if side_by_side == 1:
        halvings = math.log2(math.log(0.3 / 0.01) / math.log(1.1))
        assert len(tried) == math.ceil(halvings)


def test_it_halves_in_the_logarithm_or_evenly() -> None:
    assert BisectedPoints("ratio", RATIOS, 8).ask(0) == {"ratio": 0.05477}
    assert BisectedPoints("ratio", Range(0.0, 0.3), 8).ask(0) == {"ratio": 0.15}


def test_no_more_points_than_trials() -> None:
    assert len(run(BisectedPoints("ratio", RATIOS, 3), 0.08)) == 3


def test_trials_on_their_way_divide_the_range_from_the_safe_end() -> None:
    points = BisectedPoints("ratio", RATIOS, 8)
    first, second, third = (points.ask(number)["ratio"] for number in range(3))
    assert 0.01 < third < first < second < 0.3
    points.tell(0, 0.1, None, 0.0)  # on the bound is within it
    assert third < points.ask(3)["ratio"] < first


def test_a_trial_without_a_rate_says_nothing_and_is_not_tried_again() -> None:
    points = BisectedPoints("ratio", RATIOS, 8)
    middle = points.ask(0)["ratio"]
    points.tell(0, None, None, 0.0)
    points.tell(1, math.nan, None, 0.0)
    ratios = {points.ask(number)["ratio"] for number in range(1, 4)}
    assert middle not in ratios
    assert len({ratio > middle for ratio in ratios}) == 2, "both sides are open"


@pytest.mark.parametrize("cut", [1, 3, 5])
@given(edge=st.floats(0.0101, 0.299))
def test_a_sweep_that_goes_on_gets_the_points_it_would_have_had(cut: int, edge: float) -> None:
    whole = run(BisectedPoints("ratio", RATIOS, 8), edge)
    again = BisectedPoints("ratio", RATIOS, 8)
    again.repeat([(number, {"ratio": ratio}) for number, ratio in enumerate(whole[:cut])])
    for number, ratio in enumerate(whole[:cut]):
        again.tell(number, 0.1, None, edge - ratio)
    rest = []
    while (point := again.ask(cut + len(rest))) is not None:
        rest.append(point["ratio"])
        again.tell(cut + len(rest) - 1, 0.1, None, edge - point["ratio"])
    assert whole[:cut] + rest == whole


def test_a_wrong_verdict_does_not_end_the_search() -> None:
    """A ratio that was unlucky lies below one that is safe: the search goes on between."""
    points = BisectedPoints("ratio", RATIOS, 8)
    points.repeat([(0, {"ratio": 0.05}), (1, {"ratio": 0.1}), (2, {"ratio": 0.07})])
    points.tell(0, 0.0, None, -0.1)  # lucky
    points.tell(1, 0.3, None, 0.1)  # unlucky, above one that is safe
    points.tell(2, 0.3, None, 0.1)
    assert 0.01 < points.ask(3)["ratio"] < 0.05
