"""A job that is killed goes on by itself, on the same rows and with the same losses."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobs_for_tests import (
    audits,
    job,
    launch,
    losses,
    metrics,
    rewind,
    rows_by_step,
    write_config,
)

pytestmark = pytest.mark.slow
DROPOUT = {"r": 4, "alpha": 8, "dropout": 0.2}


def assert_same_run(run: Path, reference: Path) -> None:
    """Every rank's rows are equal, and every step's losses to 1e-6."""
    assert audits(run) == audits(reference)
    ours, theirs = losses(run), losses(reference)
    assert [m[0] for m in ours] == [m[0] for m in theirs] == list(range(1, 9))
    for (_, utility, safety), (_, utility_then, safety_then) in zip(ours, theirs, strict=True):
        assert utility == pytest.approx(utility_then, abs=1e-6)
        assert safety == pytest.approx(safety_then, abs=1e-6)


@pytest.fixture(scope="module")
def zero2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run under ZeRO-2 on 2 processes, with dropout."""
    folder = tmp_path_factory.mktemp("zero2")
    done = job(write_config(folder, lora=DROPOUT), processes=2)
    assert done.code == 0, done.text
    return folder / "run"


@pytest.fixture(scope="module")
def zero3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero3")
    done = job(write_config(folder, lora=DROPOUT, ds_config="zero3"), processes=2)
    assert done.code == 0, done.text
    return folder / "run"


def test_killed_twice_under_zero2(zero2: Path, tmp_path: Path) -> None:
    config, run = write_config(tmp_path, lora=DROPOUT), tmp_path / "run"
    killed = launch(config, fault="kill:1:5")
    assert killed.code != 0
    assert not killed.errors, "the rank that was left has nothing to tell"
    assert [p.name for p in run.glob("checkpoint-*")] == ["checkpoint-3"]
    assert max(rows_by_step(run)) == 4, "steps 0 to 4 were trained before the kill"

    killed = launch(config, fault="kill_save:0:6")
    assert killed.code != 0
    assert "resuming from" in killed.err
    assert "checkpoint-3 at step 3" in killed.err
    assert (run / "checkpoint-6" / "trainer_state.json").exists()
    assert not (run / "checkpoint-6" / "safemix_manifest.json").exists()

    done = launch(config)
    assert done.code == 0, done.text
    assert "checkpoint-6 is incomplete" in done.err
    assert "checkpoint-3 at step 3" in done.err
    assert_same_run(run, zero2)


def test_killed_under_zero3(zero3: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, lora=DROPOUT, ds_config="zero3")
    assert launch(config, fault="kill:0:5").code != 0
    done = job(config, processes=2)
    assert done.code == 0, done.text
    assert "checkpoint-3 at step 3" in done.err
    assert_same_run(tmp_path / "run", zero3)


def test_killed_between_last_checkpoint_and_result(tmp_path: Path) -> None:
    config, run = write_config(tmp_path, max_steps=2, save_steps=0), tmp_path / "run"
    assert job(config, fault="kill_end:0:2").code != 0
    assert not (run / "adapter").exists()
    done = job(config)
    assert done.code == 0, done.text
    assert "run is complete at step 2" in done.err
    assert (run / "adapter" / "adapter_model.safetensors").exists()
    assert not list((run / "adapter").glob("*.pt*"))
    assert not list(run.glob(".adapter*"))
    again = job(config)
    assert again.code == 0
    assert "run is complete at step 2" in again.err
    assert "was missing" not in again.err
    assert len(metrics(run)) == 2

    longer = job(config, "--max_steps", "3")
    assert longer.code == 0, longer.text
    assert [m["step"] for m in metrics(run)] == [1, 2, 3]

    fresh = job(config, "--resume", "never")
    assert fresh.code == 0, fresh.text
    assert "now lie in" in fresh.err
    assert (run / "previous-1" / "adapter").is_dir()
    assert (run / "previous-1" / "metrics.jsonl").exists()
    assert len(metrics(run)) == 2


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_two_processes_to_one_and_back(stage: str, tmp_path: Path) -> None:
    # Without dropout, whose draws differ with the number of ranks.
    config = write_config(tmp_path, ds_config=stage)
    done = job(config, processes=2)
    assert done.code == 0, done.text
    run = rewind(tmp_path / "run", tmp_path / "other", 3)
    there = ("--output_dir", str(run))
    done = job(config, *there, "--max_steps", "6", processes=1)
    assert done.code == 0, done.text
    assert "checkpoint-3 at step 3" in done.err
    assert max(rows_by_step(run)) == 5, "rows of steps that were undone are out of the audit"
    assert (run / "checkpoint-3" / "global_step3_universal").is_dir()
    done = job(config, *there, processes=2)
    assert done.code == 0, done.text
    assert "checkpoint-6 at step 6" in done.err
    assert rows_by_step(run) == rows_by_step(tmp_path / "run")
    for now, then in zip(losses(run), losses(tmp_path / "run"), strict=True):
        assert now == pytest.approx(then, abs=1e-4)


def test_ratio_changed_on_resume(zero2: Path, tmp_path: Path) -> None:
    run = rewind(zero2, tmp_path / "run", 3)
    config = write_config(tmp_path, lora=DROPOUT)
    done = job(config, "--ratio", "0.25", processes=2)
    assert done.code == 0, done.text
    read = metrics(run)
    assert [m["mix/ratio"] for m in read] == [0.1] * 3 + [0.25] * 5
    rows = rows_by_step(run)
    assert [sum(name == "safety" for name, _ in rows[step]) for step in range(3, 8)] == [2] * 5
    before = rows_by_step(zero2)
    assert all(rows[step] == before[step] for step in range(3))
    seen = [row for step in rows.values() for row in step]
    assert len(seen) == len(set(seen)), "within the first pass no row comes a second time"
    # The change is part of the next checkpoint: going on with it replays nothing either.
    done = job(config, "--ratio", "0.25", "--max_steps", "9", processes=2)
    assert done.code == 0, done.text
    assert metrics(run)[-1]["mix/ratio"] == 0.25
    seen = [row for step in rows_by_step(run).values() for row in step]
    assert len(seen) == len(set(seen)) == 72
