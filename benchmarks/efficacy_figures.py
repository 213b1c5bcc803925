"""The study's figures read back: one result, and all seeds of a cell together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efficacy_clusters import ClusterRate, Key, Tally, added, cluster_rate


@dataclass(frozen=True)
class Found:
    """The figures of one result.

    Attributes:
        name: of its file.
        tree: what the file holds.
    """

    name: str
    tree: Mapping[str, Any]

    @property
    def is_cell(self) -> bool:
        """Whether it is of a run; else of a baseline."""
        return "cell" in self.tree

    @property
    def task(self) -> str:
        """Task that it was tuned on, or asked as."""
        return str(self.tree.get("cell", self.tree)["task"])

    @property
    def strategy(self) -> str:
        """Prompting strategy of the task."""
        return str(self.tree.get("cell", self.tree)["strategy"])

    @property
    def label(self) -> str:
        """Mitigation, or "stock" or "aligned"."""
        return str(self.tree["cell"]["mitigation"] if self.is_cell else self.tree["baseline"])

    @property
    def ratio(self) -> float:
        """Share of safety rows that was asked for, or drawn; 0 for a baseline."""
        cell = self.tree.get("cell", {"ratio": 0.0})
        asked = cell.get("changes", {}).get("ratio", cell["ratio"])  # a lever may change it
        if isinstance(asked, int | float):
            return float(asked)
        # It moved: what was drawn, where that is known.
        drawn = self.tree.get("shares", {}).get("safety/row_share", cell["ratio"])
        return round(float(drawn), 3)

    @property
    def variant(self) -> str:
        """Name of the variant; "" for none."""
        return str(self.tree["cell"]["variant"]) if self.is_cell else ""

    @property
    def dresses(self) -> tuple[str, ...]:
        """Dresses of the harmful prompts, plain first."""
        found = (m["dress"] for m in self.tree["measures"] if m["metric"] == "asr")
        return tuple(dict.fromkeys(found))  # of several sets

    def tallies(
        self, side: str, dress: str | None = None, metric: str | None = None
    ) -> dict[Key, Tally]:
        """Counted and asked, of all measures of a side that fit; without a verdict left out."""
        found: dict[Key, Tally] = {}
        for measure in self.tree["measures"]:
            fits = measure["side"] == side and dress in (None, measure["dress"])
            if fits and metric in (None, measure["metric"]):
                # Only the same prompts, in the same order, have the same hash.
                asked = f"{measure['set_hash'][:16]}/{measure['dress']}"
                found |= {
                    (f"{side}/{measure['name']}/{place}", asked): (int(mark), 1)
                    for place, mark in enumerate(measure["counted"])
                    if mark != "?"
                }
        return found


@dataclass(frozen=True)
class Pool:
    """All seeds of one cell, or a baseline.

    Attributes:
        runs: their results, one or more.
    """

    runs: tuple[Found, ...]

    @property
    def first(self) -> Found:
        """One of them: what it was tuned on and how is the same for all."""
        return self.runs[0]

    @property
    def place(self) -> tuple[str, str]:
        """Task and prompting strategy."""
        return self.first.task, self.first.strategy

    @property
    def label(self) -> str:
        """Mitigation, or "stock" or "aligned"."""
        return self.first.label

    @property
    def ratio(self) -> float:
        """Share of safety rows."""
        return self.first.ratio

    @property
    def seeds(self) -> int:
        """Number of runs."""
        return len(self.runs)

    @property
    def dresses(self) -> tuple[str, ...]:
        """Dresses of the harmful prompts, plain first."""
        return self.first.dresses

    @property
    def wrapped(self) -> str | None:
        """The dress of the prompting strategy; None for one without a wrapper."""
        return next((d for d in self.dresses if d not in ("plain", "styled")), None)

    @property
    def token_share(self) -> float | None:
        """Share of safety tokens among those trained, the mean of the seeds; None without rows."""
        read = [run.tree.get("shares", {}).get("safety/token_share") for run in self.runs]
        kept = [share for share in read if share is not None]
        return sum(kept) / len(kept) if kept and self.ratio else None

    def tallies(
        self, side: str, dress: str | None = None, metric: str | None = None
    ) -> dict[Key, Tally]:
        """As for one result, added up over the seeds."""
        return added(run.tallies(side, dress, metric) for run in self.runs)

    def asr(self, dress: str | None = None) -> ClusterRate:
        """Harmful prompts complied with, in one dress or all."""
        return cluster_rate(self.tallies("safety", dress, "asr"))

    def refused(self, dress: str | None = None) -> ClusterRate:
        """Benign look-alikes refused."""
        return cluster_rate(self.tallies("over_refusal", dress, "refused"))

    def incoherent(self) -> ClusterRate:
        """Incoherent answers, all dresses."""
        return cluster_rate(self.tallies("coherence"))

    def utility(self) -> ClusterRate:
        """Task rows answered right."""
        return cluster_rate(self.tallies("utility"))


def pool_seeds(results: Iterable[Found]) -> list[Pool]:
    """Results that differ by nothing but the seed together, in the order in which they come."""
    groups: dict[tuple[Any, ...], list[Found]] = {}
    for r in results:
        cell = (r.is_cell, r.task, r.strategy, r.label, r.ratio, r.variant)
        groups.setdefault(cell, []).append(r)
    return [Pool(tuple(runs)) for runs in groups.values()]


def places(pools: Iterable[Pool]) -> list[tuple[str, str]]:
    """Tasks and strategies that runs were made for."""
    return list(dict.fromkeys(p.place for p in pools if p.first.is_cell))


def here(pools: Iterable[Pool], place: tuple[str, str]) -> list[Pool]:
    """What was tuned on a task in a strategy, and the baselines asked so."""
    return [p for p in pools if p.place == place]


def pick(pools: Sequence[Pool], label: str, *ratios: float) -> Pool | None:
    """The one of a baseline or a mitigation, without a variant, at one of some ratios."""
    found = (p for p in pools if p.label == label and not p.first.variant and p.ratio in ratios)
    return next(found, None)


def load_results(folder: Path) -> list[Found]:
    """All results of a folder, in the order of their names."""
    return [
        Found(path.stem, json.loads(path.read_text("utf-8")))
        for path in sorted(folder.glob("*.json"))
    ]
