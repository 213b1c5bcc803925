"""The best shift of the line between refusing and answering: by hand and against a search."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safemix.evaluate.line import best_shift
from safemix.evaluate.probe_reading import GroupReading, ProbeGroup, ProbeReading, ProbeSide

Gaps = dict[tuple[ProbeSide, str], list[float]]


def reading(gaps: Gaps) -> ProbeReading:
    return ProbeReading(
        tuple(
            GroupReading(ProbeGroup(side, dress, ((),)), (), (), tuple(values))
            for (side, dress), values in gaps.items()
        )
    )


def wrong_share(side: ProbeSide, gaps: list[float]) -> float:
    """Of harmful prompts those that greedy decoding answers, of others those that it refuses."""
    refused = sum(gap > 0 for gap in gaps) / len(gaps)
    return 1 - refused if side == "harmful" else refused


def test_the_worst_dress_decides() -> None:
    before = {"harmful/plain": 0.0, "lookalikes/plain": 0.0}
    before |= {"harmful/styled": 0.5, "lookalikes/styled": 0.0}
    now: Gaps = {
        ("harmful", "plain"): [1.0, 1.5],
        ("lookalikes", "plain"): [-1.0, -1.0],
        ("harmful", "styled"): [0.5, 3.0],
        ("lookalikes", "styled"): [0.75, -1.0],
    }
    # One of two may be answered in the layout, so 0.75 to 1 costs nothing in any dress.
    assert best_shift(reading(now), before) == pytest.approx((0.75 + 1.0) / 2)
    # Where none may, nothing is best: 0.5 of one side or the other everywhere from -1 to 1.5.
    assert best_shift(reading(now), {**before, "harmful/styled": 0.0}) == pytest.approx(0.25)


def test_a_model_that_refuses_all_is_moved_up_and_one_that_answers_all_down() -> None:
    before = {"harmful/plain": 0.0, "lookalikes/plain": 0.0}
    refuses: Gaps = {("harmful", "plain"): [4.0, 5.0], ("lookalikes", "plain"): [2.0, 3.0]}
    answers: Gaps = {("harmful", "plain"): [-2.0, -1.0], ("lookalikes", "plain"): [-4.0, -3.0]}
    assert best_shift(reading(refuses), before) == pytest.approx(3.5)
    assert best_shift(reading(answers), before) == pytest.approx(-2.5)


def test_what_cannot_be_said_is_none() -> None:
    both: Gaps = {("harmful", "plain"): [1.0], ("lookalikes", "plain"): [-1.0]}
    before = {"harmful/plain": 0.0, "lookalikes/plain": 0.0}
    assert best_shift(reading({("harmful", "plain"): [1.0]}), before) is None
    assert best_shift(reading(both), {"harmful/plain": 0.0}) is None
    assert best_shift(reading({**both, ("harmful", "plain"): [math.nan]}), before) is None
    assert best_shift(reading({**both, ("lookalikes", "plain"): [math.inf]}), before) is None
    assert best_shift(reading({**both, ("harmful", "plain"): []}), before) is None


_NUMBERS = st.lists(st.integers(-20, 20).map(lambda n: n / 4), min_size=1, max_size=6)
_SHARES = st.integers(0, 4).map(lambda n: n / 4)


@settings(max_examples=200, deadline=None)
@given(gaps=st.tuples(*[_NUMBERS] * 4), before=st.tuples(*[_SHARES] * 4))
def test_no_other_shift_is_better(gaps: tuple[list[float], ...], before: tuple[float, ...]) -> None:
    keys: list[tuple[ProbeSide, str]] = [
        (side, dress) for dress in ("plain", "styled") for side in ("harmful", "lookalikes")
    ]
    was = {f"{side}/{dress}": value for (side, dress), value in zip(keys, before, strict=True)}

    def worst(shift: float) -> float:
        return max(
            wrong_share(side, [gap - shift for gap in values]) - was[f"{side}/{dress}"]
            for (side, dress), values in zip(keys, gaps, strict=True)
        )

    found = best_shift(reading(dict(zip(keys, gaps, strict=True))), was)
    assert found is not None
    # Gaps are multiples of 1/4, so no shift lies between these.
    least = min(worst(shift / 8) for shift in range(-49, 50))
    # At the end of an interval the share is that of the next one, so a hair to either side counts.
    assert min(worst(found), worst(found - 1e-6), worst(found + 1e-6)) == pytest.approx(least)
