"""The guard of a plain loop on one process: counts, audit, state, resume."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import DataLoader

from safemix import MixedDataset, MixtureGuard, MixturePlan, SafeMixSampler
from safemix.errors import CheckpointError, HostError, PlanError

SIZES = {"task": 30, "safety": 6}
MICRO = 2


def collate(rows):
    numbers = {key: torch.tensor([row[key] for row in rows]) for key in ("source", "row")}
    return {"input_ids": torch.zeros(len(rows), 3), **numbers}


def parts(ratio=0.25, **guard):
    dataset = MixedDataset({name: [{}] * size for name, size in SIZES.items()})
    sampler = SafeMixSampler(MixturePlan(dataset.sizes, {"safety": ratio}, 8), MICRO)
    loader = DataLoader(dataset, MICRO, sampler=sampler, collate_fn=collate)
    return sampler, loader, MixtureGuard(sampler, **guard)


def train(sampler, loader, guard, *, until, epochs=3, accumulation=4):
    """A plain loop as users write it; returns rows as (step, source, row)."""
    seen = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for index, batch in enumerate(loader):
            origin = guard.take(batch)
            pairs = zip(origin.source.tolist(), origin.row.tolist(), strict=True)
            seen += [(guard.step, *pair) for pair in pairs]
            if (index + 1) % accumulation == 0:
                guard.stepped()
            if guard.step == until:
                return seen
    return seen


def test_take_removes_the_origin_from_the_batch():
    sampler, loader, guard = parts()
    batch = next(iter(loader))
    origin = guard.take(batch)
    assert set(batch) == {"input_ids"}
    grid = sampler.plan.grid(0, 1, MICRO)
    assert origin.source.tolist() == grid.source[0, 0].tolist()
    assert origin.row.tolist() == grid.row[0, 0].tolist()
    with pytest.raises(HostError, match="no 'source' and 'row': use MixedDataset"):
        guard.take(batch)


@pytest.mark.parametrize(
    ("accumulation", "told"),
    [
        (3, r"the loop stepped after 3 micro steps, .*micro batch 2 x 1 ranks x 4 accumulation"),
        (5, r"has taken 5 micro steps so far, .*set gradient accumulation to 4"),
    ],
)
def test_a_wrong_accumulation_count_stops_the_first_step(accumulation, told):
    sampler, loader, guard = parts(check_steps=0)
    with pytest.raises(HostError, match=f"wrong accumulation count: .*{told}"):
        train(sampler, loader, guard, until=9, accumulation=accumulation)
    assert guard.step == 0


def test_only_the_first_steps_are_compared():
    sampler, loader, guard = parts(check_steps=2)
    sampler.set_step(1)
    with pytest.raises(HostError, match="step 0: these are the rows of step 1"):
        train(sampler, loader, guard, until=1)
    sampler, loader, guard = parts(check_steps=1)
    train(sampler, loader, guard, until=2)
    sampler.set_step(4)
    train(sampler, loader, guard, until=3)  # the second step on is believed
    guard.resume(3)
    sampler.set_step(2)
    with pytest.raises(HostError, match="step 3: these are the rows of step 2"):
        train(sampler, loader, guard, until=4)  # and checked again after a resume


def test_a_forgotten_set_epoch_is_found_where_the_second_epoch_begins():
    sampler, loader, guard = parts()
    sampler.set_epoch = lambda epoch: None
    with pytest.raises(HostError, match=r"step 5: .* rows of step 0: .*call sampler.set_epoch"):
        train(sampler, loader, guard, until=None)


def test_the_last_micro_batch_may_be_short_and_is_named():
    _, _, guard = parts()
    for rows in (2, 2, 2, 1):
        guard.take({"source": torch.zeros(rows).long(), "row": torch.arange(rows)})
    with pytest.raises(HostError, match="batches of 1, 2 rows, not of 2"):
        guard.stepped()


def test_the_audit_has_a_line_a_micro_step(tmp_path):
    _, _, guard = parts(audit=tmp_path / "audit" / "rank0.jsonl")
    guard.resume(17)
    for rows in ([(0, 12), (1, 3)], [(0, 1), (0, 2)], [(0, 4), (0, 5)], [(0, 6), (1, 0)]):
        source, row = zip(*rows, strict=True)
        guard.take({"source": torch.tensor(source), "row": torch.tensor(row)})
    guard._checks_left = 0
    guard.stepped()
    lines = (tmp_path / "audit" / "rank0.jsonl").read_text("utf-8").split("\n")
    assert lines[0] == '{"step": 17, "micro_step": 0, "rows": [["task", 12], ["safety", 3]]}'
    assert [json.loads(line)["micro_step"] for line in lines[:-1]] == [0, 1, 2, 3]
    assert lines[-1] == ""


def test_a_resume_cuts_the_audit_and_a_torn_line(tmp_path):
    audit = tmp_path / "rank0.jsonl"
    sampler, loader, guard = parts(audit=audit)
    train(sampler, loader, guard, until=9)
    whole = audit.read_text("utf-8")
    audit.write_text(whole + '{"step": 9, "micro_st', "utf-8")
    sampler, loader, guard = parts(audit=str(audit), state={**guard.state_dict(), "step": 6})
    train(sampler, loader, guard, until=9)
    assert audit.read_text("utf-8") == whole


def test_a_fresh_start_does_not_append_to_an_old_audit(tmp_path):
    for until in (5, 3):
        sampler, loader, guard = parts(audit=tmp_path / "a.jsonl")
        train(sampler, loader, guard, until=until)
    steps = {json.loads(line)["step"] for line in (tmp_path / "a.jsonl").open(encoding="utf-8")}
    assert steps == {0, 1, 2}


@pytest.mark.parametrize("at", [1, 5, 6, 7, 9])  # 5 steps an epoch: its end, its begin, within
def test_a_plain_loop_goes_on_from_its_state_with_nothing_else_changed(at):
    sampler, loader, guard = parts()
    assert sampler.steps_per_epoch == 5
    whole = train(sampler, loader, guard, until=None)
    assert guard.step == 15
    sampler, loader, guard = parts()
    begin = train(sampler, loader, guard, until=at)
    state = json.loads(json.dumps(guard.state_dict()))
    sampler, loader, guard = parts(state=state)
    assert begin + train(sampler, loader, guard, until=None) == whole


def test_a_state_brings_its_plan_and_refuses_other_data():
    sampler, _, guard = parts(ratio=0.25)
    guard.plan.set_ratio("safety", 0.5, from_step=2)
    sampler, _, restored = parts(ratio=0.125, state=guard.state_dict())
    assert restored.plan is sampler.plan
    assert float(restored.plan.ratio("safety", 2)) == 0.5
    state = guard.state_dict()
    state["plan"]["sizes"] = {"task": 31, "safety": 6}
    with pytest.raises(PlanError, match="source task has 30 rows"):
        parts(state=state)
    with pytest.raises(CheckpointError, match="no state of a MixtureGuard: it has model keys"):
        parts(state={"model": 1})


def test_a_sampler_for_more_ranks_than_train_is_refused():
    plan = MixturePlan(SIZES, {"safety": 0.25}, 8)
    with pytest.raises(HostError, match="made for 2 ranks but 1 train"):
        MixtureGuard(SafeMixSampler(plan, MICRO, 2, 0))
