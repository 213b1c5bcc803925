"""The offline renderer: writes a safety row in the layout of a task row, with made text around.

No model and no network; a pure function of the seed, the row's number and the attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from safemix.mitigation.mimic.answers import answer_text
from safemix.mitigation.mimic.choose import Chooser
from safemix.mitigation.mimic.code import comment_mark
from safemix.mitigation.mimic.draft import Draft
from safemix.mitigation.mimic.filler import Filler, mix
from safemix.mitigation.mimic.material import Material, Row, whole_prompt
from safemix.mitigation.mimic.neutral import neutral_fills, one_line
from safemix.mitigation.mimic.options import choices, short_refusal, with_option
from safemix.mitigation.mimic.pattern import Pattern
from safemix.mitigation.mimic.question import write_question
from safemix.mitigation.mimic.request import analyse
from safemix.mitigation.mimic.skeleton import common_words
from safemix.rows.schema import Message
from safemix.styles.layout import Slot
from safemix.styles.style import Sample, Style, Styles

__all__ = ["AnswerDesign", "OfflineRenderer"]

AnswerDesign = Literal["text", "option"]
_FILL_SALT: Final = 0x46494C4C
_OPTION_SALT: Final = 0x4F5054
# Other words for an option that says what another one says.
_TRIES: Final = 8
_SEEDS: Final = 1 << 31


class OfflineRenderer:
    """Renders safety rows in the styles of task rows.

    Args:
        styles: of the task rows.
        seed: of the run.
        answer_design: "text": the answer is the refusal, in the wrapper of the task's answers.
            "option": one option has the refusal, and the answer names that option; rows of tasks
            that are not multiple choice are rendered as with "text".

    Raises:
        ValueError: if there is no style with a sampled row.
    """

    def __init__(self, styles: Styles, seed: int = 0, answer_design: AnswerDesign = "text") -> None:
        if not any(style.samples for style in styles.styles):
            raise ValueError("no style to render after: no task row fits any")
        self._chooser = Chooser(styles, seed)
        self._seed = seed
        self._design = answer_design
        found = [style for style in styles.styles if style.samples]
        shared = common_words(whole_prompt(style, row) for style in found for row in style.samples)
        self._material = {style.name: Material(style, shared) for style in found}

    def choose(self, number: int) -> tuple[Style, Sample]:
        """The style and the task row that a safety row is rendered after.

        Styles come in proportion to their shares, evenly spread over the numbers.

        Args:
            number: of the safety row.
        """
        return self._chooser.sample(number)

    def render(self, number: int, row: Sequence[Message], attempt: int = 0) -> Draft:
        """Render a safety row.

        Args:
            number: of the row.
            row: its messages; the last user turn is the request, the last turn the refusal. A
                system prompt of its own is left out.
            attempt: another one gives another rendering.

        Raises:
            ValueError: if the row has no user turn or does not end with an assistant turn.
        """
        style, place = self._chooser.choose(number, attempt)
        material = self._material[style.name]
        compiled = material.row(place)
        filler = Filler(mix(self._seed, _FILL_SALT, number, attempt), compiled.banned)
        request, _ = _asked_and_answered(row)
        fills = _fills(style, material, compiled, request, filler)
        return self._assembled(number, row, compiled, fills, filler, backend="offline")

    def assemble(
        self, number: int, row: Sequence[Message], fills: Sequence[str], backend: str
    ) -> Draft:
        """Put slot texts written elsewhere into the layout; the rest is made here.

        Args:
            number: of the row; its style is `choose(number)`'s.
            row: its messages.
            fills: a text for each slot of the style's prompt.
            backend: what wrote them.

        Raises:
            ValueError: if there are more or fewer texts than slots, or they cannot be read back.
        """
        style, place = self._chooser.choose(number)
        compiled = self._material[style.name].row(place)
        filler = Filler(mix(self._seed, _FILL_SALT, number, 0), compiled.banned)
        if len(fills) != len(style.prompt.slots):
            raise ValueError(f"{len(fills)} texts for {len(style.prompt.slots)} slots")
        return self._assembled(number, row, compiled, fills, filler, backend=backend)

    def _assembled(
        self,
        number: int,
        row: Sequence[Message],
        compiled: Row,
        fills: Sequence[str],
        filler: Filler,
        *,
        backend: str,
    ) -> Draft:
        style = compiled.style
        request, refusal = _asked_and_answered(row)
        answer, chosen, label = refusal, "", False
        if self._design == "option":
            places = choices(style, fills)
            if places:
                pick = places[mix(self._seed, _OPTION_SALT, number) % len(places)]
                chosen = short_refusal(refusal)
                fills = with_option(fills, pick, chosen)
                answer, label = pick.label or chosen, bool(pick.label)
        texts = neutral_fills(style.prompt, fills)
        messages = _system(style, compiled, filler) + _earlier(compiled, filler)
        messages += [
            Message(role="user", content=style.prompt.render(texts)),
            Message(role="assistant", content=answer_text(style.answer, answer, label=label)),
        ]
        return Draft(messages, style, compiled.sample, request, refusal, backend, texts, chosen)


def _asked_and_answered(row: Sequence[Message]) -> tuple[str, str]:
    asked = [turn["content"] for turn in row if turn["role"] == "user"]
    if not asked or row[-1]["role"] != "assistant":
        raise ValueError("a safety row needs a user turn, and an assistant turn at the end")
    return asked[-1], row[-1]["content"].strip()


def _fills(style: Style, material: Material, compiled: Row, text: str, filler: Filler) -> list[str]:
    """Texts of the prompt's slots: the request in the question slot, made text elsewhere."""
    fills = []
    options: set[str] = set()
    for number, (slot, pattern) in enumerate(zip(style.prompt.slots, compiled.fills, strict=True)):
        if number == style.question:
            fills.append(_question(material, compiled, text, filler))
            continue
        if slot.shot is not None and slot.values:
            # A label of an example stays with the words that all examples with it share.
            fills.append(compiled.sample.fills[number])
            continue
        made = _made(slot, pattern, filler)
        if slot.kind == "option":
            # Two options that say the same make no choice.
            for _ in range(_TRIES):
                if made not in options:
                    break
                made = _made(slot, pattern, Filler(filler.draw(_SEEDS), compiled.banned))
            options.add(made)
        fills.append(made)
    return fills


def _made(slot: Slot, pattern: Pattern, filler: Filler) -> str:
    return slot.values[filler.draw(len(slot.values))] if slot.values else filler.fill(pattern)


def _question(material: Material, compiled: Row, text: str, filler: Filler) -> str:
    request = analyse(one_line(text))
    if compiled.question is None:
        place = material.style.question
        code = filler.fill(compiled.fills[place])
        return f"{comment_mark(code)} {request.text}\n{code}"
    return write_question(compiled.question, request, filler, material.sentences)


def _system(style: Style, compiled: Row, filler: Filler) -> list[Message]:
    if style.system is None:
        return []
    fills = neutral_fills(style.system, [filler.fill(pattern) for pattern in compiled.system])
    return [Message(role="system", content=style.system.render(fills))]


def _earlier(compiled: Row, filler: Filler) -> list[Message]:
    """Earlier turns of the task row, with made text."""
    messages = []
    for turn, (layout, patterns) in zip(compiled.sample.earlier, compiled.earlier, strict=True):
        texts = [filler.fill(pattern) for pattern in patterns]
        content = layout.render(neutral_fills(layout, texts)) if layout else texts[0]
        messages.append(Message(role=turn["role"], content=content))
    return messages
