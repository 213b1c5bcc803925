"""Options of a mimicked row, one of which may be the refusal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from safemix.styles.layout import Slot
from safemix.styles.style import Sample, Style

__all__ = ["Choice", "choices", "short_refusal", "with_option"]

_SENTENCE: Final = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)
_LONG: Final = 25
_MARK: Final = re.compile(
    r"(?:^|(?<=[\s\"]))(?:\*\*)?[(\[]?([A-Ja-j]|\d{1,2})[.):\]]+(?:\*\*)?[ \t]+"
)


@dataclass(frozen=True)
class Choice:
    """A place where an option stands.

    Attributes:
        slot: number of the prompt's slot.
        start: of the option's text within the slot's text.
        end: of it.
        label: what answers call it; "" where they give its text.
    """

    slot: int
    start: int
    end: int
    label: str


def short_refusal(refusal: str) -> str:
    """The refusal as the text of an option: one line, of a long one the first sentence."""
    line = " ".join(refusal.split())
    if len(line.split()) <= _LONG:
        return line
    first = _SENTENCE.match(line)
    return first.group() if first else line


def choices(style: Style, fills: Sequence[str]) -> tuple[Choice, ...]:
    """The options in a prompt with these slot texts, each with its label.

    Empty where the task is not multiple choice, or where it is not known how answers name one.
    """
    slots = style.prompt.slots
    single = [n for n, slot in enumerate(slots) if slot.kind == "option" and slot.shot is None]
    if single:
        places = [(n, 0, len(fills[n]), _mark_before(style, n)) for n in single]
    else:
        places = [p for n, slot in enumerate(slots) if _is_block(slot) for p in _block(n, fills[n])]
    labels = [_label(style, mark, place) for place, (_, _, _, mark) in enumerate(places)]
    if len(places) < 2 or len(set(labels)) != len(labels):
        labels = [""] * len(labels) if _answers_are_texts(style, single) else []
    return tuple(
        Choice(slot, start, end, label)
        for (slot, start, end, _), label in zip(places, labels, strict=False)
    )


def _is_block(slot: Slot) -> bool:
    return slot.kind == "options" and slot.shot is None


def _block(number: int, text: str) -> list[tuple[int, int, int, str]]:
    marks = list(_MARK.finditer(text))
    ends = [m.start() for m in marks[1:]] + [len(text)]
    places = []
    for mark, end in zip(marks, ends, strict=True):
        stripped = len(text[mark.end() : end].rstrip())
        places.append((number, mark.end(), mark.end() + stripped, mark.group(1)))
    return places


def _mark_before(style: Style, number: int) -> str:
    """The fixed text before a slot, its last line."""
    before = ""
    seen = -1
    for part in style.prompt.parts:
        if isinstance(part, Slot):
            seen += 1
            if seen == number:
                return before
            before = ""
        else:
            before = part.rsplit("\n", 1)[-1]
    return before


def _label(style: Style, mark: str, place: int) -> str:
    """What answers call the option with this mark."""
    labels = style.answer.labels
    if not labels:
        return ""
    named = [label for label in labels if _names(label, mark)]
    if len(named) == 1:
        return named[0]
    ordered = sorted(labels)
    numbers = all(label.strip().isdigit() for label in ordered)
    return ordered[place] if numbers and place < len(ordered) else ""


def _names(label: str, mark: str) -> bool:
    plain = re.escape(label.strip("().: "))
    return bool(plain) and re.search(rf"(?<!\w){plain}(?!\w)", mark) is not None


def _answers_are_texts(style: Style, slots: Sequence[int]) -> bool:
    """Whether answers say the option's text: alone, or after an opener or the option's mark."""
    rows = style.samples[:50]
    same = sum(row.answer.strip().endswith(_texts(row, slots)) for row in rows)
    return bool(slots) and same > 0.8 * len(rows)


def _texts(row: Sample, slots: Sequence[int]) -> tuple[str, ...]:
    # Every answer ends with an empty text.
    return tuple(text for n in slots if (text := row.fills[n].strip()))


def with_option(fills: Sequence[str], choice: Choice, text: str) -> list[str]:
    """The slot texts with another text for one option."""
    changed = list(fills)
    old = changed[choice.slot]
    changed[choice.slot] = old[: choice.start] + text + old[choice.end :]
    return changed
