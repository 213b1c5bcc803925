"""An anchor: where some answers begin, the model stays what it was before training.

For a row of an anchored source, and each of the first `count` trained tokens of its answers, the
loss gets `weight` times

    KL(p0 || p) = sum over tokens v of p0(v) x (log p0(v) - log p(v))

where p0 is what the model gave there before the first step and p what it gives now; the row's own
tokens before it are given. So a request is refused about as surely as it was, and a harmless one
answered, whatever the rows around them teach. That fine-tuning undoes the first tokens first, and
that holding them near the model before training prevents it, is from Qi et al., "Safety alignment
should be made more than just a few tokens deep" (arXiv 2406.05946); they hold those of the task's
rows, the anchor those of safety rows and look-alikes.

Of p0 the likeliest tokens are kept, and the sum of the others as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from safemix.errors import HostError
from safemix.loading.weights import answer_places

__all__ = ["KEPT", "AnchorTable", "first_places", "likeliest"]

KEPT: Final = 64
"""Likeliest tokens that are kept of a distribution, at most."""
# Probability below which what is left counts as nothing.
_TINY: Final = 1e-7


def first_places(labels: Tensor, count: int) -> Tensor:
    """Positions that predict one of the first trained tokens of an answer: bool[B, L].

    Args:
        labels: int64[B, L].
        count: trained tokens from where each answer begins.
    """
    places = answer_places(labels)
    return (places >= 0) & (places < count)


def likeliest(logits: Tensor, kept: int = KEPT) -> tuple[Tensor, Tensor]:
    """The likeliest tokens, int32[N, K], and their log-probabilities, float32[N, K].

    Args:
        logits: float[N, V].
        kept: K; at most V of them.
    """
    found = F.log_softmax(logits.float(), -1).topk(min(kept, logits.shape[-1]), -1)
    return found.indices.to(torch.int32), found.values


@dataclass(frozen=True)
class AnchorTable:
    """What the model gave before training, at the first tokens of the answers of some rows.

    Attributes:
        count: trained tokens from where each answer begins.
        weight: factor of the divergence.
        rows: number of a source in the plan's order -> int64[rows of the source]: the place of
            each of its rows among `starts`; -1 for a row that is not anchored.
        starts: int64[R + 1]: where the tokens of each anchored row begin, and all end.
        tokens: int32[N, K]: likeliest tokens at each of them.
        log_probs: float32[N, K]: their log-probabilities.
    """

    count: int
    weight: float
    rows: Mapping[int, Tensor]
    starts: Tensor
    tokens: Tensor
    log_probs: Tensor

    def divergence(
        self, logits: Tensor, labels: Tensor, source: Tensor, row: Tensor
    ) -> tuple[Tensor, Tensor]:
        """KL(p0 || p), in nats, where a batch has anchored tokens.

        Args:
            logits: float[B, L, V], with a gradient.
            labels: int64[B, L].
            source: number of each row's source, int64[B].
            row: number of each row within its source, int64[B].

        Returns:
            bool[B, L], where the anchored tokens are predicted; float32[n], the divergence at
            each of them, in the order of the mask.

        Raises:
            HostError: if a row has other trained tokens than when it was read.
        """
        where, place = self._where(labels, source, row)
        known_tokens = self.tokens[place].to(logits.device, torch.int64)
        known = self.log_probs[place].to(logits.device)
        where = where.to(logits.device)
        now = F.log_softmax(logits[where].float(), -1).gather(1, known_tokens)
        rest = (1 - known.exp().sum(1)).clamp(min=0)
        rest_now = (1 - now.exp().sum(1)).clamp(min=_TINY)
        others = torch.where(rest > _TINY, rest * (rest.clamp(min=_TINY).log() - rest_now.log()), 0)
        return where, (known.exp() * (known - now)).sum(1) + others

    def _where(self, labels: Tensor, source: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """The anchored tokens of a batch, bool[B, L], and their places in the table, int64[n]."""
        labels = labels.cpu()
        where = torch.zeros(labels.shape, dtype=torch.bool)
        places: list[Tensor] = [torch.zeros(0, dtype=torch.int64)]
        for at, (name, number) in enumerate(zip(source.tolist(), row.tolist(), strict=True)):
            own = self.rows.get(name)
            if own is None or number < 0 or own[number] < 0:
                continue
            first, end = self.starts[own[number] : own[number] + 2].tolist()
            where[at] = first_places(labels[at : at + 1], self.count)[0]
            if int(where[at].sum()) != end - first:
                raise HostError(
                    f"anchor: row {number} of source {name} has {int(where[at].sum())} first "
                    f"tokens, and had {end - first} when it was read: rows and max_length may not "
                    "change between"
                )
            places.append(torch.arange(first, end))
        return where, torch.cat(places)
