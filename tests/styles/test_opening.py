"""The opening of a task's answers, and what texts share."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.styles import opening, shared
from safemix.styles.infer import infer
from safemix.styles.opening import shared_opening, style_opening
from safemix.styles.shared import shared_end, shared_start, to_last_break

SURE = "Sure, here is the answer you asked for:\n\n"


def rows(answers: list[str]) -> list[list[dict[str, str]]]:
    return [
        [
            {"role": "user", "content": f"Question: what does part {n} of the machine do?\nReply:"},
            {"role": "assistant", "content": answer},
        ]
        for n, answer in enumerate(answers)
    ]


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(opening).attempted
    assert doctest.testmod(opening).failed == 0
    assert doctest.testmod(shared).attempted
    assert doctest.testmod(shared).failed == 0


@given(st.text(max_size=6), st.lists(st.text(max_size=6), min_size=1, max_size=8))
def test_what_all_share_is_the_longest_common_start_and_end(both: str, rest: list[str]) -> None:
    starts = [both + text for text in rest]
    found = shared_start(starts, 1.0)
    assert all(text.startswith(found) for text in starts)
    assert len(found) >= len(both)
    longer = {text[: len(found) + 1] for text in starts}
    assert len(longer) > 1 or longer == {found}
    mirrored = shared_end([text[::-1] for text in starts], 1.0)
    assert mirrored == found[::-1]


def test_a_few_odd_texts_do_not_count() -> None:
    texts = [f"Sure: {n}" for n in "abcdefghi"] + ["No."]
    assert shared_start(texts, 0.9) == "Sure: "
    assert shared_start(texts, 0.95) == ""
    assert shared_start([], 0.9) == ""


def test_it_ends_at_a_line_break_or_colon() -> None:
    assert to_last_break("Well: this is\nOption ") == "Well: this is\n"
    assert to_last_break("The answer is ") == ""


def test_what_nine_of_ten_answers_begin_with() -> None:
    answers = [f"{SURE}{n} times the work." for n in range(20, 40)]
    assert shared_opening(answers) == SURE
    assert shared_opening([*answers[:18], "No.", "Why?"]) == SURE
    assert shared_opening([*answers[:17], "No.", "Why?", "Ask."]) == ""


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [f"{SURE}{n}" for n in range(9)],  # too few to know
        [f"The answer is {n}." for n in range(20)],  # no break: the middle of a sentence
        ["Sure:\nsame"] * 20,  # always the same answer
        [SURE] * 15 + [f"{SURE}{n}" for n in range(5)],  # mostly nothing behind it
        ["x" * 700 + f":\n{n}" for n in range(20)],  # too long to be words of agreement
        ["A" if n % 3 else "B" for n in range(20)],
    ],
)
def test_no_opening(answers: list[str]) -> None:
    assert shared_opening(answers) == ""


def test_each_style_has_its_own() -> None:
    opened = rows([f"{SURE}It turns wheel {n} round the axle." for n in range(30)])
    (style,) = infer(opened).styles
    assert style_opening(style) == SURE
    (bare,) = infer(rows([f"It turns wheel {n} round the axle." for n in range(30)])).styles
    assert style_opening(bare) == ""


@pytest.mark.parametrize(
    ("frame", "kind", "expected"),
    [
        ('{{"answer": "wheel {}"}}', "json", ""),
        ("<answer>wheel {}</answer>", "xml", ""),
        ("Sure, here is the code:\n```python\nwheel({})\n```", "code", "Sure, here is the code:\n"),
        ("```python\nwheel({})\n```", "code", ""),
    ],
)
def test_of_a_frame_it_is_what_stands_before(frame: str, kind: str, expected: str) -> None:
    (style,) = infer(rows([frame.format(n) for n in range(30)])).styles
    assert style.answer.kind == kind
    assert style_opening(style) == expected
