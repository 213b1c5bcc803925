"""Where a chat template puts things: the texts of the messages and what is to be learned.

A template is a program, so its layout is found by asking it. The messages are rendered once with
a marker word in place of each text; what stands between the markers is the template's own
(a `Draft`, kept for all rows with the same roles). The real rendering is then matched against
that draft, which must explain it character by character. Templates that trim, move the system
prompt or drop part of a text are matched as well. Where a template works inside the answer
(thinking), the answers are left real and only the prompts are marked.

An answer is learned from where the generation prompt ends (or the `{% generation %}` block, or
the text itself begins) to the end-of-turn token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from safemix.errors import ModelError
from safemix.loading.encode_match import match_literals
from safemix.loading.encode_render import (
    PROBE,
    PROBE_ANSWER,
    Message,
    Renderer,
    Span,
    untrainable,
)
from safemix.rows.schema import RowError

_MARK = "Xq{}SafemixMark{}Qx"
_MARKS = re.compile(_MARK.format(r"(\d+)", r"\1"))


@dataclass(frozen=True)
class Layout:
    """One rendered row. Spans are in characters of `text`, end exclusive, in order."""

    text: str
    contents: tuple[tuple[int, int, int], ...]
    """(start, end, message number) of each text that was located."""
    trained: tuple[Span, ...]
    unlocated: tuple[str, ...] = ()
    """Texts that stand somewhere in `text`, but not where a span says."""


@dataclass(frozen=True)
class _Draft:
    literals: tuple[str, ...]
    """The template's own text before, between and after the marked texts."""
    slots: tuple[int, ...]
    """Which message's text stands between two literals."""
    trained: tuple[tuple[tuple[int, int], tuple[int, int]], ...]
    """Start and end of each answer, as (literal number, characters into it)."""


class LayoutReader:
    """Finds the `Layout` of rows for one template.

    Args:
        renderer: the template.
        control: matches every control token of the tokenizer.

    Raises:
        ModelError: if answers cannot be found in the template's text, or if it writes no
            end-of-turn token after them.
    """

    def __init__(self, renderer: Renderer, control: re.Pattern[str]) -> None:
        self._renderer = renderer
        self._control = control
        self._drafts: dict[Any, _Draft | None] = {}
        self._check_template()

    def layout(self, messages: Sequence[Message]) -> Layout:
        """Render a row and locate its texts and answers.

        Raises:
            RowError: if the template refuses the row, or hides its answer.
        """
        text = self._renderer.render(messages)
        for held in self._ways_to_mark(messages):
            draft = self._cached_draft(messages, held)
            found = _fit(draft, messages, held, text) if draft else None
            if found is not None:
                return found
        raise RowError("the chat template rewrites the row, so that its answer cannot be found")

    def _check_template(self) -> None:
        try:
            layout = self.layout(PROBE)
        except RowError as error:
            raise untrainable(error.reason) from None
        learned = [layout.text[a:b] for a, b in layout.trained]
        if not any(PROBE_ANSWER in part for part in learned):
            raise ModelError(
                "the chat template does not show where an answer begins: mark it with "
                "{% generation %}, or set chat_template to one of the built-in names"
            )
        if not all(self._ends_in_control(part) for part in learned):
            raise ModelError(
                "the chat template writes no end-of-turn token after an answer, so the model "
                "would not learn to stop: add {{ eos_token }} there, or set chat_template to "
                "one of the built-in names"
            )

    @staticmethod
    def _ways_to_mark(messages: Sequence[Message]) -> Iterator[frozenset[int]]:
        """Sets of messages to mark: all, then the prompts alone, then none."""
        # A blank text stays real: templates ask whether there is one.
        filled = [i for i, m in enumerate(messages) if m["content"].strip()]
        yield frozenset(filled)
        yield frozenset(i for i in filled if messages[i]["role"] != "assistant")
        yield frozenset()

    def _cached_draft(self, messages: Sequence[Message], held: frozenset[int]) -> _Draft | None:
        marked = [
            {**m, "content": _MARK.format(i, i)} if i in held else m for i, m in enumerate(messages)
        ]
        # Only roles decide such a draft; one that holds a row's own text is of no use to others.
        real = any(m["content"].strip() for i, m in enumerate(messages) if i not in held)
        if real or any(len(m) > 2 for m in messages):
            return self._draft(marked, held)
        key = tuple((m["role"], m["content"]) for m in marked)
        if key not in self._drafts:
            self._drafts[key] = self._draft(marked, held)
        return self._drafts[key]

    def _draft(self, marked: Sequence[Message], held: frozenset[int]) -> _Draft | None:
        try:
            skeleton = self._renderer.render(marked)
        except RowError:
            return None
        parts = _MARKS.split(skeleton)
        literals, slots = tuple(parts[::2]), tuple(int(n) for n in parts[1::2])
        starts = [0, *(m.end() for m in _MARKS.finditer(skeleton))]
        trained = [span for span in self._answers(marked, held, skeleton) if span is not None]
        if not trained:
            return None
        anchors = tuple(
            (_anchor(starts, literals, a), _anchor(starts, literals, b)) for a, b in trained
        )
        return _Draft(literals, slots, anchors)

    def _answers(
        self, marked: Sequence[Message], held: frozenset[int], skeleton: str
    ) -> Iterator[Span | None]:
        if self._renderer.has_markers:
            for start, end in self._renderer.generation_spans(marked):
                yield self._to_end_of_turn(skeleton, start, end)
            return
        for i, message in enumerate(marked):
            if message["role"] == "assistant":
                yield self._answer(marked, i, skeleton, i in held)

    def _to_end_of_turn(self, skeleton: str, start: int, end: int) -> Span | None:
        """A generation block, without space after its end of turn, with one right behind it."""
        block = skeleton[start:end].rstrip()
        if self._ends_in_control(block):
            return start, start + len(block)
        after = self._control.match(skeleton, end)
        return (start, after.end() if after else end) if block else None

    def _answer(
        self, marked: Sequence[Message], i: int, skeleton: str, is_held: bool
    ) -> Span | None:
        """Where the answer of message `i` stands in the skeleton, or None if it does not."""
        whole = self._try_render(marked[: i + 1])
        start = self._prompt_end(marked, i, skeleton)
        if not is_held:
            if start is None or whole[:start] != skeleton[:start]:
                return None
            answer = whole[start:].rstrip()
            if answer and skeleton.startswith(answer, start):
                return start, start + len(answer)
            # An older answer may be written shorter, as far as the next control token.
            stop = self._control.search(skeleton, start)
            kept = skeleton[start : stop.start()].strip() if stop else ""
            return (start, stop.end()) if stop and kept in marked[i]["content"] else None
        mark = _MARK.format(i, i)
        at = skeleton.rfind(mark)
        if at < 0:
            return None
        end = at + len(mark)
        closing = whole.rpartition(mark)[2] if mark in whole else ""
        stop = self._control.search(_common_start(skeleton[end:], closing))
        return (at if start is None or start > at else start), end + (stop.end() if stop else 0)

    def _prompt_end(self, marked: Sequence[Message], i: int, skeleton: str) -> int | None:
        """Where the prompt of answer `i` ends in the skeleton, as it is put to the model."""
        prompt = self._try_render(marked[:i], generation_prompt=True)
        if not prompt or not skeleton.startswith(prompt):
            return None
        if prompt != self._try_render(marked[:i]):
            return len(prompt)
        # Nothing was added to ask for an answer: either the answer has no header (Mistral), or
        # the template does not know generation prompts and its header comes next.
        at = skeleton.find(marked[i]["content"].strip(), len(prompt))
        if at < 0:
            return None
        return at if skeleton[len(prompt) : at].strip() else len(prompt)

    def _try_render(self, messages: Sequence[Message], generation_prompt: bool = False) -> str:
        """The text of the first messages, or nothing where the template wants more of them."""
        if not messages:
            return ""
        try:
            return self._renderer.render(messages, generation_prompt)
        except (RowError, ModelError):
            return ""

    def _ends_in_control(self, text: str) -> bool:
        return any(m.end() == len(text) for m in self._control.finditer(text))


def _common_start(one: str, other: str) -> str:
    pairs = zip(one, other, strict=False)
    return one[: next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))]


def _anchor(starts: Sequence[int], literals: Sequence[str], at: int) -> tuple[int, int]:
    """A place in the skeleton as (literal number, characters into it)."""
    k = next(k for k in reversed(range(len(starts))) if starts[k] <= at or k == 0)
    return k, min(at - starts[k], len(literals[k]))


def _fit(
    draft: _Draft, messages: Sequence[Message], held: frozenset[int], text: str
) -> Layout | None:
    texts = [messages[i]["content"] for i in draft.slots]
    starts = match_literals(draft.literals, texts, text)
    if starts is None:
        return None
    contents = tuple(
        (starts[k] + len(draft.literals[k]), starts[k + 1], i) for k, i in enumerate(draft.slots)
    )
    trained = tuple((starts[k] + a, starts[n] + b) for (k, a), (n, b) in draft.trained)
    unlocated = tuple(m["content"] for i, m in enumerate(messages) if i not in held)
    return Layout(text, contents, trained, unlocated)
