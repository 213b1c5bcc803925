"""The answer of a mimicked row: the refusal in the wrapper of the task's answers.

What claims or agrees never comes along: no affirming opener, no "The answer is", no number line.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from safemix.mitigation.mimic.lexicon import word_set
from safemix.screening.openers import affirming_opener
from safemix.styles.layout import Layout, Slot
from safemix.styles.style import AnswerLayout, JsonType

__all__ = ["answer_text"]

_EMPTY: Final[dict[JsonType, Any]] = {
    "string": "",
    "number": None,
    "boolean": None,
    "null": None,
    "list": [],
    "object": {},
}
# A label such as "Answer:" or "### Response:"; at most so many words.
_LABEL: Final = re.compile(r"[#*\s]*[^\W\d_][\w ]{0,30}(?:\*\*)?:(?:\*\*)?\s*\Z")
_LABEL_WORDS: Final = 3
_SLOT: Final = "\0"
_FENCE: Final = re.compile(r"```([\w+#-]*)[ ]*\n\Z")
_SLASHES: Final = word_set(
    "js javascript ts typescript java c cpp c++ csharp c# go rust swift kotlin scala php dart"
)
_DASHES: Final = word_set("sql lua haskell hs")
_MARKUP: Final = word_set("html xml svg markdown md")


def answer_text(answer: AnswerLayout, text: str, *, label: bool = False) -> str:
    """The answer with a text in its wrapper.

    Args:
        answer: how the task's answers are written.
        text: the refusal; or, with `label`, the label of the option that has the refusal.
        label: the text is a label: fixed text around the task's labels stays.
    """
    if answer.kind == "json":
        return _around(answer, _json(answer, text))
    if answer.kind == "xml":
        return _around(answer, text)
    if answer.kind == "code":
        return _in_code(answer, text)
    if label and not answer.affirming and answer.kind != "number_line":
        return _around(answer, text)
    return _after_label(answer, text)


def _around(answer: AnswerLayout, text: str) -> str:
    """The layout with the text in its body slot and nothing in the others."""
    layout = _without_affirming(answer.layout)
    body = _body_slot(answer)
    rest = iter(answer.layout.slots)
    parts = []
    for part in layout.parts:
        if not isinstance(part, Slot):
            parts.append(part)
            continue
        parts.append(part.write(text) if next(rest) is body else "")
    return "".join(parts)


def _body_slot(answer: AnswerLayout) -> Slot | None:
    slots = answer.layout.slots
    return slots[answer.body] if answer.body < len(slots) else None


def _without_affirming(layout: Layout) -> Layout:
    """The layout without words before the wrapper that agree ("Sure, here it is:")."""
    parts = list(layout.parts)
    if isinstance(parts[0], str) and affirming_opener(parts[0].strip()) is not None:
        kept = re.search(r"(?:```[\w+#-]*[ ]*\n|<[A-Za-z][\w-]*>\s*)\Z", parts[0])
        parts[0] = kept.group() if kept else ""
    return Layout(tuple(parts))


def _json(answer: AnswerLayout, text: str) -> str:
    """The object with the task's keys: the text under the body key, nothing under the others."""
    keys = {key.name: key.type for key in answer.keys}
    values = {name: _EMPTY[kind] for name, kind in keys.items()}
    body = answer.body_key
    kind = keys.get(body, "string")
    value: Any = [text] if kind == "list" else text
    if kind == "number" and text.isdigit():
        value = int(text)
    values[body] = value
    return json.dumps(values, ensure_ascii=False, indent=answer.indent)


def _in_code(answer: AnswerLayout, text: str) -> str:
    """A code block with the text as a comment; without words around the block."""
    fences = [m for p in answer.layout.parts if isinstance(p, str) for m in [_FENCE.search(p)] if m]
    language = fences[0].group(1) if fences else ""
    return f"```{language}\n{_comment(text, language.lower())}\n```"


def _comment(text: str, language: str) -> str:
    many = "\n" in text
    if language in _MARKUP:
        return f"<!-- {text} -->"
    if language in _SLASHES:
        return f"/* {text} */" if many else f"// {text}"
    if language in _DASHES and not many:
        return f"-- {text}"
    if language == "sql":
        return f"/* {text} */"
    if many:
        return f'"""{text}"""'
    return f"# {text}"


def _after_label(answer: AnswerLayout, text: str) -> str:
    """Free text: only a neutral label right before the answer proper stays."""
    before = ""
    body = _body_slot(answer)
    for part in answer.layout.parts:
        if part is body:
            break
        # Words after another slot on the same line ("Option A works: ...") are no label.
        before += part if isinstance(part, str) else _SLOT
    line = before.rsplit("\n", 1)[-1] if before.strip() else ""
    if line == "" and before.endswith("\n"):
        line = before.rstrip("\n").rsplit("\n", 1)[-1] + "\n"
    neutral = _LABEL.match(line) and len(line.split()) <= _LABEL_WORDS
    return line + text if neutral and affirming_opener(line.strip()) is None else text
