"""Jobs that measure while they train: the same readings however they are split, nothing changed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs_for_tests import audits, job, losses, metrics, rewind, write_config
from safetensors.torch import load_file

from safemix.evaluate.results import REDACTED

pytestmark = pytest.mark.slow
DROPOUT = {"r": 4, "alpha": 8, "dropout": 0.2}
MARGINS = (
    "safety/margin/plain",
    "safety/margin/styled",
    "safety/margin_lookalikes/plain",
    "safety/margin_lookalikes/styled",
)
PROBE = {"probe_every": 4, "prompts": 5}
OFF = {"probe_every": 0}


def readings(run: Path) -> dict[int, list[float]]:
    """Step -> margins, of the lines that have them."""
    lines = [line for line in metrics(run) if MARGINS[0] in line]
    assert len({line["step"] for line in lines}) == len(lines), "read twice at one step"
    return {line["step"]: [line[name] for name in MARGINS] for line in lines}


def saved(run: Path) -> dict[str, torch.Tensor]:
    """The weights of the result."""
    files = [*run.glob("model/*.safetensors"), *run.glob("adapter/*.safetensors")]
    return {name: values for file in files for name, values in load_file(file).items()}


def run_job(folder: Path, processes: int, **changes: Any) -> Path:
    done = job(write_config(folder, **changes), processes=processes)
    assert done.code == 0, done.text
    return folder / "run"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process, ZeRO-2, LoRA with dropout in the settings of no other job."""
    return run_job(tmp_path_factory.mktemp("alone"), 1, evaluation=PROBE)


@pytest.mark.parametrize("stage", ["zero1", "zero3"])
def test_two_ranks_read_what_one_reads(stage: str, alone: Path, tmp_path: Path) -> None:
    # Five harmful prompts and two benign ones: no share is even.
    run = run_job(tmp_path, 2, evaluation=PROBE, ds_config=stage)
    ours, theirs = readings(run), readings(alone)
    assert sorted(ours) == sorted(theirs) == [0, 4, 8]
    for step, values in ours.items():
        assert values == pytest.approx(theirs[step], abs=1e-4)
    shares = [line["perf/probe_share"] for line in metrics(run) if line["step"] in (4, 8)]
    assert all(0 < share < 1 for share in shares)


def assert_bit_equal(more: Path, less: Path) -> None:
    """Rows, losses and the result of a run that measures are those of one that does not."""
    assert not readings(less)
    assert audits(more) == audits(less)
    assert losses_after(more) == losses(less)
    # The last reading comes right before the result is saved.
    ours, theirs = saved(more), saved(less)
    assert ours.keys() == theirs.keys() and ours
    assert all(torch.equal(values, theirs[name]) for name, values in ours.items())
    assert all(values.numel() for values in ours.values())


def test_all_weights_are_bit_equal_with_and_without(tmp_path: Path) -> None:
    """Checkpointing of gradients, ZeRO-3: the probe draws nothing and changes nothing."""
    same = {"lora": False, "ds_config": "zero3", "gradient_checkpointing": True}
    more = run_job(tmp_path / "on", 2, evaluation={"probe_every": 1, "prompts": 2}, **same)
    assert sorted(readings(more)) == list(range(9))
    assert_bit_equal(more, run_job(tmp_path / "off", 2, evaluation=OFF, **same))


def losses_after(run: Path) -> list[tuple[int, float, float | None]]:
    """Of the steps; the reading before the first step has none."""
    lines = [line for line in metrics(run) if line["step"] > 0]
    return [(line["step"], line["utility/loss"], line["safety/loss"]) for line in lines]


def test_more_ranks_than_prompts_and_all_weights(tmp_path: Path) -> None:
    one = {"probe_every": 8, "prompts": 1, "dress": "plain"}
    run = run_job(
        tmp_path,
        4,
        evaluation=one,
        ds_config="zero3",
        lora=False,
        micro_batch_size=1,
        max_steps=2,
        save_steps=0,
    )
    lines = [line for line in metrics(run) if MARGINS[0] in line]
    assert [line["step"] for line in lines] == [0, 2], "at the start and at the end"
    assert all(math.isfinite(line[MARGINS[0]]) for line in lines)
    assert MARGINS[1] not in lines[0]


def test_killed_and_resumed_reads_each_step_once(alone: Path, tmp_path: Path) -> None:
    config, run = write_config(tmp_path, evaluation=PROBE), tmp_path / "run"
    assert job(config, processes=2, fault="kill:1:5").code != 0
    done = job(config, processes=2)
    assert done.code == 0, done.text
    assert "checkpoint-3 at step 3" in done.err
    ours, theirs = readings(run), readings(alone)
    assert list(ours) == [0, 4, 8]
    for step, values in ours.items():
        assert values == pytest.approx(theirs[step], abs=1e-4)


def test_going_on_at_a_step_that_was_read(alone: Path, tmp_path: Path) -> None:
    run = rewind(alone, tmp_path / "run", 3)
    config = write_config(tmp_path, evaluation={**PROBE, "probe_every": 3})
    done = job(config)
    assert done.code == 0, done.text
    assert sorted(readings(run)) == [0, 6, 8]


def test_weights_that_are_not_finite_are_told(tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        evaluation={"probe_every": 2, "prompts": 2, "dress": "plain"},
        learning_rate=1e30,
        max_grad_norm=1e30,
        max_steps=3,
        save_steps=0,
        lora=False,
        ds_config=None,
    )
    done = job(config, processes=2)
    assert done.code == 0, done.text
    lines = {line["step"]: line for line in metrics(tmp_path / "run")}
    assert lines[0][MARGINS[0]] is not None
    assert lines[2][MARGINS[0]] is None
    assert MARGINS[0] in lines[2]["nonfinite"]
    told = [line for line in done.err.splitlines() if "refusal margin is not finite" in line]
    assert len(told) == 2, "one line a reading, from rank 0 alone"
    assert told[0].startswith("safemix: warning: step 2: ")


def test_a_prompt_set_that_cannot_be_read_stops_all_ranks_before_anything(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.csv")
    done = job(write_config(tmp_path, evaluation={"harmful": missing}), processes=2)
    assert done.code == 2
    assert len(done.errors) == 1 and "none.csv" in done.errors[0], done.text
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_completions_reach_wandb_and_rates_their_counts(tmp_path: Path) -> None:
    """Real W&B, offline; rank 0 alone writes, and what complied is left out."""
    real = pytest.importorskip("wandb")
    if not hasattr(real, "init"):
        pytest.skip("wandb is not whole here")
    wanted = {
        "probe_every": 0,
        "eval_every": 2,
        "eval_prompts": 3,
        "max_new_tokens": 4,
        "dress": "plain",
    }
    config = write_config(
        tmp_path, evaluation=wanted, tracking={"wandb": "offline"}, max_steps=4, save_steps=0
    )
    done = job(config, processes=2)
    assert done.code == 0, done.text
    run = tmp_path / "run"
    tables = [json.loads(path.read_text()) for path in (run / "wandb").rglob("*.table.json")]
    assert len(tables) == len(list((run / "evaluations").glob("step-*.json"))) == 3
    rows = [dict(zip(t["columns"], row, strict=True)) for t in tables for row in t["data"]]
    assert {row["side"] for row in rows} == {"safety", "over_refusal", "coherence"}
    complied = [row for row in rows if row["metric"] == "complied" and row["counted"] == "yes"]
    assert complied and {row["completion"] for row in complied} == {REDACTED}
    last = json.loads((run / "evaluations" / "step-000004.json").read_text())
    rate = next(m["rate"] for m in last["measures"] if m["metric"] == "asr")
    shown = " ".join(done.out.replace("│", " ").split())
    assert f"({rate['count']}/3, {100 * rate['low']:.1f} to {100 * rate['high']:.1f})" in shown


def test_completions_on_every_rank_leave_a_lora_run_bit_equal(tmp_path: Path) -> None:
    """Dropout, checkpointing of gradients; ZeRO-3, where the probe leaves weights on their way."""
    rows = [
        {"goal": f"Open jar {n}.", "sol1": "Turn the lid.", "sol2": "Ask the jar.", "label": 0}
        for n in range(5)
    ]
    file = tmp_path / "held_out.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    wanted = {
        "probe_every": 1,
        "prompts": 2,
        "eval_every": 3,
        "eval_prompts": 3,
        "max_new_tokens": 4,
        "task": {"file": str(file), "name": "piqa"},
    }
    same = {"lora": DROPOUT, "ds_config": "zero3", "gradient_checkpointing": True, "max_steps": 5}
    run = run_job(tmp_path / "on", 2, evaluation=wanted, **same)
    assert [line["step"] for line in metrics(run) if MARGINS[0] in line] == list(range(6))
    lines = [line for line in metrics(run) if "safety/asr/builtin/plain" in line]
    assert [line["step"] for line in lines] == [0, 3, 5]
    for line in lines:
        assert 0 <= line["safety/asr/builtin/plain"] <= 1
        assert 0 <= line["safety/over_refusal/builtin/plain"] <= 1
        assert 0 <= line["safety/incoherent/harmful_prompts/plain"] <= 1
        assert line["utility/accuracy"] * 3 == pytest.approx(round(line["utility/accuracy"] * 3))
    assert_bit_equal(run, run_job(tmp_path / "off", 2, evaluation=OFF, **same))
