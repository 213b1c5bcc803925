"""The comparison of searches: the loop around Ray's schedulers, what is counted, real sweeps."""

import itertools
import json
import math
import random
from dataclasses import replace

import pytest
import search
import search_real
from hypothesis import given, settings
from hypothesis import strategies as st
from search_loop import Course, Moment, PlantSweep
from search_measure import Choice, Target, choices_of, is_near, kept_from, plain, quartiles, reach
from search_methods import BATCH, METHODS, STEPS, VARIED, dense_grid, grid_ratios
from search_methods import search as sweep_of
from search_plant import (
    HIGH,
    LOW,
    random_surface,
)

from safemix.tuning.front import trained_share
from safemix.tuning.gather import write_record
from safemix.tuning.records import Outcome, TrialRecord

SIZES = (60, 200)
BOUNDS = {"asr": 0.1}
WHOLE = STEPS * BATCH


def ran(changes, seed=3, noise=5, surface=None, sizes=SIZES):
    given_settings = sweep_of(changes, 0.1, sizes[0], seed)
    return PlantSweep(given_settings, surface or random_surface(seed), noise, sizes).run()


# Sweeps on it


def test_without_a_scheduler_every_trial_is_whole():
    course = ran({"searcher": "random", "trials": 6})
    assert course.rows == 7 * WHOLE
    assert (course.stopped, course.changes, len(course.moments)) == (0, 0, 6)
    rows = [moment.rows for moment in course.moments]
    assert rows == sorted(rows)
    last = course.moments[-1].records
    assert [record.kind for record in last] == ["unmixed"] + ["trial"] * 6
    assert all(record.rows == WHOLE for record in last)
    for record in last[1:]:
        assert trained_share(record) == pytest.approx(record.point["ratio"])


def test_a_grid_tries_each_ratio_once():
    course = PlantSweep(dense_grid(9, 0.1, 60), random_surface(0), 1, SIZES).run()
    tried = [r.point["ratio"] for r in course.moments[-1].records if r.kind == "trial"]
    assert tried == grid_ratios(9)
    assert (tried[0], tried[-1]) == (LOW, HIGH)
    steps = [b / a for a, b in itertools.pairwise(tried)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3)


def test_asha_stops_trials_and_never_the_baseline():
    course = ran({**METHODS["ASHA"], "asha": {"grace_steps": 30, "reduction_factor": 3}})
    assert 8 <= course.stopped < 24
    assert len(course.moments) == 24 - course.stopped
    assert course.moments[-1].records[0].kind == "unmixed"
    assert course.moments[-1].records[0].rows == WHOLE
    whole = (1 + 24 - course.stopped) * WHOLE
    assert whole <= course.rows < whole + course.stopped * WHOLE / 2


@pytest.mark.parametrize("name", ["ASHA, one at a time", "ASHA, 2 side by side"])
def test_asha_recommends_what_all_its_trials_would_for_half_of_their_rows(name):
    # Without luck and with many prompts: what differs between trials is their ratio.
    surfaces = [replace(random_surface(seed), luck=0.0) for seed in range(8)]
    same = 0
    for seed, surface in enumerate(surfaces):
        course = ran(METHODS[name], seed, surface=surface, sizes=(500, 500))
        everything = ran(METHODS["random"], seed, surface=surface, sizes=(500, 500))
        assert course.rows < 0.5 * everything.rows
        ratios = [choices_of(one, BOUNDS)[-1].ratio for one in (course, everything)]
        same += ratios[0] == ratios[1] or (None not in ratios and is_near(*ratios))
    assert same >= 6


def test_population_based_training_moves_ratios_and_trains_no_more_rows():
    course = ran({**METHODS["PBT"], "pbt": {"every_steps": 60}})
    assert course.changes > 0
    assert course.stopped == 0
    records = course.moments[-1].records
    assert all(record.kind == "trial" for record in records)  # the baseline comes last
    moved = [record for record in records if len(record.ratios) > 1]
    assert moved
    for record in moved:
        for (_, one), (_, other) in itertools.pairwise(record.ratios):
            clipped = other in (LOW, HIGH)
            assert (
                clipped
                or other / one == pytest.approx(0.8, rel=1e-3)
                or other / one == (pytest.approx(1.25, rel=1e-3))
            )
    # All of it, and what was trained again by those that went on from an earlier step.
    assert 9 * WHOLE <= course.rows <= 11 * WHOLE


def test_population_based_training_with_fewer_places_than_trials():
    course = ran({**METHODS["PBT"], "parallel": 3, "pbt": {"every_steps": 60}})
    assert len(course.moments) == 8
    assert course.changes > 0


@settings(max_examples=5, deadline=None)
@given(st.sampled_from(sorted(METHODS)), st.integers(0, 50))
def test_a_sweep_gives_the_same_again(name, seed):
    state = random.getstate()
    try:
        assert ran(METHODS[name], seed) == ran(METHODS[name], seed)
    finally:
        random.setstate(state)


def test_all_variations_are_legal_sweeps():
    for name, changes in VARIED.items():
        made = sweep_of(changes, 0.1, 60, 0)
        assert made.scheduler == ("asha" if name.startswith("ASHA") else "pbt")


# What is counted


def test_only_what_stays_counts():
    choices = [Choice(10, 0.05), Choice(20, 0.2), Choice(30, 0.051), Choice(40, 0.049)]
    assert kept_from(choices, lambda r: is_near(r, 0.05)) == 30
    assert kept_from([*choices, Choice(50, None)], lambda r: True) == math.inf
    assert kept_from([], lambda r: True) == math.inf
    assert kept_from(choices, lambda r: True) == 10


def test_within_20_percent_is_on_both_sides():
    assert is_near(0.06, 0.05)
    assert is_near(0.04, 0.05)
    assert not is_near(0.0601, 0.05)
    assert not is_near(0.0399, 0.05)


def test_a_search_held_against_its_grid():
    target = Target(0.05, 0.06, 1000, lambda r: r >= 0.05)
    found = reach([Choice(100, 0.2), Choice(300, 0.055)], 400, target)
    assert (found.near, found.near_usual, found.as_good) == (0.3, 0.3, 0.1)
    assert found.whole == 0.4
    assert found.ratio == pytest.approx(1.1)
    none = reach([], 400, target)
    assert none.near == none.as_good == math.inf
    assert plain(none) == {
        "near": None, "near_usual": None, "as_good": None, "whole": 0.4, "ratio": None,
    }  # fmt: skip
    json.dumps(plain(none), allow_nan=False)


def test_quartiles_with_searches_that_never_come_there():
    assert quartiles([0.1, 0.2, math.inf, 0.3, math.inf]) == (0.3, 0.2, math.inf)
    assert quartiles([0.1]) == (0.1, 0.1, 0.1)


def test_the_command_prints_and_writes(tmp_path, monkeypatch, capsys):
    path = tmp_path / "figures.json"
    words = ["search.py", "--quick", "--surfaces", "2", "--grid-points", "6", "--json", str(path)]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(search, "METHODS", {name: METHODS[name] for name in ("random", "PBT")})
    search.main()
    text = capsys.readouterr().out
    assert "Machine: " in text
    assert "2 surfaces; dense grid: 6 ratios" in text
    assert text.count("| dense grid, measured again |") == text.count("| PBT |") == 2
    found = json.loads(path.read_text("utf-8"))["results"]
    assert list(found["reach"]) == ["dense grid, measured again", "random", "PBT"]
    assert found["surfaces"] == ["random-0", "random-1"]
    again = found["reach"]["dense grid, measured again"]
    assert [one["whole"] for one in again] == [1.0, 1.0]


# Real sweeps


def record(number, status, rows, ratio=0.05):
    good = status == "done"
    asr = Outcome("safety", "builtin", "plain", "asr", "0" * 60)
    utility = Outcome("utility", "held_out", "plain", "accuracy", "1" * 40)
    return TrialRecord(
        number, "trial" if number >= 0 else "unmixed", {"ratio": ratio}, status, step=60,
        max_steps=60, rows=rows, ratios=((1, ratio),), outcomes=(asr, utility) if good else (),
    )  # fmt: skip


def test_a_real_sweep_is_followed_by_its_records(tmp_path):
    watch = search_real.Watch(tmp_path / "trials")
    watch.look()
    assert watch.course == Course((), 0, 0, 0)

    def keep(*records):
        for one in records:
            write_record(tmp_path / "trials" / one.name, one)
        watch.look()

    keep(record(-1, "done", 100), record(0, "running", 30))
    keep(record(0, "done", 100), record(1, "running", 40, 0.1))
    keep(record(1, "stopped", 50, 0.1), record(2, "done", 100, 0.02))
    moments = watch.course.moments
    assert [moment.rows for moment in moments] == [240, 350]
    assert isinstance(moments[0], Moment)
    assert [[r.name for r in m.records] for m in moments] == [
        ["unmixed", "trial-00"],
        ["unmixed", "trial-00", "trial-01", "trial-02"],
    ]
    assert watch.course.stopped == 1
    assert [choice.ratio for choice in choices_of(watch.course, BOUNDS)] == [0.05, 0.02]


SWEEP = """
run: {task: builtin:task, safety: builtin:safety, max_steps: 60, global_batch_size: 8,
      micro_batch_size: 2,
      evaluation: {eval_every: 1000, probe_every: 10, task: held_out.jsonl}}
search: {KEY}
bound: 0.1
trials: 4
"""


def test_real_sweeps_are_those_of_the_file_with_changes(tmp_path, monkeypatch, capsys):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("KEY", "ratio: {log_uniform: [0.02, 0.2]}"), "utf-8")
    seen = []

    def fake(sweep):
        seen.append(sweep)
        if sweep.scheduler == "pbt":
            raise search_real.SettingsError("3 fit on the cluster")
        trial = record(0, "done", 100)
        return Course((Moment(200, (trial,)),), 250, 0, 0)

    monkeypatch.setattr(search_real, "_run", fake)
    found = search_real.run_real(path, tmp_path / "out", 5)
    assert seen[0].space["ratio"].values == tuple(grid_ratios(5, 0.02, 0.2))
    assert [sweep.searcher for sweep in seen[:4]] == ["grid", "random", "random", "optuna"]
    stopping = [sweep for sweep in seen if sweep.searcher == "grid" and sweep.scheduler == "asha"]
    assert len(stopping) == 2
    assert all(s.space == seen[0].space and s.trials is None for s in stopping)
    assert len({sweep.output_dir for sweep in seen}) == len(METHODS) + 1
    assert all(sweep.run["max_steps"] == 60 for sweep in seen)
    assert found["random"]["near"] == 0.8
    assert found["PBT"] == {"not run": "3 fit on the cluster"}
    text = capsys.readouterr().out
    assert "| PBT | not run: 3 fit on the cluster |" in text
    assert "| random | 80% | 100% | 1.00 |" in text


def test_a_real_comparison_is_over_the_ratio_alone(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP.replace("KEY", "learning_rate: {log_uniform: [1e-5, 1e-3]}"), "utf-8")
    with pytest.raises(search_real.SettingsError, match="search ratio alone"):
        search_real.run_real(path, tmp_path, 5)
