"""`safemix answer`: the file, going on after a stop, ranks, and every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ranks_for_tests import torchrun

from safemix.cli import app
from safemix.rows.read import read_source
from safemix.screening.refusal_rows import refuses
from safemix.settings import SourceSettings
from safemix.tracking.lines import Lines

ROOT = Path(__file__).resolve().parents[2]
ROWS = json.dumps({"builtin": "lookalikes", "limit": 5})
JOB = "import sys\nfrom safemix.cli import app\nsys.exit(app.run(sys.argv[1:]))\n"


def run(*args: str) -> int:
    return app.run(["answer", "--model", "tiny", "--max-new-tokens", "6", *args])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def speaking(monkeypatch: pytest.MonkeyPatch, texts: dict[str, str]) -> list[str]:
    """Let the model say given texts: a random one has none of its own. Says what was asked."""
    asked = list[str]()

    def complete(*_: Any) -> Any:
        def made(chats: Any, decoding: Any) -> list[list[str]]:
            asked.extend(chat[-1]["content"] for chat in chats)
            return [[texts.get(chat[-1]["content"], "")] for chat in chats]

        return made

    monkeypatch.setattr("safemix.training.ask_rows.completer", complete)
    return asked


def test_a_random_model_leaves_all_rows_as_they_came(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--lookalikes", ROWS, "--out", "own.jsonl") == 0
    said = capsys.readouterr()
    assert "0 of 5 rows have the model's own answer" in said.out
    assert "keep the one they came with: " in said.out
    assert "written: own.jsonl" in said.out
    given = list(
        read_source("lookalikes", SourceSettings(builtin="lookalikes", limit=5)).dataset["messages"]
    )
    assert [row["messages"] for row in rows_of(tmp_path / "own.jsonl")] == given
    assert [path.name for path in tmp_path.iterdir()] == ["own.jsonl"]


def test_own_refusals_are_rows_of_a_safety_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "safety.csv").write_text(
        "ask,reply\nWrite a threat.,I will not do that.\nHow do I hurt a dog?,No.\n", "utf-8"
    )
    speaking(monkeypatch, {"Write a threat.": "I'm sorry, but I cannot write threats. Is th"})
    fields = ["--fields", "prompt=ask", "--fields", "completion=reply"]
    assert run("--safety", "safety.csv", *fields, "--out", "own.jsonl") == 0
    assert "1 of 2 rows have the model's own answer" in capsys.readouterr().out
    made = [row["messages"] for row in rows_of(tmp_path / "own.jsonl")]
    assert [row[-1]["content"] for row in made] == ["I'm sorry, but I cannot write threats.", "No."]
    assert refuses(made[0])
    # What it is for: a run reads it as it is.
    spec = SourceSettings(file=str(tmp_path / "own.jsonl"))
    assert list(read_source("safety", spec).dataset["messages"]) == made


def test_the_same_command_goes_on_where_one_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[int]()

    def stopping(self: Lines, what: str, done: int, total: int) -> None:
        told.append(done)
        if done == 4 and len(told) < 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Lines, "__call__", stopping)
    asked = speaking(monkeypatch, {})
    args = ["--lookalikes", ROWS, "--out", "own.jsonl", "--batch-size", "1"]
    assert run(*args) == 130
    assert len(asked) == 4
    assert not (tmp_path / "own.jsonl").exists()
    work = tmp_path / "own.jsonl.answers"
    assert (work / ".asked").stat().st_mode & 0o077 == 0, "no one else reads what it complied with"
    assert run(*args) == 0
    assert len(asked) == 5, "one row was left"
    assert len(rows_of(tmp_path / "own.jsonl")) == 5
    assert not work.exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "give --safety or --lookalikes, one of them"),
        (["--safety", "builtin", "--lookalikes", "builtin"], "give --safety or --lookalikes"),
        (["--safety", "gone.jsonl"], "safety: gone.jsonl: no such file"),
        (["--safety", "builtin", "--backend", "onnx"], "--backend is 'onnx': legal are hf, vllm"),
        (["--safety", "builtin", "--device", "tpu"], "--device is 'tpu': legal are auto, cpu"),
        (["--safety", "builtin", "--model", "gone"], "model 'gone' is not a folder here"),
        (["--safety", "builtin", "--out", "own.txt"], "use a name in .jsonl"),
        (["--safety", "builtin", "--fields", "prompt"], "--fields 'prompt': write key=column"),
        (["--safety", '{"builtin": "safety", "limit": 0}'], "--safety: limit"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path, args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--out", "own.jsonl", *args) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    assert words in said[0]
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.jsonl").write_text("mine", "utf-8")
    assert run("--lookalikes", ROWS, "--out", "own.jsonl") == 2
    assert "own.jsonl is there already" in capsys.readouterr().err
    assert (tmp_path / "own.jsonl").read_text("utf-8") == "mine"
    assert run("--lookalikes", ROWS, "--out", "own.jsonl", "--overwrite") == 0
    assert len(rows_of(tmp_path / "own.jsonl")) == 5


@pytest.mark.slow
def test_two_ranks_write_what_one_writes(tmp_path: Path) -> None:
    assert run("--lookalikes", ROWS, "--out", "one.jsonl") == 0
    done = torchrun(
        tmp_path, JOB, "answer", "--model", "tiny", "--max-new-tokens", "6",
        "--lookalikes", ROWS, "--out", "two.jsonl",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written: two.jsonl") == 1
    assert (tmp_path / "two.jsonl").read_text() == (tmp_path / "one.jsonl").read_text()
    assert not (tmp_path / "two.jsonl.answers").exists()
