"""Every kind of run ends with exit code 0, the right metrics, and weights that can be loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jobs_for_tests import Done, audits, job, launch, metrics, rows_by_step, write_config

pytestmark = pytest.mark.slow
ALWAYS = {
    "step",
    "utility/loss",
    "safety/loss",
    "safety/row_share",
    "safety/token_share",
    "mix/ratio",
    "mix/passes/task",
    "mix/passes/safety",
    "perf/tokens_per_s",
    "perf/data_wait_share",
}


def check_metrics(run: Path, batch: int = 8) -> None:
    """Every line is complete, and its shares are those of the rows that the audit shows."""
    rows = rows_by_step(run)
    read = metrics(run)
    assert [m["step"] for m in read] == list(range(1, len(rows) + 1))
    seen = 0
    for line, step in zip(read, rows.values(), strict=True):
        assert len(step) == batch
        assert set(line) >= ALWAYS
        safe = sum(name == "safety" for name, _ in step)
        seen += safe
        assert line["safety/row_share"] == pytest.approx(safe / batch)
        assert (line["safety/loss"] is None) == (safe == 0)
        assert (line["safety/token_share"] == 0) == (safe == 0)
        assert line["utility/loss"] is None or line["utility/loss"] > 0
        assert 0 <= line["perf/data_wait_share"] <= 1
        assert line["perf/tokens_per_s"] > 0
        size = 40  # rows of the safety source in these tests
        assert line["mix/passes/safety"] == pytest.approx(seen / size)


def check_quiet(done: Done, *, out: bool = True) -> None:
    """Rank 0 alone speaks, and only in our words; a launcher has lines of its own."""
    assert done.code == 0, done.text
    assert not done.errors
    assert "Traceback" not in done.text
    assert "Running in WANDB offline mode" not in done.text
    assert "Writing model shards" not in done.text
    assert done.err.count("safemix: step 1/") == 1, done.err
    if out:
        assert done.out.count("what this run did") == 1
    assert all(line.startswith("safemix: ") for line in done.err.splitlines()), done.err


def load(run: Path, model: str | None = None) -> Any:
    """The result, loaded as anyone would; there is nothing pickled in it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = run / ("adapter" if model else "model")
    names = {path.name for path in folder.iterdir()}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))], names
    assert [name for name in names if name.endswith(".safetensors")]
    AutoTokenizer.from_pretrained(folder)
    if model is None:
        return AutoModelForCausalLM.from_pretrained(folder)
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(folder))


@pytest.fixture(scope="module")
def tiny() -> str:
    from safemix.training.known_models import resolve_model

    return resolve_model("tiny")


def moved(model: Any, tiny: str) -> bool:
    """Whether training has changed the weights."""
    import torch
    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(tiny).state_dict()
    after = (model.merge_and_unload() if hasattr(model, "merge_and_unload") else model).state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].shape == after[name].shape for name in before)
    return any(not torch.equal(before[name], after[name]) for name in before)


def test_deepspeed_launcher_with_tracking(tmp_path: Path, tiny: str) -> None:
    config = write_config(tmp_path, tracking={"wandb": "auto"}, max_steps=5, save_steps=0)
    done = launch(config)
    assert done.code == 0, done.text
    assert done.text.count("safemix: step 1/5") == 1
    assert done.text.count("what this run did") == 1
    assert "Running in WANDB offline mode" not in done.text
    run = tmp_path / "run"
    check_metrics(run)
    assert len(list((run / "wandb").glob("offline-run-*"))) == 1, "one run a job, not one a rank"
    saved = yaml.safe_load((run / "settings.yaml").read_text())
    assert (saved["ratio"], saved["max_steps"], saved["precision"]) == (0.1, 5, "fp32")
    assert (run / "curves.png").stat().st_size > 10_000
    assert json.loads((run / "finished.json").read_text()) == {"step": 5, "result": "adapter"}
    assert sorted(audits(run)) == ["rank0.jsonl", "rank1.jsonl"]
    assert moved(load(run, tiny), tiny)


def test_zero1_three_sources_workers_and_a_schedule(tmp_path: Path, tiny: str) -> None:
    general = {"builtin": "lookalikes", "ratio": 0.25}
    ratio = {"schedule": "linear", "start": 0.0, "end": 0.5, "steps": 4}
    config = write_config(
        tmp_path, ds_config="zero1", sources={"general": general}, num_workers=2, ratio=ratio
    )
    check_quiet(job(config, processes=2))
    run = tmp_path / "run"
    check_metrics(run)
    read = metrics(run)
    assert [m["mix/ratio"] for m in read] == [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5]
    assert sum(m["safety/row_share"] for m in read) == pytest.approx(2.75)
    assert [m["general/row_share"] for m in read] == [0.25] * 8
    assert read[-1]["mix/passes/general"] > 0
    assert moved(load(run, tiny), tiny)


def test_zero3_full_fine_tuning_for_epochs(tmp_path: Path, tiny: str) -> None:
    config = write_config(
        tmp_path,
        ds_config="zero3",
        lora=False,
        epochs=0.5,
        max_steps=None,
        save_steps=0,
        precision="bf16",
        gradient_checkpointing=True,
    )
    check_quiet(job(config, processes=2))
    run = tmp_path / "run"
    check_metrics(run)
    drawn = sum(name == "task" for step in rows_by_step(run).values() for name, _ in step)
    assert 60 <= drawn < 60 + 8, "half of 120 task rows, in whole steps"
    assert moved(load(run), tiny)


def test_torchrun_without_deepspeed_whole_batches(tmp_path: Path, tiny: str) -> None:
    config = write_config(
        tmp_path, ds_config=None, granularity="batch", ratio=0.25, save_steps=4, lora={"dora": True}
    )
    done = launch(config, launcher="torchrun")
    assert done.code == 0, done.text
    run = tmp_path / "run"
    check_metrics(run)
    kinds = [{name for name, _ in step} for step in rows_by_step(run).values()]
    assert all(len(kind) == 1 for kind in kinds)
    assert sum(kind == {"safety"} for kind in kinds) == 2
    assert moved(load(run, tiny), tiny)
    # Without DeepSpeed a checkpoint fits any number of processes.
    done = job(config, "--max_steps", "10")
    assert done.code == 0, done.text
    assert "checkpoint-8 at step 8" in done.err
    check_metrics(run)


def test_accelerate_full_fine_tuning_without_safety(tmp_path: Path, tiny: str) -> None:
    config = write_config(
        tmp_path, ds_config=None, lora=False, safety=None, ratio=0, max_steps=3, save_steps=0
    )
    done = launch(config, launcher="accelerate", processes=1)  # on CPUs more need mpirun
    assert done.code == 0, done.text
    run = tmp_path / "run"
    assert all(m["safety/loss"] is None and m["safety/row_share"] == 0 for m in metrics(run))
    check_metrics(run)
    assert moved(load(run), tiny)


def test_share_of_tokens_in_one_process(tmp_path: Path, tiny: str) -> None:
    config = write_config(
        tmp_path,
        ratio=0.3,
        ratio_of="tokens",
        lora=False,
        max_steps=14,
        global_batch_size=16,
        micro_batch_size=8,
        save_steps=0,
        precision="bf16",
    )
    check_quiet(job(config))
    run = tmp_path / "run"
    check_metrics(run, batch=16)
    read = metrics(run)
    share = sum(m["safety/token_share"] for m in read) / len(read)
    assert share == pytest.approx(0.3, abs=0.05)
    assert read[0]["mix/ratio"] < 0.25, "safety answers are longer, so fewer rows will do"
    assert moved(load(run), tiny)
