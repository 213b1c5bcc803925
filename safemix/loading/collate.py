"""Rows to one padded batch of tensors, with the origin of each row beside them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from safemix.errors import DataError, SettingsError
from safemix.loading.encode import IGNORE, Encoder, Overlong
from safemix.rows.schema import RowError, to_messages


@dataclass(frozen=True)
class Origin:
    """Where the rows of a batch come from.

    Attributes:
        source: number of each row's source in the plan's order, int64 [B].
        row: number of each row within its source, int64 [B]; -1 where it is not known.
    """

    source: torch.Tensor
    row: torch.Tensor


def take_origin(batch: MutableMapping[str, Any]) -> Origin:
    """Take `source` and `row` out of a batch, so that the rest can go to `model(**batch)`.

    Raises:
        DataError: if the batch has none.
    """
    if "source" not in batch or "row" not in batch:
        raise DataError(
            "the batch has no 'source' and 'row': collate it with SafeMixCollator, once"
        )
    return Origin(batch.pop("source"), batch.pop("row"))


class SafeMixCollator:
    """Collate function: rows of any source to one batch.

    A feature is a mapping with `messages` (or any other shape of row that safemix reads:
    prompt/completion, instruction/output), which is encoded here, or with `input_ids` and
    `labels` ready. The integers that `MixedDataset` adds come out as `source` and `row`.

    Returns a dict of int64 tensors: `input_ids`, `attention_mask`, `labels` of shape [B, L], padded
    on the right, and `source`, `row` of shape [B]. Picklable, and the same rows always give the
    same batch.

    Args:
        tokenizer: a fast tokenizer. Without a pad token its eos token pads, masked.
        max_length: tokens of a row, at most.
        pad_to_multiple_of: L is the next multiple of it.
        overlong: "cut" or "drop"; a dropped row in a batch is an error, so "drop" refuses it.
        template: as for `Encoder`.
        source_key: key of a feature with its source's number; without it 0.
        row_key: key of a feature with its row number; without it -1.
        pad_to_max: pad every batch to `max_length`, for hosts that need one shape.

    Raises:
        DataError: for a row that cannot be used or has no trained token, naming source and row.

    Example:
        >>> loader = DataLoader(MixedDataset({"task": task, "safety": safety}), batch_size=4,
        ...                     sampler=sampler, collate_fn=SafeMixCollator(tokenizer))
        >>> for batch in loader:
        ...     origin = take_origin(batch)      # out of the batch, before forward
        ...     loss = model(**batch).loss
        ...     is_safety = origin.source == plan.sources.index("safety")
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_length: int = 1024,
        pad_to_multiple_of: int = 8,
        overlong: Overlong = "cut",
        template: str | None = None,
        source_key: str = "source",
        row_key: str = "row",
        pad_to_max: bool = False,
    ) -> None:
        if pad_to_multiple_of < 1:
            raise SettingsError(
                f"pad_to_multiple_of {pad_to_multiple_of} is below 1: use 1 or more"
            )
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.pad_to_multiple_of = pad_to_multiple_of
        self.overlong: Overlong = overlong
        self.template = template
        self.source_key = source_key
        self.row_key = row_key
        self.pad_to_max = pad_to_max
        self.pad_token_id = pad_id(tokenizer)
        self._encoder: Encoder | None = None

    @property
    def encoder(self) -> Encoder:
        """Made when the first row needs it: ready rows need no template.

        Raises:
            ModelError: if the tokenizer or its template cannot be used.
        """
        if self._encoder is None:
            self._encoder = Encoder(
                self.tokenizer,
                template=self.template,
                max_length=self.max_length,
                overlong=self.overlong,
            )
        return self._encoder

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate a list of features; see the class."""
        if not features:
            raise DataError("a batch of no rows cannot be collated")
        rows = [self._row(feature) for feature in features]
        longest = self.max_length if self.pad_to_max else max(len(ids) for ids, _ in rows)
        width = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        shape = (len(rows), width)
        input_ids = np.full(shape, self.pad_token_id, np.int64)
        labels = np.full(shape, IGNORE, np.int64)
        mask = np.zeros(shape, np.int64)
        for n, (ids, own) in enumerate(rows):
            input_ids[n, : len(ids)] = ids
            labels[n, : len(ids)] = own
            mask[n, : len(ids)] = 1
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.from_numpy(labels),
            "source": self._numbers(features, self.source_key, 0),
            "row": self._numbers(features, self.row_key, -1),
        }

    @staticmethod
    def _numbers(features: Sequence[Mapping[str, Any]], key: str, default: int) -> torch.Tensor:
        return torch.tensor([int(f.get(key, default)) for f in features], dtype=torch.int64)

    def _row(self, feature: Mapping[str, Any]) -> tuple[Any, Any]:
        if "input_ids" in feature:
            return self._ready(feature)
        try:
            messages = feature.get("messages") or to_messages(feature)
        except RowError as error:
            raise self._refused(feature, error.reason) from None
        encoded = self.encoder.encode(messages)
        if encoded.reason is not None:
            raise self._refused(feature, encoded.reason)
        return encoded.input_ids, encoded.labels

    def _ready(self, feature: Mapping[str, Any]) -> tuple[Any, Any]:
        ids = np.asarray(feature["input_ids"])
        labels = np.asarray(feature.get("labels", ()))
        if ids.shape != labels.shape or ids.ndim != 1:
            shapes = f"{ids.shape} and {labels.shape}"
            raise self._refused(feature, f"input_ids and labels are no equal lists: {shapes}")
        if len(ids) > self.max_length:
            raise self._refused(feature, f"{len(ids)} tokens are over max_length {self.max_length}")
        # The first label is never predicted, so a row needs another one.
        if not (labels[1:] != IGNORE).any():
            raise self._refused(feature, "no trained token")
        return ids, labels

    def _refused(self, feature: Mapping[str, Any], reason: str) -> DataError:
        source, row = feature.get(self.source_key, 0), feature.get(self.row_key, -1)
        return DataError(
            f"source {source}, row {row}: {reason}: take it out, or prepare the source first"
        )


def pad_id(tokenizer: Any) -> int:
    """Id to pad with. Its positions are masked, so any id of the vocabulary will do.

    No token is added for it: that would change the size of the model's embeddings.
    """
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    return next((int(i) for i in ids if i is not None), 0)
