"""Surfaces from measured curves: the efficacy study's cells at several ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from efficacy_figures import Pool, load_results, pool_seeds
from search_plant import Dress, Surface, random_surface

# Below, a line through the points says little.
_LEAST: Final = 3
_SLOPES, _WIDTHS = (0.5, 8.0), (0.25, 5.0)


def surfaces_of_cells(folder: Path, count: int, seed: int) -> list[Surface]:
    """Surfaces of all tasks, strategies and mitigations with at least three ratios.

    ASR, accuracy and, where it was read, the margin at the end are lines through what was measured:
    over ln(ratio), over the ratio, and over logit(ASR). What no cell says (how fast, the margin
    before training, the loss) is drawn, another one for each surface.

    Args:
        folder: results of `efficacy.py`.
        count: surfaces in all.
        seed: of what is drawn.

    Raises:
        ValueError: if no mitigation was measured at three ratios.
    """
    groups: dict[tuple[str, ...], list[Pool]] = {}
    for pool in pool_seeds(load_results(folder)):
        if pool.first.is_cell and pool.ratio > 0 and not pool.first.variant:
            groups.setdefault((*pool.place, pool.label), []).append(pool)
    kept = {name: pools for name, pools in groups.items() if len(pools) >= _LEAST}
    if not kept:
        raise ValueError(f"{folder} has no mitigation at {_LEAST} ratios or more")
    names = sorted(kept)
    return [
        _surface(names[number % len(names)], kept[names[number % len(names)]], 1000 * seed + number)
        for number in range(count)
    ]


def _surface(name: tuple[str, ...], pools: Sequence[Pool], seed: int) -> Surface:
    drawn = random_surface(seed)
    dresses = tuple(_dress(dress, pools, drawn.dresses[-1]) for dress in pools[0].dresses)
    ratios = [pool.ratio for pool in pools]
    cost, accuracy = _line(ratios, [pool.utility().value for pool in pools])
    return replace(
        drawn,
        name=" ".join(name),
        dresses=dresses,
        accuracy=min(max(accuracy, 0.01), 0.99),
        accuracy_cost=max(0.0, -cost),
    )


def _dress(name: str, pools: Sequence[Pool], drawn: Dress) -> Dress:
    counted = [pool.asr(name) for pool in pools]
    # Half a prompt more on both sides: the logit of 0 of 60 is finite then.
    safety = [math.log((r.total - r.count + 0.5) / (r.count + 0.5)) for r in counted]
    slope, _ = _line([math.log(pool.ratio) for pool in pools], safety)
    slope = min(max(slope, _SLOPES[0]), _SLOPES[1])
    middle_ratio = sum(math.log(pool.ratio) for pool in pools) / len(pools)
    half = math.exp(middle_ratio - sum(safety) / len(safety) / slope)
    margins = [_margin(pool, name) for pool in pools]
    read = [(x, m) for x, m in zip(safety, margins, strict=True) if m is not None]
    width, middle = drawn.width, drawn.middle
    if len(read) >= _LEAST:
        width, _ = _line(*zip(*read, strict=True))
        width = min(max(width, _WIDTHS[0]), _WIDTHS[1])
        middle = sum(m - width * x for x, m in read) / len(read)
    return replace(drawn, name=name, half=half, slope=slope, width=width, middle=middle)


def _margin(pool: Pool, dress: str) -> float | None:
    """Mean over the seeds of the margin at the end."""
    read = [run.tree.get("margins", {}).get(f"safety/margin_odds/{dress}") for run in pool.runs]
    known = [float(value) for value in read if value is not None]
    return sum(known) / len(known) if known else None


def _line(places: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Slope, and value at place 0, by least squares."""
    if len(set(places)) < 2:
        return 0.0, sum(values) / len(values)
    slope, level = np.polyfit(places, values, 1)
    return float(slope), float(level)
