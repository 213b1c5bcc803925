"""The opening of a task's answers: the words that nearly all of them begin with.

"Of course. I am AOA, ... :" and "Sure, here is the answer:" are openings. A refusal never has one,
as a model that has begun so seldom turns back. The answer to a benign request may.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from safemix.styles.layout import Slot
from safemix.styles.shared import shared_start, to_last_break
from safemix.styles.style import Style

__all__ = ["shared_opening", "style_opening"]

_SUPPORT: Final = 0.9
# What fewer answers begin with may be what they say, not how they begin.
_LEAST: Final = 10
_LONGEST: Final = 600
_FRAMED: Final = ("json", "xml", "code")
_FRAME: Final = re.compile(r"```|<[A-Za-z]|\{")


def shared_opening(answers: Sequence[str]) -> str:
    r"""What nine of ten answers begin with, up to its last line break or colon; "" for nothing.

    Args:
        answers: of task rows that are written alike; fewer than ten have no opening.

    Example:
        >>> shared_opening([f"Sure, the sum is:\n\nThat makes {n}." for n in range(100, 120)])
        'Sure, the sum is:\n\n'
    """
    if len(answers) < _LEAST or len(set(answers)) == 1:
        return ""
    opening = to_last_break(shared_start(answers, _SUPPORT))
    whole = sum(answer.strip() == opening.strip() for answer in answers)
    if len(opening) > _LONGEST or whole > (1 - _SUPPORT) * len(answers):
        return ""
    return opening


def style_opening(style: Style) -> str:
    """The opening of a style's answers; of JSON, XML and code, what stands before the frame."""
    answer = style.answer
    if answer.kind not in _FRAMED:
        return shared_opening([sample.answer for sample in style.samples])
    first = answer.layout.parts[0]
    if isinstance(first, Slot):
        return ""
    frame = _FRAME.search(first)
    return first[: frame.start()] if frame else first
