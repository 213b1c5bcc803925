"""What a trial's attempts did, read from lines that a kill may have cut anywhere."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from runs_for_tests import attempt, state_of

from safemix.tuning.attempt_log import AttemptLog
from safemix.tuning.attempts import (
    ATTEMPTS,
    FAILED,
    Work,
    failure,
    work_done,
    write_failure,
)


def test_a_folder_without_attempts_has_no_work(tmp_path):
    assert work_done(tmp_path) == Work()
    (tmp_path / ATTEMPTS).write_text("", "utf-8")
    assert work_done(tmp_path) == Work()


def test_steps_of_all_attempts_are_counted(tmp_path):
    attempt(tmp_path, 0, 25, ends=False)  # its worker was lost
    attempt(tmp_path, 20, 60)
    done = work_done(tmp_path)
    assert (done.step, done.steps, done.attempts, done.max_steps) == (60, 65, 2, 60)
    assert done.seconds > 0


def test_only_what_ray_started_again_by_itself_is_a_restart(tmp_path):
    for first, start in [(0, "a"), (10, "a"), (20, "a"), (30, "b"), (40, "c"), (50, "c")]:
        attempt(tmp_path, first, first + 10, start=start)
    done = work_done(tmp_path)
    assert (done.attempts, done.restarts) == (6, 3), "a sweep that goes on is no lost worker"


def test_seconds_are_of_the_attempt_not_of_the_process(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("safemix.tuning.attempt_log.time.monotonic", lambda: now[0])
    log = AttemptLog(tmp_path, begun=90.0)
    log.on_train_begin(None, state_of(0), None)
    now[0] = 130.5
    log.on_train_end(None, state_of(60), None)
    assert work_done(tmp_path).seconds == 40.5


@given(cut=st.integers(0, 400))
def test_a_kill_in_the_middle_of_a_line_loses_that_line_only(tmp_path_factory, cut):
    folder: Path = tmp_path_factory.mktemp("cut")
    attempt(folder, 0, 6, ends=False)
    path = folder / ATTEMPTS
    whole = path.read_bytes()
    path.write_bytes(whole[: min(cut, len(whole))])
    read = work_done(folder)
    lines = [line for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
    assert read.step == (json.loads(lines[-1])["step"] if lines else 0)
    attempt(folder, 3, 9)
    done = work_done(folder)
    assert done.step == 9
    assert done.attempts == (2 if lines else 1), "the cut line has not swallowed the next one"
    assert done.steps == read.step + 6


def test_the_reason_of_the_first_rank_stays(tmp_path):
    assert failure(tmp_path) is None
    write_failure(tmp_path / "trial", "out of memory: use a smaller micro_batch_size")
    write_failure(tmp_path / "trial", "RuntimeError: what came of it")
    assert failure(tmp_path / "trial") == "out of memory: use a smaller micro_batch_size"


def test_ranks_that_fail_together_do_not_disturb_each_other(tmp_path):
    raised: list[BaseException] = []
    barrier = threading.Barrier(8)

    def fail(rank: int) -> None:
        barrier.wait()
        try:
            for _ in range(50):
                write_failure(tmp_path, f"rank {rank}")
                (tmp_path / FAILED).unlink(missing_ok=True)
        except OSError as error:
            raised.append(error)

    ranks = [threading.Thread(target=fail, args=(rank,)) for rank in range(8)]
    for one in ranks:
        one.start()
    for one in ranks:
        one.join()
    assert raised == []
    assert list(tmp_path.glob(f".{FAILED}*")) == [], "nothing is left over"
