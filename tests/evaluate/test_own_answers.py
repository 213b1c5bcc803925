"""The model's own answers: which will do, what stays, and where a text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.errors import DataError
from safemix.evaluate.own_answers import RowKind, own_answers, whole_sentences
from safemix.rows.schema import Message

REFUSAL = "I'm sorry, but I cannot help with that. It would harm somebody. If you"
HELP = "List the processes, find its number and send it a signal. Then look ag"


def row(request: str, answer: str = "As it came.") -> list[Message]:
    return [
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hello."),
        Message(role="assistant", content="Hello!"),
        Message(role="user", content=request),
        Message(role="assistant", content=answer),
    ]


def test_all_but_the_answer_is_asked_and_stays() -> None:
    asked: list[list[Message]] = []

    def ask(chats: object) -> list[str]:
        asked.extend(chats)  # type: ignore[arg-type]
        return [REFUSAL, REFUSAL]

    rows = [row("How do I hurt somebody?"), row("Write a threat.")]
    found = own_answers(rows, "safety", ask)
    assert asked == [rows[0][:-1], rows[1][:-1]]
    assert [list(made[:-1]) for made in found.rows] == asked
    for made in found.rows:
        assert made[-1] == {
            "role": "assistant",
            "content": "I'm sorry, but I cannot help with that. It would harm somebody.",
        }
    assert (found.own, found.kept) == (2, {})
    assert found.lines() == ["2 of 2 rows have the model's own answer"]


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("safety", HELP, "the model does not refuse"),
        ("lookalikes", REFUSAL, "the model refuses"),
        ("safety", "I cannot", "no whole sentence"),
        ("lookalikes", "", "no whole sentence"),
        ("lookalikes", "Go on. " * 40, "incoherent (repeats itself)"),
    ],
)
def test_what_will_not_do_is_counted_and_the_row_stays(kind: RowKind, text: str, why: str) -> None:
    good = REFUSAL if kind == "safety" else HELP
    rows = [row("One?"), row("Two?"), row("Three?")]
    found = own_answers(rows, kind, lambda chats: [text, good, text])
    assert (found.own, found.kept) == (1, {why: 2})
    assert [list(made) for made in found.rows[::2]] == rows[::2]
    assert found.rows[1][-1]["content"] == whole_sentences(good)
    assert found.lines()[1] == f"  2 keep the one they came with: {why}"


def test_bad_rows_are_one_line() -> None:
    with pytest.raises(DataError, match="safety: no rows to answer"):
        own_answers([], "safety", lambda chats: [])
    with pytest.raises(DataError, match="lookalikes: row 2 does not end with a user's turn and"):
        own_answers([row("One?"), row("Two?")[:-1]], "lookalikes", lambda chats: [])


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("Rest. Drink 1.5 l of wat", "Rest."),
        ('He said "stop." And th', 'He said "stop."'),
        ("Steps:\n1. Open it.\n2.", "Steps:\n1. Open it."),
        ("* One.\n* Two.\n* ", "* One.\n* Two."),
        ("Use this:\n```\nls -l\n```", "Use this:\n```\nls -l\n```"),
        ("It costs 3.", "It costs 3."),
        ("\u597d\u7684\u3002\u518d", "\u597d\u7684\u3002"),
        ("no end here", ""),
        ("see x.y for", ""),
        ("", ""),
    ],
)
def test_a_text_is_cut_behind_its_last_sentence(text: str, whole: str) -> None:
    assert whole_sentences(text) == whole


@given(st.text(alphabet="ab1 .!?\n*-\"'`)\u3002", max_size=60))
def test_cutting_takes_from_the_end_alone_and_once(text: str) -> None:
    whole = whole_sentences(text)
    assert text.strip().startswith(whole)
    assert whole_sentences(whole) == whole
