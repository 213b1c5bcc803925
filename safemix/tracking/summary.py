"""What a run did, as a table for the end of the run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from safemix.tracking.measured import measured_names
from safemix.tracking.metrics import read_metrics

_ENDS = 5  # readings that the first and the last loss are a mean of, at most


@dataclass(frozen=True)
class Summary:
    """The figures of a run.

    Attributes:
        steps: the last optimizer step.
        ratio_asked: mean share of safety rows that the plan was asked for.
        ratio_done: share of safety rows over all logged steps.
        token_share: share of safety tokens among a step's trained tokens, mean over the steps.
        losses: source -> mean loss of the first and of the last readings (see `averaged`).
        averaged: readings in each of these two means.
        tokens_per_s: median over the readings after the first.
        data_wait: mean share of the time spent waiting for data.
        passes: source -> passes through its rows.
        measured: refusal margin or rate -> its first and its last reading.
        read_at: the same -> the steps of these two.
        probe_share: mean share of the time that reading the margin took, where it was read.
        nonfinite: names of metrics that were NaN or infinite at some step.
    """

    steps: int
    ratio_asked: float | None = None
    ratio_done: float | None = None
    token_share: float | None = None
    losses: dict[str, tuple[float, float]] = field(default_factory=dict)
    averaged: int = 1
    tokens_per_s: float | None = None
    data_wait: float | None = None
    passes: dict[str, float] = field(default_factory=dict)
    measured: dict[str, tuple[float, float]] = field(default_factory=dict)
    read_at: dict[str, tuple[int, int]] = field(default_factory=dict)
    probe_share: float | None = None
    nonfinite: tuple[str, ...] = ()


def summarise(metrics_path: Path) -> Summary:
    """Sum up a metrics file.

    Raises:
        OSError: if it cannot be read.
    """
    lines = list(read_metrics(metrics_path))
    if not lines:
        return Summary(steps=0)
    averaged = max(1, min(_ENDS, len(lines) // 4))
    losses = {}
    for name in _names(lines, suffix="/loss"):
        values = _values(lines, name)
        if values and name != "train/loss":
            ends = values[:averaged], values[-averaged:]
            losses[name.removesuffix("/loss")] = (
                statistics.fmean(ends[0]),
                statistics.fmean(ends[1]),
            )
    speeds = _values(lines, "perf/tokens_per_s")
    prefix = "mix/passes/"
    passes = {
        name.removeprefix(prefix): _values(lines, name)[-1]
        for name in _names(lines, prefix=prefix)
        if _values(lines, name)
    }
    measured = _first_and_last(lines)
    return Summary(
        steps=lines[-1]["step"],
        ratio_asked=_mean_over_steps(lines, "mix/ratio"),
        ratio_done=_mean_over_steps(lines, "safety/row_share"),
        token_share=_mean_over_steps(lines, "safety/token_share"),
        losses=losses,
        averaged=averaged,
        tokens_per_s=statistics.median(speeds[1:] or speeds) if speeds else None,
        data_wait=_mean_over_steps(lines, "perf/data_wait_share"),
        passes=passes,
        measured={name: (ends[0][1], ends[1][1]) for name, ends in measured.items()},
        read_at={name: (ends[0][0], ends[1][0]) for name, ends in measured.items()},
        probe_share=_mean(_values(lines, "perf/probe_share")),
        nonfinite=tuple(sorted({name for line in lines for name in line.get("nonfinite", ())})),
    )


def render(
    summary: Summary,
    places: Mapping[str, Path | str] | None = None,
    counted: Mapping[tuple[str, int], str] | None = None,
) -> Table:
    """A table to print with rich.

    Args:
        summary: the figures.
        places: what -> where it lies (adapter, metrics, curves, the W&B run).
        counted: name and step of a rate -> the rate in words, with count and interval.
    """
    table = Table(title="safemix: what this run did", show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    # A path that is cut cannot be copied, so it is folded.
    table.add_column(overflow="fold")
    for name, value in _rows(summary, counted or {}):
        table.add_row(name, value)
    if places:
        table.add_section()
        for what, where in places.items():
            table.add_row(what, str(where))
    return table


def _rows(summary: Summary, counted: Mapping[tuple[str, int], str]) -> list[tuple[str, str]]:
    rows = [("steps", f"{summary.steps:,}")]
    if summary.ratio_done is not None:
        asked = _percent(summary.ratio_asked)
        rows.append(("safety rows", f"{_percent(summary.ratio_done)} (asked: {asked})"))
    if summary.token_share is not None:
        rows.append(("safety share of trained tokens", _percent(summary.token_share)))
    ends = "first → last step"
    if summary.averaged > 1:
        ends = f"means of {summary.averaged} readings"
    for source, (first, last) in summary.losses.items():
        rows.append((f"{source} loss", f"{first:.3f} → {last:.3f}  ({ends})"))
    if summary.tokens_per_s is not None:
        wait = (
            "" if summary.data_wait is None else f", {_percent(summary.data_wait)} waiting for data"
        )
        rows.append(("tokens/s", f"{summary.tokens_per_s:,.0f}{wait}"))
    for source, passes in summary.passes.items():
        rows.append((f"passes through {source}", f"{passes:.3g}"))
    for name, values in summary.measured.items():
        read = zip(summary.read_at.get(name, (0, 0)), values, strict=True)
        told = [counted.get((name, step)) or _reading(name, value) for step, value in read]
        rows.append((name, " → ".join(told)))
    if summary.probe_share is not None:
        rows.append(("time measuring", f"{_percent(summary.probe_share)} of a reading's interval"))
    if summary.nonfinite:
        rows.append(("not finite at some step", ", ".join(summary.nonfinite)))
    return rows


def _reading(name: str, value: float) -> str:
    return f"{value:+.2f}" if name.startswith("safety/margin") else f"{value:.1%}"


def _percent(share: float | None) -> str:
    if share is None:
        return "unknown"
    digits = 2 if share == 0 or share >= 0.001 else 2 - math.floor(math.log10(share * 100))
    return f"{share:.{digits}%}"


def _names(lines: Sequence[Mapping[str, Any]], prefix: str = "", suffix: str = "") -> list[str]:
    found = dict.fromkeys(name for line in lines for name in line)
    return [name for name in found if name.startswith(prefix) and name.endswith(suffix)]


def _values(lines: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [float(line[name]) for line in lines if line.get(name) is not None]


def _first_and_last(
    lines: Sequence[Mapping[str, Any]],
) -> dict[str, tuple[tuple[int, float], tuple[int, float]]]:
    """Steps and readings, of all that is measured on fixed prompts."""
    names = measured_names(lines)
    found = {}
    for name in (*names.margins, *names.separations, *names.rates):
        read = [
            (int(line["step"]), float(line[name])) for line in lines if line.get(name) is not None
        ]
        found[name] = (read[0], read[-1])
    return found


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _mean_over_steps(lines: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Mean of a metric in which a reading counts as many steps as it covers."""
    total, weight, before = 0.0, 0, 0
    for line in lines:
        covered, before = max(1, line["step"] - before), line["step"]
        if line.get(name) is not None:
            total += covered * float(line[name])
            weight += covered
    return total / weight if weight else None
