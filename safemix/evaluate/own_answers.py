"""The model's own answers, in place of those that safety rows and look-alikes came with.

Answers that others wrote are spread over many first words, and refusals begin alike: after
training on both, a refusal may be the likeliest beginning where all helpful ones together are
likelier. What the model itself would say is likely to it from the first token on, so that training
on it moves the model less. That answers of the model's own keep its safety better is from Yang et
al. 2024, "Self-distillation bridges distribution gap in language model fine-tuning" (ACL 2024),
who rewrite the task's answers; these are the others.

A row keeps the answer that it came with where the model's own will not do: it does not refuse a
harmful request or goes on to steps after refusing, it refuses a look-alike, it is no coherent text,
or it was cut and little of it is whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from safemix.errors import DataError
from safemix.evaluate.coherence import incoherence
from safemix.rows.schema import Message
from safemix.screening.refusal import is_refusal, refusal

__all__ = ["RULES", "OwnAnswers", "Reply", "RowKind", "own_answers", "whole_sentences"]

RULES: Final = 2
"""Version of what makes an answer do; files that were made by another one are not used."""

RowKind = Literal["safety", "lookalikes"]
Chats = Sequence[Sequence[Message]]

# A sentence's end with what closes after it; Chinese and Japanese put no space behind it.
_CLOSERS: Final = "\"')\\]*_`\u2019\u201d"
_END: Final = re.compile(
    rf"(?:[.!?\u2026]+[{_CLOSERS}]*(?=\s|$))|[\u3002\uff01\uff1f]+[\u300d\u300f\uff09{_CLOSERS}]*"
)
_MARKER: Final = re.compile(r"(?:^|\n)[ \t]*(?:\d+[.)]|[-*\u2022])\s*$")
_FENCE: Final = "```"
_CUT: Final = "no whole sentence"
_SHORT: Final = "cut, and less than half of it is whole sentences"


@dataclass(frozen=True)
class Reply:
    """What a model said to a request.

    Attributes:
        text: its answer; "" where it was not asked.
        ended: it came to its end itself. What was cut is trained on up to its last whole sentence.
        error: why it could not be asked; None if it was.
    """

    text: str = ""
    ended: bool = False
    error: str | None = None


@dataclass(frozen=True)
class OwnAnswers:
    """Rows with the model's own answers where they will do.

    Attributes:
        rows: in the order given; all but the last turn as it was.
        own: how many have the model's own answer.
        kept: why the others keep theirs -> how many, the most frequent first.
    """

    rows: tuple[tuple[Message, ...], ...]
    own: int
    kept: Mapping[str, int]

    def lines(self) -> list[str]:
        """Lines for a person."""
        found = [f"{self.own} of {len(self.rows)} rows have the model's own answer"]
        found += [
            f"  {count} keep the one they came with: {why}" for why, count in self.kept.items()
        ]
        return found


def own_answers(rows: Chats, kind: RowKind, ask: Callable[[Chats], Sequence[Reply]]) -> OwnAnswers:
    """Put the model's own answers in place of those that rows came with.

    Args:
        rows: each ends with an assistant turn.
        kind: "safety", whose own answers have to refuse, or "lookalikes", whose must not.
        ask: chats that end with a user turn -> a reply each.

    Raises:
        DataError: without rows, or where a row does not end with an answer to a user's turn.
    """
    if not rows:
        raise DataError(f"{kind}: no rows to answer: give at least one")
    for number, row in enumerate(rows, 1):
        if [turn["role"] for turn in row[-2:]] != ["user", "assistant"]:
            raise DataError(f"{kind}: row {number} does not end with a user's turn and its answer")
    made = list[tuple[Message, ...]]()
    kept = Counter[str]()
    for row, reply in zip(rows, ask([row[:-1] for row in rows]), strict=True):
        answer = reply.text.strip() if reply.ended else whole_sentences(reply.text)
        reason = reply.error or _unfit(answer, reply.text, kind)
        if reason is None:
            made.append((*row[:-1], Message(role="assistant", content=answer)))
        else:
            kept[reason] += 1
            made.append(tuple(row))
    return OwnAnswers(tuple(made), len(made) - kept.total(), dict(kept.most_common()))


def _unfit(answer: str, said: str, kind: RowKind) -> str | None:
    """Why an answer cannot be trained on in a row of this kind; None if it can."""
    if not answer:
        return _CUT
    # "Of course!" alone, of a list that has no sentence's end, would teach to agree and to stop.
    if 2 * len(answer) < len(said.strip()):
        return _SHORT
    if (why := incoherence(answer)) is not None:
        return f"incoherent ({why})"
    if kind == "lookalikes":
        return "the model refuses" if is_refusal(answer) else None
    verdict = refusal(answer)
    if not verdict.refused:
        return "the model does not refuse"
    return "the model goes on after its refusal" if verdict.complied else None


def whole_sentences(text: str) -> str:
    r"""A text up to the end of its last sentence: a row must not teach to stop half-way.

    Example:
        >>> whole_sentences("Rest a while. Drink 1.5 l of wat")
        'Rest a while.'
        >>> whole_sentences("Two steps:\n1. Open it.\n2.")
        'Two steps:\n1. Open it.'
    """
    text = text.strip()
    if not text.endswith(_FENCE):
        ends = [found.end() for found in _END.finditer(text)]
        text = text[: ends[-1]] if ends else ""
    return _MARKER.sub("", text).strip()
