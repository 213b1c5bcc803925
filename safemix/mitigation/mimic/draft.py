"""A draft: a safety row written like a task row, not yet checked."""

from __future__ import annotations

from dataclasses import dataclass

from safemix.rows.schema import Message
from safemix.styles.style import Sample, Style


@dataclass(frozen=True)
class Draft:
    """A mimicked row, with what it was made from.

    Attributes:
        messages: the row: system turn if the style has one, earlier turns, prompt, answer.
        style: whose layouts the row has.
        sample: the task row that set its lengths and rhythm.
        request: of the safety row, as it was.
        refusal: of the safety row, as it was.
        backend: what wrote the slot texts: "offline", or the name of an LLM backend.
        fills: texts of the prompt's slots, in order, as they were put into the layout.
        chosen: text of the option that the answer names; "" where the refusal is the answer's
            text.
    """

    messages: list[Message]
    style: Style
    sample: Sample
    request: str
    refusal: str
    backend: str
    fills: tuple[str, ...]
    chosen: str = ""
