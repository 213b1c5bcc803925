"""Each culprit is named, from arrays made as the culprit would deal rows."""

from __future__ import annotations

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler

from safemix.hosts.diagnose import first_problem
from safemix.loading.sampler import SafeMixSampler
from safemix.mixture import MixturePlan

SIZES = {"task": 60, "safety": 10}
RANKS, MICRO = 4, 2


def make(view="rank", rank=0, ranks=RANKS):
    return SafeMixSampler(MixturePlan(SIZES, {"safety": 0.25}, 24), MICRO, ranks, rank, view=view)


def everyone_at(step, ranks=RANKS):
    grid = make().plan.grid(step, ranks, MICRO)
    both = np.stack([grid.source.astype(np.int64), grid.row], axis=2)
    return both.transpose(1, 0, 2, 3).copy()


def dealt_by(view, batches=3, length=None, split=False, batch_size=MICRO):
    """int64[ranks, batches, 2, rows]: what accelerate's own class deals each rank."""
    ranks = []
    for rank in range(RANKS):
        indices = list(make(view, rank))[:length]
        inner = BatchSampler(indices, batch_size, drop_last=False)
        shard = BatchSamplerShard(inner, RANKS, rank, split_batches=split, even_batches=True)
        dealt = np.array(list(shard)[:batches])
        ranks.append(np.stack([dealt >= SIZES["task"], dealt % SIZES["task"]], axis=1))
    return np.array(ranks, dtype=np.int64)


def test_what_is_planned_is_no_problem():
    for step in (0, 7):
        assert first_problem(make(), step, everyone_at(step)) is None
    assert first_problem(make(), 0, dealt_by("global")) is None


def test_double_sharding_is_named():
    told = first_problem(make(), 0, dealt_by("rank"))
    assert told.startswith("the rows were dealt to ranks twice")
    assert "view='global'" in told


def test_padding_is_named():
    # accelerate fills up the last round with rows from the beginning
    dealt = dealt_by("global", length=20)
    assert dealt.shape[1] == 3
    assert "rows were trained on more than once" in first_problem(make(), 0, dealt)
    assert "even_batches" in first_problem(make(), 0, dealt)


def test_a_row_that_a_small_source_repeats_is_not_called_padding():
    plan = MixturePlan({"task": 60, "safety": 2}, {"safety": 0.25}, 24)
    sampler = SafeMixSampler(plan, MICRO, RANKS, 0)
    grid = plan.grid(0, RANKS, MICRO)
    pairs = np.stack([grid.source.astype(np.int64), grid.row], axis=2).transpose(1, 0, 2, 3)
    assert first_problem(sampler, 0, pairs) is None
    told = first_problem(sampler, 0, pairs[::-1])
    assert "more than once" not in told
    assert told.startswith("rank 0 micro step 0 trained on")


def test_split_batches_and_other_batch_sizes_are_named():
    split = dealt_by("global", split=True, batch_size=4)
    assert "batches of 1 rows, not of 2: set the loader's batch_size" in first_problem(
        make(), 0, split
    )
    short = everyone_at(0)
    short[3, 2, :, 1] = -1
    assert "batches of 1, 2 rows, not of 2" in first_problem(make(), 0, short)
    # a whole global round a batch, split among ranks, is what the plan wants
    assert first_problem(make(), 0, dealt_by("global", split=True, batch_size=8)) is None


def test_the_same_rows_on_all_ranks_are_named():
    grid = make().plan.grid(0, RANKS, MICRO)
    batches = np.stack([grid.source.astype(np.int64), grid.row], axis=2).reshape(-1, 2, MICRO)
    told = first_problem(make(), 0, np.repeat(batches[None, :3], RANKS, axis=0))
    assert "all ranks trained on the same rows: the sampler gives all ranks' rows" in told
    assert "view='rank'" in told
    same = np.repeat(everyone_at(0)[1:2], RANKS, axis=0)
    assert "the same rows: another sampler than the plan's" in first_problem(make(), 0, same)


def test_a_dispatching_loader_over_rank_view_is_named():
    own = make().plan.rank_rows(0, RANKS, RANKS, 0, MICRO)
    batches = np.stack([own[0].astype(np.int64), own[1]], axis=2).reshape(-1, 2, MICRO)
    dealt = np.stack([batches[rank::RANKS][:3] for rank in range(RANKS)])
    assert "rank 0's rows were dealt to all ranks" in first_problem(make(), 0, dealt)


@pytest.mark.parametrize("other", [0, 4, 14, 16])
def test_the_rows_of_another_step_are_named(other):
    # step 15 is place 3 of an epoch of 4 steps: its start, a neighbour, the first epoch
    told = first_problem(make(), 15, everyone_at(other))
    assert told.startswith(f"these are the rows of step {other}: the position was not restored")


def test_the_wrong_number_of_ranks_is_named():
    told = first_problem(make(), 0, everyone_at(0, ranks=2))
    assert told.startswith("the sampler was made for 4 ranks but 2 train")


def test_anything_else_shows_the_first_difference():
    shuffled = everyone_at(0)
    shuffled[2, 1, :, 0] = [0, 3]
    told = first_problem(make(), 0, shuffled)
    assert told.startswith("rank 2 micro step 1 trained on task:3, ")
    assert "a shuffle" in told
