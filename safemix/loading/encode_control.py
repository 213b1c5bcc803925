"""Rendered text to token ids, with control tokens only where the template wrote them.

An ordinary row goes through the tokenizer as it is. Only where a control token comes out of a
row's own text is it encoded again: by a copy of the tokenizer that reads every control token as
plain text, with a twin (a private word, an added token of that copy) standing for each control
token of the template. It is still one encoding of the whole text, so that the other tokens, and
the spaces that some tokenizers add at the start of a text, come out as before.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import AddedToken, Tokenizer

from safemix.loading.encode_layout import Layout
from safemix.loading.templates import backend
from safemix.rows.schema import RowError


@dataclass(frozen=True)
class Tokens:
    """Token ids of one row, and the characters of `layout.text` that each one stands for."""

    ids: list[int]
    starts: Sequence[int]
    ends: Sequence[int]
    layout: Layout


def tokenizer_spec(tokenizer: Any) -> dict[str, Any]:
    """The tokenizer as data, without what a caller may have switched on for a while.

    Truncation and padding are a caller's state. The post-processor adds special tokens, which
    the template writes itself, and may narrow the offsets.
    """
    spec: dict[str, Any] = json.loads(backend(tokenizer).to_str())
    return {**spec, "truncation": None, "padding": None, "post_processor": None}


class ControlGuard:
    """Encodes layouts so that no control token comes from a row's text.

    Control tokens are the special tokens, and those further added tokens that the template
    writes around a turn (some models add `<|im_end|>` without calling it special). Others, such
    as `<think>`, may stand in a row's text and keep their meaning there.

    Args:
        tokenizer: a fast tokenizer.
        around: what its chat template writes around turns.
    """

    def __init__(self, tokenizer: Any, around: str) -> None:
        spec = tokenizer_spec(tokenizer)
        self._added: dict[str, dict[str, Any]] = {
            token["content"]: token
            for token in spec["added_tokens"]
            if token["special"] or (token["content"] in around and not token["content"].isspace())
        }
        self.ids = frozenset(token["id"] for token in self._added.values())
        longest_first = sorted(self._added, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._unk = tokenizer.unk_token_id
        self._spec = spec
        self._ordinary = Tokenizer.from_str(json.dumps(spec))
        self._plain: dict[int, _PlainReader] = {}

    def encode(self, layout: Layout) -> Tokens:
        """Token ids of a layout; in ordinary rows those of `apply_chat_template`.

        Raises:
            RowError: if a control token in the row cannot be kept as text.
        """
        encoding = self._ordinary.encode(layout.text, add_special_tokens=False)
        starts, ends = _columns(encoding.offsets)
        tokens = Tokens(encoding.ids, starts, ends, layout)
        if any(self.pattern.search(text) for text in layout.unlocated):
            raise RowError("the chat template rewrites a text that holds control tokens")
        if not self._intruders(tokens):
            return tokens
        reader = self._reader_for(layout.text)
        for broken in (False, True):
            tokens = reader.encode(layout, broken)
            if not self._intruders(tokens, as_text=True):
                return tokens
        raise RowError("the tokenizer cannot keep a control token in the row as text")

    def _intruders(self, tokens: Tokens, as_text: bool = False) -> bool:
        """Whether a control token stands inside one of the row's texts."""
        contents = tokens.layout.contents
        for n, token in enumerate(tokens.ids):
            if token not in self.ids:
                continue
            start, end = _trimmed(tokens.layout.text, tokens.starts[n], tokens.ends[n])
            if not any(start < b and end > a for a, b, _ in contents):
                continue
            # An unknown character gives the same id as the written unknown token.
            if token == self._unk and (
                as_text or not self.pattern.search(tokens.layout.text[start:end])
            ):
                continue
            return True
        return False

    def _reader_for(self, text: str) -> _PlainReader:
        salt = 0
        while _twin(salt, "") in text:
            salt += 1
        if salt not in self._plain:
            # One copy is enough: texts that hold our private words are no ordinary ones.
            self._plain.clear()
            self._plain[salt] = _PlainReader(self._spec, self._added, self.pattern, salt)
        return self._plain[salt]


class _PlainReader:
    """A copy of the tokenizer to which only twins are control tokens."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        added: Mapping[str, Mapping[str, Any]],
        pattern: re.Pattern[str],
        salt: int,
    ) -> None:
        text_only = [
            {**t, "special": True} if t["content"] in added else t for t in spec["added_tokens"]
        ]
        self._tokenizer = Tokenizer.from_str(json.dumps({**spec, "added_tokens": text_only}))
        self._tokenizer.encode_special_tokens = True
        self._pattern = pattern
        self._twins = {content: _twin(salt, str(t["id"])) for content, t in added.items()}
        self._break = _twin(salt, "break")
        self._tokenizer.add_tokens(
            [
                AddedToken(
                    self._twins[content],
                    lstrip=token["lstrip"],
                    rstrip=token["rstrip"],
                    normalized=False,
                )
                for content, token in added.items()
            ]
            + [AddedToken(self._break, normalized=False)]
        )
        real = {twin: added[content]["id"] for content, twin in self._twins.items()}
        real[self._break] = None
        own = self._tokenizer.get_added_tokens_decoder()
        self._real: dict[int, int | None] = {
            number: real[token.content] for number, token in own.items() if token.content in real
        }

    def encode(self, layout: Layout, broken: bool) -> Tokens:
        """Encode with twins for the template's control tokens.

        Args:
            layout: the row.
            broken: also break the control tokens inside the row's texts after their first
                character, for a tokenizer whose model makes one out of plain text.
        """
        shielded = self._shield(layout, broken)
        encoding = self._tokenizer.encode(shielded.text, add_special_tokens=False)
        real = [self._real.get(token, token) for token in encoding.ids]
        kept = [n for n, token in enumerate(real) if token is not None]
        starts, ends = _columns([encoding.offsets[n] for n in kept])
        return Tokens([token for token in real if token is not None], starts, ends, shielded)

    def _shield(self, layout: Layout, broken: bool) -> Layout:
        parts: list[str] = []
        olds, news = [0], [0]

        def write(source: str, text: str) -> None:
            parts.append(text)
            olds.append(olds[-1] + len(source))
            news.append(news[-1] + len(text))

        def write_all(source: str, ours: bool) -> None:
            last = 0
            for match in self._pattern.finditer(source):
                word = match.group()
                write(source[last : match.start()], source[last : match.start()])
                write(word, self._twins[word] if ours else word[0] + self._break + word[1:])
                last = match.end()
            write(source[last:], source[last:])

        at = 0
        for start, end, _ in layout.contents:
            write_all(layout.text[at:start], ours=True)
            text = layout.text[start:end]
            if broken:
                write_all(text, ours=False)
            else:
                write(text, text)
            at = end
        write_all(layout.text[at:], ours=True)

        def moved(place: int) -> int:
            k = min(bisect_left(olds, place), len(olds) - 1)
            return news[k] - (olds[k] - place)

        return replace(
            layout,
            text="".join(parts),
            contents=tuple((moved(a), moved(b), i) for a, b, i in layout.contents),
            trained=tuple((moved(a), moved(b)) for a, b in layout.trained),
        )


def _twin(salt: int, name: str) -> str:
    """A word that no text should hold; the salt changes it where a text does."""
    return f"\ue5a0{salt}\ue5a1{name}" + ("\ue5a2" if name else "")


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without outer space: some control tokens swallow the space beside them."""
    word = text[start:end]
    return start + len(word) - len(word.lstrip()), end - len(word) + len(word.rstrip())


def _columns(offsets: Sequence[tuple[int, int]]) -> tuple[Sequence[int], Sequence[int]]:
    if not offsets:
        return (), ()
    starts, ends = zip(*offsets, strict=True)
    return starts, ends
