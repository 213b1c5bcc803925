"""Rendering a chat template, with its errors told apart: a bad row, or a bad template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from safemix.errors import ModelError
from safemix.rows.schema import RowError

Message = Mapping[str, Any]
Span = tuple[int, int]

PROBE_ANSWER = "It is four."
PROBE: tuple[Message, ...] = (
    {"role": "user", "content": "What is two and two?"},
    {"role": "assistant", "content": PROBE_ANSWER},
)
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass
class Renderer:
    """A chat template bound to a tokenizer's special tokens."""

    template: str
    special_tokens: Mapping[str, Any]
    has_markers: bool = field(init=False)

    def __post_init__(self) -> None:
        self.has_markers = bool(_GENERATION.search(self.template))

    def render(self, messages: Sequence[Message], generation_prompt: bool = False) -> str:
        """The text of a chat, as `apply_chat_template(tokenize=False)` gives it.

        Raises:
            RowError: if the template refuses the messages.
            ModelError: if the template itself is broken.
        """
        return str(self._run(messages, add_generation_prompt=generation_prompt)[0])

    def generation_spans(self, messages: Sequence[Message]) -> list[Span]:
        """Spans of the `{% generation %}` blocks in the text of a chat."""
        return list(self._run(messages, return_assistant_tokens_mask=True)[1])

    def around_turns(self) -> str:
        """What the template writes around a question, and after an answer.

        Raises:
            ModelError: if the template cannot be rendered.
        """
        try:
            question, whole = self.render(PROBE[:1]), self.render(PROBE)
        except RowError as error:
            raise untrainable(error.reason) from None
        return question.replace(PROBE[0]["content"], "\n") + whole.rpartition(PROBE_ANSWER)[2]

    def _run(self, messages: Sequence[Message], **kwargs: Any) -> tuple[str, list[Span]]:
        chat = [{k: v for k, v in message.items() if v is not None} for message in messages]
        try:
            texts, spans = render_jinja_template(
                conversations=[chat],
                chat_template=self.template,
                **kwargs,
                **self.special_tokens,
            )
        except TemplateError as error:
            # Exactly this class is what a template's raise_exception gives: it refuses the row.
            if type(error) is TemplateError:
                raise RowError(f"the chat template refuses the row: {error}") from None
            raise _broken(error) from None
        except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
            raise _broken(error) from None
        return texts[0], spans[0] if spans else []


def _broken(error: Exception) -> ModelError:
    return ModelError(
        f"the chat template cannot be rendered: {type(error).__name__}: {error}: "
        "mend tokenizer.chat_template, or set chat_template to one of the built-in names"
    )


def untrainable(why: str) -> ModelError:
    """The error for a template that answers cannot be learned with."""
    return ModelError(
        f"the chat template cannot be trained on: {why}: "
        "set chat_template to one of the built-in names"
    )
