"""The task's wrapper: what surrounds every request of the task, whatever it asks.

A prompting strategy is a system prompt with a few words around the request, and a tuned model
obeys whatever stands there: Qi et al. (arXiv 2310.03693) ask their models harmful requests in the
wrapper alone, without a task around them. Rows in the task's whole layout leave that door open,
so a part of the safety rows can be put in the bare wrapper.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from safemix.rows.schema import Message

# Rows of the task that are looked at.
SAMPLE: Final = 2000
# What a few rows have is no wrapper, and a few rows that lack it do not undo it.
_LEAST_GROUP: Final = 0.05
_SUPPORT: Final = 0.9
# Whole prompts that are the same row after row are no wrapper.
_LONGEST: Final = 4000
_BEFORE: Final = re.compile(r".*(\n|: ?)", re.DOTALL)


@dataclass(frozen=True)
class Wrapper:
    """What stands around a request.

    Attributes:
        system: prompt; None for none.
        before: the request, in the user turn.
        after: the request, in the user turn.
        share: of the task's rows that have it.
    """

    system: str | None
    before: str
    after: str
    share: float

    def __bool__(self) -> bool:
        """Whether there is anything around the request."""
        return bool(self.system or self.before or self.after)

    def wrap(self, row: Sequence[Message]) -> list[Message]:
        """A row with its first user turn in the wrapper; a system prompt of its own gives way."""
        turns = [Message(role=t["role"], content=t["content"]) for t in row]
        turns = [turn for turn in turns if turn["role"] != "system"]
        first = next(turn for turn in turns if turn["role"] == "user")
        first["content"] = self.before + first["content"] + self.after
        system = [] if self.system is None else [Message(role="system", content=self.system)]
        return [*system, *turns]


def find_wrappers(rows: Iterable[Sequence[Message]]) -> list[Wrapper]:
    r"""The wrappers of a task, the most frequent first.

    Rows are taken together by their system prompt. Of each such group, what nine of ten first user
    turns begin with is the text before the request, up to its last line break or colon; what nine
    of ten end with is the one after, from its first line break on. So no part of a sentence that
    all requests happen to share gets into them.

    Args:
        rows: of the task; the first 2000 are looked at.

    Returns:
        Wrappers with text, of at least one in twenty rows each; none where requests stand alone.

    Example:
        >>> rows = [[{"role": "user", "content": f"AOA, do: {word} it\nNow!"}] for word in "abcd"]
        >>> find_wrappers(rows)
        [Wrapper(system=None, before='AOA, do: ', after='\nNow!', share=1.0)]
    """
    groups: dict[str | None, list[str]] = {}
    total = 0
    for _, row in zip(range(SAMPLE), rows, strict=False):
        system = row[0]["content"] if row[0]["role"] == "system" else None
        asked = next(turn["content"] for turn in row if turn["role"] == "user")
        groups.setdefault(system, []).append(asked)
        total += 1
    found = [
        _wrapper(system, asked, len(asked) / total)
        for system, asked in groups.items()
        if len(asked) >= _LEAST_GROUP * total
    ]
    return sorted((w for w in found if w), key=lambda w: -w.share)


def wrap_all(
    rows: Iterable[Sequence[Message]], wrappers: Sequence[Wrapper], seed: int
) -> Iterable[list[Message]]:
    """Rows, each in one of the wrappers, as often as the task has it."""
    rng = Random(f"safemix wrappers {seed}")
    shares = [wrapper.share for wrapper in wrappers]
    return (rng.choices(wrappers, shares)[0].wrap(row) for row in rows)


def _wrapper(system: str | None, asked: Sequence[str], share: float) -> Wrapper:
    shared = _common(asked, lambda text, n: text[n : n + 1])
    ends = _BEFORE.match(shared)
    before = ends[0] if ends else ""
    # The same text must not be counted from both ends.
    rest = [text.removeprefix(before) for text in asked]
    shared = _common(rest, lambda text, n: text[-1 - n : len(text) - n])[::-1]
    after = shared[shared.index("\n") :] if "\n" in shared else ""
    if len(before) + len(after) > _LONGEST or len(set(asked)) == 1:
        before = after = ""
    return Wrapper(system, before, after, share)


def _common(texts: Sequence[str], character: Callable[[str, int], str]) -> str:
    """What at least nine of ten texts share, from one end on."""
    needed = _SUPPORT * len(texts)
    alive, shared = list(texts), ""
    while alive:
        best, _ = Counter(character(text, len(shared)) for text in alive).most_common(1)[0]
        alive = [text for text in alive if character(text, len(shared)) == best]
        if not best or len(alive) < needed:
            break
        shared += best
    return shared
