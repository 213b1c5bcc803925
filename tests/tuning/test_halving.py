"""Early stops that learn from ended trials which margin the bound asks for."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler

from safemix.hosts.ray_keys import STEP
from safemix.tuning.halving import Halving
from safemix.tuning.records import Outcome, TrialRecord
from safemix.tuning.scheduler import HalvingScheduler
from safemix.tuning.score import LOSS, MARGIN, SCORE, WORST

PLAIN, STYLED = f"{MARGIN}plain", f"{MARGIN}styled"
TOTAL = 100
# Of 100 prompts at most 5 within a bound of 10 %: the limit of 5 is 9.9 %, that of 6 is 11.2 %.
BOUND = {"asr": 0.1}


def halving(**changes):
    return Halving(**{"bounds": BOUND, "grace": 20, "factor": 3, "ratio_alone": True, **changes})


def trial(number, ratio, margin, *, count=None, loss=0.5, styled=None, steps=20, kind="trial"):
    """A trial with one reading; with a count it has ended, its ASR so many of 100."""
    margins = {PLAIN: margin} | ({} if styled is None else {STYLED: styled[0]})
    counts = {"plain": count} | ({} if styled is None else {"styled": styled[1]})
    made = [
        Outcome("safety", "set", dress, "asr", "1" * hits + "0" * (TOTAL - hits))
        for dress, hits in counts.items()
        if hits is not None
    ]
    return TrialRecord(
        number,
        kind,
        {"ratio": ratio},
        "done" if made else "running",
        step=steps,
        max_steps=100,
        outcomes=tuple(made),
        readings=({STEP: steps, **margins, LOSS: loss},),
    )


def stops(records, name, step=20, **changes):
    readings = {r.name: {int(read[STEP]): read for read in r.readings} for r in records}
    return halving(**changes).reason_to_stop(records, readings, name, step)


def going_on(records, **changes):
    running = [r.name for r in records if r.status == "running"]
    return [name for name in running if stops(records, name, **changes) is None]


def test_while_none_is_within_the_bound_the_safest_go_on():
    records = [trial(n, 0.01 * (n + 1), margin=0.1 * n) for n in range(6)]
    assert going_on(records) == ["trial-04", "trial-05"]
    beyond = trial(9, 0.005, margin=-1.0, count=60)
    assert going_on([*records, beyond]) == ["trial-03", "trial-04", "trial-05"]


def test_margins_count_from_where_they_began():
    # The styled margin is lower in all trials; where it began decides, not its level.
    started = {PLAIN: 1.0, STYLED: -2.0}
    records = [
        TrialRecord(
            number, "trial", {"ratio": 0.01 * (number + 1)}, "running", max_steps=100,
            readings=({STEP: 0, **started}, {STEP: 20, **margins, LOSS: 0.5}),
        )
        for number, margins in enumerate(
            [{PLAIN: 0.0, STYLED: -2.1}, {PLAIN: 0.8, STYLED: -2.2}, {PLAIN: 0.9, STYLED: -2.9}]
        )
    ]  # fmt: skip
    assert going_on(records) == ["trial-01"]


def test_above_the_floor_the_smaller_ratio_goes_on_and_below_it_the_nearest():
    ended = [trial(0, 0.02, margin=0.0, count=50), trial(1, 0.2, margin=1.0, count=0)]
    inside = [trial(n, r, m) for n, (r, m) in enumerate([(0.05, 0.9), (0.1, 0.95), (0.03, 0.1)], 2)]
    # Five at the rung, two go on; the trials that have ended do not count as better.
    assert going_on([*ended, *inside]) == ["trial-02", "trial-03"]
    below = [trial(n, r, m) for n, (r, m) in enumerate([(0.05, 0.2), (0.1, 0.4), (0.03, 0.1)], 2)]
    assert going_on([*ended, *below]) == ["trial-02", "trial-03"]
    assert going_on([*ended, *below], factor=5) == ["trial-03"]


def test_the_floor_lies_between_the_counts_in_proportion_to_their_logits():
    def is_above(margin, counts):
        ended = [trial(0, 0.02, 0.0, count=counts[0]), trial(1, 0.2, 1.0, count=counts[1])]
        # Above the floor it is better than the smaller ratio far below; below it as well, so the
        # other one is put above: then only a trial above the floor with its smaller ratio goes on.
        records = [*ended, trial(2, 0.03, margin), trial(3, 0.04, 0.999)]
        return stops(records, "trial-02", factor=4) is None

    def floor(counts):
        low, high = (math.log((k + 0.5) / (TOTAL - k + 0.5)) for k in counts)
        return (low - math.log(6 / 95)) / (low - high)

    for counts in ((50, 0), (99, 5), (6, 0)):
        assert is_above(floor(counts) + 0.01, counts)
        assert not is_above(floor(counts) - 0.01, counts)


def test_every_dress_has_a_floor_of_its_own():
    ended = [
        trial(0, 0.02, 0.0, count=50, styled=(-3.0, 70)),
        trial(1, 0.2, 1.0, count=0, styled=(-1.0, 0)),
    ]
    safe_plain = trial(2, 0.05, 0.99, styled=(-2.9, None))
    safe_both = trial(3, 0.1, 0.99, styled=(-1.01, None))
    assert going_on([*ended, safe_plain, safe_both], factor=4) == ["trial-03"]


def test_with_other_keys_the_lower_loss_since_the_rung_before_goes_on():
    def run(number, losses):
        readings = [{STEP: 5 * n + 25, LOSS: loss} for n, loss in enumerate(losses)]
        readings[-1] |= {STEP: 60, PLAIN: 2.0}
        return TrialRecord(
            number, "trial", {"ratio": 0.3}, "running", max_steps=100, readings=tuple(readings)
        )

    # Step 60 is the second rung. The loss of that step alone would say the opposite.
    lucky, good = run(2, [*[0.9] * 7, 0.1]), run(3, [*[0.4] * 7, 0.5])
    within = trial(0, 0.1, 1.0, count=0, steps=60, loss=9.0)
    records = [within, lucky, good]
    assert stops(records, "trial-02", 60, ratio_alone=False) is not None
    assert stops(records, "trial-03", 60, ratio_alone=False) is None


@pytest.mark.parametrize(
    ("ratio", "reason"),
    [
        (0.25, "a ratio of 0.2 is within the bound already"),
        (0.2, "a ratio of 0.2 is within the bound already"),
        (0.015, "a ratio of 0.02 is beyond the bound already"),
        (0.05, None),
    ],
)
def test_nothing_to_gain_outside_of_what_is_known(ratio, reason):
    ended = [trial(0, 0.02, 0.0, count=50), trial(1, 0.2, 1.0, count=0)]
    late = replace(
        trial(2, ratio, 0.99), readings=tuple({STEP: step, PLAIN: 0.99} for step in (20, 35))
    )
    assert stops([*ended, late], "trial-02", 35) == reason
    assert stops([*ended, late], "trial-02", 35, ratio_alone=False) is None  # between two rungs


def test_a_safe_trial_outweighs_an_unsafe_one_above_it():
    ended = [trial(0, 0.2, 0.0, count=50), trial(1, 0.1, 1.0, count=0)]
    assert stops([*ended, trial(2, 0.05, 0.9)], "trial-02") is None
    assert stops([*ended, trial(2, 0.3, 0.9)], "trial-02") == (
        "a ratio of 0.1 is within the bound already"
    )


def test_a_trial_that_is_trained_whole_is_evaluated():
    ended = [trial(0, 0.02, 0.0, count=50), trial(1, 0.2, 1.0, count=0)]
    assert stops([*ended, trial(2, 0.25, -9.0, steps=100)], "trial-02", 100) is None


def test_what_is_no_number_is_worse_than_any():
    records = [trial(0, 0.01, math.nan), trial(1, 0.02, -5.0), trial(2, 0.03, 0.0)]
    assert going_on(records) == ["trial-02"]
    assert going_on(records[:2]) == ["trial-01"]
    ended = [trial(8, 0.005, -9.0, count=50), trial(9, 0.2, 1.0, count=0)]
    assert going_on([*ended, *records[:2]], factor=4) == ["trial-01"]


def test_only_the_reading_that_comes_to_a_rung_decides():
    records = [trial(n, 0.01 * (n + 1), 0.1 * n) for n in range(3)]
    early = [trial(n, 0.01 * (n + 1), 0.1 * n, steps=19) for n in range(3)]
    assert stops(records, "trial-00") is not None
    assert stops(early, "trial-00", 19) is None
    readings = {r.name: {20: r.readings[0], 30: r.readings[0]} for r in records}
    assert halving().reason_to_stop(records, readings, "trial-00", 30) is None
    assert halving().reason_to_stop(records, readings, "trial-00", 20) is not None


def test_the_baseline_without_mixing_teaches_and_the_untouched_model_does_not():
    unmixed = trial(-1, 0.0, 0.0, count=90, kind="unmixed")
    within = trial(1, 0.2, 1.0, count=0)
    records = [within, trial(2, 0.1, 0.98), trial(3, 0.05, 0.2), trial(4, 0.03, 0.1)]
    # Without something beyond the bound every margin is above the floor.
    assert going_on(records) == ["trial-03", "trial-04"]
    assert going_on([unmixed, *records]) == ["trial-02", "trial-03"]
    untouched = trial(-2, None, 0.0, count=90, kind="untouched")
    assert going_on([untouched, *records]) == ["trial-03", "trial-04"]


@given(
    st.lists(
        st.tuples(st.floats(0.01, 0.3), st.floats(-5, 5), st.sampled_from([None, 0, 3, 20, 90])),
        min_size=1,
        max_size=12,
    ),
    st.integers(2, 5),
    st.booleans(),
)
def test_one_of_so_many_goes_on_at_a_rung(rows, factor, ratio_alone):
    records = [trial(n, r, m, count=count) for n, (r, m, count) in enumerate(rows)]
    kept = going_on(records, factor=factor, ratio_alone=ratio_alone)
    running = {r.name: r for r in records if r.status == "running"}
    if not ratio_alone and running and len(running) == len(records):
        best = max(record.readings[0][PLAIN] for record in records)
        assert any(running[name].readings[0][PLAIN] == best for name in kept)
        # Trials that are equal go on together.
        margins = {running[name].readings[0][PLAIN] for name in kept}
        assert len(margins) <= math.ceil(len(records) / factor)
    for name in kept:
        within = [r.ratio for r in records if r.outcomes and r.outcomes[0].rate.count <= 5]
        assert not ratio_alone or all(running[name].ratio < ratio for ratio in within)


# In Ray's hands


def reported(scheduler, record, **more):
    asked = SimpleNamespace(custom_dirname=record.name)
    return scheduler.on_trial_result(None, asked, {**record.readings[0], SCORE: -1.0, **more})


def test_a_sweep_that_goes_on_decides_as_before():
    ended = [trial(0, 0.02, 0.0, count=50), trial(1, 0.2, 1.0, count=0)]
    far = trial(2, 0.03, 0.1)
    near = trial(3, 0.05, 0.99)
    for _ in range(2):  # a new scheduler knows what the records say
        scheduler = HalvingScheduler(halving(factor=5), lambda: [*ended, far, near])
        assert reported(scheduler, far) == TrialScheduler.STOP
        assert scheduler.reasons == {
            "trial-02": "1 of 4 trials stood better at step 20, 1 may go on"
        }
        assert reported(scheduler, near) == TrialScheduler.CONTINUE
        assert scheduler.__getstate__() == {}


def test_a_broken_run_stops_and_an_evaluation_between_readings_decides_nothing():
    good, broken = trial(0, 0.02, 1.0), trial(1, 0.1, 0.0)
    scheduler = HalvingScheduler(halving(), lambda: [good, broken])
    asked = SimpleNamespace(custom_dirname="trial-01")
    begun = {STEP: 0, PLAIN: 1.0, SCORE: WORST}
    assert scheduler.on_trial_result(None, asked, begun) == TrialScheduler.CONTINUE
    measured = {STEP: 20, "safety/asr/set/plain": 0.1, SCORE: -1.0}
    assert scheduler.on_trial_result(None, asked, measured) == TrialScheduler.CONTINUE
    nothing_finite = {STEP: 25, SCORE: WORST}
    assert scheduler.on_trial_result(None, asked, nothing_finite) == TrialScheduler.STOP
    assert scheduler.reasons["trial-01"] == "1 of 2 trials stood better at step 20, 1 may go on"


def test_the_baseline_goes_on_whatever_it_reads():
    unmixed = trial(-1, 0.0, -9.0, kind="unmixed")
    scheduler = HalvingScheduler(halving(), lambda: [unmixed, trial(0, 0.1, 1.0)])
    report = {STEP: 20, PLAIN: -9.0}
    asked = SimpleNamespace(custom_dirname="unmixed")
    assert scheduler.on_trial_result(None, asked, report) == TrialScheduler.CONTINUE
    assert scheduler.reasons == {}
