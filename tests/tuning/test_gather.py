"""What a trial's folder says, as a record; torn files and other people's files included."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs_for_tests import (
    BATCH,
    attempt,
    checkpoint,
    evaluation,
    metrics,
    plan_of,
    run_to_the_end,
)
from sweep_records import sweep

from safemix.errors import CheckpointError
from safemix.hosts.hf_trainer import STATE_FILE
from safemix.tuning.front import trained_share
from safemix.tuning.gather import RECORD, outcomes_at, read_records, refreshed, write_record
from safemix.tuning.records import TrialRecord

NEW = TrialRecord(0, "trial", {"ratio": 0.05}, "running")


def test_a_trial_that_came_to_its_end(tmp_path):
    run_to_the_end(tmp_path, asr="01?1", accuracy="1110")
    record = refreshed(NEW, tmp_path, BATCH)
    assert (record.step, record.max_steps, record.rows, record.restarts) == (60, 60, 480, 0)
    assert record.ratios == ((0, 0.05),)
    assert [(o.key, o.counted) for o in record.outcomes] == [
        ("safety/set/plain/asr", "01?1"),
        ("utility/set/plain/accuracy", "1110"),
    ]
    assert record.outcomes[0].rate.total == 3
    assert record.readings[0] == {"step": 0.0, "safety/margin/plain": 1.0}
    assert record.readings[-1]["utility/loss"] == 0.5
    assert record.status == "running", "who ended it says so"


def test_an_empty_folder_changes_nothing(tmp_path):
    assert refreshed(NEW, tmp_path / "not there", BATCH) == NEW


def test_an_evaluation_on_the_way_is_not_the_outcome(tmp_path):
    attempt(tmp_path, 0, 30, ends=False)
    evaluation(tmp_path, 20)
    assert refreshed(NEW, tmp_path, BATCH).outcomes == ()
    assert len(outcomes_at(tmp_path, 20)) == 2


def test_an_evaluation_whose_judge_was_away_counts_no_asr(tmp_path):
    attempt(tmp_path, 0, 20)
    evaluation(tmp_path, 20, asr="0000", complied="0???")
    asr, complied, utility = outcomes_at(tmp_path, 20)
    assert (asr.counted, complied.counted) == ("????", "0???"), "incoherent ones need no verdict"
    assert utility.rate.total
    evaluation(tmp_path, 20, asr="0100", complied="01??")
    assert outcomes_at(tmp_path, 20)[0].counted == "0100"


@given(cut=st.integers(0, 700))
@settings(max_examples=40)
def test_metrics_cut_anywhere_give_what_is_whole(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    metrics(folder, plan_of(), range(6), more={"note": "Übung"})
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:cut])
    whole = path.read_bytes().count(b"\n")
    readings = refreshed(NEW, folder, BATCH).readings
    assert [reading["step"] for reading in readings] == list(range(whole))


def test_the_ratio_belongs_to_the_step_before_the_log(tmp_path):
    """Every step is logged, and no checkpoint is there yet."""
    plan = plan_of(0.05, {20: 0.0625})
    attempt(tmp_path, 0, 30, ends=False)
    metrics(tmp_path, plan, range(31))
    assert refreshed(NEW, tmp_path, BATCH).ratios == ((0, 0.05), (20, 0.0625))


def test_a_checkpoint_tells_the_step_that_a_sparse_log_does_not(tmp_path):
    plan = plan_of(0.05, {13: 0.0625, 26: 0.05, 47: 0.1})
    attempt(tmp_path, 0, 60, ends=False)
    metrics(tmp_path, plan, range(0, 61, 10))
    checkpoint(tmp_path, 30, plan_of(0.05, {13: 0.0625, 26: 0.05}))
    told = ((0, 0.05), (13, 0.0625), (26, 0.05))
    assert refreshed(NEW, tmp_path, BATCH).ratios == (*told, (49, 0.1)), "the log's, after it"
    checkpoint(tmp_path, 60, plan)
    assert refreshed(NEW, tmp_path, BATCH).ratios == (*told, (47, 0.1))


@given(
    gaps=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    shares=st.lists(st.integers(1, 3000), min_size=6, max_size=6),
)
@settings(max_examples=25)
def test_the_ratios_of_a_record_are_those_of_the_plan(tmp_path_factory, gaps, shares):
    folder = tmp_path_factory.mktemp("run")
    at = np.cumsum(gaps)
    plan = plan_of(shares[0] / 10_000, {int(s): shares[n + 1] / 10_000 for n, s in enumerate(at)})
    last = int(at[-1]) + 5
    attempt(folder, 0, last, max_steps=last, ends=False)
    checkpoint(folder, last, plan)
    record = refreshed(NEW, folder, BATCH)
    drawn = {step: share for step, share in record.ratios}
    begins = [*drawn, last]
    for (first, end), share in zip(pairwise(begins), drawn.values(), strict=True):
        assert {float(plan.ratio("safety", step)) for step in range(first, end)} == {share}
    mean = np.mean([float(plan.ratio("safety", step)) for step in range(last)])
    assert trained_share(record) == pytest.approx(mean)


def test_changes_still_to_come_and_a_schedule(tmp_path):
    checkpoint(tmp_path, 10, plan_of(0.05, {30: 0.1}))
    assert refreshed(NEW, tmp_path, BATCH).ratios == ((0, 0.05),), "not drawn with yet"
    pieces = {"schedule": "piecewise", "points": {0: 0.2, 4: 0.1, 15: 0.05}}
    checkpoint(tmp_path, 20, plan_of(pieces, {8: 0.3}))
    assert refreshed(NEW, tmp_path, BATCH).ratios == ((0, 0.2), (4, 0.1), (8, 0.3))
    line = plan_of({"schedule": "linear", "start": 0.1, "end": 0.2, "steps": 2})
    checkpoint(tmp_path, 30, line)
    metrics(tmp_path, line, range(4))
    assert refreshed(NEW, tmp_path, BATCH).ratios == ((0, 0.1), (1, 0.15), (2, 0.2))


def test_a_checkpoint_that_is_deleted_at_this_moment_is_no_error(tmp_path):
    plan = plan_of(0.05)
    (checkpoint(tmp_path, 10, plan) / STATE_FILE).unlink()
    metrics(tmp_path, plan, range(3))
    assert refreshed(NEW, tmp_path, BATCH).ratios == ((0, 0.05),)
    (tmp_path / "checkpoint-20").mkdir()  # being written
    assert refreshed(NEW, tmp_path, BATCH).ratios == ((0, 0.05),)


def test_records_come_back_as_they_were(tmp_path):
    made = sweep(9)
    for record in made:
        write_record(tmp_path / record.name, record)
    (tmp_path / "notes").mkdir()  # of somebody else
    found = read_records(tmp_path)
    by_name = {record.name: record for record in made}
    assert {r.name: json.dumps(r.to_json()) for r in found} == {
        name: json.dumps(record.to_json()) for name, record in by_name.items()
    }
    assert [r.number for r in found if r.kind == "trial"] == list(range(9))
    assert read_records(tmp_path / "nothing here") == []


@pytest.mark.parametrize(
    "text", ["", '{"format": 1, "numb', "[]", '{"format": 2}', '{"format": 1, "colour": "red"}']
)
def test_a_record_that_cannot_be_read_is_one_line_with_the_mend(tmp_path, text):
    write_record(tmp_path / "trial-00", NEW)
    (tmp_path / "trial-00" / RECORD).write_text(text, "utf-8")
    with pytest.raises(CheckpointError) as caught:
        read_records(tmp_path)
    assert "\n" not in str(caught.value)
    assert f"delete {tmp_path / 'trial-00'}" in str(caught.value)


def test_a_record_is_whole_or_as_before(tmp_path, monkeypatch):
    write_record(tmp_path, NEW)
    before = (tmp_path / RECORD).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safemix.hosts.resume.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_record(tmp_path, sweep(1)[0])
    assert (tmp_path / RECORD).read_bytes() == before
