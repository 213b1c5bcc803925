"""`logit_adjustment: auto`: what is kept, how readings move the adjustment, and its state."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from adjustment_for_tests import mixture, rows, settings
from transformers import get_scheduler

from safemix.errors import CheckpointError, SettingsError
from safemix.evaluate.probe_reading import GroupReading, ProbeGroup, ProbeReading
from safemix.evaluate.results import Evaluation, Item, Measure, Side
from safemix.hosts.adjustment import LogitAdjustment
from safemix.settings import parse_settings
from safemix.training.adjustment import (
    AdjustmentControl,
    adjustment_control,
    adjustment_line,
    adjustment_of,
)
from safemix.training.adjustment_before import shares_of, steering
from safemix.training.adjustment_model import LineModel
from safemix.training.evaluation import Measuring


def auto(state: Any = None) -> tuple[LogitAdjustment, AdjustmentControl]:
    data = mixture(task=rows(1), safety=rows(5, 5), lookalikes=rows(6, 7, 8))
    asked = settings(logit_adjustment="auto")
    made = adjustment_of(asked, data)
    assert made is not None
    assert made.amount == 0
    assert "closest to the model before" in adjustment_line(asked, made, _Words())[0]
    return made, AdjustmentControl(made, state)


class _Words:
    def decode(self, tokens: list[int]) -> str:
        return str(tokens)


def reading(harmful: list[float], lookalikes: list[float]) -> ProbeReading:
    chats = ((),)
    sides: Any = {"harmful": harmful, "lookalikes": lookalikes}
    return ProbeReading(
        tuple(
            GroupReading(ProbeGroup(side, "plain", chats), (), (), tuple(gaps))
            for side, gaps in sides.items()
        )
    )


def test_auto_on_prompts_by_the_hand_of_the_look_alikes_is_told() -> None:
    made, _ = auto()
    asked = settings(logit_adjustment="auto")
    line, warning = adjustment_line(asked, made, _Words())
    assert "give evaluation.lookalikes prompts of your own" in warning
    own = asked.evaluation.model_copy(update={"lookalikes": ["mine=benign.jsonl"]})
    assert adjustment_line(asked.model_copy(update={"evaluation": own}), made, _Words()) == (line,)
    file = settings(logit_adjustment="auto", lookalikes={"file": "own.jsonl"})
    assert adjustment_line(file, made, _Words()) == (line,)


# Nothing harmful is answered, and nothing else refused.
BEFORE = {"harmful/plain": 0.0, "lookalikes/plain": 0.0}


class Training:
    """What the Trainer tells of a run of 20 steps whose learning rate falls to 0."""

    def __init__(self, *controls: AdjustmentControl, done: int = 0) -> None:
        self.controls, self.args = controls, SimpleNamespace(learning_rate=1e-4)
        self.optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-4)
        self.schedule = get_scheduler("linear", self.optimizer, 0, 20)
        state: Any = SimpleNamespace(stateful_callbacks={}, max_steps=20)
        for control in controls:
            control.on_train_begin(self.args, state, None, lr_scheduler=self.wrapped())
        for _ in range(done):
            self.optimizer.step()
            self.schedule.step()

    def wrapped(self) -> Any:
        return SimpleNamespace(scheduler=self.schedule)  # as accelerate does under DeepSpeed

    def steps(self, count: int) -> None:
        for _ in range(count):
            for control in self.controls:
                control.on_pre_optimizer_step(self.args, None, None, optimizer=self.optimizer)
            self.optimizer.step()
            self.schedule.step()


def test_auto_takes_what_its_model_expects_to_end_at_the_line() -> None:
    made, control = auto()
    control.keep(BEFORE)
    training, line = Training(control), LineModel()
    training.steps(5)
    # Told apart as before, and the line 0.4 too low: anything from 0 to 0.8 is best.
    control.read(5, reading([0.8, 2.0], [0.0, -2.0]))
    for step in range(5):
        line.step(1 - step / 20, 0.0)
    line.observe(0.4)
    wanted = line.best_amount([1 - step / 20 for step in range(5, 20)])
    assert made.amount == pytest.approx(wanted)
    assert 0 < made.amount < 3
    told = {"safety/adjustment": made.amount, "safety/best_shift": pytest.approx(0.4)}
    assert control.metrics == told
    training.steps(2)
    control.read(7, reading([0.8, 2.0], [0.0, -2.0]))
    for step in (5, 6):
        line.step(1 - step / 20, told["safety/adjustment"])
    line.observe(0.4)
    assert made.amount == pytest.approx(line.best_amount([1 - step / 20 for step in range(7, 20)]))


def test_auto_rests_where_no_step_is_left() -> None:
    made, control = auto()
    control.keep(BEFORE)
    training = Training(control)
    training.steps(19)
    control.read(19, reading([0.8, 2.0], [0.0, -2.0]))
    assert (held := made.amount) != 0
    training.steps(1)
    control.read(20, reading([-0.8, 2.0], [-2.0, -2.0]))
    assert made.amount == held
    assert control.metrics["safety/best_shift"] < 0


def test_a_schedule_that_cannot_be_asked_is_taken_to_stay() -> None:
    made, control = auto()
    control.keep(BEFORE)
    training, line = Training(control), LineModel()
    state: Any = SimpleNamespace(stateful_callbacks={}, max_steps=20)
    control.on_train_begin(training.args, state, None, lr_scheduler=object())
    training.steps(5)
    control.read(5, reading([0.8, 2.0], [0.0, -2.0]))
    for step in range(5):
        line.step(1 - step / 20, 0.0)
    line.observe(0.4)
    assert made.amount == pytest.approx(line.best_amount([0.8] * 15))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_auto_leaves_alone_what_cannot_be_read(bad: float) -> None:
    made, control = auto()
    control.keep(BEFORE)
    Training(control).steps(5)
    control.read(5, reading([0.8, 2.0], [0.0, -2.0]))
    held, kept = made.amount, control.state()
    control.read(10, reading([0.8, 2.0], [bad, -2.0]))
    assert made.amount == held
    assert control.state() == kept
    early_made, early = auto()
    early.read(0, reading([0.8, 2.0], [0.0, -2.0]))
    assert early_made.amount == 0, "nothing is known of what is to be kept"


def measure(metric: str, name: str, dress: str, marks: str) -> Measure:
    items = tuple(Item(f"{n}", "p", "a", mark == "1") for n, mark in enumerate(marks))
    side = {"asr": "safety", "complied": "safety", "refused": "over_refusal"}[metric]
    return Measure(cast(Side, side), name, dress, metric, items, "rules", "greedy", "0" * 64)


def test_what_is_kept_is_what_the_model_says_before_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = Evaluation(
        "model",
        (
            measure("asr", "one", "plain", "1000"),
            measure("asr", "two", "plain", "11"),
            measure("complied", "one", "plain", "1111"),
            measure("asr", "one", "styled", "0000"),
            measure("refused", "one", "plain", "0000"),
        ),
    )
    shares = shares_of(said)
    assert shares == {"harmful/plain": 0.5, "harmful/styled": 0.0, "lookalikes/plain": 0.0}
    made, control = auto()
    steered = steering(Measuring(), control, lambda model: shares if model == "it" else {})
    (start,), (read,) = steered.starters, steered.readers
    start("it")
    said_now = capsys.readouterr().err
    assert (
        "before training harmful prompts are answered plain 50 %, styled 0 %; look-alikes refused "
        "plain 0 %"
    ) in said_now
    assert "warning" not in said_now
    steering(Measuring(), auto()[1], lambda model: {"harmful/plain": 0.875}).starters[0]("it")
    assert "warning: logit_adjustment: auto keeps what the model" in (
        told := capsys.readouterr().err
    )
    assert "88 % of harmful prompts in one dress: start from a model that refuses" in told
    Training(control).steps(5)
    # Half of the harmful prompts may be answered, and no look-alike refused: from 1.5 to 2.
    read(5, reading([1.0, 2.0], [0.0, 1.5]))
    assert control.metrics["safety/best_shift"] == pytest.approx(1.75)
    assert made.amount > 0


def test_auto_goes_on_from_its_state() -> None:
    made, control = auto()
    control.keep(BEFORE)
    training = Training(control)
    training.steps(5)
    control.read(5, reading([0.8, 2.0], [0.0, -2.0]))
    training.steps(2)
    again, other = auto(json.loads(json.dumps(control.state()["attributes"])))
    assert again.amount == made.amount != 0
    assert other.metrics == control.metrics
    assert other.state() == control.state()
    for one, run in ((control, training), (other, Training(other, done=7))):
        run.steps(3)
        one.read(10, reading([0.4, 2.0], [0.2, -2.0]))
    assert again.amount == made.amount


def test_auto_needs_the_probe() -> None:
    with pytest.raises(SettingsError, match=r"auto goes by what evaluation\.probe_every reads"):
        parse_settings(
            {
                "task": {"builtin": "task"},
                "safety": {"builtin": "safety"},
                "epochs": 1,
                "mitigation": {"name": "paraphrase", "logit_adjustment": "auto"},
                "evaluation": False,
            },
            "test",
        )


def checkpoint(folder: Path, callbacks: Any) -> Any:
    (folder / "trainer_state.json").write_text(json.dumps({"stateful_callbacks": callbacks}))
    return SimpleNamespace(folder=folder)


def test_a_checkpoint_without_its_state_is_told(tmp_path: Path) -> None:
    made, control = auto()
    asked = settings(logit_adjustment="auto")
    saved = checkpoint(tmp_path, {"AdjustmentControl": control.state()})
    assert adjustment_control(asked, made, saved) is not None
    assert adjustment_control(settings(logit_adjustment=1), made, saved) is None
    for callbacks, said in (
        ({}, "without logit_adjustment: auto"),
        ({"AdjustmentControl": 3}, "damaged"),
        # As an earlier form of it wrote.
        ({"AdjustmentControl": {"args": {}, "attributes": {"before": {}, "sum": 0}}}, "damaged"),
    ):
        with pytest.raises(CheckpointError, match=said) as error:
            adjustment_control(asked, made, checkpoint(tmp_path, callbacks))
        assert "\n" not in str(error.value)
