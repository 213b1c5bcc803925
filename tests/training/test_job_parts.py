"""The parts of a job that can be tested without starting one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safemix.errors import CheckpointError, SafemixError, SettingsError
from safemix.settings import parse_settings
from safemix.training import outputs
from safemix.training.checkpoints import (
    MANIFEST,
    Checkpoint,
    check_fixed,
    clear_after,
    find_checkpoint,
    rotate,
    write_manifest,
)
from safemix.training.main import overrides, read_arguments
from safemix.training.process import known_failure, lost_peer, plain_words, shared
from safemix.training.run import check_early


def checkpoint(run: Path, step: int, *, complete: bool = True) -> Path:
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "safemix.json").write_text("{}")
    (folder / "weights.safetensors").write_bytes(bytes(100))
    if complete:
        write_manifest(folder, step=step, world_size=2, fixed={"model": "tiny"})
    return folder


def test_words_of_the_command_line() -> None:
    words = ["--ratio", "0.2", "--max-steps=4", "--audit_rows", "--lora.r", "8", "--warmup", "-1"]
    assert overrides(words) == [
        "ratio=0.2",
        "max_steps=4",
        "audit_rows=true",
        "lora.r=8",
        "warmup=-1",
    ]
    with pytest.raises(SettingsError, match="'stray' belongs to no key"):
        overrides(["stray"])
    with pytest.raises(SettingsError, match="--config"):
        read_arguments([])


def test_the_latest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path / "none", print) is None
    for step in (9, 10, 100):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 101, complete=False)
    told: list[str] = []
    found = find_checkpoint(tmp_path, told.append)
    assert found == Checkpoint(tmp_path / "checkpoint-100", 100, 2, {"model": "tiny"})
    assert Checkpoint.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert len(told) == 1
    assert "checkpoint-101 is incomplete" in told[0]
    clear_after(tmp_path, 10)
    assert {p.name for p in tmp_path.iterdir()} == {
        "checkpoint-9",
        "checkpoint-10",
        "unused-checkpoint-100",
    }


@pytest.mark.parametrize(
    ("keep", "left"), [(2, {20, 100}), (9, {3, 20, 100}), (None, {3, 20, 100})]
)
def test_old_checkpoints_go_by_step(keep: int | None, left: set[int], tmp_path: Path) -> None:
    for step in (100, 3, 20):
        checkpoint(tmp_path, step)
    unfinished = checkpoint(tmp_path, 2, complete=False)
    rotate(tmp_path, keep)
    found = {int(p.parent.name.split("-")[1]) for p in tmp_path.glob(f"*/{MANIFEST}")}
    assert found == left
    assert unfinished.is_dir()


def test_settings_that_may_not_change(tmp_path: Path) -> None:
    found = Checkpoint(tmp_path, 1, 1, {"model": "a", "lora.r": 4})
    check_fixed(found, {"model": "a", "lora.r": 4, "new": 1})
    with pytest.raises(CheckpointError, match=r"lora\.r is 8 but .* was made with 4"):
        check_fixed(found, {"model": "a", "lora.r": 8})


def test_earlier_results_are_kept(tmp_path: Path) -> None:
    assert outputs.set_aside(tmp_path / "new") is None
    (tmp_path / "settings.yaml").write_text("")
    assert outputs.set_aside(tmp_path) is None, "settings alone are no result"
    for number in (1, 2):
        (tmp_path / "metrics.jsonl").write_text(str(number))
        checkpoint(tmp_path, number)
        assert outputs.set_aside(tmp_path) == tmp_path / f"previous-{number}"
        assert (tmp_path / f"previous-{number}" / "metrics.jsonl").read_text() == str(number)
        assert (tmp_path / f"previous-{number}" / f"checkpoint-{number}").is_dir()
    assert {p.name for p in tmp_path.iterdir()} == {"previous-1", "previous-2"}


def test_audit_of_ranks_that_are_gone(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    lines = "".join(json.dumps({"step": step, "rows": []}) + "\n" for step in range(4))
    for rank in range(3):
        (tmp_path / "audit" / f"rank{rank}.jsonl").write_text(lines + '{"torn')
    outputs.cut_audit(tmp_path, 2, ranks=1)
    assert (tmp_path / "audit" / "rank0.jsonl").read_text().endswith("torn")
    for rank in (1, 2):
        text = (tmp_path / "audit" / f"rank{rank}.jsonl").read_text()
        assert [json.loads(line)["step"] for line in text.splitlines()] == [0, 1]


def test_result_out_of_a_checkpoint(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 5)
    for name in ("optimizer.pt", "rng_state_0.pth", "latest", "trainer_state.json", "zero.py"):
        (folder / name).write_text("x")
    (folder / "global_step5").mkdir()
    (folder / "tokenizer.json").write_text("{}")
    partial, target = tmp_path / ".adapter.partial", tmp_path / "adapter"
    partial.mkdir()
    (partial / "torn").write_text("from a start that was cut short")
    outputs.copy_weights(folder, partial)
    outputs.publish(partial, target, 5)
    assert {p.name for p in target.iterdir()} == {"weights.safetensors", "tokenizer.json"}
    assert outputs.finished_at(tmp_path) == 5
    assert not partial.exists()


def test_plain_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plain_words(SafemixError("two\nlines")) == "two lines"
    assert plain_words(OSError(28, "No space left on device")) == "No space left on device"
    told = plain_words(PermissionError(13, "Permission denied", "/x"))
    assert told == "Permission denied: /x"
    assert "micro_batch_size" in str(known_failure(RuntimeError("CUDA out of memory. Tried ...")))
    assert plain_words(ValueError("odd\n thing")) == "ValueError: odd thing"
    gone = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:3")
    assert not lost_peer(gone), "a process alone has no peers"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert lost_peer(gone)
    assert "another process of the job has ended" in plain_words(gone)
    assert not lost_peer(BrokenPipeError(32, "Broken pipe"))
    assert not lost_peer(CheckpointError("connection closed by peer"))


def test_shared_in_a_single_process() -> None:
    assert shared(lambda: {"step": 3}) == {"step": 3}
    with pytest.raises(SettingsError):
        shared(lambda: overrides(["x"]))


def test_a_launcher_that_leaves_deepspeed_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # what `accelerate launch --cpu` sets
    given = {"model": "tiny", "task": "builtin:task", "safety": "builtin:safety", "max_steps": 1}
    with pytest.raises(SettingsError, match="--cpu leaves DeepSpeed out"):
        check_early(parse_settings({**given, "ds_config": "zero3"}))
    check_early(parse_settings({**given, "ds_config": None}))
