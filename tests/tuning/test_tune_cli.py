"""`safemix tune` and what cannot be: one line, exit code 2, and nothing left behind."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from sweep_records import sweep as made_up_records
from sweeps_for_tests import SWEEP

from safemix.cli.app import run
from safemix.tuning import tune as module
from safemix.tuning.choose import recommend
from safemix.tuning.settings import SweepSettings, load_sweep
from safemix.tuning.tune import SWEEP as SWEEP_FILE
from safemix.tuning.tune import Done

RATIOS = {"ratio": {"choice": [0.02, 0.05, 0.1]}}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def config(**changes: Any) -> str:
    Path("sweep.yaml").write_text(yaml.safe_dump(SWEEP | changes), "utf-8")
    return "sweep.yaml"


def claimed(folder: str = "runs/sweep", **changes: Any) -> SweepSettings:
    """A folder that holds a sweep, as one that was cut leaves it."""
    settings = load_sweep(config(output_dir=folder, **changes))
    module._claim(settings)
    return settings


def refused(capfd: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line that a mistake is."""
    assert run(["tune", *args]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("safemix: error: ")
    assert err.count("\n") == 1, err
    return err.removeprefix("safemix: error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"searcher": "bayes"}, ["searcher", "'bayes'", "optuna"]),
        ({"scheduler": "hyperband"}, ["scheduler", "'hyperband'", "asha"]),
        ({"search": {"ratio": {"uniform": [0.1, 0.1]}}}, ["the range 0.1 to 0.1 is empty"]),
        ({"search": {"ratio": {"log_uniform": [0.3, 0.01]}}}, ["the ends are inverted"]),
        ({"search": {"ratio": {"choice": []}}}, ["there is no value to choose from"]),
        ({"search": {}}, ["search"]),
        ({"workers": 0}, ["workers"]),
        ({"trails": 4}, ["trails", "trials"]),
        ({"run": "nothing.yaml"}, ["nothing.yaml"]),
    ],
)
def test_a_sweep_that_cannot_be(capfd, changes, words):
    line = refused(capfd, "--config", config(**changes))
    assert line.startswith("sweep.yaml") or "nothing.yaml" in line
    for word in words:
        assert word in line
    assert not Path("runs").exists(), "nothing was begun"


def test_neither_a_file_nor_a_folder(capfd):
    assert refused(capfd) == "give --config FILE, or --resume DIR to go on with a sweep"
    assert "no-such.yaml" in refused(capfd, "--config", "no-such.yaml")
    assert "trials" in refused(capfd, "--config", config(), "--set", "trials=none at all")
    assert "key=value" in refused(capfd, "--config", config(), "--set", "trials")


def test_a_folder_that_holds_a_sweep_is_not_taken_again(capfd):
    claimed()
    before = {path: path.read_bytes() for path in Path("runs/sweep").iterdir()}
    line = refused(capfd, "--config", config(trials=3))
    assert line == (
        "runs/sweep holds a sweep already: go on with it by --resume runs/sweep, or give another "
        "output_dir"
    )
    assert {path: path.read_bytes() for path in Path("runs/sweep").iterdir()} == before


def test_a_folder_in_which_another_process_is_at_work_is_left_alone(capfd):
    claimed()
    with FileLock("runs/sweep/.lock"):
        line = refused(capfd, "--resume", "runs/sweep")
    assert line == ("another `safemix tune` is at work in runs/sweep: let it end, or stop it first")


def test_where_the_file_system_has_no_locks_it_is_said(capfd, monkeypatch, tmp_path):
    def none(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(module.FileLock, "acquire", none)
    with module._alone(tmp_path):
        pass
    assert f"the file system of {tmp_path} has no locks" in capfd.readouterr().err


def test_a_folder_without_a_sweep_is_not_gone_on_with(capfd):
    assert refused(capfd, "--resume", "nowhere").startswith("nowhere holds no sweep to go on with")
    Path("other").mkdir()
    (Path("other") / SWEEP_FILE).write_text("search: {}\n", "utf-8")
    assert refused(capfd, "--resume", "other").startswith("other holds no sweep")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"other": 1}'])
def test_a_folder_whose_sweep_cannot_be_read(capfd, text):
    claimed()
    Path("runs/sweep/sweep.json").write_text(text, "utf-8")
    assert "runs/sweep/sweep.json is damaged" in refused(capfd, "--resume", "runs/sweep")


def test_another_sweep_is_refused_by_the_keys_that_differ(capfd):
    claimed()
    other = config(seed=7, run={**SWEEP["run"], "learning_rate": 1e-3})
    line = refused(capfd, "--config", other, "--resume", "runs/sweep")
    assert line == (
        "runs/sweep holds another sweep: run.learning_rate, seed differ: give the same settings, "
        "or another output_dir"
    )
    one = refused(capfd, "--resume", "runs/sweep", "--set", "bound.asr=0.1")
    assert one.startswith("runs/sweep holds another sweep: bound.asr differs: ")


def test_an_address_where_nobody_answers_is_told_in_seconds_and_takes_no_folder(capfd):
    begun = time.monotonic()
    line = refused(capfd, "--config", config(address="127.0.0.1:1"))
    assert time.monotonic() - begun < 60, "Ray's own import included, on a busy machine"
    assert line.startswith("address '127.0.0.1:1' cannot be reached: ")
    assert not Path("runs").exists(), "the mended command is the same command"


def ended(settings: SweepSettings, *, whole: bool = True, found: bool = True) -> Done:
    records = made_up_records(6)
    if not found:
        records = [replace(record, status="failed", reason="broke") for record in records]
    return Done(recommend(records, {"asr": 0.2}), whole, tuple(records))


@pytest.mark.parametrize(
    ("whole", "found", "code"), [(True, True, 0), (True, False, 3), (False, True, 130)]
)
def test_exit_codes_say_how_it_went(capfd, monkeypatch, whole, found, code):
    asked: list[tuple[SweepSettings, bool]] = []

    def tune(settings: SweepSettings, *, resume: bool = False) -> Done:
        asked.append((settings, resume))
        return ended(settings, whole=whole, found=found)

    monkeypatch.setattr(module, "tune", tune)
    assert run(["tune", "--config", config(), "--set", "trials=5"]) == code
    out = capfd.readouterr().out
    assert "report: runs/sweep/report.html" in out
    assert ("safemix tune --resume runs/sweep" in out) == (not whole)
    assert [(s.trials, resume) for s, resume in asked] == [(5, False)]


def test_going_on_takes_the_settings_of_the_folder_and_more_trials_if_asked(capfd, monkeypatch):
    asked: list[tuple[SweepSettings, bool]] = []

    def tune(settings: SweepSettings, *, resume: bool = False) -> Done:
        asked.append((settings, resume))
        return ended(settings)

    monkeypatch.setattr(module, "tune", tune)
    first = claimed("runs/first", trials=4, seed=9)
    Path("runs/first").rename("moved here")
    assert run(["tune", "--resume", "moved here"]) == 0
    assert run(["tune", "--resume", "moved here", "--set", "trials=6"]) == 0
    capfd.readouterr()
    assert [(s.trials, s.seed, s.output_dir, resume) for s, resume in asked] == [
        (4, 9, "moved here", True),
        (6, 9, "moved here", True),
    ]
    assert asked[0][0].to_tree() == first.to_tree() | {"output_dir": "moved here"}
