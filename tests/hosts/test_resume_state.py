"""What a checkpoint's plan becomes under the same settings, and under other ratios."""

from __future__ import annotations

import json

import pytest

from safemix import MixtureGuard, MixturePlan, SafeMixSampler
from safemix.errors import CheckpointError, PlanError
from safemix.hosts.resume import restored_plan, write_json, write_state

SIZES = {"task": 100, "safety": 20, "general": 30}


def make(safety=0.1, general=0.2, **kwargs):
    return MixturePlan(SIZES, {"safety": safety, "general": general}, 40, **kwargs)


def asked(plan):
    return plan.state_dict()["history"]


def saved_at(tmp_path, step, plan, asked_before=None):
    guard = MixtureGuard(SafeMixSampler(plan, 4))
    guard.resume(step)
    path = tmp_path / "safemix.json"
    write_state(path, guard, asked_before or asked(plan), world_size=2)
    return json.loads(path.read_text("utf-8"))


def counts(plan, steps=80):
    return [plan.step(step).counts for step in range(steps)]


def test_unchanged_settings_give_the_same_plan(tmp_path):
    plan = make()
    saved = saved_at(tmp_path, 40, plan)
    assert saved["step"] == 40
    assert saved["world_size"] == 2
    restored = restored_plan(saved, make(), asked(make()))
    assert restored.state_dict() == plan.state_dict()


def test_a_ratio_set_during_the_run_stays_where_nobody_asks_anew(tmp_path):
    plan = make()
    before = asked(plan)
    plan.set_ratio("safety", 0.3, 20)
    plan.set_ratio("safety", 0.05, 55)
    restored = restored_plan(saved_at(tmp_path, 40, plan, before), make(), asked(make()))
    assert restored.state_dict() == plan.state_dict()


def test_another_ratio_holds_from_the_step_of_the_resume(tmp_path):
    plan = make(safety=0.1)
    restored = restored_plan(saved_at(tmp_path, 40, plan), make(0.25), asked(make(0.25)))
    assert counts(restored)[:40] == counts(plan)[:40]
    assert [c["safety"] for c in counts(restored)[40:]] == [10] * 40
    assert [c["general"] for c in counts(restored)] == [8] * 80
    # asked for again: nothing changes a second time
    again = restored_plan(
        saved_at(tmp_path, 60, restored, asked(make(0.25))), make(0.25), asked(make(0.25))
    )
    assert again.state_dict() == restored.state_dict()


def test_another_ratio_takes_the_place_of_later_changes_of_its_source_only(tmp_path):
    plan = make()
    before = asked(plan)
    plan.set_ratio("safety", 0.3, 50)
    plan.set_ratio("general", 0.4, 60)
    restored = restored_plan(saved_at(tmp_path, 40, plan, before), make(0.2), asked(make(0.2)))
    got = counts(restored)
    assert [c["safety"] for c in got] == [4] * 40 + [8] * 40
    assert [c["general"] for c in got] == [8] * 60 + [16] * 20


def test_changes_that_are_asked_for_later_come_in_their_time(tmp_path):
    now = make()
    now.set_ratio("safety", 0.2, 30)
    now.set_ratio("safety", 0.4, 60)
    restored = restored_plan(saved_at(tmp_path, 40, make()), now, asked(now))
    assert [c["safety"] for c in counts(restored)] == [4] * 40 + [8] * 20 + [16] * 20


def test_other_data_is_refused_by_name(tmp_path):
    saved = saved_at(tmp_path, 40, make())
    with pytest.raises(PlanError, match="seed is 1 but the checkpoint has 0"):
        restored_plan(saved, make(seed=1), asked(make()))


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: {},
        lambda s: [],
        lambda s: {**s, "step": "soon"},
        lambda s: {**s, "asked": None},
        lambda s: {**s, "asked": [{"ratios": 3}]},
        lambda s: {**s, "plan": {**s["plan"], "history": []}},
        lambda s: {**s, "plan": {**s["plan"], "history": [{"from_step": 0}]}},
        lambda s: {**s, "plan": 7},
    ],
)
def test_a_damaged_state_is_refused(tmp_path, damage):
    saved = damage(saved_at(tmp_path, 40, make()))
    with pytest.raises(CheckpointError, match="plan state is damaged: use an older one"):
        restored_plan(saved, make(), asked(make()))


def test_an_edited_state_is_refused(tmp_path):
    saved = saved_at(tmp_path, 40, make())
    saved["plan"]["fingerprint"] = "0" * 16
    with pytest.raises(PlanError, match="does not match its own fingerprint"):
        restored_plan(saved, make(), asked(make()))


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "state.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text("utf-8")) == {"a": 1}
