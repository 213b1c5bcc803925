"""Completions in a real job of two processes under ZeRO-3, against one process without it.

One job runs all cases; the tests look at what its ranks wrote.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from launching_for_tests import launch_script

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent / "scripts" / "generate_job.py"
SECONDS = 150


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safemix.training.tiny import build_tiny

    folder = tmp_path_factory.mktemp("tiny")
    build_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def job(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path
) -> tuple[list[dict[str, object]], subprocess.CompletedProcess[str]]:
    """What each rank wrote, and how the job ended."""
    out = tmp_path_factory.mktemp("out")
    done = launch_script("deepspeed", SCRIPT, str(model_folder), str(out), seconds=SECONDS)
    return [json.loads((out / f"rank{rank}.json").read_text("utf-8")) for rank in (0, 1)], done


@pytest.fixture(scope="module")
def expected(model_folder: Path) -> dict[str, object]:
    """The same in this process: the stock model, the one after a step on both ranks' rows, LoRA."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from safemix.evaluate.generate import complete, complete_samples
    from safemix.evaluate.results import Decoding

    chats = [[{"role": "user", "content": "question " + "word " * n}] for n in (3, 1, 30, 7, 12)]
    greedy = Decoding(max_new_tokens=10)
    sampled = Decoding(temperature=1.0, top_p=0.9, max_new_tokens=10, samples=2, seed=3)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)

    def model():
        return AutoModelForCausalLM.from_pretrained(model_folder)

    stepped = model().train()
    optimizer = torch.optim.AdamW(stepped.parameters(), lr=1e-3, weight_decay=0.0)
    rows = [torch.arange(20)[None] + 40 * (1 + rank) for rank in (0, 1)]
    loss = sum(stepped(input_ids=ids, labels=ids).loss for ids in rows) / 2
    loss.backward()
    optimizer.step()
    torch.manual_seed(5)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return {
        "stock": complete(model(), tokenizer, chats, greedy),
        "stepped": complete(stepped, tokenizer, chats, greedy),
        "sampled": complete_samples(model(), tokenizer, chats, sampled),
        "lora": complete(get_peft_model(model(), config), tokenizer, chats, greedy),
    }


def test_all_ranks_get_all_completions(job) -> None:
    ranks, _ = job
    own = ("losses", "twin")  # of each rank's own rows
    first, second = ({k: v for k, v in rank.items() if k not in own} for rank in ranks)
    assert first == second


@pytest.mark.parametrize("case", ["engine", "bare", "fetched"])
def test_five_prompts_on_two_ranks_as_in_one_process(job, expected, case: str) -> None:
    ranks, _ = job
    assert ranks[0][case] == expected["stepped"]
    assert expected["stepped"] != expected["stock"], "the step changed what the model says"


def test_fewer_prompts_than_ranks(job, expected) -> None:
    assert job[0][0]["one"] == expected["stepped"][:1]


def test_sampling_is_the_same_for_any_number_of_ranks(job, expected) -> None:
    assert job[0][0]["sampled"] == expected["sampled"]
    assert all(a != b for a, b in expected["sampled"])


def test_progress_counts_over_all_ranks(job) -> None:
    assert job[0][0]["told"] == [[4, 5], [5, 5]]


def test_lora_under_zero_3(job, expected) -> None:
    assert job[0][0]["lora"] == expected["lora"]
    assert expected["lora"] != expected["stock"]


def test_a_scattered_model_without_an_engine(job, expected) -> None:
    assert job[0][0]["scattered_from_the_start"]
    assert job[0][0]["no_engine"] == expected["stock"]


def test_training_goes_on_as_if_nothing_had_been_generated(job) -> None:
    for rank in job[0]:
        for before, after in zip(rank["before"], rank["after"], strict=True):
            assert after == before  # hooks, scattered weights, modes, the generation config
        assert rank["same_random_state"]
        assert rank["hooks_left"] == 0  # all of DeepSpeed's are away while weights are gathered
        assert not rank["in_step"]
        assert rank["losses"] == rank["twin"]
        assert rank["after_twin_step"] == rank["of_twin"]


def test_an_error_on_rank_1_stops_both_with_one_line(job) -> None:
    done = job[1]
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("safemix: error")]
    assert lines == [
        "safemix: error: rank 1 could not go on: RuntimeError: no memory for the scores"
    ]
