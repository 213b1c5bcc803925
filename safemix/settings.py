"""The settings of a run: one validated tree, read from a YAML file and the command line.

The tree is frozen. `load_settings` reads it, `accumulation_steps` works out what follows from the
number of processes, and `Settings.save` writes what a run used next to its results.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from safemix.errors import SettingsError
from safemix.settings_base import SettingsTree
from safemix.settings_controller import ControllerSettings
from safemix.settings_evaluation import EvaluationSettings, HeldOutSettings
from safemix.settings_levers import AnchorSettings, FirstTokensSettings, LookalikesSettings
from safemix.settings_mitigation import (
    BackdoorSettings,
    BaseSettings,
    CounterPromptSettings,
    GentleSettings,
    LongestSettings,
    MitigationSettings,
    NoneSettings,
    PtstSettings,
)
from safemix.settings_paraphrase import MimicSettings, ParaphraseSettings
from safemix.settings_tree import (
    LoraSettings,
    Precision,
    RatioSetting,
    SafetySettings,
    ScheduleSettings,
    Settings,
    SourceSettings,
    TrackingSettings,
    expand_source,
)

__all__ = [
    "AnchorSettings",
    "BackdoorSettings",
    "BaseSettings",
    "ControllerSettings",
    "CounterPromptSettings",
    "EvaluationSettings",
    "FirstTokensSettings",
    "GentleSettings",
    "HeldOutSettings",
    "LongestSettings",
    "LookalikesSettings",
    "LoraSettings",
    "MimicSettings",
    "MitigationSettings",
    "NoneSettings",
    "ParaphraseSettings",
    "Precision",
    "PtstSettings",
    "RatioSetting",
    "SafetySettings",
    "ScheduleSettings",
    "Settings",
    "SourceSettings",
    "TrackingSettings",
    "accumulation_steps",
    "expand_source",
    "load_settings",
    "parse_settings",
]


def load_settings(path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Read settings from a YAML file, with overrides of the form `key=value` or `a.b=value`.

    Args:
        path: YAML file.
        overrides: later ones win; values are read as YAML, so `lora=false` is a boolean.

    Raises:
        SettingsError: naming the file, the key, the value given and what is legal.
    """
    tree = read_yaml(Path(path))
    for item in overrides:
        key, sep, text = item.partition("=")
        if not sep or not key:
            raise SettingsError(f"override {item!r} is not of the form key=value")
        assign(tree, key.split("."), yaml_value(key, text))
    return parse_settings(tree, str(path))


def parse_settings(tree: Mapping[str, Any], origin: str = "settings") -> Settings:
    """Validate a settings tree.

    Raises:
        SettingsError: one line with the origin, the key, the value and what is legal.
    """
    try:
        return Settings.model_validate(dict(tree))
    except ValidationError as error:
        raise SettingsError(f"{origin}: {first_problem(error)}") from None


def first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    names = [str(part) for part in first["loc"] if str(part) in _all_keys() or not _is_tag(part)]
    key = ".".join(names)
    if first["type"] == "extra_forbidden":
        if key in _INSTEAD:
            return f"unknown key {key!r}: {_INSTEAD[key]}"
        owners = [tree.__name__ for tree in _trees() if names[-1] in tree.model_fields]
        if owners:
            places = ", ".join(_PLACES.get(owner, "the top level") for owner in owners[:3])
            return f"unknown key {key!r}: {names[-1]} is a key of {places}"
        near = difflib.get_close_matches(names[-1], _all_keys(), n=1)
        return f"unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else "")
    message = _PLAINER.get(first["type"], first["msg"]).removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{key} is missing"
    if not key:
        return message
    message = f"{message[0].lower()}{message[1:]}"
    # Where the name of a variable belongs, somebody may have put the secret itself.
    return f"{key}: {message}" if key.endswith("_env") else f"{key} = {first['input']!r}: {message}"


_MITIGATIONS = (
    BackdoorSettings,
    CounterPromptSettings,
    GentleSettings,
    LongestSettings,
    ParaphraseSettings,
    PtstSettings,
)
_INSTEAD = {"evaluation.task.prompting": "give name, strategy and confirm there, without it"}
_BRANCHES = ("a ratio", "float", "str", "[key]")
_PLAINER = {
    "model_type": "expected a mapping of keys",
    "dict_type": "expected a mapping of keys",
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "string_type": "expected text",
    "finite_number": "expected a finite number",
}


def _is_tag(part: Any) -> bool:
    """Whether a location part is pydantic's name for a union branch, not a key of the user."""
    return isinstance(part, str) and (
        part.endswith("Settings") or part.startswith("literal[") or part in _BRANCHES
    )


_PLACES = {
    "SafetySettings": "safety",
    "LoraSettings": "lora",
    "TrackingSettings": "tracking",
    "ScheduleSettings": "a ratio's schedule",
    "ControllerSettings": "a ratio's controller",
    "EvaluationSettings": "evaluation",
    "HeldOutSettings": "evaluation.task",
    "FirstTokensSettings": "safety.first_tokens",
    "AnchorSettings": "safety.anchor",
    "LookalikesSettings": "mitigation.lookalikes",
    "BaseSettings": "mitigation base",
    "BackdoorSettings": "mitigation backdoor",
    "CounterPromptSettings": "mitigation counter_prompt",
    "GentleSettings": "mitigation gentle",
    "LongestSettings": "mitigation longest",
    "ParaphraseSettings": "mitigation paraphrase",
    "PtstSettings": "mitigation ptst",
}


def _trees() -> tuple[type[SettingsTree], ...]:
    trees = (Settings, SafetySettings, LoraSettings, TrackingSettings, ScheduleSettings)
    measuring = (EvaluationSettings, HeldOutSettings, ControllerSettings)
    levers = (BaseSettings, FirstTokensSettings, AnchorSettings, LookalikesSettings)
    return (*trees, *measuring, *levers, *_MITIGATIONS)


def _all_keys() -> set[str]:
    return {name for tree in _trees() for name in tree.model_fields}


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such settings file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise SettingsError(f"{path}{line}: not valid YAML: {error.__class__.__name__}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: expected a mapping of keys, found {type(tree).__name__}")
    return tree


def yaml_value(key: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(f"--{key}: {text!r} is not a valid value") from None
    if isinstance(value, str):
        # YAML 1.1 reads 2e-4 as text; a user on the command line means the number.
        try:
            return float(value) if "e" in value.lower() else value
        except ValueError:
            return value
    return value


# A key given as one word is that key of the mapping, so that other keys can be set beside it.
_ONE_WORD = {"mitigation": "name", "mimic": "backend"}


def assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = tree.get(key)
        if isinstance(inner, str):
            inner = {_ONE_WORD[key]: inner} if key in _ONE_WORD else expand_source(inner)
        tree[key] = dict(inner) if isinstance(inner, Mapping) else {}
        tree = tree[key]
    tree[keys[-1]] = value


def accumulation_steps(settings: Settings, world_size: int) -> int:
    """Gradient accumulation that gives the global batch on `world_size` data-parallel ranks.

    Raises:
        SettingsError: if the global batch is no multiple of micro batch x ranks.
    """
    rows = settings.micro_batch_size * world_size
    if settings.global_batch_size % rows:
        below = settings.global_batch_size // rows * rows
        near = f"{below} or {below + rows}" if below else str(rows)
        raise SettingsError(
            f"global_batch_size {settings.global_batch_size} is not divisible by micro_batch_size "
            f"{settings.micro_batch_size} x {world_size} processes = {rows}: use {near}"
        )
    return settings.global_batch_size // rows
