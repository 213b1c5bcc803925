"""Scoring in a real job of two processes, ZeRO-2 and ZeRO-3, against one process without it.

One job runs all cases; the tests look at what its ranks wrote.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from launching_for_tests import launch_script

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "scripts" / "loglik_job.py"
SECONDS = 180
RECORDS = [
    {"goal": f"Do number {n}", "sol1": "Begin now." * n, "sol2": "Wait a little.", "label": n % 2}
    for n in range(1, 4)
]


def rows() -> list[dict[str, Any]]:
    """Seven rows of five prompts, two of them with two answers."""
    found = []
    for length, answers in ((3, "AB"), (1, "A"), (30, "AB"), (7, "B"), (12, "A")):
        for answer in answers:
            question = {"role": "user", "content": "question " + "word " * length}
            found.append({"messages": [question, {"role": "assistant", "content": answer}]})
    return found


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safemix.training.tiny import build_tiny

    folder = tmp_path_factory.mktemp("tiny")
    build_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def job(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path
) -> tuple[list[dict[str, Any]], subprocess.CompletedProcess[str]]:
    """What each rank wrote, and how the job ended."""
    out = tmp_path_factory.mktemp("out")
    (out / "rows.json").write_text(json.dumps(rows()), "utf-8")
    (out / "records.json").write_text(json.dumps(RECORDS), "utf-8")
    done = launch_script("deepspeed", SCRIPT, str(model_folder), str(out), seconds=SECONDS)
    return [json.loads((out / f"rank{rank}.json").read_text("utf-8")) for rank in (0, 1)], done


@pytest.fixture(scope="module")
def expected(model_folder: Path) -> dict[str, Any]:
    """The same in this process."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from safemix.evaluate.loglik import answer_log_probs
    from safemix.evaluate.utility import measure_choices

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    measure = measure_choices(model, tokenizer, RECORDS, "piqa", "autoif+aoa")
    stock = answer_log_probs(model, tokenizer, rows())
    torch.manual_seed(5)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return {
        "stock": stock,
        "lora": answer_log_probs(get_peft_model(model, config), tokenizer, rows()),
        "items": [[item.id, item.counted, item.reason] for item in measure.items],
    }


def test_all_ranks_get_all_scores(job) -> None:
    own = ("losses", "twin")  # of each rank's own rows
    first, second = ({k: v for k, v in rank.items() if k not in own} for rank in job[0])
    assert first == second


@pytest.mark.parametrize("case", ["zero2", "zero3", "fetched", "scattered"])
def test_uneven_shares_as_in_one_process(job, expected, case: str) -> None:
    assert job[0][0][case] == pytest.approx(expected["stock"], abs=1e-4)


@pytest.mark.parametrize("case", ["zero2 one", "zero3 one", "fetched one"])
def test_fewer_prompts_than_ranks(job, expected, case: str) -> None:
    assert job[0][0][case] == pytest.approx(expected["stock"][:1], abs=1e-4)


def test_lora_under_zero_3(job, expected) -> None:
    assert job[0][0]["lora"] == pytest.approx(expected["lora"], abs=1e-4)
    assert expected["lora"] != pytest.approx(expected["stock"], abs=1e-3)


def test_choices_on_several_ranks(job, expected) -> None:
    assert [item[:2] for item in job[0][0]["items"]] == [item[:2] for item in expected["items"]]


def test_training_goes_on_as_if_nothing_had_been_asked(job) -> None:
    for rank in job[0]:
        assert rank["losses"] == rank["twin"]


def test_an_error_on_one_rank_ends_all_with_one_line(job) -> None:
    _, done = job
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("safemix: error")]
    assert lines
    assert all("no memory for the scores" in line for line in lines)
