"""Logit adjustment: the loss by hand, what is learned under it, and which tokens are meant."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from safemix.errors import CheckpointError, DataError, SettingsError
from safemix.evaluate.probe_reading import GroupReading, ProbeGroup, ProbeReading
from safemix.evaluate.results import Evaluation, Item, Measure, Side
from safemix.hosts.adjustment import LogitAdjustment, first_trained, refusing_tokens
from safemix.hosts.loss import token_losses, weighted_loss
from safemix.loading.dataset import MixedDataset
from safemix.loading.weights import FirstTokens, TokenWeights
from safemix.settings import parse_settings
from safemix.training.adjustment import (
    AdjustmentControl,
    adjustment_control,
    adjustment_line,
    adjustment_of,
)
from safemix.training.adjustment_before import shares_of, steering
from safemix.training.evaluation import Measuring

NO = -100


def adjustment(amount: float, tokens: list[int], sources: list[int]) -> LogitAdjustment:
    return LogitAdjustment(amount, torch.tensor(tokens), torch.tensor(sources))


@pytest.fixture
def batch() -> Any:
    """A task row, a safety row with two answers, a look-alike without a trained token."""
    generator = torch.Generator().manual_seed(0)
    return SimpleNamespace(
        logits=torch.randn(3, 6, 9, generator=generator, requires_grad=True),
        labels=torch.tensor([[NO, NO, 3, 4, 5, NO], [NO, 7, 8, NO, 2, 1], [NO] * 6]),
        source=torch.tensor([0, 1, 2]),
    )


def test_only_first_tokens_of_the_sources_change_and_by_the_formula(batch: Any) -> None:
    losses = token_losses(batch.logits, batch.labels)
    made = adjustment(0.7, [7, 3], [1, 2])(losses, batch.logits, batch.labels, batch.source)
    changed = (made != losses).nonzero().tolist()
    assert changed == [[1, 0], [1, 3]], "where the tokens 7 and 2 are predicted"
    raised = torch.zeros(9)
    raised[[3, 7]] = 0.7
    for (row, at), token in zip(changed, (7, 2), strict=True):
        by_hand = -F.log_softmax(batch.logits[row, at] + raised, 0)[token]
        assert made[row, at].item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_the_gradient_is_that_of_the_raised_logits(batch: Any) -> None:
    plan = ("task", "safety", "lookalikes")
    weights = TokenWeights(plan, {"safety": FirstTokens(count=2, weight=5.0)})
    loss = weighted_loss(
        batch.logits, batch.labels, batch.source, weights, adjustment=adjustment(0.7, [7], [1])
    )
    loss.backward()
    got, batch.logits.grad = batch.logits.grad, None
    raised = torch.zeros_like(batch.logits)
    raised[1, [0, 3], 7] = 0.7
    weighted_loss(batch.logits + raised, batch.labels, batch.source, weights).backward()
    assert torch.allclose(got, batch.logits.grad, atol=1e-7)
    assert got[2].abs().sum() == 0


def test_nothing_to_adjust_is_the_loss_as_it_was(batch: Any) -> None:
    losses = token_losses(batch.logits, batch.labels)
    for same in (adjustment(0.0, [7], [1]), adjustment(0.7, [7], [2])):
        assert torch.allclose(same(losses, batch.logits, batch.labels, batch.source), losses)


def test_what_is_learned_has_odds_of_refusing_lower_by_exp_of_the_amount() -> None:
    """Requests of two kinds, each refused in some rows: the optimum is known in closed form."""
    refused = {0: 0.9, 1: 0.3}  # share of a kind's rows that refuse, which is token 5
    kinds = torch.arange(2).repeat_interleave(100)
    answers = [5 if n < 100 * refused[k] else 6 + n % 3 for k in refused for n in range(100)]
    labels = torch.stack([torch.full((200,), NO), torch.tensor(answers)], 1)

    def odds(amount: float) -> list[float]:
        table = torch.zeros(2, 9, requires_grad=True)
        step = torch.optim.LBFGS([table], max_iter=200, tolerance_grad=1e-9)

        def closure() -> torch.Tensor:
            step.zero_grad()
            logits = F.pad(table[kinds][:, None], (0, 0, 0, 1))
            losses = token_losses(logits, labels)
            source = torch.ones(200, dtype=torch.int64)
            loss = adjustment(amount, [5], [1])(losses, logits, labels, source).sum()
            loss.backward()
            return loss

        step.step(closure)
        refusing = F.softmax(table.detach(), 1)[:, 5]
        return (refusing / (1 - refusing)).tolist()

    for plain, adjusted in zip(odds(0.0), odds(0.8), strict=True):
        assert adjusted / plain == pytest.approx(math.exp(-0.8), rel=1e-2)


def test_tokens_that_begin_refusals() -> None:
    assert refusing_tokens([5] * 97 + [9, 9, 4], [4, 4, 9] + [1] * 97) == [5, 9]
    assert refusing_tokens([5] * 200 + [9], [1]) == [5], "9 begins less than 1 % of them"
    assert refusing_tokens([5, 6], [5, 6]) == []
    assert refusing_tokens([5], []) == [5]
    assert first_trained([NO, NO]) is None


def rows(*first: int) -> list[dict[str, np.ndarray]]:
    return [
        {"input_ids": np.array([1, token, 2]), "labels": np.array([NO, token, 2])}
        for token in first
    ]


def settings(**mitigation: Any) -> Any:
    tree = {"task": {"builtin": "task"}, "safety": {"builtin": "safety"}, "epochs": 1}
    return parse_settings(tree | {"mitigation": {"name": "paraphrase", **mitigation}}, "test")


def mixture(**sources: Any) -> Any:
    plan = SimpleNamespace(sources=tuple(sources))
    return SimpleNamespace(dataset=MixedDataset(sources), plan=plan)


def test_a_run_takes_the_tokens_from_its_rows() -> None:
    data = mixture(task=rows(1), safety=rows(5, 5, 6), lookalikes=rows(6, 6, 7))
    asked = settings(logit_adjustment=0.5)
    found = adjustment_of(asked, data)
    assert found is not None
    assert (found.tokens.tolist(), found.sources.tolist(), found.amount) == ([5], [1, 2], 0.5)
    tokenizer: Any = SimpleNamespace(decode=lambda tokens: f"<{tokens[0]}>")
    (line,) = adjustment_line(asked, found, tokenizer)
    assert "'<5>' at the beginning of an answer are raised by 0.5" in line
    assert "less readily" in line
    other = settings(logit_adjustment=-0.5)
    (line,) = adjustment_line(other, adjustment_of(other, data), tokenizer)
    assert "raised by -0.5, so that the trained model refuses more readily" in line


def test_a_large_source_is_looked_at_all_over() -> None:
    late = rows(*([5] * 7000 + [9] * 1000))
    found = adjustment_of(
        settings(logit_adjustment=1), mixture(task=rows(1), safety=late, lookalikes=rows(6))
    )
    assert found is not None
    assert found.tokens.tolist() == [5, 9]


def test_without_look_alikes_the_tasks_answers_are_the_others() -> None:
    data = mixture(task=rows(5, 5, 1), safety=rows(5, 6), lookalikes=[])
    found = adjustment_of(settings(logit_adjustment=1, lookalikes=False), data)
    assert found is not None
    assert (found.tokens.tolist(), found.sources.tolist()) == ([6], [1])


def test_no_adjustment_is_none() -> None:
    assert adjustment_of(settings(), mixture(task=rows(1), safety=rows(5))) is None
    assert adjustment_line(settings(), None, None) == ()  # type: ignore[arg-type]
    none = mixture(task=rows(1), safety=[])
    assert adjustment_of(settings(logit_adjustment=1), none) is None


def test_refusals_that_begin_as_all_answers_do_are_told() -> None:
    data = mixture(task=rows(1), safety=rows(5, 5), lookalikes=rows(5, 5))
    with pytest.raises(DataError, match="begin with the same tokens") as error:
        adjustment_of(settings(logit_adjustment=1), data)
    assert "\n" not in str(error.value)


# ---- auto --------------------------------------------------------------------------------------


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


def moved(control: AdjustmentControl, steps: int, rate: float = 1.0) -> None:
    """Steps at a part of the largest learning rate."""
    optimizer = SimpleNamespace(param_groups=[{"lr": rate * 1e-4}])
    args = SimpleNamespace(learning_rate=1e-4)
    for _ in range(steps):
        control.on_pre_optimizer_step(args, None, None, optimizer=optimizer)


def test_auto_moves_the_line_to_where_both_sides_are_least_bad() -> None:
    made, control = auto()
    control.keep(BEFORE)
    moved(control, 5)
    # Told apart as before, and the line 0.4 too low: anything from 0 to 0.8 is best.
    control.read(5, reading([0.8, 2.0], [0.0, -2.0]))
    assert made.amount == pytest.approx(0.4 + 0.25 * 0.4)
    assert control.metrics == pytest.approx({"safety/adjustment": 0.5, "safety/best_shift": 0.4})
    moved(control, 50)
    control.read(10, reading([9.0, 9.0], [7.0, 7.0]))
    assert made.amount == pytest.approx(1 + 0.1 + 0.25), "far off counts as 1"
    for step in range(20):
        control.read(step, reading([9.0, 9.0], [7.0, 7.0]))
    assert made.amount == 3, "it has a limit"
    moved(control, 50)
    control.read(40, reading([-1.0, 0.0], [-2.0, -2.0]))
    assert made.amount == pytest.approx(3 - 0.25 - 1), "the sum has it too"


def test_auto_answers_harder_where_the_learning_rate_is_low() -> None:
    for steps, rate, gain in ((5, 1.0, 1.0), (100, 1.0, 1.0), (5, 0.5, 2.0), (5, 0.01, 4.0)):
        made, control = auto()
        control.keep(BEFORE)
        moved(control, steps, rate)
        control.read(5, reading([0.8, 2.0], [0.0, -2.0]))
        assert made.amount == pytest.approx(0.4 * gain + 0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_auto_leaves_alone_what_cannot_be_read(bad: float) -> None:
    made, control = auto()
    control.keep(BEFORE)
    moved(control, 5)
    control.read(5, reading([0.8, 2.0], [0.0, -2.0]))
    control.read(10, reading([0.8, 2.0], [bad, -2.0]))
    assert made.amount == pytest.approx(0.5)
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
    moved(control, 5)
    # Half of the harmful prompts may be answered, and no look-alike refused: from 1.5 to 2.
    read(5, reading([1.0, 2.0], [0.0, 1.5]))
    assert control.metrics["safety/best_shift"] == pytest.approx(1.75)
    assert made.amount > 0


def test_auto_goes_on_from_its_state() -> None:
    made, control = auto()
    control.keep(BEFORE)
    moved(control, 5)
    control.read(5, reading([0.8, 2.0], [0.0, -2.0]))
    moved(control, 2)
    again, other = auto(json.loads(json.dumps(control.state()["attributes"])))
    assert again.amount == made.amount == pytest.approx(0.5)
    assert other.metrics == control.metrics
    for one in (control, other):
        moved(one, 3, 0.5)
        one.read(10, reading([0.4, 2.0], [0.2, -2.0]))
    assert again.amount == made.amount == pytest.approx(0.3 * 5 / 3.5 + 0.1 + 0.25 * 0.3)


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


@pytest.mark.parametrize("value", ["often", 40, -11, True, math.nan, None, [1]])
def test_what_is_no_adjustment_is_told(value: Any) -> None:
    said = r"mitigation\.logit_adjustment = .*expected nats from -10 to 10, or auto"
    with pytest.raises(SettingsError, match=said):
        settings(logit_adjustment=value)


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
        ({"AdjustmentControl": {"args": {}, "attributes": {"before": {}, "sums": [0]}}}, "damaged"),
    ):
        with pytest.raises(CheckpointError, match=said) as error:
            adjustment_control(asked, made, checkpoint(tmp_path, callbacks))
        assert "\n" not in str(error.value)
