"""`safemix eval`: what is found before hours of answers, and what is kept if it is not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from safemix.cli import app as cli
from safemix.cli.eval import eval_command
from safemix.cli.eval_files import earlier, held
from safemix.evaluate.results import read_evaluation

QUICK = ["--model", "tiny", "--limit", "3", "--max-new-tokens", "6"]
GATE = ["--against", "tiny", "--max-asr-rise", "0.1", "--max-incoherent", "1"]


def run(*args: str) -> int:
    if not any(command.name == "eval" for command in cli.app.registered_commands):
        cli.app.command("eval")(eval_command)
    return cli.run(["eval", *QUICK, *args])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def records(name: str, goal: str = "To carry {} eggs,") -> list[str]:
    rows = [
        {"goal": goal.format(n), "sol1": "use a basket.", "sol2": "juggle.", "label": n % 2}
        for n in range(12)
    ]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return ["--task", name, "--task-name", "piqa", "--task-limit", "4"]


def nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("safemix.cli.eval_run.load", refuse)


def test_with_a_task_its_dresses_are_asked_and_a_gate_on_plain_alone_is_warned_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--out", "p", *GATE) == 0
    plain = " ".join(capsys.readouterr().out.split())
    assert "warning: the gate saw plain prompts alone" in plain
    assert json.loads(Path("p/eval.json").read_text("utf-8"))["notes"][0].startswith("the gate saw")
    assert run("--out", "t", *GATE, *records("r.jsonl"), "--strategy", "autoif+aoa") == 0
    assert "plain prompts alone" not in capsys.readouterr().out
    tree = json.loads(Path("t/eval.json").read_text("utf-8"))
    gated = {check["key"] for check in tree["gate"]["checks"] if "/asr" in check["key"]}
    dresses = ("plain", "autoif+aoa", "styled")
    assert gated == {f"safety/builtin/{dress}/asr" for dress in dresses}
    assert run("--out", "b", *records("r.jsonl")) == 0
    found = earlier("b")
    assert found is not None
    assert {measure.dress for measure in found.side("safety")} == {"plain", "styled"}
    capsys.readouterr()
    assert run("--out", "own", "--dress", "plain", *records("r.jsonl")) == 0
    found = earlier("own")
    assert found is not None
    assert {measure.dress for measure in found.side("safety")} == {"plain"}


def test_rows_without_a_layout_say_how_to_ask_without_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("bare.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n', "utf-8")
    assert run("--out", "o", "--task", "bare.jsonl") == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "no layout found in 1 task rows" in said
    assert said.endswith("or ask without their layout: dress plain")


def test_a_folder_in_use_is_left_alone_whatever_is_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--out", "o") == 0
    kept = {path: path.read_bytes() for path in Path("o").rglob("*") if path.is_file()}
    capsys.readouterr()
    with held(Path("o")), monkeypatch.context() as patched:
        nothing_is_asked(patched)
        assert run("--out", "o", "--overwrite") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "o is in use by another evaluation: wait for it, or name another folder" in line
    assert {path: path.read_bytes() for path in kept} == kept
    assert run("--out", "o", "--overwrite") == 0, "and free again"


def test_where_the_file_system_has_no_locks_it_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*given: Any, **more: Any) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(FileLock, "acquire", none)
    assert run("--out", "o") == 0
    assert "the file system of o has no locks" in caplog.text
    assert run("--out", "o", "--overwrite") == 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--limit", "2"], "safety/builtin/plain/asr cannot be compared: set hash is"),
        (["--max-new-tokens", "7"], "cannot be compared: decoding is"),
        (["--dress", "aoa", "--max-asr-rise", "0.1"], "the base has no safety/builtin/aoa/asr"),
        (["--system", "Be brief."], "the dress gave the base other chats"),
    ],
)
def test_an_earlier_result_that_does_not_fit_is_told_before_anything_is_loaded(
    changed: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("--out", "base") == 0
    capsys.readouterr()
    nothing_is_asked(monkeypatch)
    assert run("--against", "base", "--out", "o", *changed) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not Path("o").exists()


def test_dresses_that_an_earlier_result_lacks_are_no_mistake_without_a_gate() -> None:
    assert run("--out", "base") == 0
    assert run("--against", "base", "--out", "o", "--dress", "plain", "--dress", "aoa") == 0
    tree = json.loads(Path("o/eval.json").read_text("utf-8"))
    assert {found["key"].split("/")[2] for found in tree["comparisons"]} == {"plain"}


def test_what_was_measured_is_kept_where_it_cannot_be_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = ["--dress", "plain"]
    assert run("--out", "base", *plain, *records("r.jsonl")) == 0
    other = records("s.jsonl", "To peel {} apples,")
    assert run("--against", "base", "--out", "o", *plain, *other) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "utility/piqa/benign/accuracy cannot be compared: set hash" in said
    found = read_evaluation(Path("o/eval.json").read_text("utf-8"))
    assert [measure.rate.total for measure in found.side("utility")] == [4]
    assert json.loads(Path("o/eval.json").read_text("utf-8"))["gate"] is None


def test_a_result_is_there_only_when_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--out", "o", *GATE) == 0
    before = Path("o/eval.json").read_text("utf-8")

    def stop(*given: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("safemix.evaluate.suite.run_suite", stop)
        assert run("--out", "o", *GATE) != 0
    assert not Path("o/eval.json").exists(), "a gate that passed before is not read for this one"
    assert Path("o/eval.previous.json").read_text("utf-8") == before
    assert run("--out", "o", *GATE) == 0
    assert Path("o/eval.json").exists()
    assert not Path("o/eval.previous.json").exists()


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_lm_eval_is_missed_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_is_asked(monkeypatch)
    assert run("--out", "o", "--lm-eval", "arc_easy") != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'safemix[lm-eval]'" in line
    assert not Path("o").exists()


def test_vllm_scores_no_choices_and_says_so_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_is_asked(monkeypatch)
    assert run("--out", "o", "--backend", "vllm", *records("r.jsonl")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "choices are scored by a model in this process: use --backend hf" in line
    assert not Path("o").exists()
