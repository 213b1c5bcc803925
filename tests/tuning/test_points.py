"""From a point to a run's settings, the baseline, and what makes a sweep the same sweep."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from sweeps_for_tests import RUN, sweep

from safemix.errors import SettingsError
from safemix.settings import parse_settings
from safemix.tuning.identity import changed_keys, fingerprint, pinned
from safemix.tuning.points import (
    distinct_points,
    planned_points,
    run_tree,
    settle_point,
    trial_count,
    trial_settings,
    unmixed_settings,
)

SCHEDULE = {"schedule": "cosine", "start": 0.2, "end": 0.05, "steps": 60}


def searching(run: dict[str, Any] | None = None, /, **domains: Any):
    keys = {key.replace("__", "."): {"choice": values} for key, values in domains.items()}
    return sweep(run=run, search=keys, trials=1)


def test_a_point_in_its_run():
    found = searching(
        ratio=[0.1, SCHEDULE],
        mitigation=["base", "paraphrase"],
        mitigation__answer_design=["text", "option"],
        lora__r=[4, 8],
    )
    before = copy.deepcopy(found.to_tree())
    point = {"ratio": 0.1, "mitigation": "paraphrase", "mitigation.answer_design": "option"}
    tree = run_tree(found, point | {"lora.r": 8}, output_dir="runs/s/trials/trial-03")
    assert tree["mitigation"] == {"name": "paraphrase", "answer_design": "option"}
    assert tree["tracking"] == {"group": "sweep", "run_name": "trial-03"}
    settings = parse_settings(tree)
    assert (settings.lora.r, settings.ratio, settings.max_steps) == (8, 0.1, 60)
    assert settings.output_dir == "runs/s/trials/trial-03"
    moving = trial_settings(found, {"ratio": SCHEDULE, "mitigation": "base", "lora.r": 4}, "t")
    assert moving.ratio.model_dump(exclude_none=True) == SCHEDULE
    assert found.to_tree() == before, "nothing of the sweep is changed"


def test_a_key_that_does_nothing_is_left_out_and_said():
    found = searching(
        ratio=[0.1, 0.2],
        mitigation=["paraphrase", "base", "gentle"],
        mitigation__answer_design=["text", "option"],
        lora=[True, False],
        lora__r=[4, 8],
    )
    point = {"ratio": 0.1, "mitigation": "base", "mitigation.answer_design": "text"}
    point |= {"lora": False, "lora.r": 4}
    settled = settle_point(found, point)
    assert settled.values == {"ratio": 0.1, "mitigation": "base", "lora": False}
    assert settled.note == (
        "mitigation.answer_design is left out: mitigation base has no answer_design; "
        "lora.r is left out: lora is false"
    )
    assert settle_point(found, settled.values) == settled, "twice is as once"
    assert trial_settings(found, point, "t") == trial_settings(found, settled.values, "t")
    gentle = settle_point(found, point | {"mitigation": "gentle"})
    assert gentle.left_out["ratio"] == "mitigation gentle trains on no safety rows"
    # paraphrase: 2 ratios x 2 designs x 3 of lora; base: 2 x 3; gentle: 3.
    assert len(distinct_points(found)) == 12 + 6 + 3
    assert trial_count(found) == 1


def test_all_runs_of_a_grid_are_different():
    keys = {"mitigation": ["base", "paraphrase"], "mitigation.answer_design": ["text", "option"]}
    found = sweep(search={key: {"grid": values} for key, values in keys.items()})
    assert trial_count(found) == 3
    assert planned_points(found) == [
        {"mitigation": "base"},
        {"mitigation": "paraphrase", "mitigation.answer_design": "text"},
        {"mitigation": "paraphrase", "mitigation.answer_design": "option"},
    ]


def test_random_trials_are_different_runs_and_more_may_be_added():
    domains = {"mitigation": ["base", "paraphrase"], "mitigation.answer_design": ["text", "option"]}
    lists = {key: {"choice": values} for key, values in domains.items()}
    few = sweep(search=lists, searcher="random", trials=2)
    more = sweep(search=lists, searcher="random", trials=3)
    assert planned_points(more)[:2] == planned_points(few)
    assert sorted(map(repr, planned_points(more))) == sorted(map(repr, distinct_points(more)))
    with pytest.raises(SettingsError, match="only 3 different points"):
        sweep(search=lists, searcher="random", trials=4)
    assert planned_points(sweep()) is None, "Optuna learns as it goes"


def test_a_mitigation_named_alone_keeps_the_runs_options():
    own = {"mitigation": {"name": "paraphrase", "plain_share": 0.25}}
    found = searching(own, mitigation=["base", "paraphrase"])
    assert trial_settings(found, {"mitigation": "paraphrase"}, "t").mitigation.plain_share == 0.25
    assert trial_settings(found, {"mitigation": "base"}, "t").mitigation.name == "base"


def test_mimic_of_the_safety_source_gives_way_to_a_mitigation():
    own = {"safety": {"builtin": "safety", "mimic": {"answer_design": "text"}}}
    found = searching(own, mitigation=["base", "paraphrase"], ratio=[0.1])
    assert trial_settings(found, {"mitigation": "base"}, "t").mitigation.name == "base"
    kept = trial_settings(found, {"mitigation": "paraphrase"}, "t")
    assert kept.mitigation == parse_settings(RUN | own).mitigation
    assert unmixed_settings(found, "u").mitigation.name == "none"


def test_numbers_are_rounded_and_strange_points_refused():
    found = sweep()
    assert trial_settings(found, {"ratio": 0.05234567}, "t").ratio == 0.05235
    with pytest.raises(SettingsError, match=r"'lora\.r' is not searched: the search has ratio"):
        settle_point(found, {"lora.r": 4})
    with pytest.raises(SettingsError, match=r"ratio: 0\.3 is none of 0\.1"):
        settle_point(searching(ratio=[0.1]), {"ratio": 0.3})


def test_changes_to_the_run_and_its_own_group():
    found = sweep(
        run={"tracking": {"group": "mine", "wandb": "offline"}},
        set={"lora.r": 4, "lora": {"alpha": 8}, "max_steps": 30},
    )
    settings = trial_settings(found, {"ratio": 0.1}, "a/trial-00")
    assert (settings.lora.r, settings.lora.alpha, settings.max_steps) == (4, 8, 30)
    tracking = settings.tracking
    assert (tracking.group, tracking.run_name, tracking.wandb) == ("mine", "trial-00", "offline")


def test_the_baseline_differs_in_the_mixing_alone():
    found = sweep(run={"mitigation": "paraphrase", "sources": {"g": {"file": "g", "ratio": 0.1}}})
    unmixed = unmixed_settings(found, "t").model_dump()
    mixed = trial_settings(found, {"ratio": 0.1}, "t").model_dump()
    assert {key for key in mixed if mixed[key] != unmixed[key]} == {"safety", "mitigation", "ratio"}
    assert (unmixed["safety"], unmixed["ratio"]) == (None, 0)
    follows = {"controller": "target", "min_margin": 0.5}
    assert unmixed_settings(searching({"ratio": follows}, lora__r=[4]), "t").ratio == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"trials": 40},
        {"parallel": 3},
        {"workers": 1},
        {"resources": {"cpus_per_worker": 4}},
        {"address": "auto"},
        {"max_restarts": 9},
        {"output_dir": "elsewhere"},
        {"pbt": {"every_steps": 7}},
        {"run": dict(reversed(RUN.items()))},
        {"run": RUN | {"output_dir": "x", "tracking": {"wandb": "disabled"}}},
        {"run": {k: v for k, v in RUN.items() if k != "max_steps"}, "set": {"max_steps": 60}},
    ],
)
def test_what_may_change_when_a_sweep_goes_on(changes):
    run = changes.pop("run", RUN)
    from safemix.tuning.settings import parse_sweep

    tree = {"run": run, "search": sweep().to_tree()["search"], "bound": {"asr": 0.05}}
    assert fingerprint(parse_sweep(tree | changes)) == fingerprint(sweep())


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"run": {"learning_rate": 1e-4}}, ["run.learning_rate"]),
        ({"set": {"max_steps": 50}}, ["run.max_steps"]),
        ({"run": {"evaluation": RUN["evaluation"] | {"eval_prompts": 90}}},
         ["run.evaluation.eval_prompts"]),
        ({"bound": 0.1, "seed": 1}, ["bound.asr", "seed"]),
        ({"searcher": "random"}, ["searcher"]),
        ({"search": {"ratio": {"uniform": [0.01, 0.3]}}},
         ["search.ratio.log_uniform", "search.ratio.uniform"]),
    ],
)  # fmt: skip
def test_another_sweep_is_told_by_its_keys(changes, keys):
    other = sweep(**changes)
    assert fingerprint(other) != fingerprint(sweep())
    assert changed_keys(pinned(sweep()), pinned(other)) == keys
    assert changed_keys(pinned(other), pinned(other)) == []


def test_a_key_that_comes_or_goes_is_named():
    assert changed_keys({"a": {"b": None}}, {"a": {}}) == ["a.b"]
    assert changed_keys({"a": 1}, {"a": True}) == ["a"]
    assert changed_keys({"a": [1, 2]}, {"a": [1, 3]}) == ["a"]
    assert changed_keys({"a": {"b": 1}}, {"a": 1}) == ["a"]
