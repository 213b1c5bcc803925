"""The state of a sweep: which trial comes next, what became of each, and going on after a cut."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs_for_tests import attempt, checkpoint, evaluation, metrics, plan_of, run_to_the_end
from sweeps_for_tests import sweep

from safemix.errors import CheckpointError
from safemix.settings import parse_settings
from safemix.tuning.attempts import failure, write_failure
from safemix.tuning.driver import RATIO, SCORED, TRIAL
from safemix.tuning.points import planned_points, settle_point, trial_count
from safemix.tuning.scheduler import scheduler_of
from safemix.tuning.searcher import ListedPoints, OptunaPoints
from safemix.tuning.settings import SweepSettings
from safemix.tuning.sweep import TRIALS, Sweep


def settings_of(folder: Path, **changes: Any) -> SweepSettings:
    search = {"ratio": {"grid": [0.02, 0.05, 0.1]}}
    return sweep(**{"search": search, "output_dir": str(folder / "sweep")} | changes)


def opened(settings: SweepSettings) -> Sweep:
    """A sweep as `safemix tune` makes it, in a new process or after a cut."""
    planned = planned_points(settings)
    if planned is not None:
        return Sweep(settings, ListedPoints(planned))
    count = trial_count(settings)
    settle = lambda point: settle_point(settings, point).values  # noqa: E731
    return Sweep(settings, OptunaPoints(settings.space, count, settings.seed, settle))


def folder_of(state: Sweep, name: str) -> Path:
    return state.folder / TRIALS / name


def statuses(state: Sweep) -> dict[str, str]:
    return {record.name: record.status for record in state.all()}


def next_name(state: Sweep) -> str:
    found = state.next()
    assert found is not None
    state.started(found[TRIAL])
    return str(found[TRIAL])


def finish(state: Sweep, name: str, **sides: str) -> None:
    run_to_the_end(folder_of(state, name), **sides)
    state.heard(name)
    state.ended(name)


def test_the_baseline_comes_first_then_the_points_in_order_and_then_no_more(tmp_path):
    state = opened(settings_of(tmp_path))
    found = [state.next() for _ in range(5)]
    assert [entry and entry[TRIAL] for entry in found] == [
        "unmixed", "trial-00", "trial-01", "trial-02", None,
    ]  # fmt: skip
    assert [entry[RATIO] for entry in found if entry] == [0, 0.02, 0.05, 0.1]
    assert [entry[SCORED] for entry in found if entry] == [False, True, True, True]
    assert state.next() is None


def test_a_trial_that_could_gain_nothing_does_not_start(tmp_path):
    changes = {"search": {"ratio": {"grid": [0.02, 0.05, 0.1]}}, "scheduler": "asha"}
    state = opened(settings_of(tmp_path, asha={"grace_steps": 20}, **changes))
    scheduler = scheduler_of(state.settings, state.all)
    state.needless = scheduler.needless
    assert [next_name(state) for _ in range(2)] == ["unmixed", "trial-00"]
    assert state.records["trial-00"].point == {"ratio": 0.05}, "with early stops from the middle on"
    finish(state, "trial-00", asr="0" * 100)
    assert next_name(state) == "trial-02"
    passed = state.records["trial-01"]
    assert (passed.point, passed.status, passed.step) == ({"ratio": 0.1}, "stopped", 0)
    assert passed.reason == "asha: a ratio of 0.05 is within the bound already"
    again = opened(state.settings)
    assert statuses(again)["trial-01"] == "stopped"


def test_a_trials_settings_are_whole_and_its_own(tmp_path):
    state = opened(settings_of(tmp_path))
    for entry in iter(state.next, None):
        run, name = parse_settings(entry["settings"]), entry[TRIAL]
        assert Path(run.output_dir) == folder_of(state, name).resolve()
        assert Path(run.output_dir).is_absolute(), "workers start elsewhere"
        assert run.cache_dir == str((state.folder / "cache").resolve()), "rows are made once"
        assert run.evaluation.eval_at_start == (name == "unmixed")
        assert (run.resume, run.tracking.progress_bar) == ("auto", False)
        assert (run.safety is None) == (name == "unmixed")
        json.dumps(entry)


def test_a_trial_from_waiting_to_done(tmp_path):
    state, seen = opened(settings_of(tmp_path)), []
    assert next_name(state) == "unmixed"
    state.changed = lambda: seen.append(state.records["trial-00"].status)
    entry = state.next()
    assert entry is not None
    assert state.records["trial-00"].status == "waiting"
    state.started("trial-00")
    attempt(folder_of(state, "trial-00"), 0, 30, ends=False)
    metrics(folder_of(state, "trial-00"), plan_of(0.02), range(0, 31, 10))
    state.heard("trial-00")
    record = state.records["trial-00"]
    assert (record.status, record.step, record.rows) == ("running", 30, 240)
    assert record.ratios == ((0, 0.02),)
    shutil.rmtree(folder_of(state, "trial-00"))
    finish(state, "trial-00")
    assert (state.records["trial-00"].status, state.records["trial-00"].reason) == ("done", "")
    assert seen[0] == "waiting"
    assert seen[-1] == "done"


def test_stopped_by_the_scheduler_and_failed_by_itself_are_told_apart(tmp_path):
    state = opened(settings_of(tmp_path, scheduler="asha"))
    names = [next_name(state) for _ in range(4)]
    for name in names[1:]:
        attempt(folder_of(state, name), 0, 20, ends=False)
    state.ended("trial-00", reason="asha: 3 of 4 trials stood better at step 20, 2 may go on")
    state.ended("trial-01", reason="out of memory: use less", failed=True)
    assert state.records["trial-00"].status == "stopped"
    assert state.records["trial-01"].status == "failed"
    assert state.records["trial-01"].reason == "out of memory: use less"
    run_to_the_end(folder_of(state, "trial-02"))
    state.ended("trial-02", reason="asha: a ratio of 0.1 is within the bound already")
    assert state.records["trial-02"].status == "done", "it had come to its end"
    assert state.records["trial-02"].reason == ""


def test_an_end_without_an_evaluation_is_a_failure(tmp_path):
    state = opened(settings_of(tmp_path))
    for name in (next_name(state), next_name(state)):
        attempt(folder_of(state, name), 0, 60)
        state.ended(name, reason="none: no score was not among the best")
        assert state.records[name].status == "failed"
        assert state.records[name].reason == "it ended without an evaluation"


def test_what_ended_stays_as_it_ended(tmp_path):
    state = opened(settings_of(tmp_path))
    next_name(state), next_name(state)
    state.ended("trial-00", reason="broke", failed=True)
    finish(state, "trial-00")
    assert (state.records["trial-00"].status, state.records["trial-00"].reason) == (
        "failed",
        "broke",
    )


def test_the_untouched_model_is_measured_beside_the_baseline(tmp_path):
    state = opened(settings_of(tmp_path))
    next_name(state)
    evaluation(folder_of(state, "unmixed"), 0, asr="1" * 80)
    finish(state, "unmixed")
    untouched = state.records["untouched"]
    assert (untouched.status, untouched.ratio, untouched.number) == ("done", 0.0, -2)
    assert untouched.outcomes[0].counted == "1" * 80
    assert [record.name for record in state.all()] == ["untouched", "unmixed"]


def test_a_baseline_that_fails_stops_nothing_and_keeps_what_it_measured(tmp_path):
    state = opened(settings_of(tmp_path))
    next_name(state)
    evaluation(folder_of(state, "unmixed"), 0)
    state.ended("unmixed", reason="out of memory", failed=True)
    assert statuses(state) == {"untouched": "done", "unmixed": "failed"}
    for name in ("trial-00", "trial-01", "trial-02"):
        assert next_name(state) == name
        finish(state, name)
    assert state.next() is None
    assert "waiting" not in statuses(opened(settings_of(tmp_path))).values()


def test_going_on_asks_again_for_what_had_not_ended_and_for_nothing_else(tmp_path):
    settings = settings_of(tmp_path)
    state = opened(settings)
    for _ in range(4):
        next_name(state)
    finish(state, "trial-00")
    state.ended("trial-01", reason="broke", failed=True)
    write_failure(folder_of(state, "trial-01"), "broke")
    attempt(folder_of(state, "trial-02"), 0, 33, ends=False)
    state.heard("trial-02")
    write_failure(folder_of(state, "trial-02"), "it noticed the end of the others")
    before = {name: state.records[name] for name in ("trial-00", "trial-01")}

    again = opened(settings)
    assert statuses(again) == {
        "unmixed": "waiting", "trial-00": "done", "trial-01": "failed", "trial-02": "waiting",
    }  # fmt: skip
    assert again.records["trial-02"].step == 33, "what is known of it stays"
    assert failure(folder_of(again, "trial-01")) == "broke"
    assert failure(folder_of(again, "trial-02")) is None, "or its workers would end at once"
    assert [next_name(again), next_name(again), again.next()] == ["unmixed", "trial-02", None]
    for name, record in before.items():
        assert json.dumps(again.records[name].to_json()) == json.dumps(record.to_json())


def test_an_interrupted_trial_waits_and_says_so(tmp_path):
    state = opened(settings_of(tmp_path))
    finish(state, next_name(state))
    name = next_name(state)
    attempt(folder_of(state, name), 0, 12, ends=False)
    state.interrupted()
    record = state.records[name]
    assert (record.status, record.step) == ("waiting", 12)
    assert record.reason == "interrupted, goes on by --resume"
    assert statuses(state)["unmixed"] == "done", "what has ended stays so"
    again = opened(settings_of(tmp_path))
    assert (again.records[name].status, again.records[name].reason) == ("waiting", "")


def test_going_on_with_more_trials_or_fewer(tmp_path):
    search = {"ratio": {"log_uniform": [0.01, 0.3]}}
    three = settings_of(tmp_path, search=search, searcher="random", trials=3)
    state = opened(three)
    for name in [next_name(state) for _ in range(3)]:
        finish(state, name)
    five = settings_of(tmp_path, search=search, searcher="random", trials=5)
    again = opened(five)
    found = [entry[TRIAL] for entry in iter(again.next, None)]
    assert found == ["trial-02", "trial-03", "trial-04"]
    known = [dict(r.point) for r in again.all() if r.kind == "trial"]
    assert known == planned_points(five), "as if five had been asked for at once"
    one = settings_of(tmp_path, search=search, searcher="random", trials=1)
    fewer = opened(one)
    assert {fewer.next()[TRIAL] for _ in range(3)} == {"trial-02", "trial-03", "trial-04"}
    assert fewer.next() is None


def test_no_number_is_used_twice(tmp_path):
    """Somebody deleted a trial: the others keep their numbers, and its own is free."""
    settings = settings_of(tmp_path)
    state = opened(settings)
    for _ in range(4):
        next_name(state)
    for name in ("unmixed", "trial-00", "trial-02"):
        finish(state, name)
    shutil.rmtree(folder_of(state, "trial-01"))
    again = opened(settings)
    assert [next_name(again), again.next()] == ["trial-01", None]
    assert again.records["trial-01"].point == {"ratio": 0.05}
    assert statuses(again)["trial-02"] == "done"


def test_a_record_cut_short_is_one_line(tmp_path):
    settings = settings_of(tmp_path)
    state = opened(settings)
    next_name(state), next_name(state)
    path = folder_of(state, "trial-00") / "trial.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"trial\.json is damaged") as caught:
        opened(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [1, 4])
def test_optuna_goes_on_with_the_points_it_would_have_given(tmp_path, cut):
    """Trials one after the other, told through their folders alone."""

    def played(state: Sweep, most: int) -> None:
        for _ in range(most):
            entry = state.next()
            if entry is None:
                return
            name, ones = entry[TRIAL], round(80 * min(1.0, entry[RATIO] * 3))
            state.started(name)
            if name == "trial-02":
                state.ended(name, reason="broke", failed=True)
                continue
            asr, accuracy = "1" * (80 - ones) + "0" * ones, "1" * (80 - ones // 2)
            finish(state, name, asr=asr, accuracy=accuracy + "0" * (80 - len(accuracy)))

    search = {"ratio": {"log_uniform": [0.01, 0.3]}, "mitigation": {"choice": ["base", "longest"]}}
    points = {}
    for kind, cuts in {"whole": [99], "cut": [cut, 99]}.items():
        settings = settings_of(tmp_path / kind, search=search, trials=7, seed=2)
        for most in cuts:
            state = opened(settings)
            played(state, most)
        points[kind] = [dict(r.point) for r in state.all() if r.kind == "trial"]
    assert len(points["whole"]) == 7
    assert points["cut"] == points["whole"]


def test_population_based_training_starts_its_trials_together_and_the_baseline_last(tmp_path):
    changes = {"search": {"ratio": {"log_uniform": [0.01, 0.3]}}, "scheduler": "pbt", "trials": 3}
    state = opened(settings_of(tmp_path, **changes))
    assert [entry[TRIAL] for entry in iter(state.next, None)] == [
        "trial-00", "trial-01", "trial-02", "unmixed",
    ]  # fmt: skip


def test_population_based_training_goes_on_at_the_ratio_it_had_changed_to(tmp_path):
    changes = {"search": {"ratio": {"log_uniform": [0.01, 0.3]}}, "scheduler": "pbt", "trials": 2}
    settings = settings_of(tmp_path, **changes)
    state = opened(settings)
    first, second = (state.next() for _ in range(2))
    assert first is not None
    assert second is not None
    changed = parse_settings(first["settings"] | {RATIO: 0.1234})
    changed.save(folder_of(state, "trial-00") / "settings.yaml")  # as the run writes it
    checkpoint(folder_of(state, "trial-00"), 20, plan_of(first[RATIO]))
    again = opened(settings)
    found = {entry[TRIAL]: entry[RATIO] for entry in iter(again.next, None)}
    assert found == {"trial-00": 0.1234, "trial-01": second[RATIO], "unmixed": 0}
    assert again.records["trial-00"].point == {"ratio": first[RATIO]}, "what the search chose"


def kept(state: Sweep) -> list[str]:
    """Names of the trials that have checkpoints."""
    return sorted({path.parent.name for path in (state.folder / TRIALS).glob("*/checkpoint-*")})


@pytest.mark.parametrize("keep", [True, False])
def test_checkpoints_of_ended_trials_go_if_asked(tmp_path, keep):
    state = opened(settings_of(tmp_path, keep_checkpoints=keep))
    for name, end in (("unmixed", "done"), ("trial-00", "done"), ("trial-01", "fails")):
        assert next_name(state) == name
        checkpoint(folder_of(state, name), 30)
        if end == "done":
            finish(state, name)
        else:
            state.ended(name, reason="it failed", failed=True)
    assert next_name(state) == "trial-02"
    checkpoint(folder_of(state, "trial-02"), 30)
    unfinished = ["trial-01", "trial-02"]
    whole = ["trial-00", *unfinished, "unmixed"]
    assert kept(state) == (whole if keep else unfinished)
    # A sweep that is cut between the two, or asked for it later, does it when it goes on.
    kept_before = settings_of(tmp_path, keep_checkpoints=False)
    assert kept(opened(kept_before)) == unfinished
    assert (folder_of(state, "trial-00") / "metrics.jsonl").exists()


def test_no_checkpoint_goes_while_another_trial_may_take_it_over(tmp_path):
    changes = {"search": {"ratio": {"log_uniform": [0.01, 0.3]}}, "scheduler": "pbt", "trials": 2}
    state = opened(settings_of(tmp_path, searcher="random", keep_checkpoints=False, **changes))
    names = [next_name(state) for _ in range(3)]
    for name in names:
        checkpoint(folder_of(state, name), 30)
    for name in names[:2]:
        finish(state, name)
        assert len(kept(state)) == 3
    finish(state, names[2])
    assert kept(state) == []


def test_what_the_sweep_writes_holds_no_pickle(tmp_path):
    state = opened(settings_of(tmp_path))
    finish(state, next_name(state))
    kinds = {path.suffix for path in state.folder.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".jsonl", ".safetensors"}
    record = json.loads((folder_of(state, "unmixed") / "trial.json").read_text("utf-8"))
    assert yaml.safe_load(json.dumps(record))["kind"] == "unmixed"
