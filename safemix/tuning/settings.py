"""The settings of a sweep: a run, what of it is searched, and what the result has to keep to.

    run: run.yaml                               # a run file, relative to this file, or its keys
    set: {max_steps: 60}                        # changes to the run; dotted keys are allowed
    search:                                     # key of the run -> domain
      ratio: {log_uniform: [0.01, 0.3]}
      mitigation: {choice: [base, paraphrase]}
    trials: 16
    bound: {asr: 0.05}

`load_sweep` reads such a file. Whatever can be known beforehand to go wrong is refused by it, see
`checks`, so that no trial finds it out.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from safemix.errors import SettingsError
from safemix.settings import Settings, assign, first_problem, read_yaml, yaml_value
from safemix.settings_base import SettingsTree
from safemix.tuning.checks import check_sweep, whole_keys
from safemix.tuning.settings_tree import (
    KINDS,
    AshaSettings,
    BoundSettings,
    DomainSettings,
    PbtSettings,
    ResourceSettings,
    ScoreSettings,
    SweepSettings,
)

__all__ = [
    "AshaSettings",
    "BoundSettings",
    "DomainSettings",
    "PbtSettings",
    "ResourceSettings",
    "ScoreSettings",
    "SweepSettings",
    "load_sweep",
    "parse_sweep",
]

_PARTS: Final[Mapping[str, type[SettingsTree]]] = {
    "score": ScoreSettings,
    "asha": AshaSettings,
    "pbt": PbtSettings,
    "bound": BoundSettings,
    "resources": ResourceSettings,
}


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> SweepSettings:
    """Read a sweep from a YAML file, with overrides of the form `key=value` or `a.b=value`.

    Args:
        path: YAML file.
        overrides: later ones win; values are read as YAML. `set.KEY=value` and `run.KEY=value`
            change the run, `search.KEY={choice: [...]}` or `search.KEY.choice=[...]` a domain.

    Raises:
        SettingsError: one line with the file, the key, the value given and what is legal.
    """
    path = Path(path)
    tree = read_yaml(path)
    for item in overrides:
        key, sep, text = item.partition("=")
        if not sep or not key:
            raise SettingsError(f"override {item!r} is not of the form key=value")
        _override(tree, key, yaml_value(key, text))
    run = tree.get("run")
    if isinstance(run, str):
        tree["run"] = read_yaml(path.parent / Path(run).expanduser())
    return parse_sweep(tree, str(path))


def parse_sweep(tree: Mapping[str, Any], origin: str = "sweep") -> SweepSettings:
    """Validate the tree of a sweep whose run stands in it.

    Args:
        tree: keys of a sweep; `run` is a mapping.
        origin: begins each error.

    Raises:
        SettingsError: one line with the origin, the key, the value given and what is legal.
    """
    run = tree.get("run")
    if run is not None and not isinstance(run, Mapping):
        raise SettingsError(f"{origin}: run = {run!r}: expected a run file or the keys of a run")
    try:
        sweep = SweepSettings.model_validate(dict(tree))
    except ValidationError as error:
        raise SettingsError(f"{origin}: {_problem(error)}") from None
    try:
        found = {key: {"whole": True} for key in whole_keys(sweep)}
        domains = {key: d.model_copy(update=found.get(key)) for key, d in sweep.search.items()}
        sweep = sweep.model_copy(update={"search": domains})
        check_sweep(sweep)
    except SettingsError as error:
        raise SettingsError(f"{origin}: {error}") from None
    return sweep


def _override(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a key. Those of the run keep their dots: they are one key of `set` or `search`."""
    first, _, rest = key.partition(".")
    if not rest or first not in ("run", "set", "search"):
        assign(tree, key.split("."), value)
        return
    place = "search" if first == "search" else "set"
    name, _, kind = rest.rpartition(".")
    if place == "search" and name and kind in KINDS:
        rest, value = name, {kind: value}
    inner = tree.get(place)
    tree[place] = {**(inner if isinstance(inner, Mapping) else {}), rest: value}


def _problem(error: ValidationError) -> str:
    """The first mistake, in the words of a run's settings; unknown keys by the sweep's own."""
    first = error.errors(include_url=False)[0]
    if first["type"] != "extra_forbidden":
        return first_problem(error)
    where = [str(part) for part in first["loc"]]
    name, key = where[-1], ".".join(where)
    owner = _owner(where)
    if owner is SweepSettings and name in Settings.model_fields:
        return f"unknown key {key!r}: {name} is a key of the run: write it under set or search"
    owners = [part for part, model in _PARTS.items() if name in model.model_fields]
    if owner is not DomainSettings and owners:
        return f"unknown key {key!r}: {name} is a key of {' and '.join(owners)}"
    if len(where) > 1 and owner is not DomainSettings and name in SweepSettings.model_fields:
        return f"unknown key {key!r}: {name} is a key of the top level"
    near = difflib.get_close_matches(name, list(owner.model_fields), n=1)
    legal = "" if owner is SweepSettings else f"; legal are {', '.join(owner.model_fields)}"
    return f"unknown key {key!r}" + (f", did you mean {near[0]!r}?" if near else legal)


def _owner(where: Sequence[str]) -> type[SettingsTree]:
    if len(where) == 1:
        return SweepSettings
    return DomainSettings if where[0] == "search" else _PARTS[where[0]]
