"""Field maps: columns and templates over them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.errors import DataError
from safemix.rows.schema import RowError, to_messages
from safemix.rows.template import parse_template

RECORD = {
    "question": "Which?",
    "choices": ["red", "blue"],
    "answer": 1,
    "meta": {"src": {"name": "web"}, "0": "zero"},
    "blank": " ",
    "null": None,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{question}\nA: {choices[0]}\nB: {choices[1]}", "Which?\nA: red\nB: blue"),
        ("{answer}", "1"),
        ("{meta[src][name]}", "web"),
        ("{meta[0]}", "zero"),
        ("{{{question}}} {{}}", "{Which?} {}"),
        ("{null}{question}", "Which?"),
        ("{question} {blank}", "Which?  "),
    ],
)
def test_a_template_is_filled_from_the_columns(template, text):
    assert to_messages(RECORD, {"prompt": template, "completion": "{answer}"}) == [
        {"role": "user", "content": text},
        {"role": "assistant", "content": "1"},
    ]


@pytest.mark.parametrize(
    "template",
    [
        "{x.__class__}",
        "{x.__class__.__mro__[1]}",
        "{x[0].real}",
        "{x!r}",
        "{x:>1000000000}",
        "{x:{y}}",
        "{x!s:10}",
        "{}",
        "{[0]}",
        "{x[]}",
        "{x[0}",
        "{x[0]y}",
        "{x",
        "x}",
        "{{x}}",
        '{"answer": "{x}"}',
    ],
)
def test_a_template_that_is_not_legal_is_refused(template):
    with pytest.raises(DataError, match=r"^field template [^\n]*$") as caught:
        to_messages({"x": "1", "y": "2"}, {"prompt": template, "completion": "y"})
    assert "{{ }}" in str(caught.value)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{choices}", "choices is a list, not text"),
        ("{choices[2]}", "choices is too short for item [2]"),
        ("{choices[999999999999999]}", "too short"),
        ("{choices[-1]}", "not a position"),
        ("{choices[__class__]}", "not a position"),
        ("{choices[²]}", "not a position"),
        ("{meta[nope]}", "meta has no item 'nope'"),
        ("{meta[src]}", "meta[src] is an object, not text"),
        ("{question[0]}", "question is text and has no item [0]"),
        ("{null[0]}", "null is null and has no item [0]"),
        ("Q: {blank}{null}", "empty prompt"),
    ],
)
def test_a_row_that_does_not_fit_the_template_is_refused(template, reason):
    with pytest.raises(RowError) as caught:
        to_messages(RECORD, {"prompt": template, "completion": "answer"})
    assert reason in caught.value.reason


def test_an_answer_template_with_a_hole_is_an_empty_answer():
    with pytest.raises(RowError, match="empty answer"):
        to_messages(RECORD, {"prompt": "question", "completion": "Why: {question} So: {blank}"})


@given(st.text(alphabet=string.printable + "{}é\U0001f600"))
def test_text_of_a_row_is_never_parsed(text):
    """Braces in a row survive, in a column and in a template, in prompt and in answer."""
    text += "{question.__class__}{0}{{}}"
    record = {"question": text, "answer": text}
    for fields in (
        {"prompt": "question", "completion": "answer"},
        {"prompt": "{question}", "completion": "{answer}"},
    ):
        assert [m["content"] for m in to_messages(record, fields)] == [text, text]


def test_a_field_map_of_every_kind():
    record = {
        "sys": "S",
        "q": "Q",
        "more": "M",
        "chat": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}],
        "a": 5,
        "system": "not asked for",
    }
    full = to_messages(record, {"prompt": "q", "input": "more", "completion": "a", "system": "sys"})
    assert [(m["role"], m["content"]) for m in full] == [
        ("system", "S"),
        ("user", "Q\n\nM"),
        ("assistant", "5"),
    ]
    assert len(to_messages(record, {"messages": "chat"})) == 2
    with_system = to_messages(record, {"messages": "chat", "system": "You are {sys}."})
    assert with_system[0] == {"role": "system", "content": "You are S."}


def test_a_mapped_prompt_may_be_a_list_of_messages():
    record = {"p": [{"role": "user", "content": "Q"}], "i": "more", "c": "A"}
    messages = to_messages(record, {"prompt": "p", "input": "i", "completion": "c"})
    assert messages[0]["content"] == "Q\n\nmore"


def test_columns_of_a_template_stand_once():
    assert parse_template("{a}{b[0]}{a[x]}").columns == ("a", "b")
