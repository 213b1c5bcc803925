"""From a point of the search to the settings of a trial's run."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from safemix.errors import SettingsError
from safemix.settings import Settings, assign, parse_settings
from safemix.settings_mitigation import (
    MITIGATIONS,
    MitigationSettings,
    expand_mitigation,
    merge_mimic,
    safety_need,
)
from safemix.tuning import space as spaces
from safemix.tuning.space import Point

if TYPE_CHECKING:
    from safemix.tuning.settings_tree import SweepSettings

__all__ = [
    "SettledPoint",
    "distinct_points",
    "planned_points",
    "run_tree",
    "settle_point",
    "trial_count",
    "trial_settings",
    "unmixed_settings",
]

MITIGATION, RATIO = "mitigation", "ratio"
LISTED: Final = 4096
"""Points up to which all of a space are looked at; settling one takes a fraction of a ms."""


@dataclass(frozen=True)
class SettledPoint:
    """A point as its trial takes it.

    Attributes:
        values: dotted key -> value, as the run's settings get it.
        left_out: key of the search that does nothing in this point -> why.
    """

    values: Mapping[str, Any]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """What was left out, for a person; "" for nothing."""
        return "; ".join(f"{key} is left out: {why}" for key, why in self.left_out.items())


def settle_point(sweep: SweepSettings, point: Mapping[str, Any]) -> SettledPoint:
    """Round a point's numbers, and leave out keys that do nothing beside its other values.

    An option of a mitigation is left out of a point whose mitigation has no such option, the ratio
    where the mitigation trains on no safety rows, and `lora.r` beside `lora: false`. Settling twice
    gives the same as once.

    Raises:
        SettingsError: for a key or value that the search does not have.
    """
    return _apply(run_of(sweep), sweep, point)


def run_tree(
    sweep: SweepSettings, point: Mapping[str, Any], *, output_dir: str | Path
) -> dict[str, Any]:
    """The run's settings with `set` and a point applied, as a tree for `parse_settings`.

    `mitigation: NAME` keeps the run's own options if that is the run's mitigation anyway.

    Args:
        sweep: what is searched.
        point: dotted key -> value, settled or not.
        output_dir: folder of the trial. Its name is the trial's name in W&B.

    Raises:
        SettingsError: for a key or value that the search does not have.
    """
    tree = run_of(sweep)
    _apply(tree, sweep, point)
    return _placed(tree, sweep, output_dir)


def trial_settings(
    sweep: SweepSettings, point: Mapping[str, Any], output_dir: str | Path
) -> Settings:
    """The run's settings at a point.

    Raises:
        SettingsError: one line; `load_sweep` has tried the edges of the search already.
    """
    return parse_settings(run_tree(sweep, point, output_dir=output_dir), "trial")


def unmixed_settings(sweep: SweepSettings, output_dir: str | Path) -> Settings:
    """The run at ratio 0: no mitigation and no safety rows, everything else as it is.

    Raises:
        SettingsError: one line.
    """
    tree = run_of(sweep)
    tree.pop("safety", None)
    tree |= {MITIGATION: "none", RATIO: 0}
    return parse_settings(_placed(tree, sweep, output_dir), "run without safety rows")


def distinct_points(sweep: SweepSettings) -> list[Point] | None:
    """All points that are different runs, settled; None if endless, or too many to list.

    Two points that differ only in a key that does nothing are one run.
    """
    space = sweep.space
    number = spaces.size(space)
    if number is None or number > LISTED:
        return None
    found: dict[str, Point] = {}
    for point in spaces.grid_points(space):
        settled = dict(settle_point(sweep, point).values)
        found.setdefault(spaces.text_of(settled), settled)
    return list(found.values())


def planned_points(sweep: SweepSettings) -> list[Point] | None:
    """The points of all trials, settled, in order; None for a searcher that learns from trials.

    With early stops a grid of ratios begins in its middle, and then halves what is left: trials on
    both sides of the bound are what later ones are stopped by.
    """
    if sweep.searcher in ("optuna", "bisect"):
        return None
    if sweep.searcher == "grid":
        points = distinct_points(sweep)
        spread = sweep.scheduler == "asha" and sweep.ratio_alone
        return _halving(points) if spread and points else points

    def settled(point: Mapping[str, Any]) -> Point:
        return dict(settle_point(sweep, point).values)

    drawn = spaces.random_points(sweep.space, trial_count(sweep), sweep.seed, settled)
    return [settled(point) for point in drawn]


def _halving(points: list[Point]) -> list[Point]:
    """Points of the ratio alone in halving order; as they are where it is not always a number."""
    ratios = [point.get(RATIO) for point in points]
    if not all(isinstance(ratio, int | float) for ratio in ratios):
        return points
    return spaces.halving_order(sorted(points, key=lambda point: float(point[RATIO])))


def trial_count(sweep: SweepSettings) -> int:
    """Number of trials, without the baselines.

    Raises:
        SettingsError: for a grid that `load_sweep` would have refused.
    """
    if sweep.trials is not None:
        return sweep.trials
    points = distinct_points(sweep)
    if points is None:
        raise SettingsError("a grid without an end has no number of trials: list its values")
    return len(points)


def run_of(sweep: SweepSettings) -> dict[str, Any]:
    """The run with `set` applied, a copy; its mitigation stands under that key alone."""
    tree = copy.deepcopy(dict(sweep.run))
    for key in sorted(sweep.set, key=_order):
        _set(tree, key, sweep.set[key])
    return _without_mimic(tree)


def drops_safety(tree: Mapping[str, Any]) -> bool:
    """Whether the mitigation of a run trains on no safety rows."""
    try:
        expanded = expand_mitigation(tree.get(MITIGATION, "base"))
        own = _adapter().validate_python(expanded)
    except (ValueError, ValidationError):
        return False  # whoever validates the tree says what is wrong
    return safety_need(own) == "dropped"


def _apply(tree: dict[str, Any], sweep: SweepSettings, point: Mapping[str, Any]) -> SettledPoint:
    """Set a point's values in a tree; keys before their sub-keys, the ratio last."""
    space = sweep.space
    strange = [key for key in point if key not in space]
    if strange:
        raise SettingsError(f"{strange[0]!r} is not searched: the search has {', '.join(space)}")
    values: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for key in sorted(space, key=_order):
        why = _useless(tree, key)
        if why:
            left_out[key] = why
        elif key in point:
            try:
                values[key] = spaces.tidy(space[key], point[key])
            except ValueError as error:
                raise SettingsError(f"{key}: {error}") from None
            _set(tree, key, values[key])
    return SettledPoint({key: values[key] for key in space if key in values}, left_out)


def _order(key: str) -> tuple[bool, int]:
    return key.partition(".")[0] == RATIO, key.count(".")


def _useless(tree: Mapping[str, Any], key: str) -> str:
    """Why a key does nothing in a run; "" if it does something, or is no key at all."""
    parts = key.split(".")
    if parts[0] == MITIGATION and len(parts) > 1:
        name, options = _mitigation(tree), _options()
        known = any(parts[1] in named for named in options.values())
        if known and parts[1] not in options.get(name, ()):
            return f"mitigation {name} has no {parts[1]}"
    if parts[0] == RATIO and drops_safety(tree):
        return f"mitigation {_mitigation(tree)} trains on no safety rows"
    inner: Any = tree
    for depth, part in enumerate(parts[:-1], 1):
        inner = inner.get(part) if isinstance(inner, Mapping) else None
        if inner is False:
            return f"{'.'.join(parts[:depth])} is false"
    return ""


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    parts = key.split(".")
    if parts[0] == MITIGATION:
        if len(parts) == 1 and isinstance(value, str) and value == _mitigation(tree):
            return
        tree.setdefault(MITIGATION, "base")
    assign(tree, parts, copy.deepcopy(value))


def _mitigation(tree: Mapping[str, Any]) -> str:
    given = tree.get(MITIGATION, "base")
    return str(given.get("name")) if isinstance(given, Mapping) else str(given)


def _without_mimic(tree: dict[str, Any]) -> dict[str, Any]:
    """Move `safety.mimic` to the mitigation that it means, so that a point can name another."""
    safety = tree.get("safety")
    if not isinstance(safety, Mapping) or "mimic" not in safety:
        return tree
    try:
        merged = merge_mimic(tree)
    except ValueError:
        return tree  # the two contradict each other: whoever validates the tree says so
    return {**merged, "safety": {k: v for k, v in safety.items() if k != "mimic"}}


def _placed(tree: dict[str, Any], sweep: SweepSettings, output_dir: str | Path) -> dict[str, Any]:
    tree["output_dir"] = str(output_dir)
    tracking = tree.get("tracking")
    if tracking is None or isinstance(tracking, Mapping):
        own = dict(tracking or {})
        own["group"] = own.get("group") or sweep.name
        own["run_name"] = Path(output_dir).name
        tree["tracking"] = own
    return tree


@functools.cache
def _adapter() -> TypeAdapter[Any]:
    return TypeAdapter(MitigationSettings)


@functools.cache
def _options() -> dict[str, frozenset[str]]:
    """Keys of each mitigation."""
    made = {name: _adapter().validate_python({"name": name}) for name in MITIGATIONS}
    return {name: frozenset(type(own).model_fields) for name, own in made.items()}
