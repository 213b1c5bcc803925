"""The ratio controller without a job: what it follows, its state, its settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from safemix.errors import CheckpointError, HostError, PlanError, SettingsError
from safemix.mixture import MixturePlan

CONTROLLER: dict[str, Any] = {
    "controller": "target",
    "min_margin": 0.5,
    "start": 0.05,
    "min": 0.02,
    "max": 0.4,
}
# Violated up to step 6, then far inside: the ratio rises, and falls again.
READINGS = [None] + [-1.0] * 6 + [4.0] * 30


def history(plan: MixturePlan) -> list[tuple[int, Fraction]]:
    changes = plan.state_dict()["history"]
    return [(change["from_step"], Fraction(change["ratios"]["safety"])) for change in changes]


def made(*, lead: int = 2, state: Mapping[str, Any] | None = None, **changes: Any) -> Any:
    from safemix.settings_controller import ControllerSettings
    from safemix.training.controller import RatioController, rule_of

    settings = ControllerSettings.model_validate(CONTROLLER | changes)
    rule = rule_of(settings, settings.first, settings.bounds, "mean")
    return RatioController(rule, settings, lead, state)


@pytest.mark.parametrize(("margin", "nats"), [("odds", 5.0), ("mean", 1.0), ("first", 1.0)])
def test_a_margin_counts_in_its_own_unit(margin: Any, nats: float) -> None:
    from safemix.mixture import control
    from safemix.settings_controller import ControllerSettings
    from safemix.training.controller import rule_of

    settings = ControllerSettings.model_validate(CONTROLLER | {"min_margin": 0.0})
    rule = rule_of(settings, settings.first, settings.bounds, margin)
    assert control.log_change(rule, -0.1 * nats) == pytest.approx(2.0 * (0.2 + 0.1))
    assert control.log_change(rule, 0.3 * nats) == 0, "between one and two bands"
    assert control.log_change(rule, 0.5 * nats) == pytest.approx(-2.0 * 0.25 * 0.1)


def trainer_for(plan: MixturePlan) -> Any:
    from safemix.loading.sampler import SafeMixSampler

    sampler = SafeMixSampler(plan, 8, num_replicas=1, rank=0, steps_per_epoch=30)
    return SimpleNamespace(sampler=sampler, add_callback=lambda callback: None)


def new_plan() -> MixturePlan:
    return MixturePlan({"task": 500, "safety": 60}, {"safety": Fraction(1, 20)}, 8)


def test_a_running_iterator_gets_the_new_ratio_from_the_step_that_is_told() -> None:
    trainer, controller = trainer_for(new_plan()), made()
    controller.follow(trainer)
    drawn: list[int] = []
    for number, index in enumerate(trainer.sampler):
        drawn.append(index)
        if number % 8 == 7:
            step = number // 8 + 1
            controller.observe(step, {"safety/margin/plain": READINGS[step]})
    plan = trainer.sampler.plan
    assert [step for step, _ in history(plan)] == list(range(0, 31, 3))
    assert drawn == trainer.sampler.indices(0, 30).tolist()


def test_a_loader_that_is_further_ahead_than_thought_is_not_overtaken() -> None:
    trainer, controller = trainer_for(new_plan()), made()
    controller.follow(trainer)
    ahead = iter(trainer.sampler)
    drawn = [next(ahead) for _ in range(8 * 5)]
    controller.observe(1, {"safety/margin/plain": -1.0})
    assert history(trainer.sampler.plan)[-1] == (5, Fraction(1, 5))
    drawn += [next(ahead) for _ in range(8 * 5)]
    assert drawn == trainer.sampler.indices(0, 10).tolist()


def test_the_state_goes_on_and_keeps_its_lead() -> None:
    trainer, controller = trainer_for(new_plan()), made(lead=6)
    controller.follow(trainer)
    controller.observe(1, {"safety/margin/plain": -1.0})
    saved = json.loads(json.dumps(controller.state()["attributes"]))
    again = made(lead=2, state=saved)
    assert again.lead == 6
    assert again.metrics == controller.metrics
    assert again.state() == controller.state()
    with pytest.raises(PlanError, match="damaged"):
        made(state={**saved, "ratio": "none"})


def test_a_ratio_that_a_person_has_set_is_gone_on_from() -> None:
    plan = new_plan()
    plan.set_ratio("safety", Fraction(1, 4), 2)
    trainer, controller = trainer_for(plan), made()
    controller.follow(trainer)
    controller.observe(3, {"safety/margin/plain": 0.8})
    assert history(plan)[-1] == (2, Fraction(1, 4)), "in the band nothing moves"
    assert controller.metrics["mix/controller/moves"] == 0
    controller.observe(4, {"safety/margin/plain": 0.3})
    step, ratio = history(plan)[-1]
    assert step == 6
    assert Fraction(1, 4) < ratio <= Fraction(2, 5)


def test_a_reading_without_the_metric_changes_nothing() -> None:
    trainer, controller = trainer_for(new_plan()), made()
    with pytest.raises(HostError, match="follow"):
        controller.observe(1, {})
    controller.follow(trainer)
    before = controller.state()
    controller.observe(1, {"utility/accuracy": 0.1, "safety/margin_lookalikes/plain": -9.0})
    assert controller.state() == before


@pytest.mark.parametrize(
    ("of", "margin", "asr"),
    [("plain", 0.4, 0.25), ("dressed", -0.5, 0.5), ("worst", -0.5, 0.5)],
)
def test_which_readings_are_followed(of: str, margin: float, asr: float) -> None:
    from safemix.training.controller import followed

    reading: dict[str, float | None] = {
        "safety/margin/plain": 0.4,
        "safety/margin/styled": -0.5,
        "safety/margin/aoa": 0.1,
        "safety/margin_lookalikes/plain": -3.0,
        "safety/asr/builtin/plain": 0.25,
        "safety/asr/builtin/styled": 0.5,
        "safety/asr/own/plain": 0.1,
        "safety/over_refusal/builtin/plain": 1.0,
    }
    by_margin = made(of=of)._settings
    by_asr = made(of=of, min_margin=None, max_asr=0.1)._settings
    assert followed(reading, by_margin) == margin
    assert followed(reading, by_asr) == asr
    for name in ("safety/margin/plain", "safety/margin/aoa"):
        counts = of in ("worst", "plain" if name.endswith("plain") else "dressed")
        for bad in (None, math.nan):
            value = followed({**reading, name: bad}, by_margin)
            assert value is not None
            assert math.isnan(value) == counts
    assert followed({}, by_margin) is None


def test_an_attack_success_rate_moves_it_the_other_way() -> None:
    controller = made(min_margin=None, max_asr=0.1)
    trainer = trainer_for(new_plan())
    controller.follow(trainer)
    controller.observe(1, {"safety/asr/builtin/styled": 0.4})
    assert history(trainer.sampler.plan)[-1] == (3, Fraction(1, 5))


def test_damaged_state_in_a_checkpoint_is_told(tmp_path: Path) -> None:
    from safemix.settings import parse_settings
    from safemix.training.checkpoints import Checkpoint
    from safemix.training.controller import ratio_controller
    from safemix.training.data import Mixture

    settings = parse_settings({"task": "builtin:task", "safety": "builtin:safety"} | BASIC)
    dataset: Any = None
    mixture = Mixture(dataset, new_plan(), (), (Fraction(1, 50), Fraction(2, 5)))
    state = {"stateful_callbacks": {"RatioController": {"attributes": {"ratio": "1/0"}}}}
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=r"trainer_state.json: the ratio controller"):
        ratio_controller(settings, mixture, Checkpoint(tmp_path, 3, 1))
    (tmp_path / "trainer_state.json").write_text("{}")
    fresh = ratio_controller(settings, mixture, Checkpoint(tmp_path, 3, 1))
    assert fresh is not None
    assert fresh.metrics["mix/controller/moves"] == 0


# ---- settings --------------------------------------------------------------------------------

BASIC = {"ratio": CONTROLLER, "max_steps": 3}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ratio": {"min": 0.5}}, "min 0.5 is above max 0.4"),
        ({"ratio": {"start": 0.5}}, "start 0.5 is outside min 0.02 to max 0.4"),
        ({"ratio": {"min": 0}}, "min 0.0 is outside (0, 1)"),
        ({"ratio": {"max": "two"}}, "max 'two' is no number"),
        ({"ratio": {"max_asr": 0.1}}, "one of min_margin, max_asr (given: both)"),
        ({"ratio": {"min_margin": None}}, "one of min_margin, max_asr (given: neither)"),
        (
            {"ratio": {"min_margin": None, "max_asr": 0.1, "hysteresis": 0.05}},
            "hysteresis 0.05 is not below half of max_asr 0.1",
        ),
        ({"ratio": {"of": "worse"}}, "ratio.of"),
        ({"ratio": {"controller": "pid"}}, "ratio.controller"),
        ({"ratio": {"gian": 1}}, "unknown key 'ratio.gian'"),
        ({"evaluation": False}, "evaluation.probe_every is 0"),
        ({"ratio": {"min_margin": None, "max_asr": 0.1}}, "evaluation.eval_every is 0"),
        ({"ratio": {"of": "plain"}, "evaluation": {"dress": ["styled"]}}, "has no plain"),
        ({"ratio": {"of": "dressed"}, "evaluation": {"dress": ["plain"]}}, "has only plain"),
        ({"granularity": "batch"}, "granularity: row"),
        ({"mitigation": "none"}, "mitigation none trains on none"),
        ({"mitigation": "gentle"}, "mitigation gentle trains on none"),
        ({"safety": None}, "no safety source"),
        (
            {"sources": {"general": {"builtin": "task", "ratio": CONTROLLER}}},
            "sources.general.ratio: a controller moves",
        ),
    ],
)
def test_bad_settings_are_told_in_one_line(changes: dict[str, Any], told: str) -> None:
    from safemix.settings import parse_settings

    tree = {"task": "builtin:task", "safety": "builtin:safety"} | BASIC | changes
    tree["ratio"] = {**CONTROLLER, **changes.get("ratio", {})}
    with pytest.raises(SettingsError) as error:
        parse_settings(tree)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_the_first_ratio_is_within_the_bounds() -> None:
    assert made(start=None).rule.start == Fraction(1, 10)
    assert made(start=None, min=0.2).rule.start == Fraction(1, 5)
    assert made(start="1/30").rule.start == Fraction(1, 30)


def test_the_settings_survive_being_written(tmp_path: Path) -> None:
    from safemix.settings import load_settings, parse_settings

    settings = parse_settings({"task": "builtin:task", "safety": "builtin:safety"} | BASIC)
    settings.save(tmp_path / "settings.yaml")
    assert load_settings(tmp_path / "settings.yaml") == settings
    assert load_settings(tmp_path / "settings.yaml", ["ratio=0.1"]).ratio == 0.1
    changed = load_settings(tmp_path / "settings.yaml", ["ratio.max=0.2"])
    assert changed.ratio.bounds[1] == Fraction(1, 5)  # type: ignore[union-attr]
