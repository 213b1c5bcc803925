"""Readings go to Ray: at their own step, from every rank the same number of times."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs_for_tests import state_of

from safemix.hosts.ray import RayReports
from safemix.hosts.ray_keys import CHECKPOINT, STEP
from safemix.tuning.score import SCORE, Score

MARGIN = "safety/margin/plain"
ARGS = SimpleNamespace(output_dir="/runs/trial-00")


def rank(*, at_saves: bool = False, add: Any = None) -> tuple[RayReports, list[dict[str, Any]]]:
    sent: list[dict[str, Any]] = []
    given_add = {} if add is None else {"add": add}
    return RayReports(**given_add, at_saves=at_saves, report=sent.append), sent


def stepped(reports: RayReports, step: int, *, reads: bool, saves: bool = False, **more: float):
    """One step as the Trainer runs it: the reading, then the log, then the checkpoint."""
    if reads:
        reports.observe(step, {MARGIN: 1.0 - step / 100, **more})
    if step:
        logs = {"loss": 2.0, "utility/loss": 0.5, "grad_norm": 1.0}
        reports.on_log(ARGS, state_of(step), None, logs=logs)
    if saves:
        reports.on_save(ARGS, state_of(step), None)


def test_each_reading_is_reported_at_its_step_with_the_losses_of_that_step():
    reports, sent = rank(add=lambda step, reading: {"score": -reading.get("utility/loss", 9.0)})
    for step in range(7):
        stepped(reports, step, reads=step % 3 == 0, saves=step == 4)
    assert sent == [
        {STEP: 0, MARGIN: 1.0, "score": -9.0},
        {STEP: 3, MARGIN: 0.97, "utility/loss": 0.5, "score": -0.5},
        {STEP: 6, MARGIN: 0.94, "utility/loss": 0.5, "score": -0.5},
    ]
    assert reports.reported == 3


def test_at_saves_the_checkpoint_goes_along_and_the_last_step_in_any_case():
    reports, sent = rank(at_saves=True)
    for step in range(61):
        stepped(reports, step, reads=step % 10 == 0, saves=step % 20 == 0 and step > 0)
    assert [(report[STEP], report.get(CHECKPOINT)) for report in sent] == [
        (0, None),
        (20, str(Path("/runs/trial-00/checkpoint-20"))),
        (40, str(Path("/runs/trial-00/checkpoint-40"))),
        (60, None),
    ]
    assert sent[1]["utility/loss"] == 0.5


def test_a_save_between_readings_goes_by_the_last_one():
    reports, sent = rank(at_saves=True)
    stepped(reports, 5, reads=False, saves=True)
    assert sent == [], "nothing was read yet"
    stepped(reports, 10, reads=True)
    stepped(reports, 15, reads=False, saves=True)
    assert [(report[STEP], report[MARGIN]) for report in sent] == [(15, 0.9)]


def test_a_log_that_is_no_training_log_is_not_reported():
    reports, sent = rank()
    reports.observe(10, {MARGIN: 0.5})
    reports.on_log(ARGS, state_of(10), None, logs={"train_runtime": 3.0})
    reports.on_log(ARGS, state_of(10), None)
    assert sent == []
    stepped(reports, 11, reads=False)
    assert sent == [], "the reading was of another step"


@given(
    margins=st.lists(st.floats(), min_size=4, max_size=4),
    other=st.lists(st.floats(), min_size=4, max_size=4),
    at_saves=st.booleans(),
)
def test_all_ranks_report_as_often_whatever_they_read(margins, other, at_saves):
    ranks = [rank(at_saves=at_saves, add=Score()) for _ in range(2)]
    for (reports, _), values in zip(ranks, (margins, other), strict=True):
        for number, value in enumerate(values):
            step = 20 * number
            reports.observe(step, {MARGIN: value})
            if step:
                logs = {"loss": value, "utility/loss": value}
                reports.on_log(ARGS, state_of(step), None, logs=logs)
                reports.on_save(ARGS, state_of(step), None)
    assert ranks[0][0].reported == ranks[1][0].reported == 4
    for _, sent in ranks:
        assert [report[STEP] for report in sent] == [0, 20, 40, 60]
        for report in sent:
            numbers = [value for key, value in report.items() if key != CHECKPOINT]
            assert all(math.isfinite(value) for value in numbers), "nothing compares with nan"
            # At its end a trial is not to be set back to another one's checkpoint.
            last = at_saves and report[STEP] == 60
            assert (SCORE in report) != last, "a scheduler finds its number in every other report"


def test_an_error_of_ray_is_not_swallowed():
    def broken(report: dict[str, Any]) -> None:
        raise RuntimeError("the controller is gone")

    reports = RayReports(report=broken)
    with pytest.raises(RuntimeError, match="the controller is gone"):
        reports.observe(0, {MARGIN: 1.0})
