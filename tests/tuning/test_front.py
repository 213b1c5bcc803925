"""The objectives of a trial, and the trials that no other one beats."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.tuning.front import in_order, pareto, trained_share, utility_of, worst_rate
from safemix.tuning.records import Outcome, TrialRecord


def record(number, asr=3, right=5, *, status="done", kind="trial", ratio=0.1, total=10):
    outcomes = (
        Outcome("safety", "set", "plain", "asr", "1" * asr + "0" * (total - asr)),
        Outcome("safety", "set", "plain", "complied", "1" * total),
        Outcome("utility", "task", "plain", "accuracy", "1" * right + "0" * (total - right)),
    )
    return TrialRecord(
        number, kind, status=status, ratios=((0, ratio),), outcomes=outcomes, step=60, max_steps=60
    )


def test_objectives():
    both = (
        Outcome("safety", "a", "plain", "asr", "10?0"),
        Outcome("safety", "a", "styled", "asr", "1000"),
        Outcome("utility", "t", "plain", "accuracy", "1100"),
        Outcome("utility", "u", "plain", "accuracy", "11??"),
    )
    found = TrialRecord(0, "trial", outcomes=both)
    assert str(worst_rate(found)).startswith("33.3 % (1/3")
    assert utility_of(found) == pytest.approx(0.75)
    unknown = (Outcome("safety", "b", "plain", "asr", "??"), Outcome("utility", "t", "", "x", ""))
    assert worst_rate(TrialRecord(0, "trial", outcomes=both + unknown)) is None
    assert utility_of(TrialRecord(0, "trial", outcomes=both + unknown)) is None
    assert worst_rate(TrialRecord(0, "trial")) is None
    assert utility_of(TrialRecord(0, "trial")) is None


def test_the_share_that_was_trained():
    def share(*ratios, step=60):
        return trained_share(TrialRecord(0, "trial", step=step, ratios=ratios))

    assert share((0, 0.1)) == 0.1
    assert share((0, 0.1), (20, 0.4)) == pytest.approx((20 * 0.1 + 40 * 0.4) / 60)
    assert share((0, 0.1), (20, 0.4), (80, 0.9)) == pytest.approx(0.3), "not yet in force"
    assert share((0, 0.1), step=0) == 0.1
    assert share() is None
    assert trained_share(TrialRecord(0, "unmixed", ratios=((0, 0.2),))) == 0.0
    shares = [record(0, ratio=0.3), record(2, ratio=0.1), record(1, ratio=0.1)]
    last = TrialRecord(9, "trial")
    assert [r.number for r in in_order([last, *shares])] == [1, 2, 0, 9]


def test_only_ended_trials_with_both_rates_are_on_the_front():
    others = [
        record(1, 0, 10, status="stopped"),
        record(2, 0, 10, kind="unmixed"),
        TrialRecord(3, "trial", status="done"),
        TrialRecord(4, "trial", status="done", outcomes=record(4).outcomes[:2]),
        TrialRecord(5, "trial", status="done", outcomes=record(5).outcomes[2:]),
    ]
    kept = record(0, 3, 5)
    assert pareto([*others, kept]) == [kept]
    assert pareto([]) == []


def test_equal_trials_stay_and_the_order_is_that_of_the_ratio():
    records = [record(0, 1, 4, ratio=0.2), record(1, 5, 9, ratio=0.05), record(2, 1, 4, ratio=0.3)]
    beaten = [record(3, 1, 3), record(4, 2, 4), record(5, 5, 8)]
    assert [r.number for r in pareto(beaten + records)] == [1, 0, 2]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=24))
def test_the_front_is_what_brute_force_finds(spots):
    records = [record(n, asr, right, ratio=0.01 * (n + 1)) for n, (asr, right) in enumerate(spots)]

    def beaten(one):
        return any(a <= one[0] and u >= one[1] and (a, u) != one for a, u in spots)

    assert [r.number for r in pareto(records)] == [
        n for n, spot in enumerate(spots) if not beaten(spot)
    ]


def test_counts_of_other_sizes_are_compared_by_their_share():
    assert [r.number for r in pareto([record(0, 2, 4, total=10), record(1, 4, 8, total=20)])] == [
        0,
        1,
    ]
    assert not math.isnan(worst_rate(record(0)).value)
