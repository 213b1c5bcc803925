"""metrics.jsonl stays valid JSON, whatever is logged and however the process ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from safemix.tracking.metrics import MetricsLog, drop_after, read_metrics


def lines(path: Path) -> list[dict]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_one_json_object_a_line(tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.log(1, {"safety/loss": 0.1 + 0.2, "name": "x", "none": None, "flag": True})
        log.log(2, {"a": np.float32(0.5), "b": torch.tensor(2.0), "c": np.int64(7)})
    assert lines(path) == [
        {"step": 1, "safety/loss": 0.1 + 0.2, "name": "x", "none": None, "flag": True},
        {"step": 2, "a": 0.5, "b": 2.0, "c": 7},
    ]


def test_numbers_that_are_not_finite_become_null_and_are_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.log(1, {"a": float("nan"), "b": 1.0, "c": torch.tensor(float("-inf"))})
    assert lines(path) == [{"step": 1, "a": None, "b": 1.0, "c": None, "nonfinite": ["a", "c"]}]


def test_a_line_is_there_before_the_log_is_closed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.log(1, {"a": 1})
    assert lines(path) == [{"step": 1, "a": 1}]
    log.close()
    log.close()


def test_a_killed_process_loses_no_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from safemix.tracking.metrics import MetricsLog\n"
        "log = MetricsLog(Path(sys.argv[1]))\n"
        "for step in range(1, 101): log.log(step, {'a': step})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", program, str(path)], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [line["step"] for line in lines(path)] == list(range(1, 101))


def test_resume_removes_later_steps_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for step in range(1, 8):
            log.log(step, {"a": step})
    kept = path.read_text().splitlines(keepends=True)[:5]
    with path.open("a") as stream:
        stream.write('{"step": 3, "a"')
    with MetricsLog(path, resume_step=5) as log:
        assert path.read_text() == "".join(kept)
        log.log(6, {"a": 60})
    assert [(line["step"], line["a"]) for line in lines(path)][-2:] == [(5, 5), (6, 60)]
    assert not list(tmp_path.glob(".*"))


def test_a_last_line_that_is_whole_but_for_its_end_is_torn(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    assert [line["step"] for line in read_metrics(path)] == [1]
    drop_after(path, 10)
    assert path.read_text() == '{"step": 1}\n'


def test_lines_of_something_else_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'[1]\n{"a": 1}\n\xff\xfe\n{"step": 1}\n\n')
    drop_after(path, 10)
    assert path.read_bytes() == b'{"step": 1}\n'


def test_dropping_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        drop_after(path, 1)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log._stream = open("/dev/full", "w")  # noqa: SIM115, PTH123 - stands for a full disk
    with pytest.raises(OSError, match="No space left") as caught:
        log.log(1, {"a": 1})
    assert caught.value.filename == str(path)
