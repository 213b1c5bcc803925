"""Weights on first tokens: which tokens, whose, and how much."""

from __future__ import annotations

import doctest
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safemix.errors import SettingsError
from safemix.loading import weights as module
from safemix.loading.collate import SafeMixCollator
from safemix.loading.weights import FirstTokens, TokenWeights, answer_places, first_tokens_of
from safemix.settings import parse_settings
from safemix.training.tiny import build_tiny

SOURCES = ("task", "safety", "lookalikes")
TREE = {"task": "builtin:task", "safety": {"builtin": "safety"}, "max_steps": 1}


def places_by_hand(row: list[int]) -> list[int]:
    """The same in plain Python: walk over the predicted tokens, begin anew at each answer."""
    found, place = [], 0
    for label in [*row[1:], -100]:
        found.append(place if label != -100 else -1)
        place = place + 1 if label != -100 else 0
    return found


def test_examples_in_the_docstrings() -> None:
    result = doctest.testmod(module)
    assert result.attempted > 2
    assert result.failed == 0


@given(
    st.integers(1, 12).flatmap(
        lambda length: st.lists(
            st.lists(st.sampled_from([-100, -100, 3, 4]), min_size=length, max_size=length),
            min_size=1,
            max_size=4,
        )
    )
)
def test_places_are_those_counted_by_hand(rows: list[list[int]]) -> None:
    labels = torch.tensor(rows)
    assert answer_places(labels).tolist() == [places_by_hand(row) for row in rows]


def test_weights_fall_on_the_first_tokens_of_every_answer_of_a_source() -> None:
    row = [-100, -100, 5, 5, 5, -100, -100, 5, -100, 5, 5, 5, 5]
    labels = torch.tensor([row, row, row])
    source = torch.tensor([0, 1, 2])
    weights = TokenWeights(
        SOURCES, {"safety": FirstTokens(2, 5.0), "lookalikes": FirstTokens(1, 3)}
    )
    assert weights.weighted == {"safety": 1, "lookalikes": 2}
    got = weights(labels, source)
    assert got.dtype == torch.float32
    # A weight stands where the loss of the token stands: one place before it.
    assert got[0].tolist() == [1] * 13
    assert got[1].tolist() == [1, 5, 5, 1, 1, 1, 5, 1, 5, 5, 1, 1, 1]
    assert got[2].tolist() == [1, 3, 1, 1, 1, 1, 3, 1, 3, 1, 1, 1, 1]
    assert weights.first(labels, source).sum(1).tolist() == [0, 5, 3]


def test_an_answer_shorter_than_the_count_is_weighted_whole() -> None:
    labels = torch.tensor([[-100, 5, 5, -100, -100], [5, 5, 5, 5, 5]])
    weights = TokenWeights(("safety",), {"safety": FirstTokens(8, 2.0)})
    assert weights(labels, torch.zeros(2).long()).tolist() == [[2, 2, 1, 1, 1], [2, 2, 2, 2, 1]]


def test_turns_of_a_real_template_each_begin_anew(tmp_path) -> None:
    from transformers import AutoTokenizer

    build_tiny(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    turns = [
        {"role": "user", "content": "first question"},
        {"role": "assistant", "content": "I will not help with that at all."},
        {"role": "user", "content": "and now?"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "please"},
        {"role": "assistant", "content": "That is still something I refuse."},
    ]
    batch = SafeMixCollator(tokenizer, max_length=512)([{"messages": turns, "source": 1}])
    labels = batch["labels"]
    first = TokenWeights(SOURCES, {"safety": FirstTokens(1, 5.0)}).first(labels, batch["source"])
    begins = [i for i in range(1, labels.shape[1]) if labels[0, i] != -100 == labels[0, i - 1]]
    assert len(begins) == 3
    assert (first[0].nonzero().ravel() + 1).tolist() == begins
    words = [tokenizer.decode(labels[0, i : i + 12][labels[0, i : i + 12] != -100]) for i in begins]
    assert [w.lstrip()[:2] for w in words] == ["I ", "No", "Th"]


@pytest.mark.parametrize(
    ("count", "weight", "words"),
    [
        (0, 5.0, "count 0 is below 1: use 1 or more"),
        (8, 0.0, "weight 0.0: use a number above 0"),
        (8, math.inf, "weight inf: use a number above 0"),
        (8, math.nan, "weight nan"),
    ],
)
def test_what_is_no_weight(count: int, weight: float, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        FirstTokens(count, weight)


def test_a_source_that_is_not_there() -> None:
    with pytest.raises(SettingsError, match="'saftey', but the plan has task, safety, lookalikes"):
        TokenWeights(SOURCES, {"saftey": FirstTokens()})


def test_from_the_settings() -> None:
    def of(value: object, **changes: object) -> dict[str, FirstTokens]:
        safety = {"builtin": "safety", "first_tokens": value}
        return first_tokens_of(parse_settings(TREE | {"safety": safety} | changes))

    assert of(None) == of(False) == {}
    assert of(True) == of({}) == {"safety": FirstTokens(8, 5.0)}
    plain = {"mitigation": {"name": "paraphrase", "lookalikes": False}}
    assert of({"count": 3, "weight": 2}, **plain) == {"safety": FirstTokens(3, 2)}
    both = dict.fromkeys(("safety", "lookalikes"), FirstTokens(3, 2))
    assert of({"count": 3, "weight": 2}, mitigation="paraphrase") == both
    own = {"mitigation": {"name": "paraphrase", "lookalikes": {"first_tokens": {"weight": 7}}}}
    safety = {"safety": FirstTokens(3, 2)}
    assert of({"count": 3, "weight": 2}, **own) == safety | {"lookalikes": FirstTokens(8, 7)}
    assert of(False, **own) == {"lookalikes": FirstTokens(8, 7)}
    own["mitigation"]["lookalikes"] = {"first_tokens": False}  # type: ignore[index]
    assert of({"count": 3, "weight": 2}, **own) == safety
    assert first_tokens_of(parse_settings(TREE | {"safety": None, "ratio": 0})) == {}


def test_a_mitigations_own_weight_can_be_switched_off() -> None:
    asked = TREE | {"mitigation": "paraphrase"}
    own = dict.fromkeys(("safety", "lookalikes"), FirstTokens(8, 5.0))
    assert first_tokens_of(parse_settings(asked)) == own
    short = TREE | {"safety": {"builtin": "safety", "mimic": "offline"}}
    assert first_tokens_of(parse_settings(short)) == own
    assert first_tokens_of(parse_settings(TREE)) == {}
    off = asked | {"safety": {"builtin": "safety", "first_tokens": False}}
    settings = parse_settings(off)
    assert first_tokens_of(settings) == {}
    assert parse_settings(settings.model_dump()) == settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"count": 0}, "safety.first_tokens.count = 0: input should be greater than or equal to 1"),
        ({"weight": 0}, "safety.first_tokens.weight = 0: input should be greater than 0"),
        ({"weight": "much"}, "safety.first_tokens.weight = 'much': expected a number"),
        ({"weigth": 5}, "unknown key 'safety.first_tokens.weigth'"),
        (8, "safety.first_tokens = 8"),
    ],
)
def test_settings_that_are_refused(given: object, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(TREE | {"safety": {"builtin": "safety", "first_tokens": given}}, "run.yaml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
