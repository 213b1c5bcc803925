"""Chat messages to token ids and labels, by the tokenizer's chat template."""

from __future__ import annotations

import datetime
import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from safemix.errors import SettingsError
from safemix.loading.encode_control import ControlGuard, Tokens, tokenizer_spec
from safemix.loading.encode_cut import cut_tokens
from safemix.loading.encode_layout import LayoutReader
from safemix.loading.encode_render import Message, Renderer
from safemix.loading.templates import backend, choose_template
from safemix.rows.schema import RowError

IGNORE = -100
"""Label of a token that is not trained."""

ENCODER_VERSION = 1
"""Raised when the same row would give other tokens, so that caches of before are not read."""

Overlong = Literal["cut", "drop"]


@dataclass(frozen=True)
class Encoded:
    """One encoded row.

    Attributes:
        input_ids: token ids; empty if the row was dropped.
        labels: the same ids in assistant turns, `IGNORE` elsewhere.
        cut: tokens removed because the row was over-long.
        reason: why the row was dropped; None if it was not.
    """

    input_ids: list[int]
    labels: list[int]
    cut: int = 0
    reason: str | None = None

    @property
    def trained(self) -> int:
        """Number of trained tokens."""
        return len(self.labels) - self.labels.count(IGNORE)


class Encoder:
    """Encodes chat rows for training.

    Token ids are those of `tokenizer.apply_chat_template`, except that control tokens in a
    row's own text stay plain text. Labels train each assistant turn with its end-of-turn token.
    An over-long row loses the middle of its longest prompt turn first, the end of its answer
    last. Picklable; the tokenizer is never changed.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        template: name of a template, Jinja text, or None for the tokenizer's own, else `plain`.
        max_length: tokens of a row, at most.
        overlong: "cut" or "drop".

    Raises:
        ModelError: if the tokenizer or its template cannot be used, saying which and why.
        SettingsError: for a `max_length` or `overlong` that is not legal.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str | None = None,
        max_length: int = 1024,
        overlong: Overlong = "cut",
    ) -> None:
        if max_length < 2:
            raise SettingsError(f"max_length {max_length} is too small: use 2 or more")
        if overlong not in ("cut", "drop"):
            raise SettingsError(f"overlong {overlong!r} is unknown: use 'cut' or 'drop'")
        self.tokenizer = tokenizer
        self.template = choose_template(tokenizer, template)
        self.max_length = max_length
        self.overlong: Overlong = overlong
        self._prepare()

    def _prepare(self) -> None:
        backend(self.tokenizer)  # refuses a slow one before anything else is asked of it
        renderer = Renderer(self.template, dict(self.tokenizer.special_tokens_map))
        self._guard = ControlGuard(self.tokenizer, renderer.around_turns())
        self._reader = LayoutReader(renderer, self._guard.pattern)

    def __getstate__(self) -> dict[str, Any]:
        """Only what was given: a worker process makes its own copies of the tokenizer."""
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def fingerprint(self) -> str:
        """Hash of all that decides which tokens a row becomes."""
        parts = [
            ENCODER_VERSION,
            tokenizer_spec(self.tokenizer),
            {k: str(v) for k, v in self.tokenizer.special_tokens_map.items()},
            self.template,
            self.max_length,
            self.overlong,
        ]
        if "strftime_now" in self.template:
            # Such a template writes the date, so tomorrow's tokens are others.
            parts.append(datetime.datetime.now().astimezone().date().isoformat())
        text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """Encode one row.

        Args:
            messages: mappings with the texts `role` and `content`.

        Returns:
            The encoded row, with at least one trained token; or one with a `reason`.

        Raises:
            ModelError: if the template cannot be rendered.
        """
        try:
            self._check(messages)
            tokens = self._guard.encode(self._reader.layout(messages))
            return self._finish(tokens, messages)
        except RowError as error:
            return Encoded([], [], reason=error.reason)

    def _check(self, messages: Sequence[Message]) -> None:
        answered = False
        for message in messages:
            if not isinstance(message, Mapping):
                raise RowError("a message is not a mapping of role and content")
            role, content = message.get("role"), message.get("content")
            if not isinstance(role, str) or not isinstance(content, str):
                raise RowError("a message has no role or no text")
            answered = answered or (role == "assistant" and bool(content.strip()))
            extras = [v for k, v in message.items() if k != "content" and v is not None]
            if any(self._guard.pattern.search(str(extra)) for extra in extras):
                raise RowError("a control token stands in a field other than content")
        if not answered:
            raise RowError("no answer: no assistant message with text")

    def _finish(self, tokens: Tokens, messages: Sequence[Message]) -> Encoded:
        ids = tokens.ids
        labels = [IGNORE] * len(ids)
        for span in tokens.layout.trained:
            first, last = _overlapping(tokens, *span)
            labels[first:last] = ids[first:last]
        excess = len(ids) - self.max_length
        if excess > 0:
            return self._cut(tokens, labels, messages)
        # The first token is never predicted, so its label trains nothing.
        if all(label == IGNORE for label in labels[1:]):
            raise RowError("no trained token: the chat template leaves the answer out")
        return Encoded(ids, labels)

    def _cut(self, tokens: Tokens, labels: list[int], messages: Sequence[Message]) -> Encoded:
        ids = tokens.ids
        if self.overlong == "drop":
            raise RowError(f"longer than max_length {self.max_length}")
        prompts = [
            _inside(tokens, start, end)
            for start, end, i in tokens.layout.contents
            if messages[i]["role"] != "assistant"
        ]
        kept = cut_tokens(
            len(ids),
            self.max_length,
            [(a, b) for a, b in prompts if a < b],
            [n == 0 or tokens.starts[n] >= tokens.ends[n - 1] for n in range(len(ids))],
            [label != IGNORE for label in labels],
        )
        if kept is None:
            raise RowError(f"no room for a trained token within max_length {self.max_length}")
        return Encoded([ids[n] for n in kept], [labels[n] for n in kept], len(ids) - len(kept))


def _overlapping(tokens: Tokens, start: int, end: int) -> tuple[int, int]:
    """Numbers of the tokens that hold any character of a span, as (first, last + 1)."""
    return bisect_right(tokens.ends, start), bisect_left(tokens.starts, end)


def _inside(tokens: Tokens, start: int, end: int) -> tuple[int, int]:
    """Numbers of the tokens that hold characters of a span alone, as (first, last + 1)."""
    return bisect_left(tokens.starts, start), bisect_right(tokens.ends, end)
