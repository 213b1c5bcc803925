"""Field maps, JSON objects and sources given on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from safemix.errors import SettingsError

if TYPE_CHECKING:
    from safemix.settings import SourceSettings

SOURCE_HELP: Final = "a file, builtin, a Hub name or folder, or the settings of a source as JSON"


def field_map(option: str, given: Iterable[str]) -> dict[str, str] | None:
    """A field map, from items that are each `key=column` or a JSON object.

    Args:
        option: that they are given with, for errors.
        given: the items.

    Returns:
        The map; None if there are no items.

    Raises:
        SettingsError: for an item that is neither.
    """
    found: dict[str, str] = {}
    for item in given:
        if item.lstrip().startswith("{"):
            found.update(json_object(option, item))
            continue
        key, sep, value = item.partition("=")
        if not (sep and key.strip() and value):
            raise SettingsError(
                f"{option} {item!r}: write key=column, such as prompt=question, or JSON"
            )
        found[key.strip()] = value
    return found or None


def json_object(option: str, text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        SettingsError: if it is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise SettingsError(f"{option} {text[:60]!r} is not valid JSON") from None
    if not isinstance(value, dict):
        raise SettingsError(f"{option} {text[:60]!r} is no JSON object")
    return value


def source_option(
    name: str, given: str, fields: list[str] | None, fields_option: str | None = None
) -> SourceSettings:
    """The settings of a source, as the main job's file has them.

    Args:
        name: of the source; its option is `--name`.
        given: the option's value.
        fields: its field map.
        fields_option: how that is given; None for `--name-fields`.

    Raises:
        SettingsError: if it is no source.
    """
    from pydantic import ValidationError

    from safemix.settings import SourceSettings, expand_source

    tree: Any = expand_source(name if given == "builtin" else given)
    if given == "builtin":
        tree = {"builtin": name}
    if given.lstrip().startswith("{"):
        tree = json_object(f"--{name}", given)
    if fields:
        tree = {**tree, "fields": field_map(fields_option or f"--{name}-fields", fields)}
    try:
        return SourceSettings.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"--{name}: {key + ': ' if key else ''}{message}") from None
