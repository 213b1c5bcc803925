"""The plan's promises, over random mixtures."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from safemix.mixture import MixturePlan

NAMES = ("task", "safety", "general", "replay", "code")
many = settings(max_examples=150, deadline=None)


@st.composite
def shares(draw, count):
    """`count` ratios that leave something for the rest, down to 10**-4."""
    parts = draw(
        st.lists(
            st.one_of(
                st.integers(1, 400).map(lambda n: Fraction(n, 10_000)),
                st.integers(0, 80).map(lambda n: Fraction(n, 100)),
                st.fractions(0, 1, max_denominator=997),
            ),
            min_size=count,
            max_size=count,
        )
    )
    total = sum(parts)
    return parts if total <= 1 else [part / (total * 2) for part in parts]


@st.composite
def plans(draw, least=2, most=5):
    count = draw(st.integers(least, most))
    names = NAMES[:count]
    sizes = {name: draw(st.one_of(st.integers(1, 60), st.integers(1, 10**9))) for name in names}
    ratios = dict(zip(names[1:], draw(shares(count - 1)), strict=True))
    micro = draw(st.integers(1, 4))
    ranks = draw(st.sampled_from([1, 2, 3, 4, 7, 8, 16, 33, 64]))
    accumulation = draw(st.integers(1, 16))
    assume(micro * ranks * accumulation <= 2048)
    plan = MixturePlan(sizes, ratios, micro * ranks * accumulation, draw(st.integers(0, 2**32)))
    return plan, ranks, micro


def _checked_counts(plan, start, stop):
    table = plan.cumulative(start, stop)
    assert (np.diff(table, axis=0) >= 0).all()
    assert (np.diff(table.sum(axis=1)) == plan.global_batch_size).all()
    return table


@many
@given(plans(), st.integers(0, 10**7))
def test_exact_in_every_step_and_over_the_run(made, far):
    plan, _, _ = made
    batch = plan.global_batch_size
    # A far start costs a walk for three or more sources with awkward ratios; two have none.
    starts = (0, far) if len(plan.sources) == 2 else (0, far % 3000)
    for start in starts:
        table = _checked_counts(plan, start, start + 40)
        for source, name in enumerate(plan.sources):
            target = plan.ratio(name, start) * batch
            for offset, (before, after) in enumerate(pairwise(table[:, source].tolist())):
                assert after - before in (target.__floor__(), target.__ceil__())
                assert abs(after - target * (start + offset + 1)) < 1


@many
@given(plans(), st.integers(0, 2000))
def test_cells_are_balanced_and_every_split_has_the_same_rows(made, step):
    plan, ranks, micro = made
    whole = plan.step(step)
    rows = sorted(zip(whole.source.tolist(), whole.row.tolist(), strict=True))
    for grid in (
        plan.grid(step, ranks, micro),
        plan.grid(step, 1, plan.global_batch_size),
        plan.grid(step, plan.global_batch_size // micro, micro),
    ):
        for source in range(len(plan.sources)):
            cells = (grid.source == source).sum(axis=2)
            assert cells.max() - cells.min() <= 1
        pairs = zip(grid.source.ravel().tolist(), grid.row.ravel().tolist(), strict=True)
        assert sorted(pairs) == rows
    counts = {n: int((whole.source == i).sum()) for i, n in enumerate(plan.sources)}
    assert counts == whole.counts


@many
@given(plans(), st.integers(0, 500), st.integers(1, 30))
def test_a_rank_computes_only_its_own_rows_and_they_are_the_grid(made, start, steps):
    plan, ranks, micro = made
    rank = start % ranks
    source, row = plan.rank_rows(start, start + steps, ranks, rank, micro)
    for offset in range(0, steps, 7):
        grid = plan.grid(start + offset, ranks, micro)
        assert (grid.source[:, rank] == source[offset]).all()
        assert (grid.row[:, rank] == row[offset]).all()


@settings(max_examples=40, deadline=None)
@given(plans(most=2))
def test_two_sources_reach_all_ranks_evenly_over_the_run(made):
    plan, ranks, micro = made
    source, _ = plan.all_rows(0, 60, ranks, micro)
    per_cell = (source == 1).sum(axis=(0, 3))
    assert per_cell.max() - per_cell.min() <= 1
    per_rank = (source == 1).sum(axis=(0, 1, 3))
    assert per_rank.max() - per_rank.min() <= 1


def test_three_sources_do_not_alias_onto_ranks():
    # One safety row a rank and one general row a step: a plain deal gives rank 0 all of them.
    sizes = {"task": 10**6, "safety": 10**6, "general": 10**6}
    plan = MixturePlan(sizes, {"safety": "8/64", "general": "1/64"}, 64)
    source, _ = plan.all_rows(0, 4000, 8, 8)
    share = (source == 2).sum(axis=(0, 1, 3)) / 4000
    assert share.sum() == 1
    assert abs(share - 1 / 8).max() < 0.02


@many
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 49).map(lambda n: Fraction(n, 50)),
    st.integers(1, 24),
    st.integers(0, 10**6),
)
def test_no_row_twice_within_a_pass_and_none_lost(task, safety, ratio, batch, seed):
    plan = MixturePlan({"task": task, "safety": safety}, {"safety": ratio}, batch, seed)
    steps = 30
    source, row = plan.rank_rows(0, steps, 1, 0, batch)
    for index, (name, size) in enumerate(plan.sizes.items()):
        drawn = np.concatenate(
            [np.sort(row[t][source[t] == index]) for t in range(steps)] or [np.empty(0)]
        )
        assert len(drawn) == plan.consumed(steps)[name]
        times = np.bincount(drawn, minlength=size)
        passes = plan.consumed(steps).passes[name]
        assert times.max(initial=0) <= passes
        # The passes before the last are complete.
        assert times.min() >= passes - 1 if passes else times.sum() == 0


@many
@given(st.data(), plans(most=3))
def test_ratio_changes_replay_and_lose_nothing(data, made):
    plan, _, _ = made
    batch, steps = plan.global_batch_size, 60
    changes = sorted(data.draw(st.lists(st.integers(0, steps), max_size=4)))
    before = [plan.step(t) for t in range(steps)]
    target = {name: [Fraction(0)] * (steps + 1) for name in plan.sources}
    for change in changes:
        source = data.draw(st.sampled_from(plan.sources[1:]))
        others = sum(plan.ratio(n, change) for n in plan.sources[1:] if n != source)
        new = data.draw(st.fractions(0, 1, max_denominator=200)) * (1 - others)
        plan.set_ratio(source, new, change)
    first = changes[0] if changes else steps
    for t in range(first):
        assert (plan.step(t).row == before[t].row).all()
    for name in plan.sources:
        for t in range(steps):
            target[name][t + 1] = target[name][t] + plan.ratio(name, t) * batch
    table = _checked_counts(plan, 0, steps)
    for index, name in enumerate(plan.sources):
        for t in range(steps):
            asked = plan.ratio(name, t) * batch
            assert table[t + 1, index] - table[t, index] in (asked.__floor__(), asked.__ceil__())
            assert abs(table[t + 1, index] - target[name][t + 1]) < 1
    # Each source's rows go on through its passes as if the ratio had never changed.
    source, row = plan.rank_rows(0, steps, 1, 0, batch)
    for index, (name, size) in enumerate(plan.sizes.items()):
        times = np.unique(row[source == index], return_counts=True)[1]
        passes = plan.consumed(steps).passes[name]
        assert times.max(initial=0) <= passes
        if passes > 1:
            assert len(times) == size
            assert times.min() >= passes - 1


@many
@given(st.integers(1, 10**24), st.integers(1, 10**24))
def test_awkward_ratios_that_fill_the_batch_are_legal(part, rest):
    share = Fraction(part, part + rest)
    plan = MixturePlan({"task": 1, "safety": 1, "more": 1}, {"safety": share, "more": 1 - share}, 8)
    kept = [plan.ratio(name, 0) for name in ("safety", "more")]
    for asked, found in zip((share, 1 - share), kept, strict=True):
        assert 0 <= asked - found <= Fraction(1, 10**9)
        assert found.denominator <= 10**9
        assert found == asked or asked.denominator > 10**9
    assert sum(kept) <= 1


@settings(max_examples=60, deadline=None)
@given(st.data(), plans(least=4))
def test_many_sources_with_changes_stay_close(data, made):
    plan, _, _ = made
    batch, steps = plan.global_batch_size, 40
    for change in sorted(data.draw(st.lists(st.integers(0, steps), max_size=3))):
        source = data.draw(st.sampled_from(plan.sources[1:]))
        others = sum(plan.ratio(n, change) for n in plan.sources[1:] if n != source)
        new = data.draw(st.fractions(0, 1, max_denominator=100)) * (1 - others)
        plan.set_ratio(source, new, change)
    table = _checked_counts(plan, 0, steps)
    for index, name in enumerate(plan.sources):
        target = Fraction(0)
        for t in range(steps):
            asked = plan.ratio(name, t) * batch
            target += asked
            assert table[t + 1, index] - table[t, index] in (asked.__floor__(), asked.__ceil__())
            assert abs(table[t + 1, index] - target) < Fraction(3, 2)


@many
@given(st.data(), plans())
def test_state_gives_the_same_plan_on_any_other_split(data, made):
    plan, ranks, micro = made
    if data.draw(st.booleans()):
        new = data.draw(st.fractions(0, Fraction(1, 2), max_denominator=100))
        others = sum(plan.ratio(n, 0) for n in plan.sources[2:])
        plan.set_ratio("safety", new * (1 - others), data.draw(st.integers(0, 50)))
    again = MixturePlan.from_state_dict(plan.state_dict(), plan.sizes)
    step = data.draw(st.integers(0, 200))
    assert (again.step(step).row == plan.step(step).row).all()
    assert (again.step(step).source == plan.step(step).source).all()
    assert again.fingerprint == plan.fingerprint
    grid, other = plan.grid(step, ranks, micro), again.grid(step, 1, micro)
    assert sorted(grid.row.ravel().tolist()) == sorted(other.row.ravel().tolist())


@many
@given(plans(), st.integers(0, 400))
def test_whole_steps_go_to_one_source(made, step):
    mixed, _, _ = made
    ratios = {name: mixed.ratio(name, 0) for name in mixed.sources[1:]}
    plan = MixturePlan(
        mixed.sizes, ratios, mixed.global_batch_size, mixed.seed, granularity="batch"
    )
    counts = plan.step(step).counts
    assert sorted(counts.values())[-1] == plan.global_batch_size
    assert sum(counts.values()) == plan.global_batch_size
    for name in plan.sources:
        steps = plan.consumed(step)[name] // plan.global_batch_size
        assert abs(steps - plan.ratio(name, 0) * step) < 1
