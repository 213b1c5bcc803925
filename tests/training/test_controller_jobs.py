"""The ratio controller in real jobs: the same rows on all ranks, killed or not.

The readings that it follows are written beforehand, see `scripted_readings`.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import jobs_for_tests
import pytest
from jobs_for_tests import Done, audits, job, launch, metrics, rewind, rows_by_step, write_config

from safemix.mixture import MixturePlan

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("scripted_readings.py")
CONTROLLER: dict[str, Any] = {
    "controller": "target",
    "min_margin": 0.5,
    "start": 0.05,
    "min": 0.02,
    "max": 0.4,
}
# The real probe would read at step 0 and the last step only; it is not listened to. The scripted
# readings below are margins a token.
FAR = {"probe_every": 100_000, "margin": "mean"}
# Violated up to step 6, then far inside: the ratio rises, and falls again.
READINGS = [None] + [-1.0] * 6 + [4.0] * 30


# ---- helpers ---------------------------------------------------------------------------------


def scripted(config: Path, *arguments: str, processes: int = 1) -> Done:
    """A job that is told the readings; it must end well."""
    done = job(config, *arguments, processes=processes, hook="scripted_readings")
    assert done.code == 0, done.text
    return done


def controlled(folder: Path, readings: list[float | None] = READINGS, **changes: Any) -> Path:
    """Config of a run of 12 steps of 8 rows with a checkpoint every 4 and a reading every step."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "readings.json").write_text(json.dumps(readings))
    defaults = {"ratio": CONTROLLER, "evaluation": FAR, "max_steps": 12, "save_steps": 4}
    return write_config(folder, **(defaults | changes))


def followed_plan(run: Path, step: int) -> MixturePlan:
    saved = json.loads((run / f"checkpoint-{step}" / "safemix.json").read_text())
    return MixturePlan.from_state_dict(saved["plan"])


def assert_trained_on_the_plan(run: Path, last: int) -> MixturePlan:
    """The rows that were trained on are those of the plan in the last checkpoint."""
    plan = followed_plan(run, last)
    trained = rows_by_step(run)
    assert sorted(trained) == list(range(last))
    for step, rows in trained.items():
        asked = plan.step(step)
        names = [plan.sources[source] for source in asked.source.tolist()]
        assert rows == sorted(zip(names, asked.row.tolist(), strict=True)), step
    return plan


def history(plan: MixturePlan) -> list[tuple[int, Fraction]]:
    changes = plan.state_dict()["history"]
    return [(change["from_step"], Fraction(change["ratios"]["safety"])) for change in changes]


def ratios(run: Path) -> list[tuple[float, float, float]]:
    names = ("mix/ratio", "mix/controller/pressure", "mix/controller/moves")
    lines = [line for line in metrics(run) if line["step"]]  # a reading at step 0 stands alone
    return [tuple(line[name] for name in names) for line in lines]


def refused(done: Done, *words: str) -> None:
    assert done.code == 2, done.text
    assert len(done.errors) == 1, done.text
    for word in words:
        assert word in done.errors[0], done.errors[0]


# ---- jobs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "said.txt").write_text(scripted(controlled(folder), processes=2).err)
    return folder


def test_two_processes_follow_the_readings_of_rank_0(whole: Path) -> None:
    plan = assert_trained_on_the_plan(whole / "run", 12)
    # Quick up, slow down, one reading let pass after each move; the last change is yet to come.
    assert history(plan) == [
        (0, Fraction(1, 20)),
        (3, Fraction(1, 5)),
        (6, Fraction(2, 5)),
        (9, Fraction(28, 99)),
        (12, Fraction(1, 5)),
    ]
    logged = ratios(whole / "run")
    assert [line[0] for line in logged] == pytest.approx(
        [0.05] * 3 + [0.2] * 3 + [0.4] * 3 + [28 / 99] * 3
    )
    assert [line[2] for line in logged] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert logged[4][1] == pytest.approx(math.log(0.4 / 0.02))
    said = (whole / "said.txt").read_text()
    assert "ratio 0.05 -> 0.2 from step 3 on" in said
    assert said.count("safemix: step ") - said.count("loss task") == 4, "told by rank 0 alone"
    assert said.count("ratio controller: keeps margin (worst) >= 0.5 with 0.02 to 0.4") == 1


def test_killed_under_the_launcher_trains_on_the_same_rows(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_for_tests, "FAULTY", SCRIPT)
    config, run = controlled(tmp_path), tmp_path / "run"
    # Checkpoint 4 holds a change that begins at step 6.
    assert launch(config, fault="kill:0:7").code != 0
    assert not (run / "checkpoint-8").exists()
    done = scripted(config, processes=2)
    assert "checkpoint-4 at step 4" in done.err
    assert audits(run) == audits(whole / "run")
    assert ratios(run) == ratios(whole / "run")
    assert history(followed_plan(run, 12)) == history(followed_plan(whole / "run", 12))


def test_workers_that_draw_ahead_and_other_ranks_on_resume(tmp_path: Path) -> None:
    # One micro batch a step: the loader is as many steps ahead as it can be.
    config = controlled(tmp_path, num_workers=2, micro_batch_size=8, max_steps=18)
    scripted(config)
    run = tmp_path / "run"
    plan = assert_trained_on_the_plan(run, 18)
    assert [step for step, _ in history(plan)] == [0, 7, 14, 21], "six steps after the reading"
    seen = [json.loads(line) for line in (tmp_path / "observed-0.jsonl").open()]
    ahead = [line["drawn"] - line["step"] for line in seen[:10]]
    assert 3 <= max(ahead) <= 6, "the workers do draw ahead, and not beyond the lead"
    copy = rewind(run, tmp_path / "other", 12)
    other = ("--output_dir", str(copy), "--num_workers", "0", "--micro_batch_size", "2")
    done = scripted(config, *other, processes=2)
    assert "checkpoint-12 at step 12" in done.err
    assert rows_by_step(copy) == rows_by_step(run)
    assert history(followed_plan(copy, 18)) == history(plan)


def test_epochs_keep_the_length_that_the_first_ratio_gives(tmp_path: Path) -> None:
    task = {"builtin": "task", "limit": 44}
    changes = {"task": task, "max_steps": None, "epochs": 1, "save_steps": 2}
    config, run = controlled(tmp_path, **changes), tmp_path / "run"
    scripted(config)
    assert metrics(run)[-1]["step"] == 6  # 44 / (8 x 0.95), in whole steps
    assert metrics(run)[-1]["mix/passes/task"] < 1
    copy = rewind(run, tmp_path / "other", 4)
    scripted(config, "--output_dir", str(copy))
    assert audits(copy) == audits(run)


def test_failed_readings_after_a_run_without_a_controller(tmp_path: Path) -> None:
    plain = controlled(tmp_path, [None] * 20, ratio=0.1, max_steps=2, save_steps=0)
    assert job(plain).code == 0
    done = scripted(controlled(tmp_path, [None] * 20))
    warnings = [line for line in done.err.splitlines() if "not finite" in line]
    assert len(warnings) == 1, done.err
    assert "takes its largest ratio, 0.4" in warnings[0]
    # Asked anew at step 2; the third failed reading is that of step 5.
    plan = assert_trained_on_the_plan(tmp_path / "run", 12)
    assert history(plan) == [(0, Fraction(1, 10)), (2, Fraction(1, 20)), (7, Fraction(2, 5))]


def test_the_real_probe_is_followed_on_two_processes(tmp_path: Path) -> None:
    evaluation = {"probe_every": 2, "prompts": 4, "margin": "odds"}
    # No model has such a margin: every reading is a violation.
    asked = {**CONTROLLER, "min_margin": 50.0}
    config = write_config(tmp_path, ratio=asked, evaluation=evaluation, max_steps=8, save_steps=4)
    done = job(config, processes=2)
    assert done.code == 0, done.text
    plan = assert_trained_on_the_plan(tmp_path / "run", 8)
    assert history(plan) == [(0, Fraction(1, 20)), (4, Fraction(1, 5)), (8, Fraction(2, 5))]
    assert [line[2] for line in ratios(tmp_path / "run")] == [0, 1, 1, 1, 1, 2, 2, 2]


def test_a_largest_ratio_that_leaves_no_room(tmp_path: Path) -> None:
    general = {"builtin": "lookalikes", "limit": 20, "ratio": 0.7}
    config = controlled(tmp_path, sources={"general": general})
    refused(job(config), "ratio.max 0.4", "sum to 1.1")
