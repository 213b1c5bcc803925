"""One number a side, the table of a spreadsheet, and the time left."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_records import sweep, trial

from safemix.evaluate.statistics import wilson
from safemix.tuning.records import Outcome, TrialRecord
from safemix.tuning.report.measures import (
    by_ratio,
    choices,
    duration,
    last_margin,
    upper_limit,
    utility,
    worst,
)
from safemix.tuning.report.time_left import TimeLeft, rows_left
from safemix.tuning.report.trials_csv import write_csv


def record(*outcomes, **more):
    return TrialRecord(0, "trial", outcomes=outcomes, **more)


def asr(count, total, dress="plain", name="set"):
    return Outcome("safety", name, dress, "asr", "1" * count + "0" * (total - count))


def right(count, total, name="task"):
    return Outcome("utility", name, "plain", "accuracy", "1" * count + "0" * (total - count))


def lines_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_worst_of_a_side_is_the_highest_rate_and_not_another_metric():
    complied = Outcome("safety", "set", "plain", "complied", "1111")
    nothing = Outcome("safety", "empty", "plain", "asr", "??")
    found = record(asr(1, 10), complied, asr(3, 20, "styled"))
    assert worst(found, "safety").dress == "styled"
    assert worst(record(complied), "safety") is None
    # A dress without a verdict may be the worst one.
    assert worst(record(asr(1, 10), nothing), "safety") is None
    assert upper_limit(record(asr(1, 10), nothing)) is None
    # Of two equal rates the one of fewer prompts is known less well.
    assert worst(record(asr(2, 20), asr(1, 10, "aoa")), "safety").dress == "aoa"


def test_the_limit_held_against_the_bound_is_one_sided_and_the_highest():
    found = record(asr(1, 100), asr(0, 10, "styled"))
    # 0 of 10 is the better rate and the worse limit: z² / (n + z²) with z = 1.6449.
    assert upper_limit(found) == pytest.approx(1.6449**2 / (10 + 1.6449**2), abs=1e-4)
    assert upper_limit(record(right(1, 2))) is None


def test_one_utility_has_wilsons_interval_and_a_mean_a_narrower_one():
    low, high = wilson(30, 50)
    one = utility(record(right(30, 50)))
    assert (one.value, one.low, one.high) == pytest.approx((0.6, low, high))
    two = utility(record(right(30, 50), right(30, 50, "other")))
    assert two.value == pytest.approx(0.6)
    assert two.low == pytest.approx(0.6 - (0.6 - low) / math.sqrt(2))
    assert two.high == pytest.approx(0.6 + (high - 0.6) / math.sqrt(2))
    assert utility(record(Outcome("utility", "t", "plain", "accuracy", "?"))) is None


def test_the_newest_finite_margin_counts_in_its_worst_dress():
    found = record(readings=(
        {"step": 0, "safety/margin/plain": 0.9},
        {"step": 5, "safety/margin/plain": 0.4, "safety/margin/styled": -0.1,
         "safety/margin_lookalikes/plain": -3.0},
        {"step": 10, "safety/margin/plain": math.nan, "utility/loss": 1.0},
    ))  # fmt: skip
    assert last_margin(found) == -0.1
    assert last_margin(record()) is None


def test_trials_stand_by_ratio_behind_the_baselines():
    ordered = by_ratio([*sweep(8), replace(trial(60, status="waiting"), point={})])
    assert [one.kind for one in ordered[:3]] == ["untouched", "unmixed", "trial"]
    ratios = [one.ratio for one in ordered[2:-1]]
    assert ratios == sorted(ratios)
    assert ordered[-1].number == 60
    chosen = record(point={"ratio": 0.1, "lora.r": 8, "schedule": {"end": 0.1}, "text": "a\nb"})
    assert choices(chosen) == ["lora.r 8", 'schedule {"end": 0.1}', "text a b"]


def test_durations():
    seconds = (0, 59.4, 59.6, 3569, 3571, 7260)
    assert [duration(one) for one in seconds] == ["0 s", "59 s", "1 min", "59 min", "1 h 00",
                                                  "2 h 01"]  # fmt: skip


def test_csv_has_a_line_for_each_trial_with_all_numbers(tmp_path):
    path, records = tmp_path / "trials.csv", sweep(9)
    write_csv(path, records)
    lines = lines_of(path)
    assert [int(line["number"]) for line in lines] == list(range(11))
    for line, one in zip(lines, records, strict=True):
        assert line["status"] == one.status
        assert line["reason"] == one.reason
        assert float(line["seconds"]) == one.seconds
        assert line["point/mitigation"] == one.point.get("mitigation", "")
        for outcome in one.outcomes:
            rate = outcome.rate
            parts = [float(line[f"{outcome.key}/{part}"]) for part in ("value", "low", "high")]
            assert parts == [rate.value, *rate.interval]
            assert int(line[f"{outcome.key}/count"]) == rate.count
    stopped = lines[2]
    assert stopped["safety/builtin/plain/asr/value"] == ""
    assert lines[-1]["ratio"] == "0.0"
    assert [found.name for found in tmp_path.iterdir()] == ["trials.csv"]


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=12), st.sampled_from(["", "=", "+", "-", "@", " =", "\t=", "\n+", "\uff1d"])
)
def test_no_cell_of_the_csv_is_a_formula_or_a_second_line(tmp_path_factory, text, begin):
    path, given_text = tmp_path_factory.mktemp("csv") / "t.csv", begin + text
    outcome = Outcome("safety", given_text, given_text, "asr", "01")
    write_csv(path, [record(outcome, point={"ratio": 0.1, given_text: given_text},
                            reason=given_text)])  # fmt: skip
    source = path.read_text("utf-8")
    assert source.count("\n") == 2
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [
        cell for cell in cells if cell.strip().startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))
    ]


def test_numbers_stay_numbers_and_nan_is_an_empty_cell(tmp_path):
    path = tmp_path / "t.csv"
    nothing = Outcome("safety", "s", "plain", "asr", "?")
    write_csv(path, [record(nothing, point={"x": -0.5, "y": [1, 2], "z": True}, seconds=math.inf)])
    (line,) = lines_of(path)
    assert line["point/x"] == "-0.5"
    assert (line["point/y"], line["point/z"]) == ("[1, 2]", "true")
    assert line["seconds"] == ""
    assert (line["safety/s/plain/asr/value"], line["safety/s/plain/asr/total"]) == ("", "0")


def test_a_csv_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text("old")
    monkeypatch.setattr("safemix.tuning.report.trials_csv._line", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_csv(path, sweep(1))
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["t.csv"]


def state(number, status, step, **more):
    return TrialRecord(number, "trial", status=status, step=step, max_steps=60, rows=32 * step,
                       **more)  # fmt: skip


def test_rows_left_are_those_of_running_and_waiting_trials():
    records = [state(0, "running", 15), state(1, "waiting", 0)]
    assert rows_left(records, 4, 60) == 32 * (45 + 3 * 60)
    # What a scheduler has stopped early says how long the next ones will be.
    records = [state(0, "done", 60), state(1, "stopped", 20), state(2, "running", 50)]
    assert rows_left(records, 5, 60) == 32 * (10 + 2 * 40)
    assert rows_left([state(0, "running", 0)], 4, 60) is None
    # Rows that were trained on twice after a restart do not make a step dearer.
    again = replace(state(1, "running", 30), rows=4000, restarts=1)
    assert rows_left([state(0, "done", 60), again], 2, 60) == 32 * 30
    untouched = TrialRecord(0, "untouched", status="running")
    assert rows_left([untouched, state(1, "done", 60)], 2, 60) == 0
    # A fresh sweep knows no length before its first trial has begun.
    unmixed = TrialRecord(-1, "unmixed", status="done", step=60, max_steps=60, rows=32 * 60)
    assert rows_left([unmixed], 5, 0) == 32 * 4 * 60


def test_time_left_comes_from_the_rows_since_the_first_look():
    left = TimeLeft(total=2, max_steps=60)
    before = [state(0, "done", 60), state(1, "running", 0)]  # the sweep is resumed
    assert left.estimate(before, 100.0) is None
    assert left.estimate(before, 110.0) is None
    after = [state(0, "done", 60), state(1, "running", 20)]
    assert left.estimate(after, 140.0) == pytest.approx(80.0)
