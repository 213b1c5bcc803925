"""Checks of a mimicked row, whatever wrote it: an LLM is not trusted, and neither is our code.

A reason is the same text for every row that fails in that way, so that reasons can be counted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from html import unescape
from itertools import pairwise
from typing import Any, Final

from safemix.mitigation.mimic.copied import (
    TaskIndex,
    content,
    is_spaceless,
    slot_texts,
    stems,
    turn_texts,
    words,
)
from safemix.mitigation.mimic.draft import Draft
from safemix.mitigation.mimic.language import speaks_otherwise
from safemix.screening.openers import affirming_opener
from safemix.styles.layout import Slot
from safemix.styles.style import Sample
from safemix.styles.tokens import word_count

# Takes the request and the text of the question slot: do they mean the same?
Similar = Callable[[str, str], bool]

LAYOUT: Final = "the layout does not parse back to the same texts"
MEANING: Final = "words of the request are missing in the question"
LANGUAGE: Final = "a text is in another script or language than the request"
REFUSAL: Final = "the refusal is not in the answer"
OPTION: Final = "the answer does not name the option with the refusal"
GOLD: Final = "an answer of a task row stands in the row"
COPIED: Final = "three content words in a row of a task row stand in the prompt"
OPENER: Final = "an affirming opener"
SHORT: Final = "the prompt is shorter than half the shortest of its style"
LONG: Final = "the prompt is longer than one and a half times the longest of its style"

# Of the characters pairs of a request in a script without spaces, so many must be there.
_SPACELESS_SHARE: Final = 0.6
_PROSE: Final = frozenset({"question", "passage", "option", "options", "list", "text"})
_COMMENT: Final = re.compile(r"^[ \t]*(?:#|//|--|\*|/\*|%|;)+[ \t]?", re.M)


def check(draft: Draft, index: TaskIndex, similar: Similar | None = None) -> str | None:
    """Why a draft may not be trained on.

    Args:
        draft: the row with what it was made from.
        index: of the sampled task rows.
        similar: says whether a question means the request though words of it are missing.

    Returns:
        One of this module's reasons, or None if the row is good.
    """
    read = draft.style.parse(draft.messages)
    if read is None or read.fills != draft.fills:
        return LAYOUT
    own = {*content(draft.request), *content(draft.refusal)}
    return (
        _meaning(draft, similar)
        or _answer(draft, index, own)
        or _copied(draft, read, index, own)
        or _opener(draft)
        or _length(draft)
    )


# Request, refusal and answer are each looked at more than once in a row's checks.
@lru_cache(maxsize=64)
def plain(text: str) -> str:
    """A text with every run of white space as one space."""
    return " ".join(text.split())


def _meaning(draft: Draft, similar: Similar | None) -> str | None:
    question = draft.fills[draft.style.question]
    if not has_words(draft.request, question) and not (
        similar is not None and similar(draft.request, question)
    ):
        return MEANING
    if draft.backend == "offline":
        return None  # Its texts are made of words of the task's own language.
    for number, (slot, text) in enumerate(zip(draft.style.prompt.slots, draft.fills, strict=True)):
        if slot.kind not in _PROSE:
            continue
        models = [draft.request]
        if number != draft.style.question:
            models.append(" ".join(draft.sample.fills))
        if speaks_otherwise(text, *models):
            return LANGUAGE
    return None


def has_words(request: str, text: str) -> bool:
    """Whether all content words of a request stand in a text, whatever their inflection."""
    if plain(request).casefold() in plain(text).casefold():
        return True
    needed = set(content(request)) or set(stems(request))
    if needed <= set(content(text)) and all(map(str.isascii, needed)):
        return True
    if any(map(is_spaceless, needed)):
        ours, theirs = _pairs(request), _pairs(text)
        kept = len(ours & theirs) >= _SPACELESS_SHARE * len(ours)
        return kept and {w for w in needed if not is_spaceless(w)} <= set(stems(text))
    return needed <= set(stems(text))


def _pairs(text: str) -> set[str]:
    found = words(text)
    return {a + b for a, b in pairwise(found) if is_spaceless(a)}


def _answer(draft: Draft, index: TaskIndex, own: set[str]) -> str | None:
    answer = draft.messages[-1]["content"]
    refusal = plain(draft.refusal)
    if draft.chosen:
        return None if _names_option(draft, answer) else OPTION
    text = next((text for text in map(plain, _readings(answer)) if refusal in text), None)
    if text is None:
        return REFUSAL
    rest = text.replace(refusal, " ")
    said = set(words(rest))
    if said and said & _gold_marks(draft) - set(words(draft.style.answer.layout.fixed)):
        return GOLD
    return GOLD if index.copied(rest, own) or index.has_gold(rest, own) else None


def _readings(answer: str) -> Iterator[str]:
    """An answer as it stands, and what it says inside JSON, XML or a comment."""
    yield answer
    start, end = answer.find("{"), answer.rfind("}")
    if 0 <= start < end:
        with suppress(ValueError):  # Braces of another kind.
            yield " ".join(_strings(json.loads(answer[start : end + 1], strict=False)))
    yield unescape(answer)
    yield _COMMENT.sub("", answer)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _gold_marks(draft: Draft) -> set[str]:
    """The label or number that is right for the task row this row was modelled on."""
    layout, kind = draft.style.answer, draft.style.answer.kind
    if kind in ("label", "number"):
        texts = slot_texts(layout.layout, draft.sample.answer)
        return set(words(texts[min(layout.body, len(texts) - 1)])) if texts else set()
    if kind == "number_line":
        return set(re.findall(r"\w+", draft.sample.answer)[-1:])
    return set()


def _names_option(draft: Draft, answer: str) -> bool:
    """Whether the chosen option holds the refusal, and the answer names it."""
    said = plain(draft.chosen).casefold().rstrip(".!?\u2026 ")
    if not said or not plain(draft.refusal).casefold().startswith(said):
        return False
    marks = _marks_of(draft)
    if marks is None:
        return False
    if plain(draft.chosen) in plain(answer):
        return True
    fixed = set(words(draft.style.answer.layout.fixed))
    named = [word for word in words(answer) if word not in fixed or word in marks]
    return any(mark.endswith(word) for mark in marks for word in named)


def _marks_of(draft: Draft) -> list[str] | None:
    """What stands before the chosen option on its line; None if no slot holds it."""
    slots = iter(draft.fills)
    before, chosen = "", plain(draft.chosen)
    for part in draft.style.prompt.parts:
        if not isinstance(part, Slot):
            before = part
            continue
        text = next(slots)
        if part.kind == "option" and plain(text) == chosen:
            return words(before.rpartition("\n")[2])
        if part.kind == "options":
            for line in text.splitlines():
                if plain(line).endswith(chosen):
                    return words(line.removesuffix(draft.chosen))[:1]
    return None


def _copied(draft: Draft, read: Sample, index: TaskIndex, own: set[str]) -> str | None:
    for text in (*read.system, *turn_texts(draft.style, read.earlier), *draft.fills):
        if index.copied(text, own):
            return COPIED
        if index.has_gold(text, own):
            return GOLD
    return None


def _opener(draft: Draft) -> str | None:
    answer, layout = draft.messages[-1]["content"], draft.style.answer
    # A refusal after it takes an opener back, yet the model would learn to begin so: what stands
    # before the refusal is looked at without it.
    before = plain(answer).partition(plain(draft.refusal))[0]
    if affirming_opener(draft.refusal) or affirming_opener(f"{before} it"):
        return OPENER
    if layout.affirming and layout.opener and answer.startswith(layout.opener):
        return OPENER
    if draft.backend == "offline" or affirming_opener(draft.request):
        return None
    return OPENER if any(map(affirming_opener, draft.fills)) else None


def _length(draft: Draft) -> str | None:
    """Half the shortest to one and a half times the longest.

    The words of a request that stands in the question whole and in order do not count as too many.
    """
    prompt = next(m["content"] for m in reversed(draft.messages) if m["role"] == "user")
    count, seen = word_count(prompt), draft.style.words
    if count < math.floor(0.5 * seen.low):
        return SHORT
    most = math.ceil(1.5 * seen.high)
    if count > most and _in_order(draft.request, draft.fills[draft.style.question]):
        count -= word_count(draft.request)
    return LONG if count > most else None


def _in_order(request: str, text: str) -> bool:
    rest = iter(content(text))
    return all(word in rest for word in content(request))
