"""One chat schema for every source: a record of any known shape becomes a list of messages.

Shapes, tried in this order on the columns that hold a value:

* `messages` (role, content) or ShareGPT's `conversations` (from, value);
* `prompt` and `completion`, each a text or a list of messages;
* `instruction`, optional `input`, `output`.

A `system` column gives the system prompt of a row that has none. Any other layout is read with
a field map. Content is never stripped or changed; only wholly blank content counts as empty.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final, Literal, TypedDict

from safemix.errors import DataError
from safemix.rows.template import RowError, as_text, kind, parse_template

__all__ = [
    "FIELDS",
    "SHAPES",
    "Message",
    "RowError",
    "check_columns",
    "shape_of",
    "to_messages",
    "used_columns",
]

Role = Literal["system", "user", "assistant"]


class Message(TypedDict):
    """One turn of a chat."""

    role: Role
    content: str


SHAPES: Final[Mapping[str, tuple[str, ...]]] = {
    "messages": ("messages",),
    "conversations": ("conversations",),
    "prompt/completion": ("prompt", "completion"),
    "instruction/output": ("instruction", "output"),
}
FIELDS: Final = ("prompt", "completion", "system", "input", "messages")

_OPTIONAL: Final = ("input", "system")
_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_TOOL_ROLES: Final = frozenset(
    {"tool", "function", "function_call", "function_response", "observation", "ipython"}
)
_LEGAL: Final = (
    "messages; conversations; prompt and completion; or instruction and output "
    "(input, system optional)"
)


def to_messages(
    record: Mapping[str, Any],
    fields: Mapping[str, str] | None = None,
    system: str | None = None,
) -> list[Message]:
    """Bring one record to the chat schema.

    Args:
        record: column -> value.
        fields: field map, from `FIELDS` to a column or, with braces, a text template.
        system: system prompt for a record that has none.

    Returns:
        Messages: at most one system turn, first; then user and assistant turns in alternation,
        from a user turn to an assistant turn.

    Raises:
        RowError: if the record cannot be used, with a short reason.
        DataError: if a template of the field map is not legal.
    """
    turns = _mapped_turns(record, fields) if fields else _shaped_turns(record)
    own = _field_text(record, (fields or {"system": "system"}).get("system"), "system")
    return _checked(turns, own if own.strip() else system)


def shape_of(columns: Collection[str]) -> str | None:
    """The first known shape whose required columns are all there, or None."""
    return next((s for s, need in SHAPES.items() if all(c in columns for c in need)), None)


def check_columns(columns: Collection[str], fields: Mapping[str, str] | None) -> None:
    """Check that rows with these columns can be read at all.

    Raises:
        DataError: without a place; naming the columns found, what is legal and the mend.
    """
    found = ", ".join(repr(c) for c in list(columns)[:20]) + (", ..." * (len(columns) > 20))
    if fields is None:
        if shape_of(columns) is None:
            raise DataError(
                f"no known columns: found {found}; legal are {_LEGAL}; "
                "or say which columns to use, e.g. fields: {prompt: question, completion: answer}"
            )
        return
    _check_keys(fields)
    for field, value in fields.items():
        for column in _columns_of(value):
            if column not in columns:
                near = difflib.get_close_matches(column, list(columns), n=1)
                hint = f", did you mean {near[0]!r}?" if near else ""
                raise DataError(f"fields.{field}: no column {column!r}{hint} (found {found})")


def _check_keys(fields: Mapping[str, str]) -> None:
    for field in fields:
        if field not in FIELDS:
            raise DataError(f"fields: unknown key {field!r}, legal are {', '.join(FIELDS)}")
    if "messages" in fields:
        clash = [f for f in ("prompt", "completion", "input") if f in fields]
        if clash:
            raise DataError(f"fields: give messages or {clash[0]}, not both")
        if "{" in fields["messages"] or "}" in fields["messages"]:
            raise DataError("fields.messages: a template cannot make messages: name a column")
    else:
        for need in ("prompt", "completion"):
            if need not in fields:
                raise DataError(f"fields: {need} is missing (or map messages)")


def used_columns(columns: Collection[str], fields: Mapping[str, str] | None) -> list[str]:
    """The columns that `to_messages` reads, of those there: the others need not be loaded."""
    if fields is None:
        used = {c for need in SHAPES.values() for c in need} | set(_OPTIONAL)
    else:
        used = {column for value in fields.values() for column in _columns_of(value)}
    return [column for column in columns if column in used]


def _columns_of(value: str) -> tuple[str, ...]:
    return parse_template(value).columns if "{" in value or "}" in value else (value,)


def _shaped_turns(record: Mapping[str, Any]) -> list[Message]:
    shape = next(
        (s for s, need in SHAPES.items() if all(record.get(c) is not None for c in need)), None
    ) or shape_of(record)
    if shape in ("messages", "conversations"):
        return _message_list(record[shape], shape)
    if shape == "prompt/completion":
        return _side(record["prompt"], "user", "prompt") + _side(
            record["completion"], "assistant", "completion"
        )
    if shape == "instruction/output":
        prompt = as_text(record["instruction"], "instruction")
        prompt = _with_input(prompt, as_text(record.get("input"), "input"))
        return [
            Message(role="user", content=prompt),
            Message(role="assistant", content=as_text(record["output"], "output")),
        ]
    for need in SHAPES.values():
        missing = [c for c in need if c not in record]
        if missing and len(missing) < len(need):
            raise RowError(f"no {missing[0]!r} in this row")
    raise RowError("no known columns in this row")


def _mapped_turns(record: Mapping[str, Any], fields: Mapping[str, str]) -> list[Message]:
    if "messages" in fields:
        return _message_list(record.get(fields["messages"]), fields["messages"])
    turns: list[Message] = []
    sides: tuple[tuple[str, Role], ...] = (("prompt", "user"), ("completion", "assistant"))
    for field, role in sides:
        value = fields.get(field)
        if value is not None and value in record and isinstance(record[value], list):
            turns += _message_list(record[value], value)
        else:
            turns.append(Message(role=role, content=_field_text(record, value, field)))
        if field == "prompt" and "input" in fields:
            if turns[-1]["role"] != "user":
                raise RowError("input needs a prompt that ends with a user turn")
            more = _field_text(record, fields["input"], "input")
            content = _with_input(turns[-1]["content"], more)
            turns[-1] = Message(role="user", content=content)
    return turns


def _field_text(record: Mapping[str, Any], value: str | None, field: str) -> str:
    """Text of one mapped field: a column, or a template over columns."""
    if value is None:
        return ""
    if "{" in value or "}" in value:
        # An answer with a hole in it must not be trained on; a prompt may lack a part.
        return parse_template(value).render(record, need_all=field == "completion")
    return as_text(record.get(value), value)


def _with_input(prompt: str, more: str) -> str:
    return "\n\n".join(text for text in (prompt, more) if text.strip())


def _side(value: Any, role: Role, what: str) -> list[Message]:
    if isinstance(value, list):
        return _message_list(value, what)
    return [Message(role=role, content=as_text(value, what))]


def _message_list(value: Any, what: str) -> list[Message]:
    if isinstance(value, str):
        value = _parsed(value, what)
    if value is None:
        raise RowError(f"{what} is empty")
    if not isinstance(value, (list, tuple)):
        raise RowError(f"{what} is {kind(value)}, not a list of messages")
    if not value:
        raise RowError(f"{what} is empty")
    return [_message(item) for item in value]


def _parsed(text: str, what: str) -> Any:
    """A list of messages kept as JSON text: a CSV cell cannot hold it otherwise."""
    try:
        return json.loads(text) if text.strip() else None
    except (ValueError, RecursionError):
        raise RowError(f"{what} is text that is not a JSON list of messages") from None


def _message(item: Any) -> Message:
    if not isinstance(item, Mapping):
        raise RowError(f"a message is {kind(item)}, not an object with role and content")
    named = item.get("role")
    if named is None:
        named = item.get("from")
    if named is None:
        raise RowError("a message has no role")
    lowered = str(named).lower()
    role = _ROLES.get(lowered)
    if role is None:
        if lowered in _TOOL_ROLES:
            raise RowError(f"a {lowered} turn: tool use is not supported")
        raise RowError(f"unknown role {str(named)[:30]!r}")
    if item.get("tool_calls"):
        raise RowError("an assistant turn with tool calls: tool use is not supported")
    content = item.get("content")
    if content is None:
        content = item.get("value")
    return Message(role=role, content=as_text(content, "content"))


def _checked(turns: list[Message], system: str | None) -> list[Message]:
    """Check the order of turns, and put the system prompt first."""
    if turns and turns[0]["role"] == "system":
        first, turns = turns[0]["content"], turns[1:]
        system = first if first.strip() else system
    expected: Role = "user"
    for turn in turns:
        role = turn["role"]
        if role == "system":
            raise RowError("a system turn that is not the first")
        if role != expected:
            raise RowError(
                "an assistant turn before any user turn"
                if turn is turns[0]
                else f"two {role} turns in a row"
            )
        if not turn["content"].strip():
            raise RowError("empty prompt" if role == "user" else "empty answer")
        expected = "assistant" if role == "user" else "user"
    if not turns or expected == "assistant":
        raise RowError("no assistant turn at the end")
    if system is None or not system.strip():
        return turns
    return [Message(role="system", content=system), *turns]
