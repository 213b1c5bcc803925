"""The plan's surface, its limits and its errors."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from safemix.errors import PlanError
from safemix.mixture import Cosine, Linear, MixturePlan, Piecewise, ratio_from
from safemix.mixture.convert import convert_ratio, row_share

SIZES = {"task": 7473, "safety": 500}


def plan(**changes):
    given = {
        "sizes": SIZES,
        "ratios": {"safety": 0.05},
        "global_batch_size": 128,
        "seed": 0,
    } | changes
    return MixturePlan(**given)


def test_the_surface():
    made = plan()
    assert made.sources == ("task", "safety")
    assert made.steps_per_epoch == 62  # 7473 rows at 121.6 a step
    step = made.step(17)
    assert step.source.dtype == np.int8
    assert step.row.dtype == np.int64
    assert step.source.shape == step.row.shape == (128,)
    assert step.counts["task"] + step.counts["safety"] == 128
    grid = made.grid(17, num_replicas=8, micro_batch_size=4)
    assert grid.source.shape == grid.row.shape == (4, 8, 4)
    made.set_ratio("safety", 0.1, from_step=40)
    assert made.consumed(40).rows == {"task": 4864, "safety": 256}
    assert made.consumed(40).passes == {"task": 1, "safety": 1}
    assert made.consumed(50)["safety"] == 256 + 128


def test_a_far_step_is_quick_and_small_the_first_time():
    code = """
import time, tracemalloc
import numpy as np
from safemix.mixture import MixturePlan
np.random.default_rng(0)
MixturePlan({"a": 5, "b": 5}, {"b": 0.5}, 4).step(3)   # numpy's own first-call costs
tracemalloc.start()
begin = time.perf_counter()
plan = MixturePlan({"task": 10**9, "safety": 10**9}, {"safety": 0.05}, 128)
plan.step(10**7)
print(time.perf_counter() - begin, tracemalloc.get_traced_memory()[1])
"""
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    figures = [tuple(float(x) for x in run.stdout.split()) for run in runs]
    assert min(seconds for seconds, _ in figures) < 0.005
    assert max(peak for _, peak in figures) < 2**20


def test_the_same_rows_in_every_process_and_for_ever():
    # A changed value here means that old checkpoints resume on other rows: raise STATE_VERSION.
    made = plan()
    code = (
        "from safemix.mixture import MixturePlan;"
        "p = MixturePlan({'task': 7473, 'safety': 500}, {'safety': 0.05}, 128);"
        "print(p.step(1000).row.tolist(), p.step(1000).source.tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == f"{made.step(1000).row.tolist()} {made.step(1000).source.tolist()}"
    assert made.step(1000).row[:8].tolist() == FROZEN_ROWS


FROZEN_ROWS = [575, 2186, 5367, 1266, 3868, 4534, 1874, 3863]


def test_a_ratio_below_one_row_a_step_is_neither_zero_nor_an_error():
    made = plan(ratios={"safety": 0.0001}, global_batch_size=8)
    counts = [made.step(t).counts["safety"] for t in range(5000)]
    assert set(counts) == {0, 1}
    assert sum(counts) == 4
    assert np.diff(np.flatnonzero(counts)).tolist() == [1250, 1250, 1250]


def test_another_seed_gives_another_order_and_adding_a_source_keeps_the_others():
    assert (plan().step(0).row != plan(seed=1).step(0).row).any()
    wider = plan(sizes={**SIZES, "general": 10}, ratios={"safety": 0.05, "general": 0})
    one, two = plan().step(3), wider.step(3)
    assert sorted(one.row[one.source == 1]) == sorted(two.row[two.source == 1])


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_schedules_are_followed_exactly(kind):
    schedule = {"schedule": kind, "start": 0.4, "end": 0.05, "steps": 50}
    made = plan(ratios={"safety": schedule}, global_batch_size=100)
    table = made.cumulative(0, 120)[:, 1]
    asked = [made.ratio("safety", t) for t in range(120)]
    assert float(asked[0]) == pytest.approx(0.4)
    assert float(asked[25]) == pytest.approx(0.225, abs=1e-6)
    assert asked[50] == asked[119] == Fraction(1, 20)
    total = Fraction(0)
    for t in range(120):
        total += asked[t] * 100
        assert abs(table[t + 1] - total) < 1
    # Far past the schedule's end counts come from a closed form again.
    assert made.step(10**7).counts == {"task": 95, "safety": 5}


def test_schedules_with_three_sources_reach_far_steps_quickly():
    ratios = {"safety": {"schedule": "cosine", "start": 0.3, "end": 0.1, "steps": 200}}
    made = plan(sizes={**SIZES, "general": 99}, ratios={**ratios, "general": 0.05})
    begin = time.perf_counter()
    counts = made.step(10**7).counts
    assert time.perf_counter() - begin < 0.5
    assert counts["safety"] in (12, 13)
    assert counts["general"] in (6, 7)
    table = made.cumulative(0, 300)
    for index, name in enumerate(made.sources):
        target = sum(made.ratio(name, t) for t in range(300)) * 128
        assert abs(table[300, index] - target) < 1


def test_cosine_sums_match_floating_point():
    cosine = Cosine(Fraction(1, 2), Fraction(1, 10), 1000)
    steps = np.arange(1000)
    wave = 0.3 + 0.2 * np.cos(np.pi * steps / 1000)
    for n in (1, 10, 500, 999, 1000):
        assert float(cosine.total(n)) == pytest.approx(wave[:n].sum(), abs=1e-9)
    assert cosine.total(1500) == cosine.total(1000) + 50


def test_piecewise_and_linear_totals_are_sums_of_their_steps():
    for ratio in (
        Piecewise(((0, Fraction(1, 5)), (10, Fraction(0)), (25, Fraction(1, 3)))),
        Linear(Fraction(0), Fraction(1, 2), 17),
    ):
        total = Fraction(0)
        for t in range(40):
            assert ratio.total(t) == total
            total += ratio.at(t)
        again = ratio_from(json.loads(json.dumps(ratio.to_json())))
        assert again == ratio


def test_state_is_small_json_and_refuses_other_data_by_name():
    made = plan(fingerprints={"task": "aa", "safety": "bb"})
    text = json.dumps(made.state_dict())
    assert len(text) < 1024
    state = json.loads(text)
    again = MixturePlan.from_state_dict(state, SIZES, fingerprints={"task": "aa", "safety": "bb"})
    assert (again.step(99).row == made.step(99).row).all()
    with pytest.raises(PlanError, match=r"source task has 7474 rows .* made with 7473"):
        MixturePlan.from_state_dict(state, {"task": 7474, "safety": 500})
    with pytest.raises(PlanError, match="source safety has the same number of rows but other"):
        MixturePlan.from_state_dict(state, SIZES, fingerprints={"task": "aa", "safety": "cc"})
    with pytest.raises(PlanError, match="seed is 1 but the checkpoint has 0"):
        MixturePlan.from_state_dict(state, SIZES, seed=1)
    with pytest.raises(PlanError, match="global_batch_size is 64"):
        MixturePlan.from_state_dict(state, SIZES, global_batch_size=64)
    with pytest.raises(PlanError, match="edited or damaged"):
        MixturePlan.from_state_dict({**state, "seed": 5}, SIZES)
    with pytest.raises(PlanError, match="lacks history"):
        MixturePlan.from_state_dict({k: v for k, v in state.items() if k != "history"}, SIZES)
    with pytest.raises(PlanError, match="version 99"):
        MixturePlan.from_state_dict({**state, "version": 99}, SIZES)


BAD = [
    ({"ratios": {"safety": 1.5}}, r"ratio of safety 1.5 is outside \[0, 1\]"),
    ({"ratios": {"safety": -0.1}}, "outside"),
    ({"ratios": {"safety": "many"}}, "is no number"),
    ({"ratios": {"safety": float("nan")}}, "is no number"),
    ({"ratios": {"safty": 0.1}}, "unknown source 'safty'; sources: task, safety"),
    ({"ratios": {}}, "task, safety have no ratio"),
    ({"ratios": {"safety": 0.5, "task": 0.4}}, "sum to 0.9, not 1"),
    ({"sizes": {"task": 5}}, "2 to 127 sources"),
    ({"sizes": {"task": 5, "safety": 0}}, "safety has 0 rows but a ratio of 0.05"),
    ({"sizes": {"task": 0, "safety": 5}}, "task has 0 rows but a ratio of 0.95"),
    ({"sizes": {"task": 5.5, "safety": 5}}, "size of task 5.5 is no integer"),
    ({"global_batch_size": 0}, "global_batch_size 0 is below 1"),
    ({"granularity": "step"}, "granularity 'step' is not legal"),
    ({"ratios": {"safety": {"schedule": "square"}}}, "unknown schedule 'square'"),
    ({"ratios": {"safety": {"schedule": "linear", "start": 0, "end": 1}}}, "needs steps"),
    ({"ratios": {"safety": {"schedule": "piecewise", "points": {5: 0.1}}}}, "starts at step 0"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_impossible_mixtures_are_refused_in_one_line(changes, message):
    with pytest.raises(PlanError, match=message) as error:
        plan(**changes)
    assert "\n" not in str(error.value)


def test_impossible_changes_are_refused():
    made = plan()
    made.set_ratio("safety", 0.1, 40)
    with pytest.raises(PlanError, match="before the last change at step 40"):
        made.set_ratio("safety", 0.2, 39)
    with pytest.raises(PlanError, match="takes the rest; set the ratio of safety"):
        made.set_ratio("task", 0.5, 50)
    with pytest.raises(PlanError, match="unknown source"):
        made.set_ratio("other", 0.5, 50)
    with pytest.raises(PlanError, match="not divisible by 3 ranks x micro batch 4 = 12"):
        made.grid(0, 3, 4)
    with pytest.raises(PlanError, match="ratio 0"):
        MixturePlan({"task": 5, "safety": 5}, {"safety": 1}, 4).steps_per_epoch  # noqa: B018
    # A refused change leaves the plan as it was.
    assert made.ratio("safety", 50) == Fraction(1, 10)


def test_a_change_at_the_same_step_replaces_the_one_before():
    made, direct = plan(), plan()
    made.set_ratio("safety", 0.3, 40)
    made.set_ratio("safety", 0.1, 40)
    direct.set_ratio("safety", 0.1, 40)
    assert made.state_dict() == direct.state_dict()
    assert (made.step(45).row == direct.step(45).row).all()


def test_a_controller_that_changes_every_step_stays_exact_and_quick():
    made = plan(global_batch_size=16)
    total = Fraction(0)
    begin = time.perf_counter()
    for t in range(2000):
        made.set_ratio("safety", 0.05 + (t % 7) / 100, t)
        total += made.ratio("safety", t) * 16
    assert abs(made.consumed(2000)["safety"] - total) < 1
    assert time.perf_counter() - begin < 5


def test_every_row_of_the_task_is_seen_in_an_epoch():
    made = plan(global_batch_size=10, sizes={"task": 100, "safety": 7}, ratios={"safety": 0.3})
    assert made.steps_per_epoch == 15  # 100 / 7, in whole steps
    seen = {
        int(r)
        for t in range(15)
        for s, r in zip(made.step(t).source, made.step(t).row, strict=True)
        if s == 0
    }
    assert len(seen) == 100
    assert made.steps_for_passes(2) == 29
    assert made.steps_for_passes(0.5) == 8


def test_memory_does_not_grow_with_the_source():
    tracemalloc.start()
    MixturePlan({"task": 10**9, "safety": 10**8}, {"safety": 0.01}, 1024).step(10**6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_other_definitions_of_the_ratio_are_converted():
    none: dict[str, Fraction] = {}
    per_task = row_share(Fraction(1, 4), "task", others=none, mean_tokens={})
    assert per_task == Fraction(1, 5)
    with_general = row_share(
        Fraction(1, 4), "task", others={"general": Fraction(1, 2)}, mean_tokens={}
    )
    assert with_general == Fraction(1, 10)  # task 0.4, safety 0.1
    means = {"task": 400.0, "safety": 60.0, "general": 100.0}
    others = {"general": Fraction(1, 10)}
    share = row_share(Fraction(1, 20), "tokens", others=others, mean_tokens=means)
    task = 1 - share - Fraction(1, 10)
    tokens = 60 * share / (60 * share + 400 * task + 100 * Fraction(1, 10))
    assert float(tokens) == pytest.approx(0.05, abs=1e-8)
    moved = convert_ratio(Linear(Fraction(1), Fraction(0), 10), "task", others=none, mean_tokens={})
    assert moved == Linear(Fraction(1, 2), Fraction(0), 10)
    with pytest.raises(PlanError, match="leave"):
        row_share(Fraction(1, 2), "task", others={"g": Fraction(1)}, mean_tokens={})
