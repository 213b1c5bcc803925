"""How many look-alikes a run has that was given no share of them, and what it says of it."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.mitigation.companions import share_note, unset_share
from safemix.mitigation.registry import mitigation_for
from safemix.mixture import ratio_from
from safemix.mixture.convert import convert_ratio
from safemix.settings import Settings, parse_settings

TREE: dict[str, Any] = {"task": "builtin:task", "safety": "builtin:safety", "max_steps": 1}
CONTROLLER = {"controller": "target", "min_margin": 0.5, "start": "1/16"}
LINEAR = {"schedule": "linear", "start": 0.2, "end": 0.05, "steps": 9}
PIECES = {"schedule": "piecewise", "points": {10: 0.3, 0: "1/8"}}
GENERAL = {"general": {"builtin": "lookalikes", "ratio": 0.5}}


def parse(mitigation: Any, **changes: Any) -> Settings:
    return parse_settings(TREE | {"mitigation": mitigation} | changes, "run.yaml")


def drawn(mitigation: Any, **changes: Any) -> tuple[Fraction | None, tuple[str, ...]]:
    """The share that a run's look-alikes have, and what is said of it."""
    settings = parse(mitigation, **changes)
    source = mitigation_for(settings).adjust(settings).sources.get("lookalikes")
    share = None if source is None else Fraction(str(source.ratio))
    return share, share_note(settings)


@pytest.mark.parametrize(
    ("changes", "share", "words"),
    [
        ({}, "1/10", "lookalikes: 10 % of all rows: as many as safety rows (mitigation.lookalikes"),
        ({"ratio": 0.05}, "1/20", "5 % of all rows: as many as safety rows"),
        ({"ratio": "1/3"}, "1/6", "16.7 % of all rows: with more the task would have less than h"),
        ({"ratio": 0.25}, "1/4", "25 % of all rows: as many as safety rows"),
        ({"ratio": 0.4}, "1/10", "less than half of the rows (mitigation.lookalikes sets a share)"),
        ({"ratio": 0.5}, "0", "none, as at ratio 0.5 the task would have less than half of the"),
        ({"ratio": 0.9}, "0", "none, as at ratio 0.9 the task would have less than half of the"),
        ({"ratio": 0}, "0", "none, as the ratio at the first step is 0"),
        ({"ratio": LINEAR}, "1/5", "20 % of all rows: as many as safety rows at the first step"),
        ({"ratio": PIECES}, "1/8", "12.5 % of all rows: as many as safety rows at the first step"),
        ({"ratio": CONTROLLER}, "1/16", "6.25 % of all rows: as many as safety rows at the first"),
        ({"ratio": 0.1, "sources": GENERAL}, "1/10", "10 % of all rows: as many as safety rows"),
        ({"ratio": 0.2, "sources": GENERAL}, "1/20", "less than half of the rows that other sour"),
        ({"ratio": 0.25, "ratio_of": "task"}, "1/6", "16.7 % of all rows: as many as safety rows"),
        ({"ratio": 0.8, "ratio_of": "task"}, "1/10", "10 % of all rows: with more the task would"),
        ({"ratio": 0.1, "ratio_of": "tokens"}, "1/10", "10 % of all rows: the ratio's number, as"),
    ],
)
def test_as_many_as_safety_rows(changes: dict[str, Any], share: str, words: str) -> None:
    for name in ("paraphrase", {"name": "base", "lookalikes": True}):
        found, said = drawn(name, **changes)
        assert found == Fraction(share)
        assert len(said) == 1
        assert words in said[0]


def test_a_share_that_was_given_stays() -> None:
    for asked in (0.02, {"share": 0.02}):
        lookalikes = {"name": "paraphrase", "lookalikes": asked}
        for ratio in (0, 0.1, 0.9, CONTROLLER):
            assert drawn(lookalikes, ratio=ratio) == (Fraction("0.02"), ())
    assert drawn({"name": "paraphrase", "lookalikes": {"limit": 5}})[0] == Fraction("0.1")
    assert drawn({"name": "paraphrase", "lookalikes": 0}) == (None, ())
    assert drawn("base") == drawn("longest") == (None, ())


@pytest.mark.parametrize(
    ("changes", "share", "words"),
    [
        ({}, "3/10", "lookalikes: 30 % of all rows: 3 to a safety row (mitigation.lookalikes sets"),
        ({"ratio": 0.2}, "3/10", "30 % of all rows: with more the task would have less than half"),
        ({"ratio": LINEAR}, "3/10", "with more the task would have less than half of the rows"),
        ({"ratio": CONTROLLER}, "3/16", "18.8 % of all rows: 3 to a safety row at the first step"),
        ({"ratio_of": "tokens"}, "3/10", "30 % of all rows: 3 times the ratio's, as rows of a sha"),
    ],
)
def test_three_to_a_safety_row(changes: dict[str, Any], share: str, words: str) -> None:
    for mitigation in (
        {"name": "base", "lookalikes": {"per_safety_row": 3}},
        {"name": "paraphrase", "preset": "calibrated"},
    ):
        found, said = drawn(mitigation, **changes)
        assert found == Fraction(share)
        assert len(said) == 1
        assert words in said[0]


@given(
    ratio=st.fractions(0, Fraction(99, 100), max_denominator=100),
    other=st.fractions(0, Fraction(99, 100), max_denominator=100),
    of=st.sampled_from(["rows", "task"]),
    times=st.sampled_from([1, 3, 0.5]),
)
def test_the_task_keeps_half_and_the_plan_can_be_made(
    ratio: Fraction, other: Fraction, of: str, times: float
) -> None:
    """Against the conversion that the run itself uses."""
    general = {"general": {"builtin": "lookalikes", "ratio": str(other)}}
    mitigation = {"name": "paraphrase", "lookalikes": {"per_safety_row": times}}
    settings = parse(mitigation, ratio=str(ratio), ratio_of=of, sources=general)
    share = unset_share(settings).share
    others = {"general": other, "lookalikes": share}
    safety = convert_ratio(ratio_from(ratio), of, others=others, mean_tokens={}).at(0)
    task = 1 - other - share - safety
    assert share >= 0
    if share:
        # Shares are rounded to a denominator of 10**9 at most.
        assert task >= (1 - other) / 2 - Fraction(1, 10**8)
        wanted = Fraction(times) * safety
        off = max(Fraction(times), Fraction(1)) / 10**8  # the safety rows' rounding, times that
        assert share <= wanted + off
        room = task > (1 - other) / 2 + Fraction(1, 10**8)
        assert not room or abs(share - wanted) < off


def test_the_source_follows_the_ratio_when_it_is_adjusted_again() -> None:
    settings = parse("paraphrase", ratio=0.1)
    mitigation = mitigation_for(settings)
    adjusted = mitigation.adjust(settings)
    other = mitigation.adjust(adjusted.model_copy(update={"ratio": 0.2}))
    assert Fraction(str(other.sources["lookalikes"].ratio)) == Fraction("0.2")
