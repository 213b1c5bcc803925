"""The plan's state: what is checked, written, compared and refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from safemix.errors import PlanError
from safemix.mixture.ratio import Constant, Ratio
from safemix.mixture.timeline import Change

if TYPE_CHECKING:
    from safemix.mixture.plan import MixturePlan

STATE_VERSION = 1
"""Changes when the same state would give other rows."""


def checked_integer(name: str, value: Any, least: int) -> int:
    """An integer setting.

    Raises:
        PlanError: if it is no integer or below `least`.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise PlanError(f"{name} {value!r} is no integer")
    number = int(value.__index__())
    if number < least:
        raise PlanError(f"{name} {number} is below {least}")
    return number


def checked_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes as plain integers, in order.

    Raises:
        PlanError: for fewer than two sources, more than 127, or a size below 0.
    """
    if not 2 <= len(sizes) <= 127:
        raise PlanError(f"a mixture needs 2 to 127 sources, got {len(sizes)}: {list(sizes)}")
    return {str(name): checked_integer(f"size of {name}", n, 0) for name, n in sizes.items()}


def rest_source(sources: Sequence[str], ratios: Mapping[str, Ratio]) -> int:
    """Index of the source that takes what the others leave.

    Raises:
        PlanError: for a ratio of an unknown source, or if not exactly one source is left out
            (all sources may have constant ratios that sum to 1).
    """
    unknown = [name for name in ratios if name not in sources]
    if unknown:
        raise PlanError(f"ratio of unknown source {unknown[0]!r}; sources: {', '.join(sources)}")
    left = [index for index, name in enumerate(sources) if name not in ratios]
    if len(left) == 1:
        return left[0]
    if left:
        names = [sources[index] for index in left]
        raise PlanError(f"sources {', '.join(names)} have no ratio; only one may take the rest")
    values = [r.value for r in ratios.values() if isinstance(r, Constant)]
    if len(values) != len(sources) or sum(values) != 1:
        total = float(sum(values, Fraction(0)))
        raise PlanError(
            f"every source has a ratio and they sum to {total:g}, not 1: leave one out to take the "
            "rest"
        )
    return 0


def check_ratios(sizes: Mapping[str, int], ratios: Mapping[str, Ratio]) -> None:
    """Check that ratios fit together and that each source has the rows it needs.

    Raises:
        PlanError: if they sum to more than 1, or a source of 0 rows has a ratio above 0.
    """
    largest = sum((ratio.maximum() for ratio in ratios.values()), Fraction(0))
    if largest > 1:
        parts = ", ".join(f"{name} {float(r.maximum()):g}" for name, r in ratios.items())
        raise PlanError(f"ratios sum to {float(largest):g}, above 1: {parts}")
    for name, size in sizes.items():
        share = ratios[name].maximum() if name in ratios else 1 - largest
        if not size and share > 0:
            raise PlanError(
                f"source {name} has 0 rows but a ratio of {float(share):g}: give it rows or ratio 0"
            )


def to_dict(plan: MixturePlan, history: Sequence[Change]) -> dict[str, Any]:
    """See `MixturePlan.state_dict`."""
    content: dict[str, Any] = {
        "version": STATE_VERSION,
        "sizes": plan.sizes,
        "global_batch_size": plan.global_batch_size,
        "seed": plan.seed,
        "granularity": plan.granularity,
        "history": [
            {
                "from_step": change.from_step,
                "ratios": {name: r.to_json() for name, r in change.changed.items()},
            }
            for change in history
        ],
        "fingerprint": plan.fingerprint,
    }
    if plan.fingerprints:
        content["fingerprints"] = plan.fingerprints
    return content


def fingerprint(plan: MixturePlan) -> str:
    """Hash of version, sizes, batch, seed, granularity and the sources' content hashes."""
    content = [
        STATE_VERSION,
        plan.sizes,
        plan.global_batch_size,
        plan.seed,
        plan.granularity,
        sorted(plan.fingerprints.items()),
    ]
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_same(
    state_dict: Mapping[str, Any],
    *,
    sizes: Mapping[str, int] | None,
    fingerprints: Mapping[str, str] | None,
    global_batch_size: int | None,
    seed: int | None,
) -> None:
    """Refuse a state that was made for other data or settings, by name."""
    missing = {"version", "sizes", "global_batch_size", "seed", "granularity", "history"} - set(
        state_dict
    )
    if missing:
        raise PlanError(f"plan state lacks {', '.join(sorted(missing))}: it is damaged")
    if state_dict["version"] != STATE_VERSION:
        raise PlanError(
            f"plan state has version {state_dict['version']}, this safemix reads {STATE_VERSION}: "
            "resume with the safemix that wrote it"
        )
    if sizes is not None:
        _check_sizes(state_dict["sizes"], sizes)
    for name, old in state_dict.get("fingerprints", {}).items():
        new = (fingerprints or {}).get(name, old)
        if new != old:
            raise PlanError(
                f"source {name} has the same number of rows but other content than in the "
                "checkpoint: resume with the same file, or start a new output_dir"
            )
    for key, new_value in (("global_batch_size", global_batch_size), ("seed", seed)):
        if new_value is not None and new_value != state_dict[key]:
            raise PlanError(
                f"{key} is {new_value} but the checkpoint has {state_dict[key]}: set it back, or "
                "start a new output_dir"
            )


def _check_sizes(old: Mapping[str, int], new: Mapping[str, int]) -> None:
    if list(old) != list(new):
        raise PlanError(
            f"sources are {', '.join(new)} but the checkpoint has {', '.join(old)}, in this order"
        )
    for name in old:
        if old[name] != new[name]:
            raise PlanError(
                f"source {name} has {new[name]} rows but the checkpoint was made with "
                f"{old[name]}: resume with the same data, or start a new output_dir"
            )


def check_fingerprint(state_dict: Mapping[str, Any], now: str) -> None:
    """Refuse a state whose own parts do not fit together any more."""
    if state_dict.get("fingerprint", now) != now:
        raise PlanError("plan state does not match its own fingerprint: it was edited or damaged")
