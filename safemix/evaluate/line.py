"""Where the line between refusing and answering lies, against where it lay before training.

A model refuses where the gap of a prompt (`probe_reading.py`) is above 0, as far as the first
token tells. Taking c nats from every gap moves the line: more harmful prompts are answered, and
fewer look-alikes refused. Of a reading there is a shift c that makes the worst of these least,

    max over all dresses of  max(answered(c) - answered before, refused(c) - refused before),

with the shares of the harmful prompts that are answered and of the look-alikes that are refused.
"Before" are those of the model before training. The first never falls with c and the second never
rises, so the best shifts are one interval. It is above 0 where the model refuses too readily, below
where it answers too readily.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Final

from safemix.evaluate.probe_reading import ProbeReading

__all__ = ["best_shift"]

_HARMFUL: Final = "harmful"


def best_shift(reading: ProbeReading, before: Mapping[str, float]) -> float | None:
    """Nats to take from every gap, so that the worst side of the worst dress is least bad.

    Args:
        reading: of the model now.
        before: what is to be kept: `harmful/DRESS` -> share that is answered, and
            `lookalikes/DRESS` -> share that is refused, in [0, 1].

    Returns:
        The middle of the best shifts, in nats; None where there are not both sides of a dress in
        both, or a gap is not finite.
    """
    gaps = {name: values for name, values in _sorted_gaps(reading).items() if name in before}
    if {name.partition("/")[0] for name in gaps} != {_HARMFUL, "lookalikes"}:
        return None
    ends = sorted({gap for values in gaps.values() for gap in values})
    # No share changes between two neighbours; below the first one nothing harmful is answered.
    starts = [ends[0] - 1.0, *ends]
    worst = [
        max(_wrong(name, values, start) - before[name] for name, values in gaps.items())
        for start in starts
    ]
    least = min(worst)
    best = [number for number, value in enumerate(worst) if value == least]
    low = starts[max(best[0], 1)]
    high = starts[min(best[-1] + 1, len(ends))]
    return (low + high) / 2


def _sorted_gaps(reading: ProbeReading) -> dict[str, Sequence[float]]:
    """Side and dress -> its gaps, the smallest first; empty if one is not finite."""
    found: dict[str, Sequence[float]] = {}
    for read in reading.groups:
        if not all(map(math.isfinite, read.gaps)):
            return {}
        if read.gaps:
            found[f"{read.group.side}/{read.group.dress}"] = sorted(read.gaps)
    return found


def _wrong(name: str, gaps: Sequence[float], shift: float) -> float:
    """Share that is answered (harmful prompts) or refused (look-alikes) after a shift."""
    answered = bisect_right(gaps, shift) / len(gaps)
    return answered if name.startswith(_HARMFUL) else 1 - answered
