"""What hosts ask of the sampler: loops that resume, ratios set while it runs, Ray."""

from __future__ import annotations

import importlib.util

import pytest
from torch.utils.data import DataLoader

from safemix import MixedDataset, MixturePlan, SafeMixSampler

SIZES = {"task": 60, "safety": 10}


def make(**kwargs):
    plan = MixturePlan(SIZES, {"safety": 0.25}, 8)
    return SafeMixSampler(plan, micro_batch_size=2, num_replicas=2, rank=1, **kwargs)


@pytest.mark.parametrize("step", [0, 3, 10, 13, 20])  # 10 steps an epoch
@pytest.mark.parametrize("view", ["rank", "global"])
def test_epochs_before_the_position_are_empty(step, view):
    sampler = make(view=view)
    assert sampler.steps_per_epoch == 10
    whole = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        whole += list(sampler)
    sampler.set_step(step)
    rest = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        rest.append(list(sampler))
    assert [index for part in rest for index in part] == whole[
        step * (4 if view == "rank" else 8) :
    ]
    assert [bool(part) for part in rest] == [epoch >= step // 10 for epoch in range(3)]


def test_a_second_training_begins_at_the_first_epoch_again():
    sampler = make()
    first = list(sampler)
    sampler.set_step(13)
    sampler.set_epoch(1)
    list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == first


@pytest.mark.parametrize("drawn", [0, 1, 9, 16, 17])
def test_a_ratio_set_while_the_loader_runs_holds_from_the_first_step_not_drawn(drawn):
    sampler, before, after = make(), make(), make()
    iterator = iter(sampler)
    got = [next(iterator) for _ in range(drawn)]
    from_step = sampler.set_ratio("safety", 0.75)
    assert from_step == -(-drawn // 4)
    got += list(iterator)
    after.plan.set_ratio("safety", 0.75, from_step)
    assert got == list(before)[: from_step * 4] + list(after)[from_step * 4 :]
    assert sampler.plan.consumed(10).rows == after.plan.consumed(10).rows


def test_a_ratio_set_between_epochs_and_after_a_resume():
    sampler = make()
    list(sampler)
    assert sampler.set_ratio("safety", 0.5) == 10
    sampler.set_step(14)
    assert sampler.set_ratio("safety", 0.25) == 14
    assert sampler.plan.step(13).counts["safety"] == 4
    assert sampler.plan.step(14).counts["safety"] == 2


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_keeps_the_sampler(monkeypatch):
    from ray.train.torch import train_loop_utils

    class Session:
        def get_world_size(self):
            return 2

        def get_world_rank(self):
            return 1

    monkeypatch.setattr(train_loop_utils, "session", Session())
    dataset = MixedDataset({name: [{}] * size for name, size in SIZES.items()})
    sampler = make()
    loader = DataLoader(dataset, batch_size=2, sampler=sampler, collate_fn=list)
    accelerator = train_loop_utils._TorchAccelerator()
    prepared = accelerator.prepare_data_loader(loader, move_to_device=False)
    assert prepared.sampler is sampler
    rows = [(item["source"], item["row"]) for batch in prepared for item in batch]
    grid = sampler.plan.grid(0, 2, 2)
    first = list(zip(grid.source[:, 1].ravel(), grid.row[:, 1].ravel(), strict=True))
    assert rows[:4] == first
