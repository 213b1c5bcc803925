"""Damaged checkpoints, a full disk, other data: what is told, and what survives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jobs_for_tests import Done, audits, job, launch, losses, metrics, rewind, write_config

pytestmark = pytest.mark.slow
USER_ERROR = 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of one process: run.yaml, run/ with checkpoints 3, 6 and 8."""
    folder = tmp_path_factory.mktemp("finished")
    done = job(write_config(folder))
    assert done.code == 0, done.text
    return folder


@pytest.fixture
def killed(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, as if killed after step 7."""
    rewind(finished / "run", tmp_path / "run", 6)
    write_config(tmp_path)
    return tmp_path


def refused(done: Done, *words: str) -> None:
    assert done.code == USER_ERROR, done.text
    assert len(done.errors) == 1, done.text
    assert done.errors[0].startswith("safemix: error:"), done.errors
    assert "Traceback" not in done.text
    for word in words:
        assert word in done.errors[0], done.errors[0]


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("damage", "name", "told"),
    [
        (_flip, "global_step6/zero_pp_rank_0_mp_rank_00_optim_states.pt", "is damaged"),
        (_truncate, "adapter_model.safetensors", "is damaged"),
        (Path.unlink, "trainer_state.json", "is missing"),
        (_truncate, "safemix_manifest.json", "is damaged"),
    ],
)
def test_damaged_checkpoint_is_passed_over(
    damage: Callable[[Path], object], name: str, told: str, finished: Path, killed: Path
) -> None:
    run = killed / "run"
    damage(run / "checkpoint-6" / name)
    done = job(killed / "run.yaml")
    assert done.code == 0, done.text
    lines = [line for line in done.err.splitlines() if "passed over" in line]
    assert len(lines) == 1, done.err
    assert told in lines[0]
    assert "checkpoint-6" in lines[0]
    assert "checkpoint-3 at step 3" in done.err
    assert losses(run) == losses(finished / "run")
    assert audits(run) == audits(finished / "run")
    assert (run / "unused-checkpoint-6").is_dir(), "a damaged checkpoint is kept for its owner"


def test_all_checkpoints_damaged(killed: Path) -> None:
    run = killed / "run"
    before = (run / "metrics.jsonl").read_text()
    for folder in run.glob("checkpoint-*"):
        _flip(folder / "adapter_model.safetensors")
    refused(job(killed / "run.yaml"), "all 2 checkpoints", "resume: never")
    assert (run / "metrics.jsonl").read_text() == before
    assert len(list(run.glob("checkpoint-*"))) == 2


def test_settings_that_do_not_fit_the_checkpoint(killed: Path) -> None:
    run, config = killed / "run", killed / "run.yaml"
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and ".cache" not in p.parts}
    for arguments, words in (
        (["--seed", "7"], ["seed is 7", "made with 0"]),
        (["--global_batch_size", "16"], ["global_batch_size is 16", "made with 8"]),
        (["--task.limit", "100"], ["source task has 100 rows", "120"]),
        (["--lora.r", "4"], ["lora.r is 4", "made with 16"]),
        (["--lora", "false"], ["lora is False"]),
        (["--ds_config", "zero1"], ["ZeRO stage 1", "ZeRO stage 2"]),
        (["--granularity", "batch"], ["granularity is batch", "row"]),
    ):
        refused(job(config, *arguments), *words)
    after = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and ".cache" not in p.parts}
    assert after == before, "a run that is refused leaves the folder as it was"


def test_other_content_of_the_same_size_on_two_processes(tmp_path: Path) -> None:
    task = tmp_path / "task.jsonl"
    rows = [{"prompt": f"What is {n} + 1?", "completion": str(n + 1)} for n in range(40)]
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = write_config(tmp_path, task=str(task), max_steps=2, save_steps=1)
    assert job(config).code == 0
    rows[7]["completion"] = "eight"
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = "source task has the same number of rows but other content"
    refused(job(config, "--max_steps", "3", "--micro_batch_size", "1", processes=2), told)


def test_full_disk_while_saving(finished: Path, tmp_path: Path) -> None:
    config, run = write_config(tmp_path), tmp_path / "run"
    done = launch(config, fault="full:0:6")
    assert done.code != 0
    assert len(done.errors) == 1, done.text
    assert "Traceback" not in done.text
    assert "checkpoint-6 cannot be written" in done.errors[0]
    assert "the last complete one is" in done.errors[0]
    assert "checkpoint-3" in done.errors[0]
    assert not (run / "checkpoint-6").exists()
    done = job(config, processes=2)
    assert done.code == 0, done.text
    assert "checkpoint-3 at step 3" in done.err
    assert [m["step"] for m in metrics(run)] == list(range(1, 9))
    for now, then in zip(losses(run), losses(finished / "run"), strict=True):
        assert now == pytest.approx(then, abs=1e-4)


def test_full_disk_on_the_other_rank(tmp_path: Path) -> None:
    done = job(write_config(tmp_path, max_steps=4), fault="full:1:3", processes=2)
    assert done.code != 0
    assert len(done.errors) == 1, done.text
    assert "(rank 1)" in done.errors[0]
    assert "checkpoint-3 cannot be written" in done.errors[0]


def test_error_on_one_rank_only_ends_all(tmp_path: Path) -> None:
    (tmp_path / "run" / "audit" / "rank1.jsonl").mkdir(parents=True)
    config = write_config(tmp_path, max_steps=2, save_steps=0)
    # The folder is not set aside on a resume; take away what would make it a fresh start.
    first = job(write_config(tmp_path / "a", audit_rows=False, max_steps=1, save_steps=0))
    assert first.code == 0, first.text
    shutil.copytree(tmp_path / "a" / "run" / "checkpoint-1", tmp_path / "run" / "checkpoint-1")
    done = launch(config, "--ds_config", "zero2")
    assert done.code == USER_ERROR, done.text
    assert len(done.errors) == 1, done.text
    assert "(rank 1)" in done.errors[0]
    assert "rank1.jsonl" in done.errors[0]
    assert "Traceback" not in done.text


def test_checkpoints_are_limited_and_can_be_named(finished: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, save_steps=1, max_steps=4, save_total_limit=2)
    done = job(config)
    assert done.code == 0, done.text
    run = tmp_path / "run"
    assert {p.name for p in run.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-4"}
    named = str(finished / "run" / "checkpoint-6")
    done = job(write_config(tmp_path / "b", resume=named))
    assert done.code == 0, done.text
    assert [m["step"] for m in metrics(tmp_path / "b" / "run")] == [7, 8]
    assert losses(tmp_path / "b" / "run") == losses(finished / "run")[6:]
    refused(job(write_config(tmp_path / "c", resume="/no/such/checkpoint")), "no such folder")
    assert yaml.safe_load((run / "settings.yaml").read_text())["save_total_limit"] == 2
