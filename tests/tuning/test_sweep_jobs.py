"""Real sweeps: Ray Tune, Ray Train, DeepSpeed on two workers; and what happens when things die."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweep_jobs_for_tests import (
    ROOT,
    RUN,
    SweepJob,
    record,
    rows_of,
    start,
    starts_of,
    step_of,
    sweep_file,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
pytest.importorskip("ray")
pytest.importorskip("optuna")


# ---- a whole sweep, with a worker that dies and a trial that cannot work ---------------------


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> SweepJob:
    """A grid of two: one loses a worker on its way, the other fails by itself."""
    folder = tmp_path_factory.mktemp("sweep")
    search = {"ratio": {"grid": [0.25]}, "max_length": {"grid": [256, 8]}}
    path = sweep_file(folder, search=search, searcher="grid", trials=None)
    job = start("--config", str(path), folder=folder)
    until(lambda: step_of(job.folder, "trial-00") >= 6, job)
    job.kill_worker("trial-00", rank=1)
    assert job.wait() == 0, job.text
    return job


def test_the_lost_worker_costs_no_row_and_repeats_none(done: SweepJob) -> None:
    trial = record(done.folder, "trial-00")
    assert (trial["status"], trial["step"], trial["restarts"]) == ("done", 40, 1)
    # Steps since the last checkpoint were trained again, and are told.
    assert 40 * 8 < trial["rows"] <= 44 * 8
    rows = rows_of(done.folder / "trials" / "trial-00")
    assert list(rows) == list(range(40))
    assert all(Counter(n for n, _ in step) == {"task": 6, "safety": 2} for step in rows.values())
    every = Counter(row for step in rows.values() for row in step)
    assert max(every.values()) == 1, "no row twice within a pass"


def test_the_trial_that_fails_stands_with_its_reason(done: SweepJob) -> None:
    trial = record(done.folder, "trial-01")
    assert trial["status"] == "failed"
    assert "no room for a trained token within max_length 8" in trial["reason"]
    assert "\n" not in trial["reason"]
    report = (done.folder / "report.html").read_text("utf-8")
    assert "trial-01" in report
    with (done.folder / "trials.csv").open(encoding="utf-8", newline="") as lines:
        states = {line["number"]: line["status"] for line in csv.DictReader(lines)}
    assert (states["0"], states["1"]) == ("done", "failed")


def test_baselines_stand_in_every_sweep(done: SweepJob) -> None:
    unmixed, untouched = (record(done.folder, name) for name in ("unmixed", "untouched"))
    assert (unmixed["status"], unmixed["step"]) == ("done", 40)
    rows = rows_of(done.folder / "trials" / "unmixed")
    assert {name for step in rows.values() for name, _ in step} == {"task"}
    for one in (unmixed, untouched):
        assert {o["metric"] for o in one["outcomes"]} >= {"asr", "refused", "incoherent"}
        assert any(o["side"] == "utility" and len(o["counted"]) == 4 for o in one["outcomes"])
    assert untouched["rows"] == 0
    # The untouched model is evaluated once, before the first step of the run without mixing.
    found = sorted(path.name for path in done.folder.glob("trials/*/evaluations/step-000000.json"))
    assert found == ["step-000000.json"]


def test_every_rank_reported_the_same_number_of_times(done: SweepJob) -> None:
    logs = (done.folder / "trials" / "unmixed" / "logs").glob("rank*.log")
    said = [
        line.split()[-3]
        for log in sorted(logs)
        for line in log.read_text("utf-8").splitlines()
        if line.endswith("readings reported")
    ]
    assert said == ["11", "11"], "step 0 and every fourth step of 40"


def test_the_rows_of_all_trials_were_made_once(done: SweepJob) -> None:
    cache = done.folder / "cache"
    made = [path for path in cache.iterdir() if path.name.startswith("rows-")]
    # Task and safety rows at 256 tokens; the trial of 8 tokens had none to keep.
    assert len(made) == 2
    assert not (done.folder / "trials" / "trial-00" / ".cache").exists()


def test_wandb_has_one_run_a_trial_in_one_group(done: SweepJob) -> None:
    runs = list(done.folder.glob("trials/*/wandb/offline-run-*/run-*.wandb"))
    assert {path.parents[2].name for path in runs} >= {"trial-00", "unmixed"}
    settings = yaml.safe_load((done.folder / "trials/unmixed/settings.yaml").read_text("utf-8"))
    assert settings["tracking"]["group"] == "sweep"
    assert settings["tracking"]["run_name"] == "unmixed"


def test_the_run_file_draws_the_rows_of_the_trial_again(done: SweepJob, tmp_path: Path) -> None:
    chosen = json.loads((done.folder / "recommendation.json").read_text("utf-8"))
    assert chosen["trial"] == "trial-00"
    command = [
        *(str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2"),
        *("--master_port", "29711", str(ROOT / "launchers" / "train.py")),
        *("--config", str(done.folder / "best.yaml"), "--output_dir", str(tmp_path / "again")),
        *("--evaluation", "false"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
    assert rows_of(tmp_path / "again") == rows_of(done.folder / "trials" / "trial-00")


def test_nothing_is_left_behind(done: SweepJob) -> None:
    assert done.left() == []
    assert not (done.folder / ".ray").exists()


# ---- the driver dies, and goes on -------------------------------------------------------------


def test_killed_interrupted_and_resumed_under_asha(tmp_path: Path) -> None:
    # The second trial learns next to nothing: ASHA stops it, by what it knows of the first one.
    path = sweep_file(
        tmp_path,
        run={"ratio": 0.25, "max_steps": 96},
        search={"learning_rate": {"grid": [1e-3, 1e-8]}},
        searcher="grid",
        trials=None,
        parallel=1,
        scheduler="asha",
        asha={"grace_steps": 8, "reduction_factor": 2},
        bound={"asr": 1},
    )
    job = start("--config", str(path), folder=tmp_path)
    until(lambda: step_of(job.folder, "trial-00") >= 6, job)
    job.process.kill()
    job.wait()
    before = (job.folder / "trials/unmixed/attempts.jsonl").read_text("utf-8")
    first = starts_of(job.folder, "trial-00")
    assert record(job.folder, "unmixed")["status"] == "done"

    again = start("--config", str(path), folder=tmp_path)
    assert again.wait(60) == 2
    assert "holds a sweep already" in again.text

    job = start("--resume", str(job.folder), folder=tmp_path)
    until(lambda: len(starts_of(job.folder, "trial-00")) == 2, job)
    job.process.send_signal(signal.SIGINT)
    assert job.wait(90) == 130, job.text
    # W&B's own processes end when they find that what they watch is gone.
    assert job.left(after=15) == [], "no orphans"
    assert "go on with: safemix tune --resume" in job.text
    assert (job.folder / "report.html").exists()
    stands = record(job.folder, "trial-00")
    assert (stands["status"], stands["reason"]) == ("waiting", "interrupted, goes on by --resume")

    job = start("--resume", str(job.folder), folder=tmp_path)
    assert job.wait() == 0, job.text
    assert (job.folder / "trials/unmixed/attempts.jsonl").read_text("utf-8") == before, "run again"
    starts = starts_of(job.folder, "trial-00")
    assert starts[0] == first[0] == 0
    assert len(starts) == 3 and 0 < starts[1] <= starts[2] < 96, "from its checkpoint"
    good, bad = (record(job.folder, f"trial-{n:02d}") for n in range(2))
    assert (good["status"], good["step"]) == ("done", 96)
    rows = rows_of(job.folder / "trials" / "trial-00")
    assert list(rows) == list(range(96))
    assert max(Counter(r for step in rows.values() for r in step).values()) == 1
    assert bad["status"] == "stopped" and 8 <= bad["step"] < 96
    assert bad["reason"] == "asha: 1 of 2 trials stood better at step 8, 1 may go on"
    assert record(job.folder, "unmixed")["status"] == "done", "a baseline is never stopped"

    names = ("unmixed", "trial-00", "trial-01")
    ended = {name: starts_of(job.folder, name) for name in names}
    job = start("--resume", str(job.folder), folder=tmp_path)
    assert job.wait() == 0, job.text
    assert {name: starts_of(job.folder, name) for name in names} == ended, "no ended trial again"


# ---- population-based training ----------------------------------------------------------------


def _side_by_side(job: SweepJob, names: Sequence[str], step: int) -> None:
    """Hold the first trial that comes to a step until the other one is there too.

    Ray compares a trial when it reports with what the other one reported last. On a busy machine
    one may be at its end before the other one has reported.
    """
    until(lambda: any(step_of(job.folder, name) >= step for name in names), job)
    ahead, behind = sorted(names, key=lambda name: step_of(job.folder, name), reverse=True)
    job.signal_worker(ahead, 0, signal.SIGSTOP)
    try:
        until(lambda: step_of(job.folder, behind) >= step, job)
    finally:
        job.signal_worker(ahead, 0, signal.SIGCONT)


def test_population_based_training_changes_the_ratio_of_a_running_trial(tmp_path: Path) -> None:
    keys: dict[str, Any] = {
        "scheduler": "pbt",
        "bound": {"asr": 1},
        "workers": 1,
        "trials": 2,
        "seed": 8,
        "resources": {"cpus_per_worker": 0.5},
        "pbt": {"every_steps": 16, "quantile": 0.5, "factors": [0.5, 2.0]},
        "search": {"ratio": {"log_uniform": [0.05, 0.5]}},
    }
    run: dict[str, Any] = {
        "max_steps": 96,
        "save_steps": 16,
        "save_total_limit": 16,
        "mitigation": "base",
    }
    run["evaluation"] = {**RUN["evaluation"], "probe_every": 16}
    job = start("--config", str(sweep_file(tmp_path, run=run, **keys)), folder=tmp_path)
    _side_by_side(job, ("trial-00", "trial-01"), step=16)
    assert job.wait(300) == 0, job.text
    trials = [record(job.folder, f"trial-{n:02d}") for n in range(2)]
    assert all((trial["status"], trial["step"]) == ("done", 96) for trial in trials)
    changed = [trial for trial in trials if len(trial["ratios"]) > 1]
    assert changed, job.text
    for trial in trials:
        rows = rows_of(job.folder / trial["folder"])
        assert list(rows) == list(range(96))
        safety = [row for step in rows.values() for name, row in step if name == "safety"]
        # Neither lost nor repeated: each pass over the safety rows comes to its end first.
        counts = Counter(safety)
        assert max(counts.values()) - min(counts.values()) <= 1 or len(counts) == len(safety)
        expected, drawn = 0.0, 0
        ratios = dict(trial["ratios"])
        ratio = 0.0
        for step, content in rows.items():
            ratio = ratios.get(step, ratio)
            expected += 8 * ratio
            drawn += sum(name == "safety" for name, _ in content)
            assert abs(drawn - expected) < 1.5, (trial["number"], step)
