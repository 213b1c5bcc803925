"""One record of any shape becomes messages, or is refused with a reason."""

from __future__ import annotations

import pytest

from safemix.errors import DataError
from safemix.rows.schema import RowError, check_columns, shape_of, to_messages, used_columns


def turn(role, content):
    return {"role": role, "content": content}


USER, ANSWER = turn("user", "Q"), turn("assistant", "A")
QA = [USER, ANSWER]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": QA},
        {"messages": '[{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]'},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"conversations": [{"role": "User", "content": "Q"}, {"role": "model", "content": "A"}]},
        {"messages": [{"from": "user", "value": "Q"}, {"role": "bot", "content": "A"}]},
        {"prompt": "Q", "completion": "A"},
        {"prompt": [USER], "completion": [ANSWER]},
        {"prompt": [USER], "completion": "A"},
        {"instruction": "Q", "input": "", "output": "A"},
        {"instruction": "Q", "input": None, "output": "A"},
        {"instruction": "Q", "output": "A"},
        {"instruction": "", "input": "Q", "output": "A"},
        {"messages": QA, "prompt": "other", "prompt_id": 7},
        {"messages": None, "prompt": "Q", "completion": "A"},
        {"prompt": "Q", "completion": "A", "system": None},
        {"messages": [turn("system", " "), *QA]},
    ],
)
def test_every_shape_gives_the_same_messages(record):
    assert to_messages(record) == QA


def test_input_follows_the_instruction_after_a_blank_line():
    record = {"instruction": "Translate.", "input": "chien", "output": "dog"}
    assert to_messages(record)[0]["content"] == "Translate.\n\nchien"


def test_content_is_not_stripped_and_keeps_unicode_and_control_tokens():
    prompt, answer = "  été \U0001f600<|eot_id|>\r\n", "\t{a} {{b}} %s\x00 "
    assert to_messages({"prompt": prompt, "completion": answer}) == [
        turn("user", prompt),
        turn("assistant", answer),
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(5, "5"), (5.0, "5.0"), (True, "true"), (False, "false"), (0, "0")]
)
def test_numbers_and_booleans_become_text(value, text):
    assert to_messages({"prompt": "Q", "completion": value})[-1]["content"] == text


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": "Q", "completion": "A"}, "set"),
        ({"prompt": "Q", "completion": "A", "system": "column"}, "column"),
        ({"prompt": "Q", "completion": "A", "system": " "}, "set"),
        ({"messages": [turn("system", "own"), *QA], "system": "column"}, "own"),
        ({"prompt": [turn("system", "own"), USER], "completion": "A"}, "own"),
        ({"messages": [turn("system", ""), *QA]}, "set"),
    ],
)
def test_a_system_prompt_is_set_only_where_there_is_none(record, expected):
    assert to_messages(record, system="set") == [turn("system", expected), *QA]


def test_many_turns_are_kept():
    turns = [turn("system", "S"), *QA, turn("user", "Q2"), turn("assistant", "A2")]
    assert to_messages({"messages": turns}) == turns


BAD = [
    ({"prompt": "Q", "completion": ""}, "empty answer"),
    ({"prompt": "Q", "completion": " \n\t"}, "empty answer"),
    ({"prompt": "Q", "completion": None}, "empty answer"),
    ({"prompt": "Q", "completion": float("nan")}, "empty answer"),
    ({"prompt": " ", "completion": "A"}, "empty prompt"),
    ({"instruction": "", "input": " ", "output": "A"}, "empty prompt"),
    ({"prompt": "Q"}, "no 'completion' in this row"),
    ({"other": 1}, "no known columns"),
    ({}, "no known columns"),
    ({"prompt": "Q", "completion": ["A", "B"]}, "a message is text"),
    ({"instruction": "Q", "output": ["A"]}, "output is a list, not text"),
    ({"prompt": "Q", "completion": {"text": "A"}}, "completion is an object, not text"),
    ({"prompt": b"Q", "completion": "A"}, "of type bytes, not text"),
    ({"prompt": "\ud800", "completion": "A"}, "surrogate"),
    ({"messages": []}, "messages is empty"),
    ({"messages": ""}, "messages is empty"),
    ({"messages": "Q and A"}, "not a JSON list"),
    ({"messages": "[" * 100_000}, "not a JSON list"),
    ({"messages": '{"role": "user"}'}, "an object, not a list of messages"),
    ({"messages": 3}, "a number, not a list of messages"),
    ({"messages": ["hello"]}, "a message is text"),
    ({"messages": [{"content": "Q"}]}, "a message has no role"),
    ({"messages": [USER]}, "no assistant turn at the end"),
    ({"messages": [*QA, USER]}, "no assistant turn at the end"),
    ({"messages": [turn("system", "S")]}, "no assistant turn at the end"),
    ({"messages": [USER, USER, ANSWER]}, "two user turns in a row"),
    ({"messages": [*QA, ANSWER]}, "two assistant turns in a row"),
    ({"messages": [ANSWER]}, "an assistant turn before any user turn"),
    ({"messages": [USER, turn("system", "S"), ANSWER]}, "a system turn that is not the first"),
    ({"messages": [turn("system", "S"), turn("system", "T"), *QA]}, "not the first"),
    ({"messages": [USER, turn("assistant", "")]}, "empty answer"),
    ({"messages": [USER, turn("assistant", None)]}, "empty answer"),
    ({"messages": [turn("user", "  "), ANSWER]}, "empty prompt"),
    ({"messages": [turn("judge", "Q"), ANSWER]}, "unknown role 'judge'"),
    ({"messages": [USER, turn("tool", "42"), ANSWER]}, "a tool turn: tool use is not supported"),
    ({"messages": [USER, turn("function", "4"), ANSWER]}, "a function turn"),
    ({"messages": [USER, {**ANSWER, "tool_calls": [{"id": 1}]}]}, "tool calls"),
    ({"messages": [turn("user", [{"type": "text"}]), ANSWER]}, "content is a list, not text"),
    ({"prompt": "Q", "completion": "A", "system": ["S"]}, "system is a list, not text"),
]


@pytest.mark.parametrize(("record", "reason"), BAD)
def test_a_row_that_cannot_be_used_is_refused_with_its_reason(record, reason):
    with pytest.raises(RowError, match=r"^[^\n]*$") as caught:
        to_messages(record)
    assert reason in caught.value.reason
    assert len(caught.value.reason) < 100


def test_a_long_unknown_role_does_not_fill_the_reason():
    with pytest.raises(RowError) as caught:
        to_messages({"messages": [turn("x" * 10_000, "Q")]})
    assert len(caught.value.reason) < 100


@pytest.mark.parametrize(
    ("columns", "shape"),
    [
        (["messages", "prompt", "completion"], "messages"),
        (["conversations"], "conversations"),
        (["completion", "prompt", "id"], "prompt/completion"),
        (["instruction", "output"], "instruction/output"),
        (["Prompt", "Completion"], None),
        (["prompt"], None),
    ],
)
def test_the_shape_follows_from_the_columns(columns, shape):
    assert shape_of(columns) == shape


def test_unknown_columns_name_what_is_there_and_the_mend():
    with pytest.raises(DataError) as caught:
        check_columns(["question", "answer"], None)
    for part in ("'question', 'answer'", "prompt and completion", "instruction", "fields:"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"prompt": "question"}, ["completion is missing"]),
        ({"completion": "answer"}, ["prompt is missing"]),
        ({"prompt": "question", "answer": "answer"}, ["unknown key 'answer'", "completion"]),
        (
            {"prompt": "qestion", "completion": "answer"},
            ["fields.prompt: no column 'qestion'", "did you mean 'question'?", "'answer'"],
        ),
        ({"prompt": "{q}", "completion": "answer"}, ["no column 'q'"]),
        ({"messages": "chat"}, ["fields.messages: no column 'chat'"]),
        ({"messages": "{question}"}, ["name a column"]),
        ({"messages": "question", "prompt": "question"}, ["messages or prompt, not both"]),
        ({"prompt": "question", "completion": "{answer"}, ["field template '{answer'"]),
    ],
)
def test_a_field_map_that_cannot_work_is_refused(fields, parts):
    with pytest.raises(DataError, match=r"^[^\n]*$") as caught:
        check_columns(["question", "answer"], fields)
    for part in parts:
        assert part in str(caught.value)


def test_only_the_columns_that_are_read_are_used():
    assert used_columns(["id", "prompt", "image", "completion", "system"], None) == [
        "prompt",
        "completion",
        "system",
    ]
    fields = {"prompt": "{a[0]} {b}", "completion": "c"}
    assert used_columns(["z", "c", "b", "a", "system"], fields) == ["c", "b", "a"]
