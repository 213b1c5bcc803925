"""`safemix eval` and `safemix answer` where memory does not suffice: one line with what helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from ranks_for_tests import torchrun

from safemix.cli import app
from safemix.cli.eval_models import within_memory
from safemix.errors import HostError, ModelError

ROOT = Path(__file__).resolve().parents[2]
TOO_MUCH = "CUDA out of memory. Tried to allocate 2.00 GiB."
QUICK = ["--model", "tiny", "--out", "o", "--limit", "3", "--max-new-tokens", "6"]
# Rank 1 alone runs out: rank 0, which speaks, hears of it from there.
JOB = f"""
import os, sys
import torch, transformers
from safemix.cli import app

def full(*_, **__):
    raise torch.OutOfMemoryError({TOO_MUCH!r})

if os.environ["RANK"] == "1":
    transformers.LlamaForCausalLM.generate = full
sys.exit(app.run(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def full(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError(TOO_MUCH)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that is no progress."""
    (line,) = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("safemix: error")
    ]
    assert "micro_batch_size" not in line
    return line


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("4", "out of memory: give a smaller --batch-size than 4; what was answered is kept"),
        ("1", "--batch-size is 1 already: lower --max-new-tokens"),
    ],
)
def test_answers_that_do_not_fit_name_the_batch_size(
    size: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", full)
    assert app.run(["eval", *QUICK, "--batch-size", size]) == 2
    assert words in said(capsys)


def test_choices_that_do_not_fit_name_the_batch_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"goal": f"To carry {n},", "sol1": "go.", "sol2": "sit.", "label": 0} for n in range(6)]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    Path("e.yaml").write_text("harmful: []\nlookalikes: []\n", "utf-8")
    monkeypatch.setattr(transformers.LlamaModel, "forward", full)
    task = ["--config", "e.yaml", "--task", "t.jsonl", "--task-name", "piqa"]
    assert app.run(["eval", *QUICK, *task, "--strategy", "autoif+aoa"]) == 2
    assert "give a smaller --batch-size than 16" in said(capsys)


def test_a_model_that_does_not_fit_is_no_matter_of_the_batch_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", full)
    assert app.run(["eval", *QUICK]) == 2
    assert "the model does not fit on a GPU: free the GPU, or use --backend vllm" in said(capsys)


@pytest.mark.parametrize("loading", [True, False])
def test_a_judge_that_does_not_fit_is_named(
    loading: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full:
        describe = staticmethod(lambda: "full")
        judge = staticmethod(full)

    monkeypatch.setattr("safemix.evaluate.judges.open_judge", full if loading else lambda _: Full())
    assert app.run(["eval", *QUICK]) == 2
    assert "the judge runs out of memory: give judge a smaller batch_size" in said(capsys)


def test_own_answers_that_do_not_fit_name_the_batch_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", full)
    rows = ["--lookalikes", json.dumps({"builtin": "lookalikes", "limit": 5})]
    assert app.run(["answer", "--model", "tiny", *rows, "--out", "own.jsonl"]) == 2
    assert "give a smaller --batch-size than 16" in said(capsys)


def test_vllm_batches_by_itself_and_other_errors_stay_as_they_are() -> None:
    with (
        pytest.raises(ModelError, match="vLLM needs more than the GPUs have left"),
        within_memory("vllm", 16),
    ):
        raise HostError(f"vLLM cannot load 'm' ({TOO_MUCH}): use --backend hf")
    with pytest.raises(RuntimeError, match=r"^else$"), within_memory("hf", 16):
        raise RuntimeError("else")
    with pytest.raises(ModelError, match=r"^judge: out of memory$"), within_memory("hf", 16):
        raise ModelError("judge: out of memory")


@pytest.mark.slow
def test_of_several_ranks_one_that_runs_out_is_told_by_rank_0(tmp_path: Path) -> None:
    done = torchrun(tmp_path, JOB, "eval", *QUICK)
    assert done.returncode != 0
    errors = [x for x in done.stderr.splitlines() if x.startswith("safemix: error: ")]
    assert len(errors) == 1, done.stderr
    assert "give a smaller --batch-size than 16" in errors[0]
