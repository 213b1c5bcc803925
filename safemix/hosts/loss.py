"""Loss per source, out of the cross-entropy that is computed anyway, and weights on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from safemix.hosts import collective
from safemix.hosts.adjustment import LogitAdjustment
from safemix.loading.weights import TokenWeights

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


def weighted_loss(
    logits: Tensor,
    labels: Tensor,
    source: Tensor,
    weights: TokenWeights,
    *,
    items: Tensor | float | None = None,
    adjustment: LogitAdjustment | None = None,
) -> Tensor:
    """Loss of a batch with more weight on the first tokens of some answers.

    `sum(weight x token loss) / items`. It is divided by a number of tokens and not by the sum of
    their weights: so a token with weight 1 has the gradient it would have without any weights,
    whatever else is in the step, and the divisor is known before the forward pass. A weight of 1
    everywhere gives the unweighted loss, bit for bit.

    Args:
        logits: float[B, L, V].
        labels: int64[B, L].
        source: number of each row's source, int64[B]; `take_origin(batch).source`.
        weights: weight of each source's first tokens.
        items: what the sum is divided by: `mean_items` of the step where the loop's ranks or micro
            steps hold unequal numbers of trained tokens; default the trained tokens of this batch,
            which is what `model(**batch).loss` does.
        adjustment: changes how readily the trained model refuses; None for none.

    Returns:
        float32 scalar.

    Example:
        >>> from safemix.loading.weights import FirstTokens, TokenWeights
        >>> weights = TokenWeights(plan.sources, {"safety": FirstTokens(count=8, weight=5.0)})
        >>> origin = take_origin(batch)
        >>> logits = model(**batch).logits
        >>> loss = weighted_loss(logits, batch["labels"], origin.source, weights)
    """
    losses = token_losses(logits, labels)
    if adjustment is not None:
        losses = adjustment(losses, logits, labels, source)
    total = (losses * weights(labels, source).to(losses.device)).sum()
    if items is None:
        items = (labels[:, 1:] != IGNORED).sum().clamp(min=1)
    return total / torch.as_tensor(items, device=total.device)


def mean_items(labels: Sequence[Tensor], group: dist.ProcessGroup | None = None) -> Tensor:
    """Trained tokens of a step per rank and micro step, on average: a collective.

    A loop averages the losses of its micro steps and ranks (DDP and the DeepSpeed engine do so).
    With each divided by this number, the average is the step's sum over the step's tokens, as on
    one process with one large batch; divided by each batch's own number, short answers would weigh
    more where few tokens are in their batch.

    Args:
        labels: int64[B, L] of each micro step of this rank.
        group: the data-parallel ranks; default all.

    Returns:
        float64 scalar, the same on every rank.
    """
    counts = [(part[:, 1:] != IGNORED).sum() for part in labels]
    tokens = torch.stack(counts).sum().to(collective.device(group), torch.float64)
    if collective.size(group) > 1:
        dist.all_reduce(tokens, group=group)
    return (tokens / (collective.size(group) * len(labels))).clamp(min=1)


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


def first_token_sums(
    losses: Tensor, first: Tensor, source: Tensor, weights: TokenWeights
) -> dict[str, Tensor]:
    """Sums over the first tokens of each weighted source, unweighted, named as extras of a meter.

    Args:
        losses: float[B, L], see `token_losses`.
        first: bool[B, L], `weights.first` of the same rows.
        source: int64[B].
        weights: whose sources are meant.

    Returns:
        `first_loss/<source>` and `first_tokens/<source>`: float64 scalars.
    """
    source, losses = source.to(losses.device), losses.detach()
    found: dict[str, Tensor] = {}
    for name, number in weights.weighted.items():
        own = first & (source == number)[:, None]
        found[f"first_loss/{name}"] = torch.where(own, losses, 0).sum(dtype=torch.float64)
        found[f"first_tokens/{name}"] = own.sum(dtype=torch.float64)
    return found


def first_token_extras(weights: TokenWeights) -> tuple[str, ...]:
    """Names of what `first_token_sums` gives."""
    parts = ("first_loss", "first_tokens")
    return tuple(f"{part}/{name}" for name in weights.weighted for part in parts)


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


def source_metrics(
    read: Mapping[str, Mapping[str, float]], sources: Sequence[str]
) -> dict[str, float]:
    """A meter's reading under the names it is logged by; the task's side is called utility.

    A source without a row in the reading has no loss. All losses are means without weights, so
    that runs with other weights can be compared.

    Args:
        read: what `SourceMeter.read` gave.
        sources: names, in the plan's order.
    """
    tokens = sum(read[name]["tokens"] for name in sources)
    rows = sum(read[name]["rows"] for name in sources)
    metrics: dict[str, float] = {}
    for name in sources:
        side, first = "utility" if name == "task" else name, read[""].get(f"first_tokens/{name}")
        if read[name]["tokens"]:
            metrics[f"{side}/loss"] = read[name]["loss"]
        if first:
            metrics[f"{side}/loss_first_tokens"] = read[""][f"first_loss/{name}"] / first
        metrics[f"{side}/row_share"] = read[name]["rows"] / max(rows, 1)
        metrics[f"{side}/token_share"] = read[name]["tokens"] / max(tokens, 1)
    return metrics
