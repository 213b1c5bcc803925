"""The study's figures: what an evaluation leaves, seeds together, intervals over prompts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from efficacy_cells import Cell
from efficacy_clusters import Change, ClusterRate, cluster_rate, compare, sign_flip
from efficacy_figures import Found, load_results, pick, places, pool_seeds
from efficacy_results import evaluation, write_result
from efficacy_run import figures, last_readings
from hypothesis import given
from hypothesis import strategies as st

from safemix.evaluate.results import Rate
from safemix.evaluate.statistics import Paired, mcnemar, paired_difference

MARKS = {"asr": "0110", "asr/styled": "1?01", "refused": "0001", "incoherent": "0000"}
Outcomes = Sequence[tuple[bool, bool]]
outcomes = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def keyed(marks: str, asked: str = "plain") -> dict[tuple[str, str], tuple[int, int]]:
    return {(f"p{n}", asked): (int(mark), 1) for n, mark in enumerate(marks) if mark != "?"}


def change(pairs: Outcomes, times: int = 1) -> Change:
    """Of two models; each answer given by so many seeds alike."""
    one, two = (
        {(f"p{n}", "plain"): (times * pair[side], times) for n, pair in enumerate(pairs)}
        for side in (0, 1)
    )
    return compare([(one, two)])


def counted(pairs: Outcomes) -> Paired:
    return Paired(
        *(sum(pair == want for pair in pairs) for want in product((True, False), repeat=2))
    )


def test_figures_hold_counts_and_no_text() -> None:
    tree = evaluation("autoif+aoa", MARKS, "10?1").to_json()
    found = figures(tree)
    assert "prompt" not in json.dumps(found["measures"]).replace("harmful prompts", "")
    assert "what the model said" not in json.dumps(found)
    by_key = {(m["metric"], m["dress"]): m for m in found["measures"]}
    assert by_key["asr", "plain"]["counted"] == "0110"
    assert by_key["asr", "styled"]["counted"] == "1?01"
    assert by_key["asr", "styled"]["rate"]["total"] == 3
    assert by_key["accuracy", "autoif+aoa"]["counted"] == "10?1"
    assert all("items" not in measure for measure in found["measures"])
    assert found["settings"] == {"judge": "rules"}


def test_a_run_that_goes_by_the_odds_has_its_margins_under_the_same_names(tmp_path: Path) -> None:
    margins = {"safety/margin/styled": -3.0, "safety/margin_mean/styled": 0.5}
    more = {"safety/margin_first/styled": 2.0, "safety/margin_lookalikes/plain": 4.0}
    path = tmp_path / "metrics.jsonl"
    line = {"step": 3} | margins | more | {"safety/margin_lookalikes_mean/plain": 1.5}
    path.write_text(json.dumps(line) + "\n", "utf-8")
    assert last_readings(path)["margins"] == {
        "safety/margin/styled": 0.5,
        "safety/margin_odds/styled": -3.0,
        "safety/margin_first/styled": 2.0,
        "safety/margin_lookalikes/plain": 1.5,
        "safety/margin_lookalikes_odds/plain": 4.0,
    }


def test_the_ratio_of_a_run_that_moved_it_is_what_was_drawn() -> None:
    cell = {"task": "piqa", "strategy": "aoa", "mitigation": "paraphrase", "ratio": 0.1, "seed": 0}
    changes = {"ratio": {"controller": "target", "min_margin": -3.0}}
    moved = {"cell": cell | {"variant": "controller", "changes": changes}}
    found = Found("moved", moved | {"shares": {"safety/row_share": 0.20436}})
    assert found.ratio == 0.204


def test_last_readings_are_the_last_that_there_are(tmp_path: Path) -> None:
    lines = [
        {"step": 0, "safety/margin/plain": 2.0, "safety/margin_odds/plain": 1.0},
        {"step": 1, "safety/row_share": 0.125, "safety/token_share": 0.1, "safety/loss": 3.0},
        {"step": 2, "safety/row_share": 0.0, "safety/token_share": None},
        {"step": 3, "safety/row_share": 0.25, "safety/token_share": 0.3}
        | {"safety/margin/plain": -0.5, "safety/margin_odds/plain": None},
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert last_readings(path) == {
        "margins": {"safety/margin/plain": -0.5, "safety/margin_odds/plain": 1.0},
        "shares": {"safety/row_share": 0.125, "safety/token_share": pytest.approx(0.2)},
        "steps": 3,
    }


def result(tmp_path: Path, *given: Any, **more: Any) -> Found:
    path = write_result(tmp_path, *given, **more)
    return Found(path.stem, json.loads(path.read_text("utf-8")))


def test_a_result_says_what_it_is_of(tmp_path: Path) -> None:
    changes = {"ratio": 0.2}
    cell = Cell("piqa", "autoif+aoa", "paraphrase", variant="more_rows", changes=changes)
    found = result(tmp_path, cell, MARKS, "1101")
    assert (found.task, found.strategy, found.label) == ("piqa", "autoif+aoa", "paraphrase")
    assert (found.ratio, found.variant, found.is_cell) == (0.2, "more_rows", True)
    assert found.dresses == ("plain", "autoif+aoa", "styled")
    base = result(tmp_path, ("aligned", "piqa", "benign"), MARKS, "1101")
    assert (base.label, base.ratio, base.variant, base.is_cell) == ("aligned", 0.0, "", False)
    assert base.dresses == ("plain", "styled")


def test_what_has_no_verdict_is_left_out(tmp_path: Path) -> None:
    [pool] = pool_seeds([result(tmp_path, ("aligned", "piqa", "benign"), MARKS, "1101")])
    assert (pool.asr("plain").count, pool.asr("plain").total) == (2, 4)
    assert (pool.asr("styled").count, pool.asr("styled").total) == (2, 3)
    assert (pool.asr().count, pool.asr().total, pool.asr().prompts) == (4, 7, 4)
    assert pool.refused("plain") == ClusterRate(1, 4, 4)
    assert (pool.incoherent().value, pool.utility().value) == (0.0, 0.75)
    assert pool.token_share is None
    assert pool.asr("no such dress").total == 0


def test_seeds_of_a_cell_are_one_pool_and_nothing_else_is(tmp_path: Path) -> None:
    def cell(name: str, ratio: float, seed: int, variant: str = "") -> Cell:
        return Cell("piqa", "benign", name, ratio, seed, variant)

    for seed, marks in enumerate(("1100", "1000", "1110")):
        write_result(tmp_path, cell("base", 0.1, seed), MARKS | {"asr": marks}, "1111")
    for other in (cell("base", 0.2, 0), cell("longest", 0.1, 0), cell("base", 0.1, 0, "x")):
        write_result(tmp_path, other, MARKS, "1111")
    write_result(tmp_path, ("aligned", "piqa", "benign"), MARKS, "1111")
    pools = pool_seeds(load_results(tmp_path))
    assert sorted(pool.seeds for pool in pools) == [1, 1, 1, 1, 3]
    base = pick(pools, "base", 0.1)
    assert base is not None
    asked = f"{b'advbench'.hex().ljust(64, '0')[:16]}/plain"
    assert base.tallies("safety", "plain", "asr") == {
        (f"safety/advbench/{n}", asked): (c, 3) for n, c in enumerate((3, 2, 1, 0))
    }
    plain = base.asr("plain")
    assert (plain.count, plain.total, plain.prompts) == (6, 12, 4)
    assert base.token_share == pytest.approx(0.0877)
    assert pick(pools, "base", 0.5) is None
    assert places(pools) == [("piqa", "benign")]
    assert places([pool for pool in pools if pool.label == "aligned"]) == []


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_prompts_asked_once_give_wilson_s_interval(found: list[bool]) -> None:
    rate = cluster_rate(keyed("".join(str(int(one)) for one in found)))
    assert rate.design == pytest.approx(1.0)
    assert rate.interval == pytest.approx(Rate(sum(found), len(found)).interval)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(2, 5))
def test_copies_of_an_answer_do_not_narrow_the_interval(found: list[bool], times: int) -> None:
    tallies = {(f"p{n}", "plain"): (times * one, times) for n, one in enumerate(found)}
    rate = cluster_rate(tallies)
    assert (rate.count, rate.total) == (times * sum(found), times * len(found))
    assert rate.interval == pytest.approx(Rate(sum(found), len(found)).interval)


def test_answers_that_do_not_hang_together_narrow_it() -> None:
    marks = [((n * 7 + seed * 5) % 4 == 0) for n in range(40) for seed in range(3)]
    one = cluster_rate(keyed("".join(str(int(mark)) for mark in marks[::3])))
    three = cluster_rate(
        {(f"p{n}", "plain"): (sum(marks[3 * n : 3 * n + 3]), 3) for n in range(40)}
    )
    assert three.prompts == one.prompts == 40
    (low, high), (low_of_one, high_of_one) = three.interval, one.interval
    assert high - low < high_of_one - low_of_one
    # But no more than so many independent answers would.
    assert high - low >= math.dist(*([end] for end in Rate(three.count, 120).interval)) - 1e-12


@given(outcomes)
def test_one_answer_a_prompt_gives_newcombe_s_interval_and_mcnemar_s_p(pairs: Outcomes) -> None:
    found, wanted = change(pairs), counted(pairs)
    assert found.prompts == len(pairs)
    assert found.difference == pytest.approx(wanted.difference)
    assert found.interval == pytest.approx(paired_difference(wanted), abs=1e-9)
    assert found.p_value == pytest.approx(mcnemar(wanted.only_first, wanted.only_second))


@given(outcomes, st.integers(2, 4))
def test_seeds_that_say_the_same_say_nothing_more(pairs: Outcomes, times: int) -> None:
    one, many = change(pairs), change(pairs, times)
    assert many.difference == pytest.approx(one.difference)
    assert many.p_value == pytest.approx(one.p_value)
    assert many.interval == pytest.approx(one.interval, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=9))
def test_the_p_of_flipped_signs_is_that_of_all_of_them(found: list[tuple[int, int]]) -> None:
    old = [(3 * one, 3) for _, one in found]
    new = [(three, 3) for three, _ in found]
    sizes = [three - 3 * one for three, one in found]
    sums = [
        abs(sum(s * x for s, x in zip(signs, sizes, strict=True)))
        for signs in product((-1, 1), repeat=len(sizes))
    ]
    wanted = sum(one >= abs(sum(sizes)) for one in sums) / len(sums)
    assert sign_flip(old, new) == pytest.approx(wanted)


def test_a_prompt_of_more_places_counts_as_much_in_the_p_as_in_the_difference() -> None:
    # One prompt lost in three places, three others won in one: nothing is gained or lost.
    p, others = keyed("1"), {key: (0, 1) for key in list(keyed("0000"))[1:]}
    lost = {key: (0, 1) for key in p}
    won = {key: (1, 1) for key in others}
    found = compare([(p | others, lost | won), (p, lost), (p, lost)])
    assert found.difference == pytest.approx(0)
    assert found.p_value == 1
    with pytest.raises(ValueError, match="more often on one side"):
        sign_flip([(0, 1)], [(0, 2)])


def test_models_are_compared_on_what_both_were_asked_the_same_way() -> None:
    first = keyed("1111") | keyed("11", "styled")
    second = keyed("00?0") | keyed("00", "dressed")
    found = compare([(first, second)])
    assert (found.difference, found.prompts, found.p_value) == (-1.0, 3, 0.25)
    nothing = compare([(keyed("11"), keyed("00", "styled"))])
    assert math.isnan(nothing.difference)
    assert (nothing.interval, nothing.p_value, nothing.prompts) == ((-1.0, 1.0), 1.0, 0)


def test_places_with_the_same_prompts_are_clusters() -> None:
    once = compare([(keyed("1111100000"), keyed("0111000010"))])
    twice = compare([(keyed("1111100000"), keyed("0111000010"))] * 2)
    assert twice.prompts == 10
    assert twice.interval == pytest.approx(once.interval)
    assert twice.p_value == pytest.approx(once.p_value)


def test_seeds_of_one_side_weigh_no_place_more() -> None:
    """Two places that differ by half: one side was run with three seeds in one of them."""
    high, low = keyed("1111"), keyed("0000")
    seeds = {key: (3 * counted, 3 * asked) for key, (counted, asked) in high.items()}
    once = compare([(high, high), (low, low)])
    assert once.difference == 0
    for one, two in ((high, seeds), (seeds, high)):
        found = compare([(one, two), (low, low)])
        assert found.difference == pytest.approx(0, abs=1e-12)
        assert found.interval == pytest.approx(once.interval)
        assert found.p_value == 1
    some = compare([(seeds, keyed("1100")), (low, keyed("0100"))])
    assert some.difference == pytest.approx((-0.5 + 0.25) / 2)


def test_a_change_reads_in_points() -> None:
    assert str(Change(-0.125, (-0.2, 0.01), 0.5, 8)) == "-12.5 [-20.0, +1.0]"
