"""Loss per source, out of the cross-entropy that is computed anyway."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from safemix.hosts import collective

IGNORED = -100


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Next-token cross-entropy of every position, 0 where the next label is -100.

    The same arithmetic as transformers' `ForCausalLMLoss`: float32 logits, labels shifted left.

    Args:
        logits: float[B, L, V].
        labels: int64[B, L].

    Returns:
        float32[B, L].
    """
    targets = F.pad(labels, (0, 1), value=IGNORED)[:, 1:].contiguous().to(logits.device)
    flat = logits.float().view(-1, logits.shape[-1])
    losses = F.cross_entropy(flat, targets.view(-1), ignore_index=IGNORED, reduction="none")
    return losses.view(labels.shape)


@dataclass(frozen=True, slots=True)
class SourceSums:
    """Sums over some rows: float64[S] each."""

    loss: Tensor
    """Sum of token losses."""
    tokens: Tensor
    """Trained tokens."""
    rows: Tensor
    """Rows."""


def sums_by_source(losses: Tensor, labels: Tensor, source: Tensor, sources: int) -> SourceSums:
    """Add up losses, trained tokens and rows per source; no collective, no gradient.

    Args:
        losses: float[B, L], see `token_losses`.
        labels: int64[B, L].
        source: int64[B].
        sources: number of sources S.
    """
    per_row = torch.stack(
        [
            losses.detach().sum(1, dtype=torch.float64),
            (labels[:, 1:] != IGNORED).sum(1).to(losses.device, torch.float64),
            torch.ones(labels.shape[0], dtype=torch.float64, device=losses.device),
        ]
    )
    table = torch.zeros((3, sources), dtype=torch.float64, device=losses.device)
    table.index_add_(1, source.to(losses.device), per_row)
    return SourceSums(*table)


class SourceMeter:
    """Sums since the last reading, read with one all-reduce of a fixed size.

    The table has a column for every source on every rank, so a rank that saw no safety row
    takes part like any other.

    Args:
        sources: names, in the plan's order.
        extras: further per-rank sums carried in the same all-reduce.
    """

    def __init__(self, sources: tuple[str, ...], extras: tuple[str, ...] = ()) -> None:
        self.sources, self.extras = sources, extras
        self._table: Tensor | None = None
        self._numbers = dict.fromkeys(extras, 0.0)

    def add(self, sums: SourceSums, **extras: float | Tensor) -> None:
        """Add one micro batch; a tensor stays on its device, so nothing waits for it."""
        parts = [sums.loss, sums.tokens, sums.rows]
        for name in self.extras:
            value = extras.get(name, 0.0)
            if isinstance(value, Tensor):
                parts.append(value.to(sums.loss.device, torch.float64).reshape(1))
            else:
                # Copying a number to a GPU would wait for all that is queued there: `read` does.
                self._numbers[name] += value
                parts.append(sums.loss.new_zeros(1))
        flat = torch.cat(parts)
        self._table = flat if self._table is None else self._table + flat

    def read(self) -> dict[str, dict[str, float]]:
        """Totals over all ranks since the last reading: a collective, call it on every rank.

        Returns:
            Per source `loss` (mean over trained tokens, nan without one), `loss_sum`, `tokens`,
            `rows`; and under "" the extras.
        """
        width = 3 * len(self.sources) + len(self.extras)
        table, self._table = self._table, None
        if table is None:
            table = torch.zeros(width, dtype=torch.float64, device=collective.device())
        if self.extras:
            table[3 * len(self.sources) :] += table.new_tensor(list(self._numbers.values()))
            self._numbers = dict.fromkeys(self.extras, 0.0)
        if collective.size() > 1:
            dist.all_reduce(table)
        values = table.tolist()
        count = len(self.sources)
        result: dict[str, dict[str, float]] = {
            "": dict(zip(self.extras, values[3 * count :], strict=True))
        }
        for index, name in enumerate(self.sources):
            loss, tokens, rows = values[index], values[count + index], values[2 * count + index]
            mean = loss / tokens if tokens else float("nan")
            result[name] = {"loss": mean, "loss_sum": loss, "tokens": tokens, "rows": rows}
        return result
