"""The samplers that `sampler.py` compares: each gives one rank's indices, lazily."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Job:
    """What a sampler is asked for. `rows` counts all sources; one in twenty is a safety row."""

    rows: int
    seed: int = 0
    ranks: int = 8
    rank: int = 3
    global_batch: int = 128
    micro_batch: int = 16

    @property
    def sizes(self) -> dict[str, int]:
        """Rows per source."""
        safety = self.rows // 20
        return {"task": self.rows - safety, "safety": safety}

    @property
    def ratio(self) -> float:
        """Share of safety rows."""
        return 0.05


@dataclass(frozen=True, slots=True)
class Contender:
    """One sampler.

    `start(job)` gives the rank's indices of the epoch from its beginning, `resume(job, step)`
    from an optimizer step. Building whatever they need is part of the call or of the first
    index, so that a clock around both sees it. `prepare(job)` makes the data that would stand
    ready anyway.
    """

    name: str
    mixes: str
    start: Callable[[Job], Iterator[int]]
    resume: Callable[[Job, int], Iterator[int]]
    prepare: Callable[[Job], Any]
    grows: bool
    """Whether memory grows with the number of rows."""


def contenders() -> list[Contender]:
    """Those that can be imported here; safemix first."""
    found = [SAFEMIX, DISTRIBUTED]
    if importlib.util.find_spec("datasets") is not None:
        found.append(INTERLEAVE)
    if importlib.util.find_spec("grain") is not None:
        found.append(GRAIN)
    return found


# ---- safemix -------------------------------------------------------------------------------


def _safemix_prepare(job: Job) -> None:
    from safemix import SafeMixSampler  # noqa: F401  so that the clock sees no import


def _safemix(job: Job) -> Any:
    from safemix import MixturePlan, SafeMixSampler

    plan = MixturePlan(job.sizes, {"safety": job.ratio}, job.global_batch, job.seed)
    return SafeMixSampler(plan, job.micro_batch, job.ranks, job.rank)


def _safemix_start(job: Job) -> Iterator[int]:
    return iter(_safemix(job))


def _safemix_resume(job: Job, step: int) -> Iterator[int]:
    sampler = _safemix(job)
    sampler.set_step(step)
    return iter(sampler)


SAFEMIX = Contender(
    "safemix", "exact", _safemix_start, _safemix_resume, _safemix_prepare, grows=False
)


# ---- torch ---------------------------------------------------------------------------------


def _distributed_prepare(job: Job) -> None:
    from torch.utils.data import DistributedSampler  # noqa: F401


def _distributed_start(job: Job) -> Iterator[int]:
    from torch.utils.data import DistributedSampler

    rows: Any = range(job.rows)
    return iter(
        DistributedSampler(rows, job.ranks, job.rank, seed=job.seed, shuffle=True, drop_last=True)
    )


def _distributed_resume(job: Job, step: int) -> Iterator[int]:
    # It has no position: the order is made again and the rows before the position are skipped.
    done = step * job.global_batch // job.ranks
    return itertools.islice(_distributed_start(job), done, None)


DISTRIBUTED = Contender(
    "torch DistributedSampler",
    "no",
    _distributed_start,
    _distributed_resume,
    _distributed_prepare,
    grows=True,
)


# ---- datasets.interleave_datasets, RandomSampler, accelerate's dealing -----------------------


@lru_cache(maxsize=1)
def _sources(job: Job) -> Any:
    import accelerate.data_loader  # noqa: F401
    import datasets

    datasets.disable_progress_bars()
    return [datasets.Dataset.from_dict({"row": np.arange(n)}) for n in job.sizes.values()]


def _interleaved_batches(job: Job) -> Any:
    import torch
    from accelerate.data_loader import BatchSamplerShard
    from datasets import interleave_datasets
    from torch.utils.data import BatchSampler, RandomSampler

    shares = [1 - job.ratio, job.ratio]
    mixed = interleave_datasets(_sources(job), probabilities=shares, seed=job.seed)
    generator = torch.Generator().manual_seed(job.seed)
    # What a Hugging Face Trainer builds: every rank walks the whole order and keeps its batches.
    batches = BatchSampler(RandomSampler(mixed, generator=generator), job.micro_batch, True)
    return BatchSamplerShard(batches, job.ranks, job.rank)


def _interleave_start(job: Job) -> Iterator[int]:
    return itertools.chain.from_iterable(_interleaved_batches(job))


def _interleave_resume(job: Job, step: int) -> Iterator[int]:
    from accelerate.data_loader import SkipBatchSampler

    micro_steps = job.global_batch // (job.ranks * job.micro_batch)
    skipping = SkipBatchSampler(_interleaved_batches(job), step * micro_steps)
    return itertools.chain.from_iterable(skipping)


INTERLEAVE = Contender(
    "datasets.interleave_datasets + RandomSampler + accelerate",
    "by chance",
    _interleave_start,
    _interleave_resume,
    _sources,
    grows=True,
)


# ---- grain ---------------------------------------------------------------------------------


def _grain_mix(job: Job) -> Any:
    # By name: grain is no dependency of the project.
    map_dataset: Any = importlib.import_module("grain").MapDataset
    ends = np.cumsum([0, *job.sizes.values()]).tolist()
    parts = [
        map_dataset.range(first, stop).shuffle(seed=job.seed + n).repeat()
        for n, (first, stop) in enumerate(itertools.pairwise(ends))
    ]
    return map_dataset.mix(parts, [1 - job.ratio, job.ratio])[job.rank :: job.ranks]


def _grain_from(job: Job, first: int) -> Iterator[int]:
    mixed = _grain_mix(job)
    # Random access is grain's fastest way here: its iterator adds threads made for slow reads.
    return (mixed[index] for index in range(first, job.rows // job.ranks))


def _grain_start(job: Job) -> Iterator[int]:
    return _grain_from(job, 0)


def _grain_resume(job: Job, step: int) -> Iterator[int]:
    return _grain_from(job, step * job.global_batch // job.ranks)


def _grain_prepare(job: Job) -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)  # it misses a profiler that is not needed
    warnings.filterwarnings("ignore", module="grain")
    importlib.import_module("grain")


GRAIN = Contender(
    "grain MapDataset.mix", "in long runs", _grain_start, _grain_resume, _grain_prepare, grows=False
)
