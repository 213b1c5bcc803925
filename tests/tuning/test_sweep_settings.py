"""Sweep files: what they hold by default, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps_for_tests import RUN, SWEEP, sweep

from safemix.errors import SettingsError
from safemix.tuning.points import planned_points, trial_count, trial_settings
from safemix.tuning.settings import load_sweep
from safemix.tuning.space import Range, Values


def write(folder: Path, tree: dict[str, Any], run: dict[str, Any] | None = None) -> Path:
    if run is not None:
        (folder / "run.yaml").write_text(yaml.safe_dump(run), "utf-8")
        tree = tree | {"run": "run.yaml"}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(tree), "utf-8")
    return path


def search(**domains: Any) -> dict[str, Any]:
    return {"search": {key.replace("__", "."): domain for key, domain in domains.items()}}


def test_defaults():
    found = sweep()
    assert (found.searcher, found.trials, found.scheduler) == ("bisect", 8, "none")
    assert (found.workers, found.parallel, found.address, found.max_restarts) == (
        2,
        "auto",
        None,
        2,
    )
    assert found.bounds == {"asr": 0.05}
    assert found.space == {"ratio": Range(0.01, 0.3, log=True)}
    assert sweep(bound=0.1).bounds == {"asr": 0.1}
    assert sweep(trials=None, searcher="random").trials == 16


@pytest.mark.parametrize(
    ("changes", "searcher"),
    [
        ({}, "bisect"),
        ({"bound": 0.1}, "bisect"),
        ({"trials": 5}, "bisect"),
        ({"search": {"ratio": {"uniform": [0, 0.3]}}}, "bisect"),
        ({"bound": {"asr": 0.1, "over_refusal": 0.1}}, "optuna"),
        ({"scheduler": "asha"}, "optuna"),
        ({"scheduler": "pbt"}, "optuna"),
        ({"search": {"ratio": {"choice": [0.1, 0.2]}}, "trials": 2}, "optuna"),
        ({"search": SWEEP["search"] | {"learning_rate": {"uniform": [1e-4, 1e-3]}}}, "optuna"),
        ({"search": {"ratio": {"grid": [0.1, 0.2]}}}, "grid"),
    ],
)
def test_the_searcher_suits_the_search(changes, searcher):
    assert sweep(**changes).searcher == searcher


def test_a_grid_makes_its_own_searcher_and_number():
    lists = {"ratio": {"grid": [0.01, 0.05, 0.1]}, "mitigation": {"choice": ["base", "paraphrase"]}}
    found = sweep(search=lists)
    assert (found.searcher, found.trials, trial_count(found)) == ("grid", None, 6)
    assert len(planned_points(found)) == 6


def test_numbers_that_must_be_whole_are_found_out():
    domains = search(
        lora__r={"log_uniform": [4, 64]},
        weight_decay={"uniform": [0, 1]},
        max_length={"uniform": ["1e2", 512.0]},
        ratio={"uniform": [0, 0.3]},
        learning_rate={"choice": ["1e-4", 2.0e-4]},
    )
    space = sweep(**domains).space
    assert space["lora.r"] == Range(4, 64, log=True, whole=True)
    assert space["weight_decay"] == Range(0, 1)
    assert space["max_length"] == Range(100, 512, whole=True)
    assert space["ratio"] == Range(0, 0.3)
    assert space["learning_rate"] == Values((1e-4, 2e-4)), "YAML 1.1 reads 1e-4 as text"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # domains
        (search(ratio={"log_uniform": [0, 0.3]}), "log_uniform needs ends above 0 (given 0)"),
        (search(ratio={"log_uniform": [0.3, 0.01]}), "the ends are inverted: write the smaller"),
        (search(ratio={"uniform": [0.3, 0.3]}), "the range 0.3 to 0.3 is empty"),
        (search(ratio={"uniform": [0.3]}), "search.ratio.uniform = [0.3]: expected two numbers"),
        (search(ratio={"uniform": [0.1, "many"]}), "search.ratio.uniform.1 = 'many': expected a n"),
        (search(ratio={"uniform": [False, 0.1]}), "expected two numbers, not true or false"),
        (search(ratio={"choice": 0.1}), "search.ratio.choice = 0.1: expected a list of values"),
        (search(ratio={"choice": [float("nan")]}), "expected finite numbers"),
        (search(ratio={"choice": []}), "there is no value to choose from"),
        (search(ratio={"choice": [0.1, 0.2, 0.1]}), "0.1 is given twice"),
        (search(ratio={"loguniform": [0.1, 0.2]}), "did you mean 'log_uniform'?"),
        (search(ratio={"grid": [0.1], "choice": [0.1]}), "exactly one of log_uniform, uniform, "),
        (search(ratio={}), "give exactly one of log_uniform, uniform, grid, choice (given: none)"),
        (search(ratio=0.1), "search.ratio = 0.1: no domain: give {log_uniform: [low, high]}"),
        (search(lora={"r": {"choice": [8]}}), "write keys of the run with dots, such as KEY.r"),
        (search(), "search = {}:"),
        # what the run does not have or does not allow
        (
            search(learnin_rate={"choice": [1]}),
            "unknown key 'learnin_rate', did you mean 'learning",
        ),
        (search(ratio={"uniform": [0.1, 1.5]}), "search (ratio=1.5): ratio 1.5 is outside [0, 1)"),
        (search(ratio={"choice": [0.1, "much"]}), "'much' is no number"),
        (search(lora__r={"uniform": [0, 8]}), "search (lora.r=0): lora.r = 0: input should be gr"),
        (search(lora__r={"uniform": [0.5, 8]}), "search (lora.r=0.5): lora.r = 0.5: expected a wh"),
        (search(mitigation={"choice": ["base", "parafrase"]}), "did you mean 'paraphrase'?"),
        (search(mitigation__answer_desing={"choice": ["text"]}), "mitigation.answer_desing"),
        (search(seed={"choice": [0, 1]}), "search.seed: trials are compared on the same prompts"),
        (search(evaluation__prompts={"choice": [1]}), "search.evaluation.prompts: trials are comp"),
        (
            search(micro_batch_size={"choice": [2, 3]}),
            "not divisible by micro_batch_size 3 x 2 pro",
        ),
        (search(mitigation__answer_design={"choice": ["text"]}), "does nothing in any trial: miti"),
        ({"set": {"learnin_rate": 1}}, "run: unknown key 'learnin_rate', did you mean 'learning_r"),
        ({"set": {"output_dir": "x"}}, "set.output_dir: the sweep has a key output_dir"),
        # searchers, schedulers and numbers
        (
            {"searcher": "optun"},
            "searcher = 'optun': input should be 'optuna', 'random', 'grid' or 'bisect'",
        ),
        ({"scheduler": "hyperband"}, "scheduler = 'hyperband': input should be 'none', 'asha'"),
        ({"searcher": "grid"}, "search.ratio is log_uniform, of which there is no end"),
        (
            {"searcher": "grid"}
            | search(lora__r={"grid": [*range(1, 70)]}, lora__alpha={"grid": [*range(1, 70)]}),
            "a grid of 4761 points is too large, 4096 are the most",
        ),
        ({"trials": 4} | search(ratio={"grid": [0.1, 0.2]}), "a grid tries each of its 2 points"),
        ({"searcher": "random"} | search(ratio={"grid": [0.1]}), "searcher random picks values"),
        ({"trials": 3} | search(ratio={"choice": [0.1, 0.2]}), "only 2 different points: set tria"),
        ({"trials": 0}, "trials = 0: input should be greater than or equal to 1"),
        ({"trials": 2.5}, "trials = 2.5: expected a whole number"),
        ({"workers": 0}, "workers = 0: input should be greater than or equal to 1"),
        ({"parallel": 0}, "parallel = 0: expected a number of trials, 1 or more, or auto"),
        (
            {"scheduler": "pbt", "searcher": "grid"} | search(ratio={"grid": [0.1]}),
            "leaves no grid",
        ),
        ({"scheduler": "pbt"} | search(learning_rate={"uniform": [0.1, 0.2]}), "search ratio with"),
        (
            {"scheduler": "pbt", "run": RUN | {"mitigation": "paraphrase"}},
            "look-alikes that go by the safety rows could not follow it",
        ),
        ({"scheduler": "pbt", "searcher": "bisect"}, "nothing is known to halve a range by"),
        (
            {"searcher": "bisect", "bound": {"asr": 0.1, "over_refusal": 0.1}},
            "bound.over_refusal is given too",
        ),
        (
            {"searcher": "bisect"} | search(learning_rate={"uniform": [0.1, 0.2]}),
            "the smallest safe ratio, but learning_rate is searched otherwise",
        ),
        (
            {"searcher": "bisect"} | search(ratio={"choice": [0.1, 0.2]}),
            "but ratio is searched otherwise",
        ),
        ({"scheduler": "pbt", "pbt": {"factors": [1.0]}}, "the ratio has to change"),
        ({"asha": {"grace": 1}}, "unknown key 'asha.grace', did you mean 'grace_steps'?"),
        (
            {"scheduler": "asha", "asha": {"grace_steps": 5}},
            "before the first reading of the probe",
        ),
        ({"scheduler": "asha", "asha": {"grace_steps": 60}}, "not below the run's max_steps 60"),
        # bounds and what they need
        ({"bound": {}}, "bound.asr is missing"),
        ({"bound": {"asr": 0}}, "bound.asr = 0: input should be greater than 0"),
        ({"bound": {"asr": 0.05, "safety": 1}}, "unknown key 'bound.safety'; legal are asr, over_"),
        ({"bound": {"asr": 0.04}}, "even with no success among 60 prompts the 95 % limit is above"),
        ({"bound": {"asr": 0.5, "over_refusal": 0.01}}, "bound.over_refusal 0.01 cannot be shown"),
        # the rest
        ({"serch": {}}, "unknown key 'serch', did you mean 'search'?"),
        ({"learning_rate": 1}, "learning_rate is a key of the run: write it under set or search"),
        ({"grace_steps": 1}, "unknown key 'grace_steps': grace_steps is a key of asha"),
        ({"pbt": {"workers": 1}}, "unknown key 'pbt.workers': workers is a key of the top level"),
        ({"run": 5}, "run = 5: expected a run file or the keys of a run"),
        ({"run": {}}, "run: task is missing"),
        ({"address": "my host"}, "expected auto, HOST:PORT or ray://HOST:PORT"),
        ({"name": "../up"}, "name = '../up': expected up to 64 letters"),
        ({"resources": {"gpus_per_worker": 0.5}}, "workers of one trial cannot share a GPU"),
    ],
)
def test_what_is_refused(changes, words, tmp_path):
    with pytest.raises(SettingsError) as caught:
        load_sweep(write(tmp_path, SWEEP | changes))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'sweep.yaml'}: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("evaluation", "changes", "words"),
    [
        ({"eval_every": 0, "task": None}, {}, "so no trial would have an ASR: set it to a number"),
        ({"task": None}, {}, "so no trial would have a utility: give held-out rows"),
        ({"eval_prompts": 20}, {}, "eval_prompts 20: even with no success among 20 prompts"),
        ({"probe_every": 0}, {"scheduler": "asha"}, "scheduler asha goes by the probe, but eval"),
        ({"probe_every": "auto"}, {"scheduler": "pbt", "pbt": {"every_steps": 20}}, "(auto)"),
    ],
)
def test_a_run_without_what_the_sweep_needs(evaluation, changes, words):
    with pytest.raises(SettingsError) as caught:
        sweep(run={"evaluation": RUN["evaluation"] | evaluation}, **changes)
    assert words in str(caught.value)


def test_population_based_training_has_the_ratio_alone():
    lively = {"scheduler": "pbt", "pbt": {"every_steps": 20}}
    assert sweep(**lively).pbt.quantile == 0.25
    both = search(ratio={"uniform": [0.1, 0.2]}, learning_rate={"uniform": [1e-4, 1e-3]})
    with pytest.raises(SettingsError, match="could not keep its own learning_rate"):
        sweep(**lively, **both)
    with pytest.raises(SettingsError, match="it does nothing in any trial: mitigation gentle trai"):
        sweep(run={"mitigation": "gentle"}, **lively)


def test_the_run_file_is_found_beside_the_sweep(tmp_path, monkeypatch):
    path = write(tmp_path, SWEEP, RUN)
    monkeypatch.chdir("/")
    found = load_sweep(path)
    assert found.run == RUN
    (tmp_path / "run.yaml").unlink()
    with pytest.raises(SettingsError, match=r"run\.yaml: no such settings file"):
        load_sweep(path)
    (tmp_path / "sweep.yaml").write_text("bound: 0.1\nsearch: {ratio: {choice: [0.1]}}\n")
    with pytest.raises(SettingsError, match=r"sweep\.yaml: run is missing"):
        load_sweep(path)


def test_overrides(tmp_path):
    path = write(tmp_path, SWEEP, RUN)
    found = load_sweep(
        path,
        [
            "trials=4",
            "bound.asr=0.2",
            "set.lora.r=4",
            "run.max_steps=30",
            "search.learning_rate={choice: [1.0e-4, 2.0e-4]}",
            "search.ratio.uniform=[0.1, 0.2]",
            "searcher=random",
        ],
    )
    assert (found.trials, found.bounds, found.searcher) == (4, {"asr": 0.2}, "random")
    assert found.set == {"lora.r": 4, "max_steps": 30}
    assert found.space["ratio"] == Range(0.1, 0.2)
    settings = trial_settings(found, {"ratio": 0.1, "learning_rate": 2e-4}, "t")
    assert (settings.max_steps, settings.lora.r, settings.learning_rate) == (30, 4, 2e-4)
    with pytest.raises(SettingsError, match="'trials' is not of the form key=value"):
        load_sweep(path, ["trials"])


def test_a_saved_sweep_reads_back_the_same(tmp_path):
    found = sweep(
        **search(
            ratio={"choice": [0.1, {"schedule": "linear", "start": 0.2, "end": 0.1, "steps": 9}]},
            lora__r={"uniform": [4, 64]},
        ),
        set={"learning_rate": 1e-4},
        trials=5,
    )
    found.save(tmp_path / "deep" / "sweep.yaml")
    again = load_sweep(tmp_path / "deep" / "sweep.yaml")
    assert again == found
    assert again.space["lora.r"].whole
