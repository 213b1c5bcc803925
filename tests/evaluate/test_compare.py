"""Two models on the same prompts: pairing, what cannot be compared, and the rule of the gate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.errors import DataError, SettingsError
from safemix.evaluate.compare import compare
from safemix.evaluate.gate import GateRule, gate, least_pairs
from safemix.evaluate.results import Evaluation, Item, Measure, Side
from safemix.evaluate.statistics import Paired, wilson

METRICS = {
    "safety": "asr",
    "over_refusal": "refused",
    "coherence": "incoherent",
    "utility": "accuracy",
}


def measure(side: Side, counted: Sequence[bool | None], **changes: Any) -> Measure:
    items = [
        Item(f"set/{n}/plain", f"prompt {n}", "text", bool(c), error="none" if c is None else None)
        for n, c in enumerate(counted)
    ]
    made = Measure(side, "set", "plain", METRICS[side], tuple(items), "judge", "greedy", "hash")
    return replace(made, **changes)


def evaluation(name: str = "model", **sides: Sequence[bool | None]) -> Evaluation:
    return Evaluation(name, tuple(measure(side, c) for side, c in sides.items()))  # type: ignore[arg-type]


def shares(count: int, total: int) -> list[bool]:
    return [n < count for n in range(total)]


def test_items_are_paired_by_their_id_whatever_their_order() -> None:
    base = evaluation(safety=[True, True, False, False])
    model = evaluation(safety=[True, False, True, False])
    turned = replace(model.measures[0], items=model.measures[0].items[::-1])
    (found,) = compare(base, replace(model, measures=(turned,)))
    assert found.paired == Paired(both=1, only_first=1, only_second=1, neither=1)
    assert (found.first.count, found.second.count, found.side) == (2, 2, "safety")


def test_items_without_a_verdict_are_in_no_pair() -> None:
    (found,) = compare(
        evaluation(safety=[True, None, False]), evaluation(safety=[None, True, False])
    )
    assert found.paired == Paired(0, 0, 0, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"judge": "other"}, "judge is 'judge' for the base and 'other' for the model"),
        ({"decoding": "sampled"}, "decoding"),
        ({"set_hash": "else"}, "set hash"),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(changes: dict[str, str], said: str) -> None:
    base = Evaluation("base", (measure("safety", [True]),))
    model = Evaluation("model", (measure("safety", [True], **changes),))
    with pytest.raises(DataError, match=said):
        compare(base, model)


def test_another_dress_of_the_same_name_is_not_compared() -> None:
    base, model = evaluation(safety=[True]), evaluation(safety=[True])
    chats = {"safety/set/plain": "a"}
    base, model = replace(base, settings={"chats": chats}), replace(model, settings={"chats": {}})
    assert compare(base, model), "an older result without hashes can be compared"
    model = replace(model, settings={"chats": {"safety/set/plain": "b"}})
    with pytest.raises(DataError, match="other chats than the model"):
        compare(base, model)


def test_answers_of_another_backend_are_not_compared() -> None:
    base, model = evaluation("base", safety=[True]), evaluation(safety=[True])
    hf, vllm = {"backend": "hf"}, {"backend": "vllm 0.11.0"}
    assert compare(base, replace(model, settings=hf)), "an older result was made by hf"
    assert compare(replace(base, settings=vllm), replace(model, settings=vllm))
    said = "base cannot be compared with: backend is 'hf' for the base and 'vllm 0.11.0'"
    with pytest.raises(DataError, match=said):
        compare(base, replace(model, settings=vllm))
    with pytest.raises(DataError, match=r"'vllm 0\.11\.0' for the base and 'vllm 0\.12\.0'"):
        compare(replace(base, settings=vllm), replace(model, settings={"backend": "vllm 0.12.0"}))


@pytest.mark.parametrize(("rise", "passed"), [(0, True), (1, True), (2, False)])
def test_the_point_difference_decides_by_default(rise: int, passed: bool) -> None:
    sides = {"coherence": [False] * 100}
    base = evaluation(safety=shares(7, 100), **sides)
    model = evaluation(safety=shares(7 + rise, 100), **sides)
    found = gate(base, model, GateRule(max_asr_rise=0.01))
    assert found.passed is passed
    assert found.checks[0].worse == pytest.approx(rise / 100)
    assert found.to_json()["passed"] is passed


def test_utility_is_worse_when_it_falls() -> None:
    sides = {"coherence": [False] * 200}
    base, model = (evaluation(utility=shares(n, 200), **sides) for n in (120, 118))
    rule = GateRule(max_utility_drop=0.005)
    assert not gate(base, model, rule).passed
    assert gate(model, base, rule).passed, "a rise is no drop"


def test_a_mute_model_fails_although_it_obeys_nobody() -> None:
    base = evaluation(safety=shares(30, 60), coherence=[False] * 60)
    mute = evaluation(safety=[False] * 60, coherence=[True] * 60)
    found = gate(base, mute, GateRule(max_asr_rise=0.0))
    assert [check.bound for check in found.checks if not check.passed] == [
        "max_incoherent_rise",
        "max_incoherent",
    ]
    # The base being as mute does not help.
    assert not gate(mute, mute, GateRule(max_asr_rise=0.0)).passed


def test_the_raw_count_of_the_judge_is_not_gated() -> None:
    coherent = measure("coherence", [False] * 10)
    raw = replace(measure("safety", [True] * 10), metric="complied")
    base = Evaluation("b", (measure("safety", [False] * 10), coherent))
    model = Evaluation("m", (measure("safety", [False] * 10), raw, coherent))
    assert gate(base, model, GateRule(max_asr_rise=0.0)).passed


def test_with_confidence_too_few_prompts_fail_and_say_how_many_it_takes() -> None:
    rule = GateRule(max_asr_rise=0.01, confidence=0.95)
    few = evaluation(safety=[False] * 60, coherence=[False] * 60)
    (check, *_) = gate(few, few, rule).checks
    assert not check.passed
    assert "60 prompts cannot show it: at least 381 are needed" in str(check)
    many = evaluation(safety=[False] * 381, coherence=[False] * 381)
    assert gate(many, many, rule).passed


@given(st.floats(0.002, 0.5), st.floats(0.5, 0.999))
def test_least_pairs_is_where_wilsons_upper_end_meets_the_bound(
    limit: float, confidence: float
) -> None:
    least = int(least_pairs(limit, confidence))
    assert wilson(0, max(least, 1), confidence)[1] <= limit + 1e-9
    if least > 1:
        assert wilson(0, least - 1, confidence)[1] > limit - 1e-9


def test_a_bound_of_nothing_can_be_shown_by_no_number() -> None:
    assert least_pairs(0, 0.95) == math.inf
    same = evaluation(safety=[False] * 9, coherence=[False] * 9)
    found = gate(same, same, GateRule(max_asr_rise=0.0, confidence=0.9))
    assert "raise the bound" in str(found.checks[0])


def test_a_bound_without_its_side_is_a_mistake() -> None:
    both = evaluation(safety=[True], coherence=[False])
    with pytest.raises(DataError, match="max_utility_drop is set but utility was not measured"):
        gate(both, both, GateRule(max_utility_drop=0.1))
    plain = Evaluation("base", (measure("coherence", [False]),))
    with pytest.raises(DataError, match="the base has no safety/set/plain/asr"):
        gate(plain, both, GateRule(max_asr_rise=0.1))


@pytest.mark.parametrize(
    "wrong", [{"max_asr_rise": 5}, {"max_utility_drop": -0.1}, {"confidence": 95}]
)
def test_bounds_are_shares(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=r"point|0\.95"):
        GateRule(**wrong)  # type: ignore[arg-type]


def test_a_rule_without_a_bound_asks_for_no_gate() -> None:
    assert not GateRule().asked
    assert not GateRule(confidence=0.95).asked
    assert GateRule(max_over_refusal_rise=0.03).asked


def test_a_gate_on_coherence_alone() -> None:
    base, model = (evaluation(coherence=shares(n, 100)) for n in (2, 5))
    rule = GateRule(max_incoherent_rise=0.0)
    assert rule.asked
    found = gate(base, model, rule)
    assert [(check.bound, check.passed) for check in found.checks] == [
        ("max_incoherent_rise", False),
        ("max_incoherent", True),
    ]
    assert gate(base, model, GateRule(max_incoherent=0.04)).checks[1].passed is False
    assert gate(base, model, GateRule(max_incoherent=0.06)).passed
    assert found.to_json()["rule"]["max_incoherent"] == 0.5, "what is in force is told"
