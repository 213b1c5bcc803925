"""When the probe is read, what that may cost, and how the readings reach logs and observers."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from safemix.errors import DataError, SettingsError
from safemix.evaluate.probe import RefusalProbe
from safemix.evaluate.probe_reading import ProbeGroup
from safemix.evaluate.results import Evaluation, Item, Measure, Side
from safemix.mitigation.inference import InferencePrompt
from safemix.rows.schema import Message
from safemix.settings import Settings, parse_settings
from safemix.tracking.measured import measured_names
from safemix.training import evaluation_setup
from safemix.training.evaluation import EvaluationCallback, Measuring
from safemix.training.evaluation_interval import probe_interval
from safemix.training.evaluation_prompts import dressers_of, dresses
from safemix.training.evaluation_rates import evaluation_metrics, evaluation_rates
from safemix.training.evaluation_setup import with_interval
from safemix.training.evaluation_suite import same_draws
from safemix.training.known_models import resolve_model
from safemix.training.models import load_tokenizer


def settings(**changes: Any) -> Settings:
    tree = {"task": "builtin:task", "safety": "builtin:safety", "max_steps": 9}
    return parse_settings(tree | changes)


@pytest.mark.parametrize(
    ("evaluation", "told"),
    [
        ({"probe_every": -1}, "0 for never, or auto"),
        ({"probe_every": True}, "0 for never, or auto"),
        ({"probe_evry": 1}, "did you mean 'probe_every'"),
        ({"dress": ["plain", "plain"]}, "name each once"),
        ({"dress": "benign"}, "should be 'plain'"),
        ({"harmful": []}, "at least 1"),
        ({"task": {"file": "x.jsonl", "confirm": True}, "eval_every": 1}, "for the AOA strategies"),
        ({"task": "rows.jsonl"}, "set eval_every"),
        ({"task": {"file": "x.jsonl", "strategy": "aoa"}, "eval_every": 1}, "task's name too"),
        ({"margin": "median"}, "'mean', 'odds' or 'first'"),
        (7, "expected a mapping"),
    ],
)
def test_bad_settings_are_one_line(evaluation: Any, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(evaluation=evaluation)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_short_forms() -> None:
    assert settings().evaluation.probes
    assert not settings(evaluation=False).evaluation.probes
    assert settings(evaluation=True) == settings(evaluation=None) == settings()
    assert settings(evaluation={"dress": "plain", "harmful": "x.csv"}).evaluation.harmful == [
        "x.csv"
    ]


def test_prompts_are_dressed_as_the_task_is() -> None:
    assert dresses(settings()) == ("plain", "styled")
    for strategy, wrapper in (("benign", ()), ("autoif+aoa", ("autoif+aoa",))):
        task = {"file": "x.jsonl", "prompting": {"task": "piqa", "strategy": strategy}}
        assert dresses(settings(task=task)) == ("plain", *wrapper, "styled")
    assert dresses(settings(evaluation={"dress": "aoa"})) == ("aoa",)


@pytest.mark.parametrize("tokens", [100, 5_000, 50_000, 10**7])
@pytest.mark.parametrize("lora", [True, False])
def test_auto_keeps_below_its_share_of_the_work(tokens: int, lora: bool) -> None:
    every = probe_interval(settings(lora=lora), tokens, 200.0, 100)
    units = 2 if lora else 3
    assert every >= 50
    assert tokens / (every * 16 * 200 * units) <= 0.015
    longer = probe_interval(settings(lora=lora, gradient_checkpointing=True), tokens, 200.0, 100)
    assert longer <= every
    assert probe_interval(settings(evaluation={"probe_every": 7}), tokens, 200.0, 100) == 7


@pytest.mark.parametrize(("steps", "every"), [(5, 1), (84, 7), (600, 50), (6000, 50)])
def test_a_run_that_adjusts_itself_is_read_often_enough(steps: int, every: int) -> None:
    """84 steps are those of the study, which was read every 6."""
    own = {"name": "paraphrase", "logit_adjustment": "auto"}
    found = settings(mitigation=own)
    assert probe_interval(found, 100, 200.0, steps) == every
    asked = settings(mitigation=own, evaluation={"probe_every": 30})
    assert probe_interval(asked, 100, 200.0, steps) == 30
    constant = settings(mitigation=own | {"logit_adjustment": 0.5})
    assert probe_interval(constant, 100, 200.0, steps) == 50


def test_the_interval_is_that_of_the_layout_a_model_can_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chat: tuple[Message, ...] = (Message(role="user", content="How do I kill a process? " * 9),)
    tokenizer = load_tokenizer(resolve_model("tiny"))
    monkeypatch.setattr(evaluation_setup, "mean_row_tokens", lambda dataset: 20.0)

    def interval(attention: str) -> tuple[int, str]:
        groups = [ProbeGroup("harmful", "plain", (chat,) * 64)]
        measuring = Measuring(RefusalProbe(groups, tokenizer), notes=("first",))
        mixture = cast(Any, SimpleNamespace(dataset=None))
        model = SimpleNamespace(config=SimpleNamespace(_attn_implementation=attention))
        found = with_interval(measuring, settings(), mixture, model, 100)
        return found.probe_every, found.notes[-1]

    (few, said), (many, _) = interval("sdpa"), interval("flash_attention_2")
    assert said == f"refusal margin: read every {few} steps, prompts plain"
    assert many > 3 * few > 150, "the same share of the work"


def test_a_controller_of_a_dress_that_cannot_be_had_is_an_error() -> None:
    def found(of: str) -> list[str]:
        asked = settings(ratio={"controller": "target", "min_margin": 0, "of": of})
        dressers, notes = dressers_of(asked, InferencePrompt("none"), [])
        assert len(notes) == 1
        return [dresser.name for dresser in dressers]

    assert found("worst") == found("plain") == ["plain"]
    with pytest.raises(DataError, match="of is dressed, but evaluation: no prompt is asked in the"):
        found("dressed")


RATES, NOTHING = {"safety/asr/builtin/plain": 0.25}, Evaluation("m", ())


class Constant:
    """Stands for a probe: a model that is a number."""

    def measure(self, model: float) -> Any:
        metrics = {"safety/margin/plain": model}
        error = None if math.isfinite(model) else "not finite"
        return SimpleNamespace(metrics=lambda: metrics, error=error)


def follow(
    measuring: Measuring, steps: int, first: int = 0, logging: int = 1, model: float = 0.5
) -> tuple[list[tuple[int, Mapping[str, Any]]], list[int], list[str]]:
    """Logs, steps that an observer saw, and lines said, of a Trainer's events."""
    logged: list[tuple[int, Mapping[str, Any]]] = []
    seen: list[int] = []
    said: list[str] = []
    callback = EvaluationCallback(
        measuring, lambda step, metrics: logged.append((step, metrics)), said.append, first=first
    )
    callback.add_observer(lambda step, metrics: seen.append(step))
    state = SimpleNamespace(global_step=first, max_steps=steps)
    control = SimpleNamespace(should_log=False)
    callback.on_train_begin(None, state, control, model=model)
    for step in range(first + 1, steps + 1):
        state.global_step = step
        control.should_log = step % logging == 0
        callback.on_step_end(None, state, control, model=model)
        if control.should_log:
            logs = {"loss": 1.0}
            callback.on_log(None, state, control, logs=logs)
            logged.append((step, logs))
    return logged, seen, said


@pytest.mark.parametrize("first", [0, 4])
def test_starters_have_the_model_before_the_first_step_alone(first: int) -> None:
    happened: list[Any] = []
    probe = cast(RefusalProbe, Constant())
    measuring = Measuring(
        probe,
        4,
        readers=(lambda step, reading: happened.append(step),),
        starters=(lambda model: happened.append(f"model {model}"),),
    )
    follow(measuring, steps=8, first=first)
    assert happened == ([0, "model 0.5", 4, 8] if first == 0 else [8])


def test_readings_come_with_the_log_of_their_step() -> None:
    probe = cast(RefusalProbe, Constant())
    logged, seen, said = follow(Measuring(probe, 4), steps=10, logging=5)
    assert seen == [0, 4, 8, 10] and not said
    assert [step for step, _ in logged] == [0, 4, 5, 8, 10], "a log is asked for at 4 and 8"
    read = {step: logs.get("safety/margin/plain") for step, logs in logged}
    assert read == {0: 0.5, 4: 0.5, 5: None, 8: 0.5, 10: 0.5}
    assert all(0 <= logs.get("perf/probe_share", 0) <= 1 for _, logs in logged)


def test_a_run_that_goes_on_does_not_read_where_it_stands() -> None:
    probe = cast(RefusalProbe, Constant())
    _, seen, _ = follow(Measuring(probe, 4), steps=10, first=8)
    assert seen == [10]


def test_probe_and_evaluation_have_intervals_of_their_own() -> None:
    probe = cast(RefusalProbe, Constant())
    measuring = Measuring(probe, 2, lambda model, step: (RATES, NOTHING), 3)
    logged, seen, _ = follow(measuring, steps=6)
    assert seen == [0, 2, 3, 4, 6]
    lines = dict(logged)
    assert "safety/margin/plain" not in lines[3] and "perf/eval_share" in lines[3]
    assert "safety/asr/builtin/plain" not in lines[4] and "perf/probe_share" in lines[4]
    assert {"safety/margin/plain", "safety/asr/builtin/plain"} <= set(lines[6])
    assert not follow(Measuring(), steps=3)[1]


def test_the_time_of_a_reading_is_told_to_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("safemix.training.evaluation.time.perf_counter", lambda: clock[0])

    def evaluate(model: Any, step: int) -> tuple[dict[str, float], Evaluation]:
        clock[0] += 7.0
        return RATES, NOTHING

    spent: list[float] = []
    callback = EvaluationCallback(
        Measuring(None, 0, evaluate, 2), lambda *_: None, lambda _: None, spent=spent.append
    )
    state = SimpleNamespace(global_step=0, max_steps=4)
    callback.on_train_begin(None, state, SimpleNamespace(), model=None)
    for state.global_step in (1, 2, 3):
        callback.on_step_end(None, state, SimpleNamespace(should_log=False), model=None)
    # Step 0 is read before training begins, where no time counts yet.
    assert spent == [7.0]


def test_what_is_not_finite_is_said_and_passed_on() -> None:
    probe = cast(RefusalProbe, Constant())
    logged, seen, said = follow(Measuring(probe, 2), steps=2, model=math.nan)
    assert said == ["warning: step 0: not finite", "warning: step 2: not finite"]
    assert seen == [0, 2], "an observer is told: it holds, or goes to the safe side"
    assert math.isnan(dict(logged)[2]["safety/margin/plain"])


def test_metrics_of_an_evaluation() -> None:
    def measure(side: Side, name: str, metric: str, *counted: bool) -> Measure:
        items = tuple(Item(str(n), "p", "c", value) for n, value in enumerate(counted))
        return Measure(side, name, "plain", metric, items, "rules", "greedy", "0")

    found = Evaluation(
        "m",
        (
            measure("safety", "builtin", "asr", True, False),
            measure("safety", "builtin", "complied", True, True),
            measure("over_refusal", "xstest", "refused", False),
            measure("coherence", "look-alikes", "incoherent", False, False),
            measure("utility", "piqa", "accuracy", True, True, False, True),
        ),
    )
    assert evaluation_metrics(found) == {
        "safety/asr/builtin/plain": 0.5,
        "safety/over_refusal/xstest/plain": 0.0,
        "safety/incoherent/lookalikes/plain": 0.0,
        "utility/accuracy": 0.75,
    }
    told = str(evaluation_rates(found)["safety/asr/builtin/plain"])
    assert told == "50.0 % (1/2, 9.5 to 90.5)"


@pytest.mark.parametrize(("unjudged", "told"), [(1, 0.0), (3, None)])
def test_without_most_verdicts_an_attack_rate_says_nothing(
    unjudged: int, told: float | None
) -> None:
    def item(number: int, error: str | None) -> Item:
        return Item(str(number), "p", "c", False, error=error)

    raw = tuple(item(n, "server gone" if n < unjudged else None) for n in range(4))
    # The one that is left is incoherent, which needs no verdict.
    asr = (*raw[:3], item(3, None))
    made = [("asr", asr), ("complied", raw)]
    measures = tuple(
        Measure("safety", "builtin", "plain", metric, items, "llm", "greedy", "0")
        for metric, items in made
    )
    found = evaluation_metrics(Evaluation("m", measures))["safety/asr/builtin/plain"]
    assert math.isnan(found) if told is None else found == told


def test_an_evaluation_leaves_the_draws_of_training_alone() -> None:
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(3)
    with same_draws():
        torch.rand(3), random.random(), np.random.rand()
    after = (torch.rand(1).item(), random.random(), np.random.rand())
    for seed in (torch.manual_seed, random.seed, np.random.seed):
        seed(3)
    assert after == (torch.rand(1).item(), random.random(), np.random.rand())


def test_names_of_what_is_measured() -> None:
    line = {
        "step": 0,
        "safety/loss": 1.0,
        "utility/loss": 1.0,
        "utility/accuracy": 0.5,
        "safety/asr/builtin/plain": 0.5,
        "safety/margin_lookalikes/plain": 1.0,
        "safety/margin/plain": 1.0,
        "safety/margin/styled": None,
        "safety/separation/plain": 0.75,
    }
    found = measured_names([line])
    assert found.margins == ("safety/margin/plain", "safety/margin_lookalikes/plain")
    assert found.separations == ("safety/separation/plain",)
    assert found.rates == ("safety/asr/builtin/plain", "utility/accuracy")
