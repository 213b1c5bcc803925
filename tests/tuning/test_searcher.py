"""Which point comes next: a list, or Optuna; and a sweep that goes on gets the same points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from safemix.tuning.searcher import ListedPoints, OptunaPoints
from safemix.tuning.space import Range, Values, text_of

SPACE = {
    "ratio": Range(0.01, 0.3, log=True),
    "mitigation": Values(("base", "paraphrase", {"name": "none"})),
    "lora.r": Range(4, 64, log=True, whole=True),
}
FEW = {"mitigation": Values(("base", "longest", "none"))}


def settle(point: Mapping[str, Any]) -> dict[str, Any]:
    """As a sweep's: without safety rows the ratio does nothing."""
    if point["mitigation"] == {"name": "none"}:
        return {key: value for key, value in point.items() if key != "ratio"}
    return dict(point)


def outcome(point: Mapping[str, Any]) -> tuple[float, float, float]:
    """Safety, utility and excess of a point, made up."""
    ratio = point.get("ratio", 0.0)
    safety = math.exp(-30 * ratio)
    return safety, 0.8 - ratio + 0.001 * point["lora.r"], safety - 0.2


def tried(points: OptunaPoints, numbers: range, fails: int = 2) -> list[dict[str, Any]]:
    """Trials one after the other; one of them fails."""
    found = []
    for number in numbers:
        point = points.ask(number)
        assert point is not None
        found.append(point)
        told = (None, None, 0.0) if number == fails else outcome(point)
        points.tell(number, *told)
    return found


def test_a_list_is_handed_out_by_number_and_ends():
    points = ListedPoints([{"ratio": 0.1}, {"ratio": 0.2}])
    first = points.ask(0)
    assert first == {"ratio": 0.1}
    first["ratio"] = 9
    assert points.ask(0) == {"ratio": 0.1}, "what was handed out is a copy"
    points.tell(0, 0.1, 0.9, 0.0)
    assert [points.ask(n) for n in (1, 2)] == [{"ratio": 0.2}, None]


def test_optuna_gives_points_of_the_space_and_no_more_than_were_asked_for():
    points = OptunaPoints(SPACE, 6, seed=1, settle=settle)
    found = tried(points, range(6))
    assert points.ask(6) is None
    for point in found:
        assert point["mitigation"] in SPACE["mitigation"].values
        assert isinstance(point["lora.r"], int)
        assert 4 <= point["lora.r"] <= 64
        assert ("ratio" in point) == (point["mitigation"] != {"name": "none"})
        assert 0.01 <= point.get("ratio", 0.1) <= 0.3


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_a_sweep_that_goes_on_gets_the_points_it_would_have_had(cut):
    whole = tried(OptunaPoints(SPACE, 10, seed=4, settle=settle), range(10))
    again = OptunaPoints(SPACE, 10, seed=4, settle=settle)
    again.repeat(list(enumerate(whole[:cut])))
    for number, point in enumerate(whole[:cut]):
        again.tell(number, *((None, None, 0.0) if number == 2 else outcome(point)))
    assert tried(again, range(cut, 10)) == whole[cut:]
    assert tried(OptunaPoints(SPACE, 10, seed=5, settle=settle), range(10)) != whole


def test_trials_under_way_at_the_cut_are_given_again_and_told_later():
    whole, again = (OptunaPoints(SPACE, 8, seed=7, settle=settle) for _ in range(2))
    before = tried(whole, range(5), fails=-1)
    under_way = whole.ask(5)
    whole_next = whole.ask(6)
    again.repeat([*enumerate(before), (5, under_way)])
    for number, point in enumerate(before):
        again.tell(number, *outcome(point))
    assert again.ask(6) == whole_next
    for points in (whole, again):
        points.tell(5, *outcome(under_way))
    assert again.ask(7) == whole.ask(7)


def test_a_point_comes_twice_only_when_nothing_else_is_left():
    points = OptunaPoints(FEW, 5, seed=0)
    found = []
    for number in range(5):
        point = points.ask(number)
        found.append(text_of(point))
        points.tell(number, 0.1 * number, 0.9, -0.1)
    assert len(set(found[:3])) == 3, "three points, each once"
    assert set(found[3:]) <= set(found[:3]), "then again, and not for ever"


def test_what_was_told_counts():
    """With every trial at a high ratio better in both, later ones are sought there."""
    later = []
    for seed in range(4):
        points = OptunaPoints({"ratio": Range(0.01, 0.3)}, 16, seed=seed)
        for number in range(16):
            ratio = points.ask(number)["ratio"]
            points.tell(number, 1 - ratio, ratio, 0.1 - ratio)
            if number >= 8:
                later.append(ratio)
    assert sum(later) / len(later) > 0.2, "evenly drawn it would be 0.155"


@pytest.mark.parametrize("told", [(None, 0.5, 0.0), (0.1, None, 0.0), (math.nan, 0.5, 0.0)])
def test_a_trial_without_both_numbers_teaches_nothing_and_stops_nothing(told):
    points = OptunaPoints(SPACE, 4, seed=3, settle=settle)
    first = points.ask(0)
    points.tell(0, *told)
    points.tell(99, 0.1, 0.5, 0.0)  # of a trial that nobody asked for
    assert first is not None
    assert points.ask(1) != first
