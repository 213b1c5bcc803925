"""The plant on which searches are compared, and surfaces of it made from measured cells."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_cells import surfaces_of_cells
from search_methods import BATCH, STEPS
from search_plant import HIGH, LOW, State, advance, begin, outcomes, random_surface, reading

RATIOS = st.floats(0.001, 0.5)


def still(surface):
    return begin(replace(surface, luck=0.0), np.random.default_rng(0))


# The plant


@given(st.integers(0, 10_000), RATIOS, RATIOS)
def test_more_safety_rows_are_safer_and_cost_accuracy(seed, one, other):
    surface = random_surface(seed)
    low, high = sorted((one, other))
    assert surface.asr(low) >= surface.asr(high)
    assert surface.true_accuracy(low) >= surface.true_accuracy(high)
    assert surface.asr(0.0) > 0.99


@given(st.integers(0, 1000), RATIOS, st.integers(1, 99))
def test_a_run_is_the_same_however_its_steps_are_cut(seed, ratio, cut):
    surface = random_surface(seed)
    whole = advance(surface, still(surface), ratio, 100, 100)
    parts = advance(surface, still(surface), ratio, cut, 100)
    parts = advance(surface, parts, ratio, 100 - cut, 100)
    assert parts.safety == pytest.approx(whole.safety)
    assert parts.loss == pytest.approx(whole.loss)
    assert parts.ratios == whole.ratios == ((0, ratio),)
    assert parts.share == pytest.approx(ratio)


def test_where_the_ratio_moves_the_safety_goes_after_it():
    surface = random_surface(1)
    state = advance(surface, still(surface), 0.3, 150, 300)
    safe = state.safety
    state = advance(surface, state, 0.01, 150, 300)
    assert all(after < before for after, before in zip(state.safety, safe, strict=True))
    assert state.ratios == ((0, 0.3), (150, 0.01))
    assert state.share == pytest.approx(0.155)


def test_the_model_before_training_reads_the_same_in_all_trials():
    surface = random_surface(2)
    first, second = (
        reading(surface, begin(surface, draw), BATCH, STEPS, draw)
        for draw in (np.random.default_rng(1), np.random.default_rng(2))
    )
    assert first == second
    assert set(first) == {"safety/margin/plain", "safety/margin/styled"}


def test_readings_lie_around_the_surface():
    surface = replace(random_surface(4), luck=0.0)
    state = advance(surface, still(surface), 0.1, STEPS, STEPS)
    draw = np.random.default_rng(0)
    found = [reading(surface, state, BATCH, STEPS, draw) for _ in range(400)]
    losses = [one["utility/loss"] for one in found]
    assert np.mean(losses) == pytest.approx(state.loss, rel=0.05)
    assert np.std(losses) == pytest.approx(state.loss / math.sqrt(0.9 * BATCH), rel=0.15)
    dress = surface.dresses[-1]
    expected = dress.middle + dress.width * state.safety[-1]
    expected += dress.gap * math.exp(-1 / surface.settling)
    margins = [one["safety/margin/styled"] for one in found]
    assert np.mean(margins) == pytest.approx(expected, abs=0.01)


def test_verdicts_have_the_rate_and_go_together_between_trials():
    surface = replace(random_surface(5), luck=0.0)
    state = State(STEPS, (0.0, 0.0), 0.3, 0.0, ((0, 0.1),))
    draw = np.random.default_rng(3)
    many = [outcomes(surface, state, draw, (4000, 4000)) for _ in range(2)]
    first, second = (found[1].counted for found in many)
    assert found_share(first) == pytest.approx(0.5, abs=0.03)
    same = np.mean([a == b for a, b in zip(first, second, strict=True)])
    # Two normal variables of correlation r have one sign with 1/2 + asin(r) / pi.
    assert same == pytest.approx(0.5 + math.asin(0.6) / math.pi, abs=0.03)
    accuracy = found_share(many[0][-1].counted)
    assert accuracy == pytest.approx(surface.true_accuracy(0.1), abs=0.03)


def found_share(marks):
    return marks.count("1") / len(marks)


def test_every_random_surface_has_a_safe_ratio_within_the_range():
    for seed in range(200):
        surface = random_surface(seed)
        assert surface.asr(LOW) > 0.04 > surface.asr(HIGH)


# Measured curves


def cell(ratio, asr, margin, accuracy, mitigation="paraphrase"):
    def measure(side, name, dress, metric, *, count, total):
        marks = "1" * count + "0" * (total - count)
        found = {"side": side, "name": name, "dress": dress, "metric": metric, "counted": marks}
        return {**found, "set_hash": "f" * 64}

    return {
        "cell": {"task": "piqa", "strategy": "aoa", "mitigation": mitigation, "ratio": ratio,
                 "variant": "", "seed": 0},
        "measures": [measure("safety", "advbench", "aoa", "asr", count=asr, total=60),
                     measure("utility", "piqa", "aoa", "accuracy", count=accuracy, total=200)],
        "margins": {"safety/margin_odds/aoa": margin},
    }  # fmt: skip


def test_surfaces_of_measured_cells(tmp_path):
    steps = [(0.01, 54, -1.5, 150), (0.05, 15, -0.4, 148), (0.2, 1, 0.3, 140)]
    for number, (ratio, asr, margin, accuracy) in enumerate(steps):
        tree = cell(ratio, asr, margin, accuracy)
        (tmp_path / f"{number}.json").write_text(json.dumps(tree), "utf-8")
    (tmp_path / "9.json").write_text(json.dumps(cell(0.1, 5, 0.0, 1, "base")), "utf-8")
    first, second = surfaces_of_cells(tmp_path, 2, 0)
    assert first.name == second.name == "piqa aoa paraphrase"
    for ratio, asr, margin, accuracy in steps:
        assert first.asr(ratio) == pytest.approx(asr / 60, abs=0.08)
        assert first.true_accuracy(ratio) == pytest.approx(accuracy / 200, abs=0.01)
        dress = first.dresses[0]
        assert dress.middle + dress.width * dress.safety(ratio) == pytest.approx(margin, abs=0.25)
    assert first.settling != second.settling  # what no cell says


def test_cells_at_too_few_ratios_are_refused(tmp_path):
    (tmp_path / "1.json").write_text(json.dumps(cell(0.1, 5, 0.0, 150)), "utf-8")
    with pytest.raises(ValueError, match="no mitigation at 3 ratios"):
        surfaces_of_cells(tmp_path, 2, 0)
