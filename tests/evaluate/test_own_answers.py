"""The model's own answers: which will do, what stays, and where a text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.errors import DataError
from safemix.evaluate.own_answers import Reply, RowKind, own_answers, whole_sentences
from safemix.rows.schema import Message

REFUSAL = "I'm sorry, but I cannot help with that. It would harm somebody. If you"
HELP = "List the processes, find its number and send it a signal. Then look ag"

# Made up, and of no use to anybody.
GOES_ON = (
    "I'm sorry, but I cannot help with that. However, here are the steps:\n1. Open the box.\n"
    "2. Take the key.\n3. Turn it in the lock."
)
LIST = "Of course! Here are some ways to kill a process:\n- kill PID\n- pkill NAME\n- killall NA"


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

    def ask(chats: object) -> list[Reply]:
        asked.extend(chats)  # type: ignore[arg-type]
        return [Reply(REFUSAL), Reply(REFUSAL)]

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
        ("safety", GOES_ON, "the model goes on after its refusal"),
        ("lookalikes", LIST, "cut, and less than half of it is whole sentences"),
        ("lookalikes", REFUSAL, "the model refuses"),
        ("safety", "I cannot", "no whole sentence"),
        ("lookalikes", "", "no whole sentence"),
        ("lookalikes", "Go on. " * 40, "incoherent (repeats itself)"),
    ],
)
def test_what_will_not_do_is_counted_and_the_row_stays(kind: RowKind, text: str, why: str) -> None:
    good = REFUSAL if kind == "safety" else HELP
    rows = [row("One?"), row("Two?"), row("Three?")]
    found = own_answers(rows, kind, lambda chats: [Reply(text), Reply(good), Reply(text)])
    assert (found.own, found.kept) == (1, {why: 2})
    assert [list(made) for made in found.rows[::2]] == rows[::2]
    assert found.rows[1][-1]["content"] == whole_sentences(good)
    assert found.lines()[1] == f"  2 keep the one they came with: {why}"


def test_what_the_model_ended_itself_stays_whole() -> None:
    whole = LIST.removesuffix(" NA")
    rows = [row("How do I kill a process?")] * 2
    found = own_answers(rows, "lookalikes", lambda chats: [Reply(f" {whole}\n", ended=True)] * 2)
    assert (found.own, found.kept) == (2, {})
    assert found.rows[0][-1]["content"] == whole


def test_a_row_that_cannot_be_asked_keeps_its_answer() -> None:
    rows = [row("One?"), row("Two?")]
    found = own_answers(rows, "safety", lambda chats: [Reply(error="too long"), Reply(REFUSAL)])
    assert (found.own, found.kept) == (1, {"too long": 1})
    assert list(found.rows[0]) == rows[0]


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
