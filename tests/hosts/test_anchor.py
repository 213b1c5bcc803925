"""The anchor: the divergence from what the model gave before training, and where it counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from safemix.errors import HostError
from safemix.hosts.anchor import AnchorTable, first_places, likeliest

TASK, SAFETY = 0, 1
VOCABULARY, COUNT = 11, 2
# Two rows of the safety source: two answers of 3 and 1 trained tokens, and one of 2.
LABELS = torch.tensor(
    [
        [-100, -100, 4, 5, 6, -100, -100, 7],
        [-100, -100, -100, -100, 8, 9, -100, -100],
        [-100, 1, 2, 3, -100, -100, -100, -100],
    ]
)
SOURCE = torch.tensor([SAFETY, SAFETY, TASK])
ROW = torch.tensor([3, 0, 0])
# Positions that predict the first two tokens of each of the safety rows' answers.
PLACES = [(0, 1), (0, 2), (0, 6), (1, 3), (1, 4)]


def logits(seed: int) -> Tensor:
    return torch.randn(*LABELS.shape, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def table(before: Tensor, kept: int = VOCABULARY) -> AnchorTable:
    """Of the two safety rows, whose source has five rows."""
    tokens, log_probs = likeliest(torch.stack([before[at] for at in PLACES]), kept)
    rows = torch.tensor([1, -1, -1, 0, -1])
    return AnchorTable(COUNT, 5.0, {SAFETY: rows}, torch.tensor([0, 3, 5]), tokens, log_probs)


def reference(before: Tensor, now: Tensor) -> list[float]:
    found = []
    for at in PLACES:
        p0, p = F.log_softmax(before[at], -1), F.log_softmax(now[at], -1)
        found.append(F.kl_div(p, p0, log_target=True, reduction="sum").item())
    return found


def test_first_places_are_those_of_every_answer() -> None:
    where = first_places(LABELS, COUNT)
    assert [tuple(at) for at in where.nonzero().tolist()] == [*PLACES, (2, 0), (2, 1)]


def test_with_the_whole_vocabulary_it_is_the_divergence() -> None:
    before, now = logits(0), logits(1)
    where, nats = table(before).divergence(now, LABELS, SOURCE, ROW)
    assert [tuple(at) for at in where.nonzero().tolist()] == PLACES
    assert nats.tolist() == pytest.approx(reference(before, now), rel=1e-4)


def test_of_fewer_tokens_the_others_count_as_one() -> None:
    before, now = logits(0), logits(1)
    nats = table(before, kept=3).divergence(now, LABELS, SOURCE, ROW)[1]
    for value, at, whole in zip(nats.tolist(), PLACES, reference(before, now), strict=True):
        p0, p = F.softmax(before[at], -1), F.softmax(now[at], -1)
        top = p0.topk(3).indices
        left = torch.cat([p0[top], 1 - p0[top].sum(0, keepdim=True)])
        right = torch.cat([p[top], 1 - p[top].sum(0, keepdim=True)])
        assert value == pytest.approx(float((left * (left / right).log()).sum()), rel=1e-3)
        assert 0 < value <= whole + 1e-6, "grouping tokens can only lose some of it"


@pytest.mark.parametrize("kept", [3, VOCABULARY])
def test_nothing_pulls_where_nothing_has_changed(kept: int) -> None:
    before = logits(0)
    now = before.clone().requires_grad_()
    nats = table(before, kept).divergence(now, LABELS, SOURCE, ROW)[1]
    assert nats.tolist() == pytest.approx([0.0] * len(PLACES), abs=1e-5)
    nats.sum().backward()
    assert now.grad is not None
    assert float(now.grad.abs().max()) < 1e-5


def test_a_step_down_its_gradient_brings_the_model_back() -> None:
    before, now = logits(0), logits(1).requires_grad_()
    anchor = table(before, kept=4)
    first = anchor.divergence(now, LABELS, SOURCE, ROW)[1].sum()
    (gradient,) = torch.autograd.grad(first, now)
    where = first_places(LABELS, COUNT) & (SOURCE == SAFETY)[:, None]
    assert bool((gradient[~where] == 0).all()), "no other token is touched"
    after = anchor.divergence((now - gradient).detach(), LABELS, SOURCE, ROW)[1].sum()
    assert float(after) < 0.9 * first.item()


def test_certain_tokens_and_half_precision_stay_finite() -> None:
    before = logits(0)
    before[..., 0] += 100  # all mass on one token
    now = (-before).bfloat16().requires_grad_()
    nats = table(before, kept=3).divergence(now, LABELS, SOURCE, ROW)[1]
    nats.sum().backward()
    assert now.grad is not None
    assert bool(torch.isfinite(nats).all())
    assert bool(torch.isfinite(now.grad).all())


def test_rows_without_an_anchor_have_none() -> None:
    anchor = table(logits(0))
    for row in (torch.tensor([1, 2, 0]), torch.full((3,), -1)):
        where, nats = anchor.divergence(logits(1), LABELS, SOURCE, row)
        assert not where.any()
        assert nats.shape == (0,)
    where, _ = anchor.divergence(logits(1), LABELS, torch.full((3,), TASK), ROW)
    assert not where.any()


def test_a_row_that_has_changed_is_refused_by_name() -> None:
    with pytest.raises(HostError, match="row 0 of source 1 has 3 first tokens, and had 2"):
        table(logits(0)).divergence(logits(1), LABELS[[0]], SOURCE[[0]], torch.tensor([0]))
