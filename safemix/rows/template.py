"""Text templates over the columns of a row, as a field map may use them.

A template is written by the user, the values come from the data. Values are inserted once and
never parsed, so braces inside a row stay text. Only `{column}`, `{column[3]}` and
`{column[key]}` are legal: no attributes, conversions or format specifications.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from string import Formatter
from typing import Any

from safemix.errors import DataError

_PLACE = re.compile(r"(?P<column>[^\[\]{}.]+)(?P<items>(\[[^\[\]{}]+\])*)")
_MEND = "write {column}, {column[0]} or {column[key]}, and {{ }} for literal braces"


class RowError(ValueError):
    """A row that cannot be used. The reason is short, so that equal reasons can be counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Place:
    """One `{column[item]...}` of a template."""

    column: str
    items: tuple[str, ...]

    def value(self, record: Mapping[str, Any]) -> str:
        """The text that stands at this place of the record; empty for a missing value.

        Raises:
            RowError: if an item is not there, or the value is not text.
        """
        value = record.get(self.column)
        where = self.column
        for item in self.items:
            value = _item(value, item, where)
            where = f"{where}[{item}]"
        return as_text(value, where)


@dataclass(frozen=True)
class Template:
    """A parsed template: literal text and places, in order."""

    parts: tuple[str | Place, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads, each once."""
        return tuple(dict.fromkeys(p.column for p in self.parts if isinstance(p, Place)))

    def render(self, record: Mapping[str, Any], need_all: bool = False) -> str:
        """Fill the template from a record.

        Args:
            record: column -> value.
            need_all: give empty text as soon as one place is blank. Else only if all are:
                the literal text alone is no content.

        Raises:
            RowError: if a place holds no text.
        """
        texts = [p if isinstance(p, str) else p.value(record) for p in self.parts]
        filled = [
            bool(text.strip())
            for part, text in zip(self.parts, texts, strict=True)
            if isinstance(part, Place)
        ]
        if not (all(filled) if need_all else any(filled)):
            return ""
        return "".join(texts)


@lru_cache(maxsize=256)
def parse_template(text: str) -> Template:
    """Parse a template of a field map.

    Raises:
        DataError: naming the template, the place that is not legal and what is.
    """
    try:
        pieces = list(Formatter().parse(text))
    except ValueError as error:
        raise DataError(f"field template {text!r}: {error}: {_MEND}") from None
    parts: list[str | Place] = []
    for literal, name, spec, conversion in pieces:
        if literal:
            parts.append(literal)
        if name is None:
            continue
        match = _PLACE.fullmatch(name)
        if match is None or spec or conversion:
            suffix = (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise DataError(f"field template {text!r}: {{{name}{suffix}}} is not legal: {_MEND}")
        items = tuple(re.findall(r"\[([^\[\]]+)\]", match["items"]))
        parts.append(Place(match["column"], items))
    if not any(isinstance(part, Place) for part in parts):
        raise DataError(f"field template {text!r} names no column: {_MEND}")
    return Template(tuple(parts))


def as_text(value: Any, what: str) -> str:
    """A value of a column as text; empty for a missing one (None, NaN).

    Raises:
        RowError: for a list, a mapping or anything else that is no text, number or boolean.
    """
    if isinstance(value, str):
        # JSON can hold half a surrogate pair, which no UTF-8 text can.
        if not value.isascii() and not _encodable(value):
            raise RowError(f"{what} holds half a surrogate pair, which is not valid Unicode")
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal)):
        return str(value)
    raise RowError(f"{what} is {kind(value)}, not text")


def kind(value: Any) -> str:
    """What a value is, in words for a person."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, str):
        return "text"
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, (bool, int, float)):
        return "a number" if not isinstance(value, bool) else "a boolean"
    return f"of type {type(value).__name__}"


def _item(value: Any, item: str, where: str) -> Any:
    if isinstance(value, Mapping):
        if item not in value:
            raise RowError(f"{where} has no item {item!r}")
        return value[item]
    if not isinstance(value, (list, tuple)):
        raise RowError(f"{where} is {kind(value)} and has no item [{item}]")
    if not (item.isascii() and item.isdigit()):
        raise RowError(f"{where} is a list: [{item}] is not a position such as [0]")
    if len(item) > 9 or int(item) >= len(value):
        raise RowError(f"{where} is too short for item [{item}]")
    return value[int(item)]


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
