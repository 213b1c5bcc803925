"""Logit adjustment: the loss by hand, what is learned under it, and which tokens are meant."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from adjustment_for_tests import NO, mixture, rows, settings
from torch.nn import functional as F

from safemix.errors import DataError, SettingsError
from safemix.hosts.adjustment import LogitAdjustment, first_trained, refusing_tokens
from safemix.hosts.loss import token_losses, weighted_loss
from safemix.loading.weights import FirstTokens, TokenWeights
from safemix.training.adjustment import adjustment_line, adjustment_of


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


def test_a_run_takes_the_tokens_from_its_rows() -> None:
    data = mixture(task=rows(1), safety=rows(5, 5, 5, 6), lookalikes=rows(6, 6, 7))
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
    data = mixture(task=rows(5, 5, 1), safety=rows(5, 6, 6, 6), lookalikes=[])
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


def test_answers_with_a_label_before_them_are_told() -> None:
    # 3 is "Answer:", before the rows in the task's layout; 5 begins the plain refusals.
    data = mixture(task=rows(3), safety=rows(3, 3, 5, 5), lookalikes=rows(3, 3, 3, 7))
    with pytest.raises(DataError, match="50 % of refusals and of other answers begin with") as told:
        adjustment_of(settings(logit_adjustment="auto"), data)
    assert "\n" not in str(told.value)
    few = mixture(task=rows(3), safety=rows(3, *[5] * 19), lookalikes=rows(3, *[7] * 19))
    assert adjustment_of(settings(logit_adjustment="auto"), few) is not None


@pytest.mark.parametrize("value", ["often", 40, -11, True, math.nan, None, [1]])
def test_what_is_no_adjustment_is_told(value: Any) -> None:
    said = r"mitigation\.logit_adjustment = .*expected nats from -10 to 10, or auto"
    with pytest.raises(SettingsError, match=said):
        settings(logit_adjustment=value)
