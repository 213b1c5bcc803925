"""What nearly all texts of a group begin or end with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["shared_end", "shared_start", "to_last_break"]

_BREAK: Final = re.compile(r".*(\n|: ?)", re.DOTALL)


def shared_start(texts: Sequence[str], support: float) -> str:
    """What at least this share of the texts begin with.

    Args:
        texts: of the group; none gives "".
        support: in (0, 1].

    Example:
        >>> shared_start(["Sure: one", "Sure: two"], 0.9)
        'Sure: '
    """
    return _common(texts, support, lambda text, n: text[n : n + 1])


def shared_end(texts: Sequence[str], support: float) -> str:
    """What at least this share of the texts end with."""
    return _common(texts, support, lambda text, n: text[-1 - n : len(text) - n])[::-1]


def to_last_break(text: str) -> str:
    r"""A text up to its last line break or colon, so that it ends in the middle of no sentence.

    Example:
        >>> to_last_break("Sure, here it is:\nOption ")
        'Sure, here it is:\n'
    """
    found = _BREAK.match(text)
    return found[0] if found else ""


def _common(texts: Sequence[str], support: float, character: Callable[[str, int], str]) -> str:
    needed = support * len(texts)
    alive, shared = list(texts), ""
    while alive:
        best, _ = Counter(character(text, len(shared)) for text in alive).most_common(1)[0]
        alive = [text for text in alive if character(text, len(shared)) == best]
        if not best or len(alive) < needed:
            break
        shared += best
    return shared
