"""Reads the refusal margin of a model: all openers of all prompts in one forward pass.

What the margin is, and what a reading tells, stands in `probe_reading.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from safemix.errors import SettingsError
from safemix.evaluate.probe_encode import Shape, encode_item, waves
from safemix.evaluate.probe_reading import Aggregate, GroupReading, ProbeGroup, ProbeReading
from safemix.evaluate.probe_score import Layout, quiet, score, takes_masks
from safemix.hosts import collective
from safemix.loading.collate import pad_id
from safemix.loading.encode import Encoder

# Nats a token by which the two layouts may differ on the mean of an opener: the rounding of bf16
# stays well below it, a model that does not heed the mask is far above.
_ALIKE: Final = 0.25
_MAX_TOKENS: Final = 4096
_UNCUT: Final = 2**40


class RefusalProbe:
    """Reads the refusal margin of a model.

    Args:
        groups: what is asked; each group has at least one prompt.
        tokenizer: of the model.
        template: chat template, as for `Encoder`.
        max_length: tokens of a prompt with an answer; a longer prompt loses its middle, as in
            training.
        aggregate: how openers are added up in the metrics.
        layout: "packed", "rows", or None to take packed where the model heeds its mask.
        max_tokens: most tokens of a forward pass on one rank, padding included.
        every_way: the metrics have the margins by the other aggregates too.
        first: tokens that begin refusals, int64[K]: the gaps are read too; None for none.

    Raises:
        SettingsError: if there is no prompt.
        DataError: if a prompt cannot be encoded.
    """

    def __init__(
        self,
        groups: Sequence[ProbeGroup],
        tokenizer: Any,
        *,
        template: str | None = None,
        max_length: int = 1024,
        aggregate: Aggregate = "odds",
        layout: Layout | None = None,
        max_tokens: int = _MAX_TOKENS,
        every_way: bool = False,
        first: Tensor | None = None,
    ) -> None:
        if aggregate not in get_args(Aggregate):
            legal = ", ".join(get_args(Aggregate))
            raise SettingsError(f"margin {aggregate!r} is unknown: give one of {legal}")
        if not groups or any(not group.chats for group in groups):
            raise SettingsError("the probe has no prompts: give at least one a group")
        encoder = Encoder(tokenizer, template=template, max_length=_UNCUT)
        self.groups = tuple(groups)
        self.layout: Layout | None = layout
        self._items = [
            encode_item(encoder, chat, group.openers, max_length)
            for group in groups
            for chat in group.chats
        ]
        self._shape = Shape.of(self._items)
        self._aggregate: Aggregate = aggregate
        self._first = first
        self._pad, self._max_tokens, self._every_way = pad_id(tokenizer), max_tokens, every_way

    @property
    def tokens(self) -> int:
        """Tokens of one reading, without padding; packed, as long as nothing has shown else."""
        return sum(self._lengths(self.layout or "packed"))

    def lay_out_for(self, model: Any) -> None:
        """Take the layout with more tokens at once where a model can only have that one."""
        if self.layout is None and not self._takes_masks(model):
            self.layout = "rows"

    def _takes_masks(self, model: Any) -> bool:
        return takes_masks(model, max(item.packed for item in self._items))

    def measure(self, model: Any) -> ProbeReading:
        """Read all groups; every rank of a job calls it and gets the same reading.

        Nothing random is drawn and no weight, mode or gradient is changed.

        Args:
            model: of transformers, also within PEFT, DDP or DeepSpeed's engine (ZeRO 1 to 3).
        """
        with quiet(model):
            if self.layout is None:
                self.layout = self._choose(model)
            table = self._table(model, self.layout)
        return self._reading(table)

    def _choose(self, model: Any) -> Layout:
        """Packed if it gives for one prompt what rows give; the same on all ranks."""
        # What no mask can be given to need not be tried; ranks have the same model.
        if not self._takes_masks(model):
            return "rows"
        shortest = min(self._items, key=lambda item: item.packed)
        one, other = (
            score(model, [shortest], self._shape, layout, self._pad).sum(2)
            for layout in ("packed", "rows")
        )
        lengths = torch.tensor([len(opener) for opener in shortest.openers], device=one.device)
        differ = (one - other)[0, : len(lengths)].abs() / lengths
        # Where nothing is finite, the reading itself will say so.
        gap = torch.nan_to_num(differ.max().double(), nan=0.0).reshape(1)
        if collective.size() > 1:
            gap = gap.to(collective.device())
            dist.all_reduce(gap, dist.ReduceOp.MAX)
        return "packed" if gap.item() < _ALIKE else "rows"

    def _table(self, model: Any, layout: Layout) -> Tensor:
        """What `score` gives, of all items, float64."""
        width = self._shape.openers + (self._first is not None)
        ranks = collective.size()
        rank = dist.get_rank() if ranks > 1 else 0
        table = torch.zeros(len(self._items), width, self._shape.tokens).double()
        for batch in waves(self._lengths(layout), ranks, self._max_tokens):
            mine = batch[rank::ranks]
            items = [self._items[number] for number in mine]
            # A number that stands for padding is written by its first rank alone, below.
            found = score(model, items, self._shape, layout, self._pad, first=self._first).double()
            own = [n for n, number in enumerate(mine) if batch.index(number) % ranks == rank]
            table[[mine[n] for n in own]] = found[own]
        if ranks > 1:
            # Each entry is 0 on all ranks but one, so the sum is exact.
            table = table.to(collective.device())
            dist.all_reduce(table)
        return table.cpu()

    def _lengths(self, layout: Layout) -> list[int]:
        """Tokens of each item in a layout."""
        if layout == "packed":
            return [item.packed for item in self._items]
        tail = self._shape.tokens
        return [len(item.openers) * (len(item.prompt) + tail) for item in self._items]

    def _reading(self, table: Tensor) -> ProbeReading:
        found: list[GroupReading] = []
        values, items = iter(table.tolist()), iter(self._items)
        for group in self.groups:
            refusing, complying, gaps = [], [], list[float]()
            for _ in group.chats:
                item, rows = next(items), next(values)
                if self._first is not None:
                    gaps.append(rows[-1][0])
                cut = [tuple(r[: len(o)]) for r, o in zip(rows, item.openers, strict=False)]
                refusing.append(tuple(cut[: item.refusing]))
                complying.append(tuple(cut[item.refusing :]))
            read = GroupReading(group, tuple(refusing), tuple(complying), tuple(gaps))
            found.append(read)
        return ProbeReading(tuple(found), self._aggregate, self._every_way)
