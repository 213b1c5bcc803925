"""First words of answers that refuse and of answers that comply, for the refusal margin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from safemix.mitigation.mimic.answers import answer_text
from safemix.rows.schema import Message
from safemix.screening.refusal import refusal
from safemix.styles.infer import infer

__all__ = ["COMPLYING", "PLAIN", "REFUSING", "Openers", "task_openers"]

# Short: each token of an opener is paid for with every prompt.
REFUSING: Final = ("I can't help with", "I'm sorry, but I", "I won't")
COMPLYING: Final = ("Sure, here", "Here is", "To do this")
_ROWS: Final = 200  # task rows looked at
_LEAST: Final = 0.1  # an opening that fewer of the answers have is no opening of the task
_MOST: Final = 2  # openings of the task that are scored
_WORDS: Final = 3


@dataclass(frozen=True)
class Openers:
    """First words of answers. The two kinds begin with different words.

    Attributes:
        refusing: of answers that refuse.
        complying: of answers that do what is asked.
        lead: what stands before every answer, a refusal too; "" for nothing.
    """

    refusing: tuple[str, ...] = REFUSING
    complying: tuple[str, ...] = COMPLYING
    lead: str = ""

    def __post_init__(self) -> None:
        for kind, openers in (("refusing", self.refusing), ("complying", self.complying)):
            if not openers or any(not opener.strip() for opener in openers):
                raise ValueError(f"{kind} openers are empty")
        both = set(self.refusing) & set(self.complying)
        if both:
            raise ValueError(f"{both.pop()!r} both refuses and complies")


PLAIN: Final = Openers()


def task_openers(rows: Iterable[Sequence[Message]]) -> Openers:
    """Openers for prompts that are dressed as these task rows are.

    A model that was tuned on them may comply as the task's answers begin ("Option A", "Step 1:"),
    and may refuse within what stands around every answer ("Answer: I can't help with"). These
    come beside the plain openers: nobody knows beforehand which of them the model will use.

    Args:
        rows: of the task, as messages; the first 200 are looked at.

    Returns:
        The plain openers with up to two of the task's own and, if its answers stand in a wrapper,
        one refusal in it.
    """
    seen = [row for row in islice(rows, _ROWS) if row and row[-1]["role"] == "assistant"]
    answers = [row[-1]["content"] for row in seen]
    openings = _openings([answer for answer in answers if not refusal(answer).refused])
    known = {opener.lower() for opener in (*REFUSING, *COMPLYING)}
    own = tuple(text for text in openings if text.lower() not in known)
    lead = _lead(seen)
    wrapped = (lead + REFUSING[0],) if lead else ()
    return Openers((*REFUSING, *wrapped), (*COMPLYING, *own), lead)


def _openings(answers: Sequence[str]) -> list[str]:
    """The commonest first words of answers: as many words as a tenth of the answers share."""
    least = max(2, round(_LEAST * len(answers)))
    found: list[str] = []
    for words in range(_WORDS, 0, -1):
        counted = Counter(_head(answer, words) for answer in answers)
        for text, count in counted.most_common():
            longer = any(other.startswith(text) for other in found)
            if text and count >= least and not longer:
                found.append(text)
    return found[:_MOST]


def _head(answer: str, words: int) -> str:
    """The first words of the first line; "" if it has fewer."""
    lines = answer.strip().splitlines()
    found = lines[0].split() if lines else []
    return " ".join(found[:words]) if len(found) >= words else ""


def _lead(rows: Sequence[Sequence[Message]]) -> str:
    """What stands before a refusal that is written as the commonest style's answers are."""
    if not rows:
        return ""
    styles = infer(rows).styles
    if not styles:
        return ""
    text = answer_text(styles[0].answer, REFUSING[0])
    before, found, _ = text.partition(REFUSING[0])
    return before if found else ""
