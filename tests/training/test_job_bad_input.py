"""What a user can get wrong: one clear line, a non-zero exit, no traceback, no hang."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs_for_tests import Done, job, launch, write_config

pytestmark = pytest.mark.slow
USER_ERROR = 2
GOOD = '{"prompt": "1 + 1?", "completion": "2"}\n' * 30


def told(done: Done, *words: str) -> None:
    """One line for a person, and an exit code that says it is theirs to mend."""
    assert done.code == USER_ERROR, done.text
    assert len(done.errors) == 1, done.text
    assert done.errors[0].startswith("safemix: error: "), done.errors[0]
    assert "Traceback" not in done.text
    assert "frame #" not in done.text, done.text  # torch's C++ side, on the ranks that are left
    for word in words:
        assert word in done.errors[0], done.errors[0]


def _file(name: str, content: str | bytes) -> Callable[[Path], dict[str, Any]]:
    def make(folder: Path) -> dict[str, Any]:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return {"task": str(path)}

    return make


def _safety_of_no_rows(folder: Path) -> dict[str, Any]:
    path = folder / "safety.jsonl"
    path.write_text('{"prompt": "how?", "completion": ""}\n' * 3)
    return {"safety": str(path)}


def _contradiction(folder: Path) -> dict[str, Any]:
    path = folder / "ds.json"
    path.write_text(json.dumps({"train_batch_size": 64, "zero_optimization": {"stage": 2}}))
    return {"ds_config": str(path)}


def _unfit_optimizer(folder: Path) -> dict[str, Any]:
    path = folder / "ds.json"
    optimizer = {"type": "AdamW", "params": {"lr": 0.5}}
    path.write_text(json.dumps({"optimizer": optimizer, "zero_optimization": {"stage": 2}}))
    return {"ds_config": str(path)}


def _folder_in_the_way(folder: Path) -> dict[str, Any]:
    (folder / "taken").write_text("a file")
    return {"output_dir": str(folder / "taken")}


def _empty_model(folder: Path) -> dict[str, Any]:
    (folder / "empty").mkdir()
    return {"model": str(folder / "empty")}


CASES: dict[str, tuple[dict[str, Any] | Callable[[Path], dict[str, Any]], list[str]]] = {
    "missing task file": ({"task": "no/such.jsonl"}, ["no/such.jsonl", "task"]),
    "missing task, no ending": ({"task": "no/such_thing"}, ["no/such_thing"]),
    "empty file": (_file("empty.jsonl", ""), ["empty.jsonl", "empty"]),
    "broken JSON": (_file("a.jsonl", GOOD + '{"prompt": "x\n'), ["a.jsonl", "31"]),
    "wrong encoding": (_file("a.jsonl", GOOD.encode() + b'{"prompt": "\xff\xfe"}\n'), ["UTF-8"]),
    "unknown columns": (_file("a.jsonl", '{"foo": "x", "bar": "y"}\n'), ["foo", "bar"]),
    "unknown ending": (_file("a.xlsx", "x"), ["a.xlsx"]),
    "no usable row": (_safety_of_no_rows, ["safety.jsonl"]),
    "empty answer refused": (
        lambda folder: {
            "task": _file("a.jsonl", GOOD + '{"prompt": "x", "completion": " "}\n')(folder)
            and {"file": str(folder / "a.jsonl"), "on_bad_row": "refuse"}
        },
        ["a.jsonl", "31"],
    ),
    "ratio 1": ({"ratio": 1.0}, ["ratio", "1", "[0, 1)"]),
    "ratio below 0": ({"ratio": -0.1}, ["ratio", "-0.1", "[0, 1)"]),
    "ratio of letters": ({"ratio": "abc"}, ["ratio", "abc"]),
    "ratio is a list": ({"ratio": [0.1]}, ["ratio", "0.1"]),
    "ratio without safety": ({"safety": None}, ["safety", "ratio: 0"]),
    "ratios above 1": (
        {"ratio": 0.6, "sources": {"general": {"builtin": "lookalikes", "ratio": 0.5}}},
        ["1.1", "above 1"],
    ),
    "schedule without an end": (
        {"ratio": {"schedule": "linear", "start": 0.1}},
        ["linear", "end", "steps"],
    ),
    "global batch not divisible": ({"global_batch_size": 9}, ["global_batch_size 9", "8 or 10"]),
    "unknown model path": ({"model": "./no_model"}, ["./no_model"]),
    "unknown model name": ({"model": "smolm2"}, ["smolm2", "smollm2"]),
    "unknown hub model": ({"model": "nobody/nothing"}, ["nobody/nothing"]),
    "empty model folder": (_empty_model, ["empty"]),
    "DeepSpeed config contradicts": (_contradiction, ["ds.json", "train_batch_size", "64", "8"]),
    "DeepSpeed learning rate": (_unfit_optimizer, ["ds.json", "lr", "0.5", "0.001"]),
    "unknown ds_config": ({"ds_config": "zero22"}, ["zero22", "zero2"]),
    "unknown key": ({"learning_rat": 1}, ["learning_rat", "did you mean 'learning_rate'"]),
    "unknown inner key": ({"lora": {"rank": 4}}, ["lora.rank"]),
    "wrong type": ({"max_length": "long"}, ["max_length", "long"]),
    "bad lora": ({"lora": {"r": 0}}, ["lora.r", "0"]),
    "unknown lora target": ({"lora": {"target_modules": ["q_prj"]}}, ["q_prj"]),
    "no length": ({"max_steps": None}, ["epochs", "max_steps"]),
    "both lengths": ({"epochs": 1}, ["epochs", "max_steps"]),
    "fp16 on a CPU": ({"precision": "fp16"}, ["fp16", "GPU"]),
    "unknown scheduler": ({"lr_scheduler": "cosin"}, ["cosin"]),
    "unknown template": ({"chat_template": "llama9"}, ["llama9"]),
    "output is a file": (_folder_in_the_way, ["taken"]),
    "unknown built-in": ({"task": "builtin:tasks"}, ["builtin", "tasks"]),
    "resume from nowhere": ({"resume": "yesterday"}, ["yesterday"]),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    changes, words = CASES[name]
    changes = changes(tmp_path) if callable(changes) else changes
    told(job(write_config(tmp_path, **changes), timeout=40), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: tiny\n  task: [", ["run.yaml", "line 2"]),
        ("- a\n- b\n", ["run.yaml", "mapping", "list"]),
        ("", ["run.yaml", "task is missing"]),
        ("model: tiny\n", ["run.yaml", "task is missing"]),
        (b"model: \xff\n", ["run.yaml", "cannot be read"]),
    ],
)
def test_settings_file(text: str | bytes, words: list[str], tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_bytes(text if isinstance(text, bytes) else text.encode())
    told(job(config, timeout=40), *words)


def test_command_line(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    told(job(tmp_path / "none.yaml"), "none.yaml", "no such settings file")
    told(job(config, "oops"), "'oops'", "--key value")
    told(job(config, "--ratoi", "0.2"), "ratoi", "did you mean 'ratio'")
    told(job(config, "--ratio", "[0.2"), "ratio", "[0.2")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"global_batch_size": 6, "micro_batch_size": 2}, ["global_batch_size 6", "4 or 8"]),
        (_file("a.jsonl", GOOD + '{"prompt": "x\n'), ["a.jsonl", "31"]),
    ],
)
def test_two_processes_tell_it_once(
    changes: dict[str, Any] | Callable[[Path], dict[str, Any]], words: list[str], tmp_path: Path
) -> None:
    changes = changes(tmp_path) if callable(changes) else changes
    told(launch(write_config(tmp_path, **changes), timeout=120), *words)


def test_without_a_config_and_with_debug(tmp_path: Path) -> None:
    config = write_config(tmp_path, task="no/such.jsonl")
    done = launch(config, "--debug", launcher="python", timeout=60)
    assert done.code == USER_ERROR
    assert len(done.errors) == 1
    assert "Traceback" in done.err
    assert "DataError" in done.err
    nothing = launch(config, "--config", launcher="python", timeout=60)
    told(nothing, "--config", "--help")


def test_rows_without_an_answer_are_counted(tmp_path: Path) -> None:
    rows = GOOD + '{"prompt": "x", "completion": ""}\n' * 2
    done = job(write_config(tmp_path, **_file("a.jsonl", rows)(tmp_path), max_steps=1))
    assert done.code == 0, done.text
    counts = [line for line in done.err.splitlines() if "32 rows read, 30 kept" in line]
    assert len(counts) == 1, done.err
    assert "31" in done.err, "the rows are listed"


def test_tokenizer_without_pad_token(tmp_path: Path) -> None:
    from safemix.training.tiny import build_tiny

    folder = tmp_path / "model"
    build_tiny(folder)
    path = folder / "tokenizer_config.json"
    tree = json.loads(path.read_text())
    del tree["pad_token"]
    path.write_text(json.dumps(tree))
    done = job(write_config(tmp_path, model=str(folder), max_steps=1))
    assert done.code == 0, done.text
