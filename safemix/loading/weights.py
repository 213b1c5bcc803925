"""Weights on the first tokens of a source's answers.

Where an answer begins decides where it goes: alignment that sits in the first few tokens is what
fine-tuning undoes first (Qi et al., "Safety alignment should be made more than just a few tokens
deep", ICLR 2025). They weigh the first tokens in a constrained objective, with beta x 20 on the
first five. Ours is plainer: the cross-entropy of the first `count` trained tokens of every answer
of a source, times `weight`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from safemix.errors import SettingsError
from safemix.loading.encode import IGNORE
from safemix.settings import Settings
from safemix.settings_levers import LOOKALIKES, FirstTokensSettings, first_tokens_setting


@dataclass(frozen=True, slots=True)
class FirstTokens:
    """More weight on the beginning of each answer.

    Attributes:
        count: trained tokens from where an answer begins, at least 1.
        weight: factor of their loss, above 0; all other tokens have 1.

    Raises:
        SettingsError: for a count or a weight that is not legal.
    """

    count: int = 8
    weight: float = 5.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SettingsError(f"first_tokens: count {self.count} is below 1: use 1 or more")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise SettingsError(f"first_tokens: weight {self.weight}: use a number above 0")


def first_tokens_of(settings: Settings) -> dict[str, FirstTokens]:
    """Source -> its weight, of a run's settings as the mitigation has adjusted them.

    Look-alikes that the mitigation adds have the weight of the safety rows, unless they have one
    of their own: what decides between a refusal and an answer is told by the first tokens of both.
    """
    if settings.safety is None:
        return {}
    found = first_tokens_setting(settings.safety.first_tokens, settings.mitigation.name)
    asked: dict[str, Any] = {"safety": found}
    lookalikes = getattr(settings.mitigation, LOOKALIKES, None)
    if lookalikes is not None:
        own = lookalikes.first_tokens
        asked[LOOKALIKES] = found if own is None else own
    return {
        name: FirstTokens(setting.count, setting.weight)
        for name, setting in asked.items()
        if isinstance(setting, FirstTokensSettings)
    }


def answer_places(labels: Tensor) -> Tensor:
    """Number of each predicted token within its answer.

    An answer is a run of trained tokens, so every assistant turn begins anew. A row's very first
    token is predicted from nothing, has no loss and does not count.

    Args:
        labels: int64[B, L].

    Returns:
        int64[B, L]: at position t the place, from 0, of the token t + 1, whose loss stands there
        in `hosts.loss.token_losses`; -1 where it is not trained.

    Example:
        >>> answer_places(torch.tensor([[-100, -100, 7, 8, -100, 9]])).tolist()
        [[-1, 0, 1, -1, 0, -1]]
    """
    trained = F.pad(labels, (0, 1), value=IGNORE)[:, 1:] != IGNORE
    position = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    last_untrained = torch.where(trained, -1, position).cummax(dim=1).values
    return torch.where(trained, position - last_untrained - 1, -1)


class TokenWeights:
    """Weight of each token's loss, by its source and its place in the answer.

    Args:
        sources: all names, in the plan's order.
        first_tokens: source -> its weight; the tokens of the others have 1.

    Raises:
        SettingsError: for a source that is not in the plan.

    Example:
        >>> weights = TokenWeights(("task", "safety"), {"safety": FirstTokens(1, 5.0)})
        >>> weights(torch.tensor([[-100, 7, 8]]), torch.tensor([1])).tolist()
        [[5.0, 1.0, 1.0]]
    """

    def __init__(self, sources: Sequence[str], first_tokens: Mapping[str, FirstTokens]) -> None:
        for name in first_tokens:
            if name not in sources:
                raise SettingsError(
                    f"first_tokens names the source {name!r}, but the plan has "
                    f"{', '.join(sources)}: name one of them"
                )
        self.weighted = {name: sources.index(name) for name in sources if name in first_tokens}
        """Name -> number of the sources with a weight, in the plan's order."""
        given = [first_tokens.get(name) for name in sources]
        self._counts = torch.tensor([0 if g is None else g.count for g in given])
        self._factors = torch.tensor([1.0 if g is None else g.weight for g in given])

    def __call__(self, labels: Tensor, source: Tensor) -> Tensor:
        """Weights beside `token_losses`: float32[B, L], 1 where nothing is weighted.

        Args:
            labels: int64[B, L].
            source: number of each row's source, int64[B].
        """
        return self.of(self.first(labels, source), source)

    def first(self, labels: Tensor, source: Tensor) -> Tensor:
        """Which predicted tokens are among the first of a weighted source: bool[B, L]."""
        self._move(labels.device)
        places = answer_places(labels)
        return (places >= 0) & (places < self._counts[source.to(labels.device)][:, None])

    def of(self, first: Tensor, source: Tensor) -> Tensor:
        """Weights, float32[B, L], of what `first` gave for the same rows."""
        self._move(first.device)
        return torch.where(first, self._factors[source.to(first.device)][:, None], 1.0)

    def _move(self, device: torch.device) -> None:
        # Once: a copy to a GPU in every micro batch would wait for all that is queued there.
        if self._counts.device != device:
            self._counts, self._factors = self._counts.to(device), self._factors.to(device)
