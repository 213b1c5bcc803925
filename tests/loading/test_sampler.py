"""The sampler follows the plan in both views, from any step."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, DistributedSampler

from safemix.errors import PlanError
from safemix.loading.dataset import MixedDataset
from safemix.loading.sampler import SafeMixSampler
from safemix.mixture import MixturePlan

SIZES = {"task": 150, "safety": 20}


def make(ranks=4, micro=2, batch=24, **kwargs):
    plan = MixturePlan(SIZES, {"safety": 0.2}, batch)
    return [SafeMixSampler(plan, micro, ranks, r, **kwargs) for r in range(ranks)]


def expected(plan, step, ranks, micro, rank):
    grid = plan.grid(step, ranks, micro)
    return (np.array([0, 150])[grid.source[:, rank]] + grid.row[:, rank]).ravel().tolist()


def test_rank_view_gives_each_rank_its_part_of_the_plan():
    for sampler in make():
        assert isinstance(sampler, DistributedSampler)
        indices = list(sampler)
        assert len(indices) == len(sampler) == sampler.steps_per_epoch * 6
        for step in range(sampler.steps_per_epoch):
            own = indices[step * 6 : step * 6 + 6]
            assert own == expected(sampler.plan, step, 4, 2, sampler.rank)


def test_accelerate_deals_the_global_view_as_planned():
    whole = make(view="global")
    for rank in range(4):
        sampler = SafeMixSampler(whole[0].plan, 2, 4, rank, view="global")
        shard = BatchSamplerShard(BatchSampler(sampler, 2, drop_last=True), 4, rank)
        dealt = [index for batch in shard for index in batch]
        assert len(dealt) == sampler.steps_per_epoch * 6
        for step in range(sampler.steps_per_epoch):
            own = dealt[step * 6 : step * 6 + 6]
            assert own == expected(sampler.plan, step, 4, 2, rank)


def test_set_step_goes_on_inside_the_epoch_and_survives_set_epoch():
    sampler = make()[1]
    spe = sampler.steps_per_epoch
    sampler.set_epoch(2)
    whole = list(sampler)
    sampler.set_step(2 * spe + 3)
    assert list(sampler) == whole[18:]
    sampler.set_step(2 * spe + 3)
    sampler.set_epoch(2)  # what a training loop does after a resume
    assert list(sampler) == whole[18:]
    sampler.set_epoch(2)
    assert list(sampler) == whole
    sampler.set_step(2 * spe + 3)
    sampler.set_epoch(3)
    assert list(sampler) != whole
    assert sampler.step == 3 * spe


def test_epochs_continue_the_passes():
    sampler = make(ranks=1, micro=24)[0]
    seen = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        seen += list(sampler)
    steps = 3 * sampler.steps_per_epoch
    assert len(seen) == steps * 24
    times = np.bincount(seen, minlength=170)
    assert times[:150].min() >= 2
    assert times[:150].max() - times[:150].min() <= 1
    assert times[150:].max() - times[150:].min() <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_loader_gives_tagged_rows(workers):
    sampler = make(ranks=2, micro=4)[1]
    sources = {"task": [{"id": i} for i in range(150)], "safety": [{"id": i} for i in range(20)]}
    data = MixedDataset(sources)
    loader = DataLoader(data, batch_size=4, sampler=sampler, collate_fn=list, num_workers=workers)
    batches = list(loader)
    assert all(len(batch) == 4 for batch in batches)
    for micro_step, batch in enumerate(batches):
        grid = sampler.plan.grid(micro_step // 3, 2, 4)
        assert [b["source"] for b in batch] == grid.source[micro_step % 3, 1].tolist()
        assert [b["row"] for b in batch] == grid.row[micro_step % 3, 1].tolist()
        assert [b["id"] for b in batch] == [b["row"] for b in batch]


def test_indices_fit_torchs_own_concatenation():
    sampler = make(ranks=1, micro=24)[0]
    joined = ConcatDataset([[("task", i) for i in range(150)], [("safety", i) for i in range(20)]])
    step = sampler.plan.grid(0, 1, 24)
    got = [joined[i] for i in list(sampler)[:24]]
    pairs = zip(step.source[0, 0], step.row[0, 0], strict=True)
    assert got == [(sampler.plan.sources[s], r) for s, r in pairs]


def test_state_restores_plan_and_position():
    first, second = make()[0], make()[0]
    first.plan.set_ratio("safety", 0.5, 4)
    first.set_step(5)
    second.load_state_dict(first.state_dict())
    assert list(second) == list(first)
    other = SafeMixSampler(MixturePlan({"task": 151, "safety": 20}, {"safety": 0.2}, 24), 2, 4, 0)
    with pytest.raises(PlanError, match="source task has 151 rows"):
        other.load_state_dict(first.state_dict())


def test_it_can_be_sent_to_a_worker_and_has_no_generator():
    sampler = pickle.loads(pickle.dumps(make()[2]))
    assert list(sampler)[:6] == expected(sampler.plan, 0, 4, 2, 2)
    # accelerate adopts, seeds and broadcasts an attribute of this name.
    assert not hasattr(sampler, "generator")


def test_mistakes_are_named():
    plan = MixturePlan(SIZES, {"safety": 0.2}, 24)
    with pytest.raises(PlanError, match="24 is not divisible by 5 ranks x micro batch 2 = 10"):
        SafeMixSampler(plan, 2, 5, 0)
    with pytest.raises(PlanError, match="view 'both' is not legal"):
        SafeMixSampler(plan, 2, 2, 0, view="both")
    with pytest.raises(ValueError, match="rank"):
        SafeMixSampler(plan, 2, 2, 2)
    with pytest.raises(PlanError, match="below 0"):
        make()[0].set_step(-1)


def test_the_joined_dataset_ends():
    data = MixedDataset({"task": [{"a": 1}, {"a": 2}], "safety": []})
    assert len(list(data)) == 2  # a host that walks it must come to an end
    assert data[1] == {"a": 2, "source": 0, "row": 1}
    assert data.sizes == {"task": 2, "safety": 0}
    for index in (2, -1):
        with pytest.raises(IndexError):
            data[index]
