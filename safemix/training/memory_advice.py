"""The cheapest change of a run that makes it fit into the memory there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from safemix.settings import LoraSettings
from safemix.training.ds_config import offloads, zero_stage
from safemix.training.memory import Job, MemoryEstimate, estimate_job

MOST_GPUS = 4096


@dataclass(frozen=True)
class Advice:
    """Changes, in words, and what the run needs with them."""

    changes: tuple[str, ...]
    job: Job
    estimate: MemoryEstimate


Change = Callable[[Job], Iterator[tuple[str, Job]]]


def fits(needed: MemoryEstimate, gpu_bytes: int, host_bytes: int | None) -> bool:
    """Whether an estimate stays within the memory of a GPU and, if known, of a host."""
    if host_bytes is not None and needed.host_bytes > host_bytes:
        return False
    return needed.gpu_bytes <= gpu_bytes


def cheapest_fit(job: Job, gpu_bytes: int, host_bytes: int | None = None) -> Advice | None:
    """The first change that makes a run fit: each alone, cheapest first, then one on another.

    Args:
        job: a run that does not fit.
        gpu_bytes: memory of one GPU.
        host_bytes: memory of one host; not looked at if None.

    Returns:
        The advice, or None if no tried change is enough.
    """
    for change in CHANGES:
        for words, changed in change(job):
            needed = estimate_job(changed)
            if fits(needed, gpu_bytes, host_bytes):
                return Advice((words,), changed, needed)
    changes: tuple[str, ...] = ()
    for change in CHANGES:
        strongest = None
        for words, changed in change(job):
            needed, strongest = estimate_job(changed), (words, changed)
            if fits(needed, gpu_bytes, host_bytes):
                return Advice((*changes, words), changed, needed)
        if strongest is not None:
            changes, job = (*changes, strongest[0]), strongest[1]
    return None


def _checkpointing(job: Job) -> Iterator[tuple[str, Job]]:
    if not job.gradient_checkpointing:
        yield "gradient_checkpointing: true", replace(job, gradient_checkpointing=True)


def _micro_batch(job: Job) -> Iterator[tuple[str, Job]]:
    size = job.micro_batch_size
    while size > 1:
        size //= 2
        yield f"micro_batch_size: {size}", replace(job, micro_batch_size=size)


def _stage(job: Job) -> Iterator[tuple[str, Job]]:
    highest = 2 if job.lora and job.lora.quantize != "none" else 3
    for stage in range(zero_stage(job.ds_config) + 1, highest + 1):
        changed = _with_zero(job, stage=stage, reduce_bucket_size="auto")
        yield f"ZeRO stage {stage} (ds_config: zero{stage})", changed


def _offload(job: Job) -> Iterator[tuple[str, Job]]:
    stage = zero_stage(job.ds_config)
    cpu = {"device": "cpu", "pin_memory": True}
    parts = [("optimizer", 1), ("param", 3)]
    for part, lowest in parts:
        if stage >= lowest and part not in offloads(job.ds_config):
            job = _with_zero(job, **{f"offload_{part}": cpu})
            yield f"zero_optimization.offload_{part}.device: cpu", job


def _lora(job: Job) -> Iterator[tuple[str, Job]]:
    if job.lora is None:
        yield "lora: true", replace(job, lora=LoraSettings())


def _more_gpus(job: Job) -> Iterator[tuple[str, Job]]:
    gpus = job.gpus
    while gpus * 2 <= MOST_GPUS:
        gpus *= 2
        yield f"{gpus} GPUs", replace(job, gpus=gpus)


CHANGES: tuple[Change, ...] = (_checkpointing, _micro_batch, _stage, _offload, _lora, _more_gpus)


def _with_zero(job: Job, **zero: Any) -> Job:
    config = dict(job.ds_config or {})
    section = {**config.get("zero_optimization", {}), **zero}
    if section.get("stage") == 3:
        for key in ("stage3_prefetch_bucket_size", "stage3_param_persistence_threshold"):
            section.setdefault(key, "auto")
    return replace(job, ds_config={**config, "zero_optimization": section})
