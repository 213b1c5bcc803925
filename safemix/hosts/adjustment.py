"""Logit adjustment: where an answer begins, how readily the trained model refuses.

Refusals begin with the same few tokens, helpful answers with any. So after training on both, a
refusal can be the likeliest beginning where a helpful one is likelier on the whole, and greedy
decoding refuses. With an adjustment d the first token of each answer of some sources is trained
with the cross-entropy

    -log softmax(z + d r)_y,    r_v = 1 for tokens v that begin refusals, else 0

of the logits z and the row's own token y. What is learned is z + d r, so the model, which is asked
without d, has odds of beginning with a refusal that are lower by the factor exp(d), whatever it is
asked: how well it tells one request from another stays. The form is that of Menon et al.,
"Long-tail learning via logit adjustment" (ICLR 2021), where d r is the log of the classes' shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from safemix.loading.encode import IGNORE
from safemix.loading.weights import answer_places

__all__ = ["LogitAdjustment", "first_trained", "refusing_tokens", "share_alike"]

# A token begins refusals if this share of them begins with it, and a smaller one of other answers.
_LEAST_SHARE: Final = 0.01


@dataclass
class LogitAdjustment:
    """Raises the logits of some tokens while the first token of an answer is trained.

    Attributes:
        amount: d, in nats; above 0 the trained model refuses less readily. May be changed between
            steps, on all ranks alike.
        tokens: those that begin refusals, int64[K].
        sources: numbers of the sources whose rows are meant, int64[S].
    """

    amount: float
    tokens: Tensor
    sources: Tensor

    def __call__(self, losses: Tensor, logits: Tensor, labels: Tensor, source: Tensor) -> Tensor:
        """The losses with those of first tokens replaced.

        Args:
            losses: float32[B, L], see `hosts.loss.token_losses`.
            logits: float[B, L, V].
            labels: int64[B, L].
            source: number of each row's source, int64[B].

        Returns:
            float32[B, L].
        """
        device = logits.device
        labels = labels.to(device)
        meant = torch.isin(source.to(device), self.sources.to(device))
        where = (answer_places(labels) == 0) & meant[:, None]
        chosen = logits[where].float()
        raised = torch.zeros(chosen.shape[-1], device=device)
        raised[self.tokens.to(device)] = self.amount
        targets = F.pad(labels, (0, 1), value=IGNORE)[:, 1:][where]
        adjusted = F.cross_entropy(chosen + raised, targets, reduction="none")
        return losses.masked_scatter(where, adjusted)


def first_trained(labels: Iterable[int]) -> int | None:
    """The token that a row's first answer begins with; None without one.

    Example:
        >>> first_trained([-100, -100, 7, 8])
        7
    """
    return next((int(label) for label in labels if label != IGNORE), None)


def refusing_tokens(refusals: Iterable[int], others: Iterable[int]) -> list[int]:
    """Tokens that begin refusals and, in a smaller share of them, other answers; sorted.

    Args:
        refusals: first token of each answer that refuses.
        others: first token of each answer that does not.

    Example:
        >>> refusing_tokens([5, 5, 5, 9], [9, 9, 5, 7])
        [5]
    """
    own, other = Counter(refusals), Counter(others)
    share = {token: count / own.total() for token, count in own.items()}
    return sorted(
        token
        for token, part in share.items()
        if part >= _LEAST_SHARE and part > other[token] / max(other.total(), 1)
    )


def share_alike(refusals: Iterable[int], others: Iterable[int]) -> float:
    """Largest share of answers of both kinds that begin with one token, about as often in each.

    "About" is at most twice as often. Where the task's answers begin "Answer:", those of safety
    rows and look-alikes in its layout do too, and their first token says nothing.

    Args:
        refusals: first token of each answer that refuses.
        others: first token of each answer that does not.

    Returns:
        The smaller of the two shares, in [0, 1]; 0 where there is no such token.

    Example:
        >>> share_alike([3, 3, 5, 5], [3, 3, 3, 5])
        0.5
    """
    own, other = Counter(refusals), Counter(others)
    pairs = (
        (count / own.total(), other[token] / other.total()) for token, count in own.items() if other
    )
    return max((min(pair) for pair in pairs if max(pair) <= 2 * min(pair)), default=0.0)
