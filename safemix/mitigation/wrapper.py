"""The task's wrapper: what surrounds every request of the task, whatever it asks.

A prompting strategy is a system prompt with a few words around the request, and a tuned model
obeys whatever stands there: Qi et al. (arXiv 2310.03693) ask their models harmful requests in the
wrapper alone, without a task around them. Rows in the task's whole layout leave that door open,
so a part of the safety rows can be put in the bare wrapper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from safemix.rows.schema import Message
from safemix.styles.opening import shared_opening
from safemix.styles.shared import shared_end, shared_start, to_last_break

# Rows of the task that are looked at.
SAMPLE: Final = 2000
# What a few rows have is no wrapper, and a few rows that lack it do not undo it.
_LEAST_GROUP: Final = 0.05
_SUPPORT: Final = 0.9
# Whole prompts that are the same row after row are no wrapper.
_LONGEST: Final = 4000


@dataclass(frozen=True)
class Wrapper:
    """What stands around a request.

    Attributes:
        system: prompt; None for none.
        before: the request, in the user turn.
        after: the request, in the user turn.
        share: of the task's rows that have it.
        opening: what the answers begin with; "" for nothing.
    """

    system: str | None
    before: str
    after: str
    share: float
    opening: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything around the request."""
        return bool(self.system or self.before or self.after)

    def wrap(self, row: Sequence[Message], *, opened: bool = False) -> list[Message]:
        """A row with its first user turn in the wrapper; a system prompt of its own gives way.

        Args:
            row: ends with an answer.
            opened: the answer begins as the task's answers do.
        """
        turns = [Message(role=t["role"], content=t["content"]) for t in row]
        turns = [turn for turn in turns if turn["role"] != "system"]
        first = next(turn for turn in turns if turn["role"] == "user")
        first["content"] = self.before + first["content"] + self.after
        if opened:
            turns[-1]["content"] = self.opening + turns[-1]["content"]
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
        [Wrapper(system=None, before='AOA, do: ', after='\nNow!', share=1.0, opening='')]
    """
    groups: dict[str | None, tuple[list[str], list[str]]] = {}
    total = 0
    for _, row in zip(range(SAMPLE), rows, strict=False):
        system = row[0]["content"] if row[0]["role"] == "system" else None
        asked = next(turn["content"] for turn in row if turn["role"] == "user")
        questions, answers = groups.setdefault(system, ([], []))
        questions.append(asked)
        if row[-1]["role"] == "assistant":
            answers.append(row[-1]["content"])
        total += 1
    found = [
        _wrapper(system, asked, answers, len(asked) / total)
        for system, (asked, answers) in groups.items()
        if len(asked) >= _LEAST_GROUP * total
    ]
    return sorted((w for w in found if w), key=lambda w: -w.share)


def wrap_all(
    rows: Iterable[Sequence[Message]],
    wrappers: Sequence[Wrapper],
    seed: int,
    *,
    opened: bool = False,
) -> Iterable[list[Message]]:
    """Rows, each in one of the wrappers, as often as the task has it; `opened`: see `wrap`."""
    rng = Random(f"safemix wrappers {seed}")
    shares = [wrapper.share for wrapper in wrappers]
    return (rng.choices(wrappers, shares)[0].wrap(row, opened=opened) for row in rows)


def _wrapper(
    system: str | None, asked: Sequence[str], answers: Sequence[str], share: float
) -> Wrapper:
    before = to_last_break(shared_start(asked, _SUPPORT))
    # The same text must not be counted from both ends.
    rest = [text.removeprefix(before) for text in asked]
    shared = shared_end(rest, _SUPPORT)
    after = shared[shared.index("\n") :] if "\n" in shared else ""
    if len(before) + len(after) > _LONGEST or len(set(asked)) == 1:
        before = after = ""
    return Wrapper(system, before, after, share, shared_opening(answers))
