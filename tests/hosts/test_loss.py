"""Loss per source: the arithmetic, and the sums that ranks share."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from transformers.loss.loss_utils import ForCausalLMLoss

from safemix.hosts.loss import SourceMeter, sums_by_source, token_losses

VOCABULARY = 11


def batch(rows=4, length=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(rows, length, VOCABULARY, generator=generator).to(dtype)
    labels = torch.randint(0, VOCABULARY, (rows, length), generator=generator)
    labels[0, :3] = -100
    labels[1] = -100
    return logits, labels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sum_of_token_losses_is_transformers_loss(dtype):
    logits, labels = batch(dtype=dtype)
    losses = token_losses(logits, labels)
    assert losses.dtype == torch.float32
    assert losses.shape == labels.shape
    tokens = (labels[:, 1:] != -100).sum()
    expected = ForCausalLMLoss(logits, labels, VOCABULARY, num_items_in_batch=tokens)
    torch.testing.assert_close(losses.sum() / tokens, expected, rtol=1e-6, atol=0)


def test_a_position_is_the_loss_of_the_next_label():
    logits, labels = batch()
    losses = token_losses(logits, labels)
    expected = F.cross_entropy(logits[2, 3][None], labels[2, 4][None])
    torch.testing.assert_close(losses[2, 3], expected)
    assert (losses[:, -1] == 0).all()
    assert (losses[0, :2] == 0).all()
    assert losses[0, 2] > 0  # label 3 is the first one trained


def test_rows_without_a_trained_token_cost_nothing_and_give_no_nan():
    logits, labels = batch()
    logits.requires_grad_()
    losses = token_losses(logits, torch.full_like(labels, -100))
    assert (losses == 0).all()
    losses.sum().backward()
    assert (logits.grad == 0).all()


def test_gradients_are_those_of_the_summed_cross_entropy():
    logits, labels = batch()
    ours, stock = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    token_losses(ours, labels).sum().backward()
    (ForCausalLMLoss(stock, labels, VOCABULARY, num_items_in_batch=torch.tensor(1))).backward()
    torch.testing.assert_close(ours.grad, stock.grad, rtol=1e-6, atol=1e-8)


def test_sums_by_source():
    logits, labels = batch()
    logits.requires_grad_()
    losses = token_losses(logits, labels)
    source = torch.tensor([1, 0, 1, 2])
    sums = sums_by_source(losses, labels, source, sources=4)
    for number, rows in enumerate(([1], [0, 2], [3], [])):
        expected = losses[rows].double().sum().item()
        assert sums.loss[number].item() == pytest.approx(expected, rel=1e-12)
        assert sums.tokens[number] == (labels[rows][:, 1:] != -100).sum()
        assert sums.rows[number] == len(rows)
    assert sums.loss.dtype == torch.float64
    assert not sums.loss.requires_grad
    assert sums.loss.sum().item() == pytest.approx(losses.sum().item(), rel=1e-6)


def test_the_meter_adds_up_and_begins_anew_after_a_reading():
    logits, labels = batch()
    losses = token_losses(logits, labels)
    meter = SourceMeter(("task", "safety"), extras=("inputs", "wait_s"))
    for source in ([0, 0, 1, 0], [0, 0, 0, 0]):
        sums = sums_by_source(losses, labels, torch.tensor(source), 2)
        meter.add(sums, inputs=torch.tensor(24), wait_s=0.25)
    read = meter.read()
    assert read[""] == {"inputs": 48.0, "wait_s": 0.5}
    assert read["safety"]["rows"] == 1
    assert read["safety"]["tokens"] == 5
    assert read["safety"]["loss"] == pytest.approx(losses[2].double().sum().item() / 5)
    assert read["task"]["rows"] == 7
    total = read["task"]["loss_sum"] + read["safety"]["loss_sum"]
    assert total == pytest.approx(2 * losses.sum().item(), rel=1e-6)
    again = meter.read()
    assert again["task"]["rows"] == again["task"]["loss_sum"] == again[""]["inputs"] == 0
    assert math.isnan(again["task"]["loss"])


def test_a_reading_with_no_batch_and_a_source_with_no_row():
    meter = SourceMeter(("task", "safety"))
    read = meter.read()
    assert read[""] == {}
    assert all(math.isnan(read[name]["loss"]) for name in ("task", "safety"))
    logits, labels = batch()
    sums = sums_by_source(token_losses(logits, labels), labels, torch.zeros(4).long(), 2)
    meter.add(sums)
    read = meter.read()
    assert math.isnan(read["safety"]["loss"])
    assert read["safety"]["rows"] == 0
    assert read["task"]["rows"] == 4
