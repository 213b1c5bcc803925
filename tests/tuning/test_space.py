"""Domains: what is refused, what is drawn, and what Ray and Optuna are given."""

from __future__ import annotations

import math
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.tuning.space import (
    Range,
    Values,
    crossings,
    edges,
    grid_points,
    random_points,
    same,
    size,
    tidy,
    to_optuna,
    to_tune,
)

SCHEDULE = {"schedule": "linear", "start": 0.2, "end": 0.05, "steps": 9}
SPACE = {
    "ratio": Range(0.01, 0.3, log=True),
    "lora.r": Range(4, 64, log=True, whole=True),
    "mitigation": Values(("base", "paraphrase")),
}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Range(0, 0.3, log=True), "log_uniform needs ends above 0 (given 0)"),
        (lambda: Range(-1, 0.3, log=True), "above 0 (given -1)"),
        (lambda: Range(0.3, 0.01), "the ends are inverted: write the smaller one first, [0.01, "),
        (lambda: Range(0.3, 0.3), "the range 0.3 to 0.3 is empty"),
        (lambda: Range(0, math.inf), "must be finite"),
        (lambda: Range(0.5, 4, whole=True), "ends of whole numbers are whole"),
        (lambda: Values(()), "no value to choose from"),
        (lambda: Values((8, 16, 8.0)), "8.0 is given twice"),
        (lambda: Values(({"a": [1]}, {"a": [1.0]})), "is given twice"),
    ],
)
def test_domains_that_cannot_be(make, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


def test_one_and_true_are_two_values():
    assert not same(1, True)
    assert same({"a": [1, "x"]}, {"a": [1.0, "x"]})
    mixed = Values((1, True, "1"))
    assert len(set(mixed.labels)) == 3
    assert [tidy(mixed, label) for label in mixed.labels] == [1, True, "1"]
    assert tidy(mixed, True) is True


def test_sizes_grids_and_edges():
    assert size(SPACE) is None
    lists = {"ratio": Values((0.01, 0.1), grid=True), "lora": Values((False, {"r": 8}))}
    assert size(lists) == 4
    assert grid_points(lists) == [
        {"ratio": 0.01, "lora": False},
        {"ratio": 0.01, "lora": {"r": 8}},
        {"ratio": 0.1, "lora": False},
        {"ratio": 0.1, "lora": {"r": 8}},
    ]
    assert size({"r": Range(4, 64, whole=True)}) == 61
    assert edges(SPACE["lora.r"]) == (4, 64)
    assert all(isinstance(end, int) for end in edges(SPACE["lora.r"]))
    with pytest.raises(ValueError, match="ratio has no end of values"):
        grid_points(SPACE)
    assert len(list(crossings(SPACE, 100))) == 8
    few = list(crossings(SPACE, 7))
    assert len(few) == 4
    for key, domain in SPACE.items():
        assert {point[key] for point in few} == set(edges(domain))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12), more=st.integers(0, 8))
def test_random_points_are_legal_distinct_and_stay_the_same(seed, n, more):
    points = random_points(SPACE, n, seed)
    turned = dict(reversed(SPACE.items()))
    assert random_points(turned, n + more, seed)[:n] == points
    assert len({repr(point) for point in points}) == n
    for point in points:
        assert list(point) == list(SPACE)
        assert 0.01 <= point["ratio"] <= 0.3
        assert point["ratio"] == tidy(SPACE["ratio"], point["ratio"])
        assert point["lora.r"] in range(4, 65)
        assert point["mitigation"] in ("base", "paraphrase")


def test_what_random_points_are_drawn_from():
    """Evenly over the logarithm: as many below the geometric middle as above, each end met."""
    ratios = [p["ratio"] for p in random_points({"ratio": SPACE["ratio"]}, 2000, 7)]
    below = sum(ratio < math.sqrt(0.01 * 0.3) for ratio in ratios)
    assert abs(below - 1000) < 100
    whole = {"r": Range(1, 3, whole=True), "x": Range(0, 1)}
    ranks = [point["r"] for point in random_points(whole, 3000, 1)]
    assert all(abs(ranks.count(rank) - 1000) < 120 for rank in (1, 2, 3))
    assert random_points({"x": Range(0, 1)}, 2, 5) == [{"x": 0.6229}, {"x": 0.7418}], "for ever"


def test_a_space_of_lists_is_used_up_but_not_more():
    space = {"a": Values(tuple(range(30))), "b": Values(("x", "y"))}
    points = random_points(space, 60, 3)
    assert sorted(map(repr, points)) == sorted(map(repr, grid_points(space)))
    with pytest.raises(ValueError, match="61 points asked for, but the space has only 60"):
        random_points(space, 61, 3)
    half = random_points(space, 30, 3, lambda point: {"a": point["a"]})
    assert sorted(point["a"] for point in half) == list(range(30))
    with pytest.raises(ValueError, match="only 3"):
        random_points({"r": Range(1, 3, whole=True)}, 4, 0)


def test_tidy():
    assert tidy(SPACE["ratio"], 0.0523456) == 0.05235
    assert tidy(Range(1 / 3, 0.5), 1 / 3) == 1 / 3, "rounding never leaves the range"
    assert tidy(SPACE["ratio"], 0.9) == 0.3
    assert tidy(SPACE["lora.r"], 7.6) == 8
    with pytest.raises(ValueError, match="'none' is none of 'base', 'paraphrase'"):
        tidy(SPACE["mitigation"], "none")
    with pytest.raises(ValueError, match="no finite number"):
        tidy(SPACE["ratio"], math.nan)


def test_optuna_chooses():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {**SPACE, "schedule": Values((0.05, SCHEDULE))}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    seen = []
    for _ in range(30):
        trial = study.ask()
        seen.append({name: to_optuna(trial, name, domain) for name, domain in space.items()})
    assert all(tidy(space[key], value) == value for point in seen for key, value in point.items())
    assert SCHEDULE in [point["schedule"] for point in seen], "whole values come back whole"
    fixed = optuna.trial.FixedTrial({"ratio": 0.0523456, "lora.r": 64})
    assert to_optuna(fixed, "ratio", space["ratio"]) == 0.05235
    assert to_optuna(fixed, "lora.r", space["lora.r"]) == 64


def test_ray_draws():
    pytest.importorskip("ray.tune")
    for domain in (*SPACE.values(), Range(0, 1), Range(1, 2, whole=True)):
        drawn = [tidy(domain, to_tune(domain).sample()) for _ in range(60)]
        if isinstance(domain, Range):
            assert all(domain.low <= value <= domain.high for value in drawn)
    assert {tidy(SPACE["lora.r"], n) for n in (4, 64)} == {4, 64}
    assert set(to_tune(Range(1, 2, whole=True)).sample(size=60)) == {1, 2}, "both ends"
    choice = Values((0.05, SCHEDULE))
    assert [tidy(choice, label) for label in to_tune(choice).categories] == [0.05, SCHEDULE]
    assert to_tune(Values((1, 2), grid=True)) == {"grid_search": [1, 2]}


def test_neither_ray_nor_optuna_is_imported_before_it_is_used():
    code = (
        "import sys, safemix.tuning.settings, safemix.tuning.choose;"
        "sys.exit(bool({'ray', 'optuna', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
