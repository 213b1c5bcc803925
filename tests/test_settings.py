"""The settings: short forms, overrides, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from safemix.errors import SettingsError
from safemix.settings import Settings, accumulation_steps, load_settings, parse_settings

BASE: dict[str, Any] = {"task": "builtin:task", "safety": "builtin:safety", "max_steps": 1}


def parse(**changes: Any) -> Settings:
    return parse_settings(BASE | changes, "run.yaml")


def write(folder: Path, tree: dict[str, Any]) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree), "utf-8")
    return path


def test_short_forms_of_a_source() -> None:
    settings = parse(safety="rows/safety.jsonl", sources={"more": {"hub": "a/b", "ratio": "1/20"}})
    assert settings.task.builtin == "task"
    assert settings.safety is not None
    assert settings.safety.file == "rows/safety.jsonl"
    assert parse(task="org/name").task.hub == "org/name"


def test_forms_of_lora_and_ratio() -> None:
    assert parse(lora=False).lora is False
    assert parse(lora=True).lora == parse().lora
    assert parse(ratio="1/3").ratio == "1/3"
    schedule = parse(ratio={"schedule": "linear", "start": 0.1, "end": "1/2", "steps": 9}).ratio
    assert schedule.model_dump(exclude_none=True) == {
        "schedule": "linear",
        "start": 0.1,
        "end": "1/2",
        "steps": 9,
    }
    assert parse(safety=None, ratio=0).safety is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ratio": 1.0}, "ratio 1.0 is outside [0, 1)"),
        ({"ratio": -0.1}, "ratio -0.1 is outside [0, 1)"),
        ({"ratio": "abc"}, "ratio 'abc' is no number and no fraction such as 1/20"),
        ({"ratio": "1/0"}, "ratio '1/0' is no number"),
        ({"ratio": [0.1]}, "ratio = [0.1]: expected a number"),
        ({"ratio": float("nan")}, "ratio = nan: expected a finite number"),
        ({"ratio": {"schedule": "linear"}}, "a linear schedule also needs start, end, steps"),
        ({"ratio": {"schedule": "steps"}}, "ratio.schedule = 'steps': input should be 'constant'"),
        ({"ratio": {"start": 0.1}}, "give schedule (constant, linear,"),
        ({"ratio": {"schedule": "piecewise", "points": {0: 2}}}, "ratio 2.0 is outside [0, 1)"),
        ({"learning_rat": 1}, "unknown key 'learning_rat', did you mean 'learning_rate'?"),
        ({"lora": {"rank": 1}}, "unknown key 'lora.rank'"),
        ({"lora": {"r": 0}}, "lora.r = 0: input should be greater than or equal to 1"),
        ({"lora": 5}, "lora = 5: expected a mapping of keys"),
        ({"task": {}}, "give exactly one of file, hub, builtin (given: none)"),
        ({"task": {"file": "a", "hub": "b"}}, "(given: ['file', 'hub'])"),
        ({"task": "builtin:tasks"}, "task.builtin = 'tasks'"),
        ({"sources": {"g": "a.jsonl"}}, "sources.g: a further source needs a ratio"),
        ({"sources": {"g": {"file": "a", "ratio": 2}}}, "sources.g.ratio 2.0 is outside"),
        ({"sources": {"task": "a.jsonl"}}, "write it as the top-level key task"),
        ({"safety": None}, "set safety or ratio: 0"),
        ({"epochs": 1}, "give epochs or max_steps, not both"),
        ({"max_steps": "ten"}, "max_steps = 'ten': expected a whole number"),
        ({"audit_rows": "maybe"}, "audit_rows = 'maybe': expected true or false"),
        (
            {"evaluation": {"task": {"file": "x", "prompting": {"task": "piqa"}}}},
            "'evaluation.task.prompting': give name, strategy and confirm there",
        ),
        ({"learning_rate": float("inf")}, "learning_rate = inf: expected a finite number"),
        ({"granularity": "batch", "ratio_of": "tokens"}, "needs granularity: row"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(**changes)
    message = str(caught.value)
    assert message.startswith("run.yaml: ")
    assert words in message
    assert "\n" not in message


def test_a_missing_task() -> None:
    with pytest.raises(SettingsError, match=r"run\.yaml: task is missing"):
        parse_settings({"max_steps": 1}, "run.yaml")


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, BASE | {"lora": {"r": 4}})
    given_ = ["ratio=0.2", "lora.alpha=8", "learning_rate=2e-4", "task.limit=5", "ratio=1/4"]
    settings = load_settings(path, given_)
    assert settings.ratio == "1/4", "the last one wins"
    assert settings.lora is not False
    assert (settings.lora.r, settings.lora.alpha) == (4, 8)
    assert settings.learning_rate == 2e-4
    assert (settings.task.builtin, settings.task.limit) == ("task", 5)
    assert load_settings(path, ["lora=false"]).lora is False
    assert load_settings(path, ["ds_config=null"]).ds_config is None
    with pytest.raises(SettingsError, match="not of the form key=value"):
        load_settings(path, ["ratio"])
    with pytest.raises(SettingsError, match="--ratio: '\\[1' is not a valid value"):
        load_settings(path, ["ratio=[1"])


def test_saved_settings_read_back_the_same(tmp_path: Path) -> None:
    schedule = {"schedule": "piecewise", "points": {0: 0.1, 40: "1/8"}}
    settings = parse(ratio=schedule, lora=False, sources={"g": {"file": "g.csv", "ratio": 0.2}})
    settings.save(tmp_path / "deep" / "settings.yaml")
    assert load_settings(tmp_path / "deep" / "settings.yaml") == settings


@given(
    micro=st.integers(1, 64), ranks=st.integers(1, 512), steps=st.integers(1, 64), off=st.integers()
)
def test_accumulation(micro: int, ranks: int, steps: int, off: int) -> None:
    rows = micro * ranks
    settings = parse(global_batch_size=rows * steps, micro_batch_size=micro)
    assert accumulation_steps(settings, ranks) == steps
    off %= rows
    if off:
        wrong = parse(global_batch_size=rows * steps + off, micro_batch_size=micro)
        with pytest.raises(SettingsError, match=f"use {rows * steps} or {rows * (steps + 1)}"):
            accumulation_steps(wrong, ranks)
