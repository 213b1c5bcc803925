"""Says why the rows of a step are not the plan's: which part of the host is to blame."""

from __future__ import annotations

from typing import Any

import numpy as np

from safemix.loading.sampler import SafeMixSampler

Rows = np.ndarray[Any, np.dtype[np.int64]]


def first_problem(  # noqa: PLR0911 - one return a culprit
    sampler: SafeMixSampler, step: int, everyone: Rows, num_replicas: int
) -> str | None:
    """Compare what all ranks saw in one optimizer step with the plan.

    Args:
        sampler: the sampler in use.
        step: the optimizer step.
        everyone: int64[ranks, micro steps, 2, micro batch]: source and row; -1 for none.
        num_replicas: ranks that train.

    Returns:
        One line that names the culprit and the mend, or None if all is as planned.
    """
    if sampler.num_replicas != num_replicas:
        return (
            f"the sampler was made for {sampler.num_replicas} ranks but {num_replicas} train: "
            "make it after torch.distributed is initialised, or pass num_replicas and rank"
        )
    expected = _expected(sampler, step)
    if everyone.shape == expected.shape and (everyone == expected).all():
        return None
    if (everyone < 0).any() or everyone.shape != expected.shape:
        return (
            f"a rank had a short batch: expected {sampler.micro_batch_size} rows a micro step; "
            f"set the loader's batch_size to {sampler.micro_batch_size} and drop_last=True"
        )
    if _is_sharded_twice(sampler, step, everyone):
        return (
            "the rows were dealt to ranks twice: the sampler gives this rank's rows and the loader "
            "(accelerate's BatchSamplerShard?) shards them again: use view='global' here, or do "
            "not pass the loader to accelerator.prepare"
        )
    if num_replicas > 1 and (everyone == everyone[:1]).all():
        return (
            "all ranks trained on the same rows: the sampler gives all ranks' rows "
            "(view='global') and nobody deals them out: use view='rank' in this loop"
        )
    pairs = everyone.transpose(0, 1, 3, 2).reshape(-1, 2)
    repeated = len(pairs) - len(np.unique(pairs, axis=0))
    passes = sampler.plan.step(step)
    planned = len(passes.row) - len(
        np.unique(np.stack([passes.source.astype(np.int64), passes.row]), axis=1).T
    )
    if repeated > planned:
        return (
            f"{repeated} rows were trained on more than once: a loader pads with repeated rows "
            "(accelerate's even_batches?) or a rank is given another rank's rows"
        )
    return _first_difference(sampler, everyone, expected)


def _expected(sampler: SafeMixSampler, step: int) -> Rows:
    grid = sampler.plan.grid(step, sampler.num_replicas, sampler.micro_batch_size)
    both = np.stack([grid.source.astype(np.int64), grid.row], axis=2)
    return np.ascontiguousarray(both.transpose(1, 0, 2, 3))


def _is_sharded_twice(sampler: SafeMixSampler, step: int, everyone: Rows) -> bool:
    """Whether rank r trained on batches r, r + W, ... of its own rows."""
    ranks, micro_steps = everyone.shape[:2]
    if ranks < 2:
        return False
    for rank in range(ranks):
        source, row = sampler.plan.rank_rows(
            step, step + ranks, ranks, rank, sampler.micro_batch_size
        )
        batches = np.stack([source.astype(np.int64), row], axis=2)
        own = batches.reshape(-1, 2, sampler.micro_batch_size)[rank::ranks][:micro_steps]
        if not (everyone[rank] == own).all():
            return False
    return True


def _first_difference(sampler: SafeMixSampler, everyone: Rows, expected: Rows) -> str:
    rank, micro_step = (int(n) for n in np.argwhere((everyone != expected).any(axis=(2, 3)))[0])
    names = sampler.plan.sources

    def told(rows: Rows) -> str:
        pairs = [f"{names[s]}:{r}" for s, r in zip(rows[0], rows[1], strict=True)][:4]
        return ", ".join(pairs) + (", ..." if rows.shape[1] > 4 else "")

    return (
        f"rank {rank} micro step {micro_step} trained on {told(everyone[rank, micro_step])} but "
        f"the plan has {told(expected[rank, micro_step])}: another sampler, a shuffle, a "
        "dispatching loader, or a position that was not restored"
    )
