"""What may not change when a sweep goes on: whoever changes it wants another sweep."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from safemix.tuning.points import run_of

if TYPE_CHECKING:
    from safemix.tuning.settings_tree import SweepSettings

__all__ = ["changed_keys", "fingerprint", "pinned"]

_ABSENT: Final = object()
# Keys of the run that say where something goes, not what it is.
_PLACES: Final = ("output_dir", "cache_dir", "tracking")


def pinned(sweep: SweepSettings) -> dict[str, Any]:
    """What makes a sweep this sweep: run, search, searcher, scheduler, bounds and seed.

    Numbers of trials, workers and restarts, resources, address and folder may change; so may
    where the run would have written, and its tracking, as trials have their own.

    Returns:
        Plain JSON data.
    """
    tree = sweep.to_tree()
    run = {key: value for key, value in run_of(sweep).items() if key not in _PLACES}
    kept = {key: tree[key] for key in ("search", "searcher", "scheduler", "bound", "seed")}
    if sweep.scheduler != "none":
        kept |= {"score": tree["score"], sweep.scheduler: tree[sweep.scheduler]}
    plain: dict[str, Any] = json.loads(json.dumps({"run": run, **kept}, default=str))
    return plain


def fingerprint(sweep: SweepSettings) -> str:
    """sha256 over `pinned`; the order of keys does not count."""
    return hashlib.sha256(json.dumps(pinned(sweep), sort_keys=True).encode()).hexdigest()


def changed_keys(old_tree: Mapping[str, Any], new_tree: Mapping[str, Any]) -> list[str]:
    """Dotted keys in which two trees differ, such as two of `pinned`; sorted."""
    return sorted(_changed(old_tree, new_tree, ""))


def _changed(old: Any, new: Any, where: str) -> Iterator[str]:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        if isinstance(old, bool) != isinstance(new, bool) or old != new:
            yield where
        return
    for key in {*old, *new}:
        place = f"{where}.{key}" if where else str(key)
        yield from _changed(old.get(key, _ABSENT), new.get(key, _ABSENT), place)
