"""How each scheme deals safety rows to steps and ranks: int64[steps, ranks] of safety rows.

"real" schemes run the library's own code. "modelled" ones are the few lines of a library that
decide the composition, written again here; the docstring says which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Setting:
    """One way of training: share of safety rows, and how a step is split."""

    ratio: float
    global_batch: int
    ranks: int
    micro_batch: int

    @property
    def micro_steps(self) -> int:
        """Micro steps of one optimizer step."""
        return self.global_batch // (self.ranks * self.micro_batch)

    @property
    def text(self) -> str:
        """For a heading."""
        split = f"{self.ranks} ranks, micro batch {self.micro_batch}"
        return f"{self.ratio * 100:.4g} % safety rows, global batch {self.global_batch}, {split}"


@dataclass(frozen=True, slots=True)
class Scheme:
    """A scheme and its evidence: "real" or "modelled". `deal` raises ValueError to refuse."""

    name: str
    evidence: str
    deal: Callable[[Setting, int, int], Counts]


def safemix(setting: Setting, steps: int, seed: int) -> Counts:
    """The plan of this project."""
    from safemix import MixturePlan

    rows = setting.global_batch * steps
    sizes = {"task": rows, "safety": max(1, round(rows * setting.ratio))}
    plan = MixturePlan(sizes, {"safety": setting.ratio}, setting.global_batch, seed)
    source, _ = plan.all_rows(0, steps, setting.ranks, setting.micro_batch)
    counts: Counts = (source == 1).sum(axis=(1, 3), dtype=np.int64)
    return counts


def interleave(setting: Setting, steps: int, seed: int) -> Counts:
    """`datasets.interleave_datasets`, RandomSampler, accelerate's dealing of batches."""
    import datasets
    import torch
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, RandomSampler

    datasets.disable_progress_bars()
    # 5 % more rows than needed: by chance one of the sources runs out early.
    rows = int(setting.global_batch * steps * 1.05) + 1000
    safety = max(1, round(rows * setting.ratio * 1.3) + 20)
    parts = [
        datasets.Dataset.from_dict({"safety": np.full(n, kind)})
        for kind, n in enumerate((rows, safety))
    ]
    shares = [1 - setting.ratio, setting.ratio]
    mixed = datasets.interleave_datasets(parts, probabilities=shares, seed=seed)
    is_safety = mixed.with_format("numpy")["safety"][:]
    generator = torch.Generator().manual_seed(seed)
    order = RandomSampler(mixed, generator=generator)
    counts = np.empty((steps, setting.ranks), dtype=np.int64)
    for rank in range(setting.ranks):
        batches = BatchSampler(order, setting.micro_batch, drop_last=True)
        generator.manual_seed(seed)  # every rank draws the same order
        own = np.array(list(BatchSamplerShard(batches, setting.ranks, rank)))
        per_batch = is_safety[own].sum(axis=1)[: steps * setting.micro_steps]
        counts[:, rank] = per_batch.reshape(steps, setting.micro_steps).sum(axis=1)
    return counts


def independent(setting: Setting, steps: int, seed: int) -> Counts:
    """Every rank draws each row's source by itself (torchdata, Megatron-Energon)."""
    rows = setting.global_batch // setting.ranks
    generator = np.random.default_rng(seed)
    return generator.binomial(rows, setting.ratio, (steps, setting.ranks)).astype(np.int64)


def same_seed(setting: Setting, steps: int, seed: int) -> Counts:
    """Every rank draws each row's source with the same seed (litdata)."""
    rows = setting.global_batch // setting.ranks
    drawn = np.random.default_rng(seed).binomial(rows, setting.ratio, (steps, 1))
    return np.repeat(drawn, setting.ranks, axis=1).astype(np.int64)


def error_diffusion(setting: Setting, steps: int, seed: int) -> Counts:
    """Megatron-LM's `build_blending_indices`: the source furthest behind gets the next row.

    One stream for all ranks; each micro step is cut into runs of a micro batch, rank by rank.
    """
    drawn = _furthest_behind(setting.ratio, steps * setting.global_batch)
    shape = (steps, setting.micro_steps, setting.ranks, setting.micro_batch)
    counts: Counts = drawn.reshape(shape).sum(axis=(1, 3))
    return counts


def per_rank_diffusion(setting: Setting, steps: int, seed: int) -> Counts:
    """The same rule on every rank's own stream (grain's mix as torchtitan uses it)."""
    drawn = _furthest_behind(setting.ratio, steps * setting.global_batch // setting.ranks)
    return np.repeat(drawn.reshape(steps, -1).sum(axis=1)[:, None], setting.ranks, axis=1)


def _furthest_behind(ratio: float, rows: int) -> Counts:
    """1 where the row is a safety row: int64[rows]."""
    drawn = np.zeros(rows, dtype=np.int64)
    safety = 0
    for n in range(rows):
        due = max(n, 1)  # as in the library
        if ratio * due - safety > (1 - ratio) * due - (n - safety):
            drawn[n] = 1
            safety += 1
    return drawn


def block(setting: Setting, steps: int, seed: int) -> Counts:
    """Levanter's block mixture with a block of one global batch, shuffled within the block.

    Every source gets the floor of its part, the largest what is left.
    """
    count = int(setting.ratio * setting.global_batch)
    counts = np.empty((steps, setting.ranks), dtype=np.int64)
    generator = np.random.default_rng(seed)
    for step in range(steps):
        places = generator.permutation(setting.global_batch)[:count]
        counts[step] = np.bincount(
            places * setting.ranks // setting.global_batch, minlength=setting.ranks
        )
    return counts


def stratified(setting: Setting, steps: int, seed: int) -> Counts:
    """MosaicML Streaming's `stratified`: the rounded part of every source, one after the other.

    Raises:
        ValueError: if a source's part rounds to no row, as in the library.
    """
    count = round(setting.ratio * setting.global_batch)
    if not count:
        raise ValueError("refused: a source's part of the batch rounds to 0 rows")
    places = np.arange(setting.global_batch - count, setting.global_batch)
    per_rank = np.bincount(places * setting.ranks // setting.global_batch, minlength=setting.ranks)
    return np.repeat(per_rank[None], steps, axis=0)


SCHEMES = (
    Scheme("safemix", "real", safemix),
    Scheme("HF interleave_datasets + RandomSampler", "real", interleave),
    Scheme("independent draws per rank (torchdata, Energon)", "modelled", independent),
    Scheme("same-seed draws on every rank (litdata)", "modelled", same_seed),
    Scheme("error diffusion, one stream (Megatron-LM)", "modelled", error_diffusion),
    Scheme("error diffusion per rank (grain in torchtitan)", "modelled", per_rank_diffusion),
    Scheme("block of one global batch (levanter)", "modelled", block),
    Scheme("stratified (MosaicML Streaming)", "modelled", stratified),
)
