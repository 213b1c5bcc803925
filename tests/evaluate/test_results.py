"""What an evaluation says, and that it survives being written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.errors import DataError
from safemix.evaluate.results import (
    REDACTED,
    SIDES,
    Decoding,
    Evaluation,
    Item,
    Measure,
    Rate,
    Side,
    Verdict,
    find_measure,
    read_evaluation,
)

text = st.text(max_size=20)
items = st.builds(Item, text, text, text, st.booleans(), text, st.none() | text)
measures = st.builds(
    Measure,
    side=st.sampled_from(SIDES),
    name=text,
    dress=text,
    metric=text,
    items=st.lists(items, max_size=5).map(tuple),
    judge=text,
    decoding=text,
    set_hash=text,
)
evaluations = st.builds(
    Evaluation,
    model=text,
    measures=st.lists(measures, max_size=4).map(tuple),
    settings=st.dictionaries(text, st.none() | text | st.integers() | st.lists(text), max_size=3),
)


def measure(*counted: bool | None, side: Side = "safety") -> Measure:
    """None is an item without a verdict."""
    found = tuple(
        Item(f"builtin/{n}/plain", f"prompt {n}", f"said {n}", bool(c), "why")
        if c is not None
        else Item(f"builtin/{n}/plain", f"prompt {n}", f"said {n}", False, error="no reply")
        for n, c in enumerate(counted)
    )
    return Measure(side, "builtin", "plain", "asr", found, "refusal", "greedy", "abc")


def test_a_rate_says_count_share_and_interval() -> None:
    assert str(Rate(3, 60)) == "5.0 % (3/60, 1.7 to 13.7)"
    assert str(Rate(0, 0)) == "none counted"
    assert math.isnan(Rate(0, 0).value)
    assert Rate(0, 0).interval == (0.0, 1.0)
    assert Rate(1, 4).value == 0.25


def test_decoding_says_what_decides_the_completions() -> None:
    assert str(Decoding()) == "greedy, 128 tokens"
    assert str(Decoding(seed=4)) == str(Decoding()), "a seed changes nothing in greedy decoding"
    sampled = Decoding(0.7, 0.9, 64, 3, 5)
    assert str(sampled) == "temperature 0.7, top_p 0.9, 3 samples, 64 tokens, seed 5"


def test_items_without_a_verdict_are_in_no_rate() -> None:
    found = measure(True, None, False, None, True)
    assert (found.rate, found.unjudged) == (Rate(2, 3), 2)
    assert measure(None).rate.total == 0
    assert measure().rate == Rate(0, 0)
    assert found.key == "safety/builtin/plain/asr"


def test_an_answer_without_a_verdict_counts_once_in_an_evaluation() -> None:
    asr = measure(True, None, False)
    complied = replace(measure(True, None, None), metric="complied")
    other = replace(measure(None), name="other")
    assert Evaluation("m", (asr, complied)).unjudged == 2
    assert Evaluation("m", (asr, complied, other)).unjudged == 3
    assert Evaluation("m", (measure(True),)).unjudged == 0


def test_sides() -> None:
    assert get_args(Side) == SIDES
    safe, useful = measure(True), measure(False, side="utility")
    evaluation = Evaluation("m", (safe, useful))
    assert evaluation.side("utility") == (useful,)
    assert evaluation.side("coherence") == ()
    assert find_measure(evaluation.measures, safe.key) is safe
    assert find_measure(evaluation.measures, "safety/other/plain/asr") is None


def test_json_has_rates_and_intervals() -> None:
    tree = Evaluation("m", (measure(True, False), measure())).to_json()
    rate = tree["measures"][0]["rate"]
    assert (rate["value"], rate["count"], rate["total"]) == (0.5, 1, 2)
    assert rate["low"] == pytest.approx(0.0945, abs=1e-4)
    assert tree["measures"][1]["rate"]["value"] is None
    json.dumps(tree, allow_nan=False)


def test_harmful_completions_can_be_left_out() -> None:
    harmful = measure(True, False, None)
    kept = Item("builtin/9/plain", "benign", "said 9", counted=True)
    # An incoherent answer to a harmful prompt stands on the side of coherence as well.
    coherence = replace(measure(True, False, side="coherence"), metric="incoherent")
    others = replace(measure(side="over_refusal"), items=(kept,))
    evaluation = Evaluation("m", (harmful, coherence, others))
    bare = evaluation.to_json(completions=False)
    said = [[item["completion"] for item in m["items"]] for m in bare["measures"]]
    assert said == [[REDACTED, "said 1", REDACTED], [REDACTED, "said 1"], ["said 9"]]
    full = evaluation.to_json()
    assert [i["completion"] for i in full["measures"][0]["items"]] == ["said 0", "said 1", "said 2"]
    again = Evaluation.from_json(bare)
    assert [m.rate for m in again.measures] == [m.rate for m in evaluation.measures]
    assert evaluation.measures == (harmful, coherence, others), "the evaluation itself stays"
    silent = replace(harmful, items=(Item("builtin/0/plain", "p", "", counted=True),))
    bare = Evaluation("m", (silent,)).to_json(completions=False)
    assert bare["measures"][0]["items"][0]["completion"] == "", "nothing said, nothing hidden"


@given(evaluations)
def test_an_evaluation_survives_being_written(evaluation: Evaluation) -> None:
    written = json.dumps(evaluation.to_json())
    assert read_evaluation(written) == evaluation


def broken(change: Any) -> str:
    tree = Evaluation("m", (measure(True),)).to_json()
    change(tree)
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        ("", "is no JSON"),
        ('{"format": 1', "is no JSON"),
        ("[1]", "is no JSON object"),
        ("{}", "cannot be read"),
        (broken(lambda t: t.update(format=99)), "format 99"),
        (broken(lambda t: t.pop("measures")), "cannot be read"),
        (broken(lambda t: t.update(measures=[1])), "cannot be read"),
        (broken(lambda t: t["measures"][0].pop("judge")), "cannot be read"),
        (broken(lambda t: t["measures"][0]["items"][0].update(other=1)), "cannot be read"),
        (broken(lambda t: t["measures"][0]["items"][0].pop("counted")), "cannot be read"),
        (broken(lambda t: t.update(settings=3)), "cannot be read"),
    ],
)
def test_what_is_damaged_is_refused_in_one_line(damaged: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_evaluation(damaged)
    assert "\n" not in str(caught.value)
    assert "evaluate the model again" in str(caught.value)


def test_results_cannot_be_changed() -> None:
    for thing, name in (
        (Verdict(True, "why"), "complied"),
        (measure(True), "name"),
        (Rate(1, 2), "count"),
        (Decoding(), "seed"),
        (Evaluation("m", ()), "model"),
    ):
        with pytest.raises(AttributeError):
            setattr(thing, name, None)
        assert replace(thing) == thing
