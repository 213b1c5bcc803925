"""A task generator with exact answers: word problems and multiple choice.

A row is a pure function of the seed and its index: any number of rows costs no memory, and row
10**9 is had without the rows before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from safemix.errors import DataError
from safemix.rows.builtin.choices_more import FAMILIES
from safemix.rows.builtin.stories_more import SHAPES

KINDS = ("word_problem", "multiple_choice")
LETTERS = "ABCD"


@dataclass(frozen=True)
class TaskRow:
    """One question with its exact answer.

    Attributes:
        prompt: the question; for multiple choice followed by four lettered options.
        completion: the worked solution, whose last line is `Answer: n`; or `C. text`.
        answer: the number as digits, or the letter.
        kind: one of `KINDS`.
        family: the story shape or question family.
    """

    prompt: str
    completion: str
    answer: str
    kind: str
    family: str


def task_row(index: int, seed: int = 0, kinds: Sequence[str] = KINDS) -> TaskRow:
    """Make one row. The kinds take turns; the family and the numbers are drawn.

    Args:
        index: place of the row, from 0.
        seed: another seed gives other rows.
        kinds: which kinds to make, from `KINDS`.

    Raises:
        DataError: for an unknown kind, no kind, or a negative index.
    """
    _check_kinds(kinds)
    if index < 0:
        raise DataError(f"task row {index} does not exist: give an index from 0")
    kind = kinds[index % len(kinds)]
    # A text seed is hashed with SHA-512: neighbouring indices share nothing, on every platform.
    rng = Random(f"safemix task {seed} {index}")
    return _word_problem(rng) if kind == "word_problem" else _multiple_choice(rng)


def generate_task(rows: int, seed: int = 0, kinds: Sequence[str] = KINDS) -> Iterator[TaskRow]:
    """Make the first `rows` rows, one at a time.

    Raises:
        DataError: for an unknown kind, no kind, or a negative number of rows.
    """
    _check_kinds(kinds)
    if rows < 0:
        raise DataError(f"rows {rows} is negative: give the number of task rows, from 0")
    return (task_row(index, seed, kinds) for index in range(rows))


def _check_kinds(kinds: Sequence[str]) -> None:
    legal = f"give some of {', '.join(KINDS)}"
    if isinstance(kinds, str) or not kinds:
        raise DataError(f"kinds {kinds!r} is not a list of kinds: {legal}")
    for kind in kinds:
        if kind not in KINDS:
            raise DataError(f"unknown kind of task {kind!r}: {legal}")


def _word_problem(rng: Random) -> TaskRow:
    family = rng.choice(tuple(SHAPES))
    story = SHAPES[family](rng)
    completion = "\n".join((*story.steps, f"Answer: {story.answer}"))
    return TaskRow(story.text, completion, str(story.answer), "word_problem", family)


def _multiple_choice(rng: Random) -> TaskRow:
    family = rng.choice(tuple(FAMILIES))
    choice = FAMILIES[family](rng)
    options = list(choice.wrong)
    rng.shuffle(options)
    place = rng.randrange(len(LETTERS))
    options.insert(place, choice.right)
    lines = (f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=True))
    prompt = "\n".join((choice.question, *lines))
    completion = f"{LETTERS[place]}. {choice.right}"
    return TaskRow(prompt, completion, LETTERS[place], "multiple_choice", family)
