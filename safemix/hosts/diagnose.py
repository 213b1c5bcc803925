"""Says why the rows of a step are not the plan's: which part of the host is to blame."""

from __future__ import annotations

from typing import Any

import numpy as np

from safemix.loading.sampler import SafeMixSampler

Rows = np.ndarray[Any, np.dtype[np.int64]]
_EPOCHS_TRIED = 1000


def first_problem(sampler: SafeMixSampler, step: int, everyone: Rows) -> str | None:
    """Compare what all ranks saw in one optimizer step with the plan.

    Args:
        sampler: the sampler in use.
        step: the optimizer step.
        everyone: int64[ranks, micro steps, 2, micro batch]: source and row; -1 for none.

    Returns:
        One line that names the culprit and the mend, or None if all is as planned.
    """
    if sampler.num_replicas != len(everyone):
        return wrong_ranks(sampler, len(everyone))
    expected = _expected(sampler, step)
    if np.array_equal(everyone, expected):
        return None
    if everyone.shape != expected.shape or (everyone < 0).any():
        return _wrong_shape(sampler, everyone)
    return _wrong_rows(sampler, step, everyone, expected)


def wrong_ranks(sampler: SafeMixSampler, ranks: int) -> str:
    """What is wrong with a sampler that was made for another number of ranks."""
    return (
        f"the sampler was made for {sampler.num_replicas} ranks but {ranks} train: "
        "make it after torch.distributed is initialised, or pass num_replicas and rank"
    )


def _wrong_rows(sampler: SafeMixSampler, step: int, everyone: Rows, expected: Rows) -> str:
    """Why as many rows as planned are other rows; the likeliest culprit first."""
    dealt = _dealt_again(sampler, step, everyone)
    if dealt is not None:
        return dealt
    if len(everyone) > 1 and (everyone == everyone[:1]).all():
        cause = (
            "the sampler gives all ranks' rows (view='global') and nobody deals them out: use "
            "view='rank' in this loop"
            if np.array_equal(everyone[0], _global_batches(sampler, step)[: everyone.shape[1]])
            else "another sampler than the plan's gives all of them the same: give the loader the "
            "SafeMixSampler that the guard has"
        )
        return f"all ranks trained on the same rows: {cause}"
    other = _other_step(sampler, step, everyone)
    if other is not None:
        return (
            f"these are the rows of step {other}: the position was not restored, or set_epoch does "
            "not reach the sampler: call sampler.set_epoch(epoch) in every epoch, and after a "
            "resume guard.load_state_dict(state) or guard.resume(step)"
        )
    repeated = _repeated(everyone) - _repeated(expected)
    if repeated > 0:
        return (
            f"{repeated} rows were trained on more than once: a loader pads with repeated rows "
            "(accelerate's even_batches?) or a rank is given another rank's rows"
        )
    return _first_difference(sampler, everyone, expected)


def _wrong_shape(sampler: SafeMixSampler, everyone: Rows) -> str:
    needed = sampler.micro_batch_size
    found = sorted({int(n) for n in (everyone[:, :, 0] >= 0).sum(axis=-1).ravel()})
    return (
        f"batches of {', '.join(map(str, found))} rows, not of {needed}: set the loader's "
        f"batch_size to {needed} with drop_last=True, and accelerate's split_batches to False"
    )


def _expected(sampler: SafeMixSampler, step: int) -> Rows:
    grid = sampler.plan.grid(step, sampler.num_replicas, sampler.micro_batch_size)
    both = np.stack([grid.source.astype(np.int64), grid.row], axis=2)
    return np.ascontiguousarray(both.transpose(1, 0, 2, 3))


def _dealt_again(sampler: SafeMixSampler, step: int, everyone: Rows) -> str | None:
    """Whether one rank's own rows were dealt to ranks once more, and by whom."""
    ranks, micro_steps = everyone.shape[:2]
    if ranks < 2:
        return None
    own = [_own_batches(sampler, step, rank) for rank in range(ranks)]
    places = np.arange(micro_steps) * ranks
    if all(np.array_equal(everyone[r], own[r][places + r]) for r in range(ranks)):
        return (
            "the rows were dealt to ranks twice: the sampler gives this rank's rows and the loader "
            "(accelerate's BatchSamplerShard?) shards them again: use view='global' here, or do "
            "not pass the loader to accelerator.prepare"
        )
    if all(np.array_equal(everyone[r], own[0][places + r]) for r in range(ranks)):
        return (
            "rank 0's rows were dealt to all ranks: the sampler gives this rank's rows and the "
            "loader dispatches those of rank 0 (accelerate's dispatch_batches?): use view='global' "
            "here, or set dispatch_batches to False"
        )
    return None


def _own_batches(sampler: SafeMixSampler, step: int, rank: int) -> Rows:
    """A rank's planned batches from a step on, enough for all ranks' micro steps of one step."""
    ranks, micro_batch = sampler.num_replicas, sampler.micro_batch_size
    source, row = sampler.plan.rank_rows(step, step + ranks, ranks, rank, micro_batch)
    batches = np.stack([source.astype(np.int64), row], axis=2)
    return batches.reshape(-1, 2, micro_batch)


def _global_batches(sampler: SafeMixSampler, step: int) -> Rows:
    """A step's batches in the order of global view: int64[micro steps x ranks, 2, micro batch]."""
    grid = sampler.plan.grid(step, sampler.num_replicas, sampler.micro_batch_size)
    both = np.stack([grid.source.astype(np.int64), grid.row], axis=2)
    return both.reshape(-1, *both.shape[2:])


def _other_step(sampler: SafeMixSampler, step: int, everyone: Rows) -> int | None:
    """The step whose rows these are: the same place or the begin of an epoch, or a neighbour."""
    epoch, place = divmod(step, sampler.steps_per_epoch)
    starts = [e * sampler.steps_per_epoch for e in range(min(epoch, _EPOCHS_TRIED) + 1)]
    for other in [step - 1, step + 1, *starts, *(start + place for start in starts)]:
        if 0 <= other != step and np.array_equal(everyone, _expected(sampler, other)):
            return other
    return None


def _repeated(everyone: Rows) -> int:
    """Rows that stand in a step more than once, counted each time after the first."""
    pairs = everyone.transpose(0, 1, 3, 2).reshape(-1, 2)
    return len(pairs) - len(np.unique(pairs, axis=0))


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
