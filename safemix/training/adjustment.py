"""`mitigation.logit_adjustment`: the adjustment of a run, from its rows."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import torch
from transformers import PreTrainedTokenizerBase

from safemix.errors import DataError
from safemix.hosts.adjustment import LogitAdjustment, first_trained, refusing_tokens
from safemix.loading.dataset import MixedDataset
from safemix.mixture import MixturePlan
from safemix.settings import Settings
from safemix.settings_levers import LOOKALIKES, LookalikesKey

__all__ = ["adjustment_line", "adjustment_of"]

# Rows of a source that are looked at: a token that begins 1 % of them is found.
_ROWS: Final = 4000


def adjustment_of(
    settings: Settings, dataset: MixedDataset, plan: MixturePlan
) -> LogitAdjustment | None:
    """The run's adjustment; the same on every rank, as it follows from the rows alone.

    Raises:
        DataError: if refusals begin as other answers do.
    """
    mitigation = settings.mitigation
    if not isinstance(mitigation, LookalikesKey) or not mitigation.logit_adjustment:
        return None
    rows = dataset.sources
    meant = [name for name in ("safety", LOOKALIKES) if len(rows.get(name, ()))]
    if "safety" not in meant:
        return None
    # Without look-alikes the task's answers are the ones that do not refuse.
    others = rows[LOOKALIKES if LOOKALIKES in meant else "task"]
    found = refusing_tokens(_first_tokens(rows["safety"]), _first_tokens(others))
    if not found:
        raise DataError(
            "mitigation.logit_adjustment: the safety rows' answers begin with the same tokens as "
            "the others, so refusals cannot be told by them: set it to 0"
        )
    numbers = [plan.sources.index(name) for name in meant]
    amount = float(mitigation.logit_adjustment)
    return LogitAdjustment(amount, torch.tensor(found), torch.tensor(numbers))


def adjustment_line(
    adjustment: LogitAdjustment | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, ...]:
    """What it does, a line for a person, or nothing."""
    if adjustment is None:
        return ()
    words = ", ".join(repr(tokenizer.decode([token])) for token in adjustment.tokens.tolist())
    way = "less" if adjustment.amount > 0 else "more"
    return (
        f"logit_adjustment: {words} at the beginning of an answer are raised by "
        f"{adjustment.amount:g} in training, so that the trained model refuses {way} readily",
    )


def _first_tokens(rows: Any) -> list[int]:
    labels = (rows[n]["labels"].tolist() for n in islice(range(len(rows)), _ROWS))
    return [token for token in map(first_trained, labels) if token is not None]
