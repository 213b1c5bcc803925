"""`best.yaml`: the run file that draws a trial's rows again, whatever became of its ratio."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from runs_for_tests import BATCH, SIZES, attempt, checkpoint, plan_of
from sweep_records import baselines, trial
from sweep_records import sweep as records_of_a_sweep
from sweeps_for_tests import sweep

from safemix.mixture import MixturePlan, ratio_from
from safemix.settings import ControllerSettings, ScheduleSettings, Settings, parse_settings
from safemix.tuning.gather import refreshed
from safemix.tuning.records import TrialRecord
from safemix.tuning.results import BEST, CHOICE, write_best, write_results


def best_of(folder: Path, record: TrialRecord, **changes: object) -> Settings:
    """The run file of a record, as the launcher would read it."""
    write_best(folder / BEST, sweep(output_dir=str(folder), **changes), record)
    return parse_settings(yaml.safe_load((folder / BEST).read_text("utf-8")), BEST)


def planned(run: Settings, batch: int) -> MixturePlan:
    """The plan that a run file stands for."""
    asked = run.ratio
    if isinstance(asked, ScheduleSettings):
        asked = asked.model_dump(exclude_none=True)
    return MixturePlan(SIZES, {"safety": ratio_from(asked)}, batch, seed=3)


def assert_same_rows(one: MixturePlan, other: MixturePlan, steps: int) -> None:
    assert (one.cumulative(0, steps) == other.cumulative(0, steps)).all()
    for first in range(0, steps, 37):
        a, b = (plan.all_rows(first, min(first + 37, steps), 2, 1) for plan in (one, other))
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])


def test_a_constant_ratio_stays_a_number(tmp_path):
    record = replace(trial(0), point={"ratio": 0.0312}, ratios=((0, 0.0312),))
    run = best_of(tmp_path, record)
    assert (run.ratio, run.max_steps) == (0.0312, 60)
    assert run.output_dir == str(tmp_path / "best")
    assert (tmp_path / BEST).read_text("utf-8").startswith("# trial-00 of the sweep sweep\n")


share = st.one_of(
    st.sampled_from([0.05, 0.0125, 0.0625, 0.1, 0.3]),
    st.integers(10, 3000).map(lambda n: n / 10_000),
)


moves = st.lists(st.tuples(st.integers(1, 25), share), min_size=1, max_size=5)


def moved_plan(first: float, changes: list[tuple[int, float]], batch: int) -> MixturePlan:
    """A plan whose ratio was set again and again while it ran: each gap in steps."""
    plan, step = MixturePlan(SIZES, {"safety": first}, batch, seed=3), 0
    for gap, ratio in changes:
        step += gap
        plan.set_ratio("safety", ratio, step)
    return plan


@given(first=share, changes=moves, batch=st.integers(1, 20))
@example(first=0.05, changes=[(1, 0.0125), (2, 0.1)], batch=8)
@settings(max_examples=100, deadline=None)
def test_a_schedule_draws_what_changes_on_the_way_draw(first, changes, batch):
    """Also where a count lies halfway between two: the remainder is rounded at each change."""
    plan, steps = moved_plan(first, changes, batch), list(accumulate(gap for gap, _ in changes))
    points = {0: first} | dict(zip(steps, (ratio for _, ratio in changes), strict=True))
    whole = MixturePlan(
        SIZES, {"safety": {"schedule": "piecewise", "points": points}}, batch, seed=3
    )
    end = steps[-1] + 40
    assert (whole.cumulative(0, end) == plan.cumulative(0, end)).all()
    assert (whole.cumulative(end, end) == plan.cumulative(end, end)).all(), "from afar too"


@given(first=share, changes=moves, half=st.integers(1, 10))
@example(first=0.05, changes=[(1, 0.0125), (2, 0.1)], half=4)
@settings(max_examples=8, deadline=None)
def test_best_yaml_draws_the_rows_of_a_trial_whose_ratio_was_changed(
    tmp_path_factory, first, changes, half
):
    """From the plan through checkpoint, record and run file to a plan again."""
    folder, batch = tmp_path_factory.mktemp("best"), 2 * half
    plan, last = moved_plan(first, changes, batch), sum(gap for gap, _ in changes) + 20
    attempt(folder, last - 1, last, max_steps=last)
    checkpoint(folder, last, plan)
    record = refreshed(TrialRecord(3, "trial", {"ratio": first}), folder, batch)
    run = best_of(folder, record, run={"max_steps": None, "epochs": 2})
    assert (run.max_steps, run.epochs) == (last, None), "as long as the trial was"
    assert_same_rows(planned(run, batch), plan, last)


def test_the_change_holds_from_the_step_of_the_checkpoint(tmp_path):
    """Population-based training changes the ratio at a checkpoint: the next step draws with it."""
    plan = plan_of(0.05, {20: 0.3})
    attempt(tmp_path, 0, 60)
    checkpoint(tmp_path, 60, plan)
    record = refreshed(TrialRecord(3, "trial", {"ratio": 0.05}), tmp_path, BATCH)
    run = best_of(tmp_path, record)
    assert isinstance(run.ratio, ScheduleSettings)
    assert run.ratio.points == {0: 0.05, 20: 0.3}
    assert_same_rows(planned(run, BATCH), plan, 60)
    for wrong in (19, 21):
        other = plan_of(0.05, {wrong: 0.3})
        assert (other.cumulative(0, 60) != plan.cumulative(0, 60)).any(), "the test can tell"


def test_shares_that_were_drawn_are_shares_of_all_rows(tmp_path):
    record = replace(trial(0), point={"ratio": 0.05}, ratios=((0, 0.0476), (20, 0.0595)))
    run = best_of(tmp_path, record, run={"ratio_of": "task"})
    assert run.ratio_of == "rows"
    unmoved = replace(record, ratios=((0, 0.0476),))
    assert best_of(tmp_path, unmoved, run={"ratio_of": "task"}).ratio_of == "task"


def test_a_schedule_of_the_run_stays_as_it_is(tmp_path):
    line = {"schedule": "linear", "start": 0.2, "end": 0.05, "steps": 30}
    seen = tuple((step, 0.2 - 0.005 * step) for step in range(31))
    record = replace(trial(0), point={"learning_rate": 1e-4}, ratios=seen)
    found = best_of(
        tmp_path, record, run={"ratio": line}, search={"learning_rate": {"uniform": [1e-4, 2e-4]}}
    )
    assert isinstance(found.ratio, ScheduleSettings)
    assert found.ratio.schedule == "linear"
    assert found.ratio_of == "rows"


def test_what_a_controller_did_is_written_as_steps(tmp_path):
    controlled = {"controller": "target", "min_margin": 0.5}
    record = replace(trial(0), point={"learning_rate": 1e-4}, ratios=((0, 0.05), (14, 0.08)))
    choice = {"learning_rate": {"uniform": [1e-4, 2e-4]}}
    moved = best_of(tmp_path, record, run={"ratio": controlled}, search=choice)
    assert isinstance(moved.ratio, ScheduleSettings)
    assert moved.ratio.points == {0: 0.05, 14: 0.08}
    still = replace(record, ratios=((0, 0.05),))
    kept = best_of(tmp_path, still, run={"ratio": controlled}, search=choice)
    assert isinstance(kept.ratio, ControllerSettings)


def test_all_results_lie_in_the_folder(tmp_path):
    settings = sweep(output_dir=str(tmp_path), bound=0.2, search={
        "ratio": {"log_uniform": [0.01, 0.3]}, "mitigation": {"choice": ["base", "paraphrase"]},
    })  # fmt: skip
    made = write_results(settings, records_of_a_sweep(9))
    names = {"trials.csv", "front.png", "ratios.png", "curves.png", "report.html", BEST, CHOICE}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert made.record is not None
    tree = json.loads((tmp_path / CHOICE).read_text("utf-8"))
    assert (tree["trial"], tree["point"]) == (made.record.name, dict(made.record.point))
    assert made.record.name in tree["within_bounds"]
    best = parse_settings(yaml.safe_load((tmp_path / BEST).read_text("utf-8")))
    assert best.mitigation.name == made.record.point["mitigation"]


@pytest.mark.parametrize("records", [[], baselines(0), records_of_a_sweep(9)[:1]])
def test_a_best_of_an_earlier_time_does_not_stay(tmp_path, records):
    (tmp_path / BEST).write_text("ratio: 0.5\n", "utf-8")
    settings = sweep(output_dir=str(tmp_path), bound=0.06, search={
        "ratio": {"log_uniform": [0.01, 0.3]}, "mitigation": {"choice": ["base", "paraphrase"]},
    })  # fmt: skip
    made = write_results(settings, [replace(record, status="failed") for record in records])
    assert made.record is None
    assert not (tmp_path / BEST).exists()
    assert json.loads((tmp_path / CHOICE).read_text("utf-8"))["trial"] is None
    assert (tmp_path / "report.html").exists()
