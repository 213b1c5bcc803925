"""The anchor of a run: what the model gives before the first step, read once and kept.

It is read on all ranks, each taking a part of the rows, and lies in the run's folder and in every
checkpoint as safetensors, so that a run that goes on, wherever, is held near the same model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional
from transformers import TrainerCallback

from safemix.errors import HostError
from safemix.evaluate.probe_score import quiet
from safemix.evaluate.sharding import agree, place, shard
from safemix.hosts import collective
from safemix.hosts.anchor import AnchorTable, first_places, likeliest
from safemix.loading.collate import take_origin
from safemix.mixture import MixturePlan
from safemix.settings import ControllerSettings, Settings
from safemix.settings_levers import LOOKALIKES, AnchorSettings
from safemix.training.anchor_file import Rows, load_everywhere, write_table
from safemix.training.checkpoints import Checkpoint
from safemix.training.process import say, shared
from safemix.training.trainer import RunTrainer

__all__ = ["FILE", "AnchorCallback", "add_anchor", "anchor_of", "drawn_rows"]

FILE: Final = "anchor.safetensors"
_STEPS: Final = 1024  # whose rows are looked at together


def anchor_of(settings: Settings) -> AnchorSettings | None:
    """The anchor of a run's settings; None for none."""
    given = None if settings.safety is None else settings.safety.anchor
    return given if isinstance(given, AnchorSettings) else None


def drawn_rows(settings: Settings, plan: MixturePlan, steps: int) -> dict[str, list[int]]:
    """The rows that a run may draw of its anchored sources, in the order of the plan.

    Args:
        settings: of the run.
        plan: of the run, from its first step on.
        steps: of the run.
    """
    names = ["safety"]
    if getattr(settings.mitigation, LOOKALIKES, None) is not None:
        names.append(LOOKALIKES)
    names = [name for name in names if plan.sizes.get(name)]
    most = _at_most(settings, plan)
    drawn = most.consumed(steps).rows
    found: dict[str, list[int]] = {}
    for name in names:
        size = plan.sizes[name]
        found[name] = list(range(size)) if drawn[name] >= size else _first(most, name, steps)
    return found


def _at_most(settings: Settings, plan: MixturePlan) -> MixturePlan:
    """The plan; where a controller moves the ratio, one that draws as many rows as it ever may."""
    if not isinstance(settings.ratio, ControllerSettings):
        return plan
    ratios: dict[str, Any] = {
        name: plan.ratio(name, 0) for name in plan.sources if name != plan.epoch_source
    }
    ratios["safety"] = Fraction(str(settings.ratio.max))
    return MixturePlan(plan.sizes, ratios, plan.global_batch_size, plan.seed, plan.granularity)


def _first(plan: MixturePlan, name: str, steps: int) -> list[int]:
    """Rows of a source in the first steps, fewer than a pass."""
    number, found = plan.sources.index(name), list[int]()
    for begin in range(0, steps, _STEPS):
        end = min(begin + _STEPS, steps)
        source, row = plan.all_rows(begin, end, 1, plan.global_batch_size)
        found += row[source == number].tolist()
    return found


def add_anchor(
    trainer: RunTrainer, settings: Settings, plan: MixturePlan, checkpoint: Checkpoint | None
) -> None:
    """Give a trainer the anchor of its run, unless the run has none.

    Args:
        trainer: of the run.
        settings: of the run, as the mitigation has adjusted them.
        plan: of the run, from its first step on.
        checkpoint: that the run goes on from; None for a run that begins.
    """
    setting = anchor_of(settings)
    if setting is None or not plan.sizes.get("safety"):
        return
    rows = drawn_rows(settings, plan, trainer.args.max_steps)
    kept = None if checkpoint is None else checkpoint.folder
    trainer.add_callback(AnchorCallback(trainer, setting, rows, Path(settings.output_dir), kept))


class AnchorCallback(TrainerCallback):
    """Reads the anchor before the first step; a run that goes on takes the one it has.

    Args:
        trainer: gets the table.
        setting: of the run.
        rows: that the run may draw, see `drawn_rows`.
        folder: of the run, where the table is written.
        kept: checkpoint that the run goes on from; None for a run that begins.
    """

    def __init__(
        self,
        trainer: RunTrainer,
        setting: AnchorSettings,
        rows: Rows,
        folder: Path,
        kept: Path | None,
    ) -> None:
        self._trainer, self._setting, self._rows = trainer, setting, rows
        self._folder, self._kept = folder, kept

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Have the table before the first step; every rank does the same."""
        sources = self._trainer.plan.sources
        if self._kept is not None:
            tensors = load_everywhere(self._kept / FILE, self._setting.count)
            self._tell_missing(tensors)
        else:
            tensors = self._read(kwargs["model"])
            self._settle()
            count = sum(map(len, self._rows.values()))
            say(f"anchor: {count} rows read, as the model is before the first step")
        shared(lambda: write_table(self._folder / FILE, tensors, self._setting.count))
        self._trainer.with_checkpoints.append(self._folder / FILE)
        rows = {sources.index(name): tensors[name] for name in sources if name in tensors}
        self._trainer.anchor = AnchorTable(
            self._setting.count,
            self._setting.weight,
            rows,
            tensors["starts"],
            tensors["tokens"],
            tensors["log_probs"],
        )

    def _tell_missing(self, tensors: Mapping[str, Tensor]) -> None:
        """Rows that more steps or a larger ratio add: what they were before cannot be read now."""
        for name, numbers in self._rows.items():
            known = tensors.get(name)
            missing = len(numbers) if known is None else int((known[list(numbers)] < 0).sum())
            if missing:
                say(
                    f"warning: anchor: {missing} of {len(numbers)} rows of {name} that the run may "
                    "draw were not read before its first step: they are trained without the anchor"
                )

    def _settle(self) -> None:
        # As after the probe: under ZeRO-3 a forward pass begins to fetch weights for a backward.
        release = getattr(self._trainer.model_wrapped, "empty_partition_cache", None)
        if release is not None:
            release()

    def _read(self, model: Any) -> dict[str, Tensor]:
        """The table's tensors from a model, the same on every rank."""
        dataset: Any = self._trainer.train_dataset
        plan = self._trainer.plan
        offsets = dict(zip(plan.sources, np.cumsum([0, *plan.sizes.values()]), strict=False))
        items = [int(offsets[name]) + row for name, rows in self._rows.items() for row in rows]
        counts = [self._count(dataset[item]["labels"]) for item in items]
        lengths = [len(dataset[item]["labels"]) for item in items]
        width = max(counts, default=0)
        own = shard(lengths, *place())
        size = self._trainer.args.per_device_train_batch_size
        tokens, log_probs = list[Tensor](), list[Tensor]()
        with quiet(model):
            for begin in range(0, len(own), size):
                part = [items[number] for number in own[begin : begin + size]]
                for found in self._forward(model, [dataset[item] for item in part], width):
                    tokens.append(found[0])
                    log_probs.append(found[1])
        finite = all(bool(torch.isfinite(one).all()) for one in log_probs)
        agree(None if finite else HostError("anchor: the model gives values that are not finite"))
        ranks = [shard(lengths, rank, place()[1]) for rank in range(place()[1])]
        return {
            **_places(self._rows, plan.sizes),
            "starts": torch.tensor([0, *np.cumsum(counts)], dtype=torch.int64),
            "tokens": _joined(torch.stack(tokens), ranks, counts),
            "log_probs": _joined(torch.stack(log_probs), ranks, counts),
        }

    def _count(self, labels: Any) -> int:
        row = torch.as_tensor(np.asarray(labels))[None]
        return int(first_places(row, self._setting.count).sum())

    def _forward(
        self, model: Any, rows: Sequence[Mapping[str, Any]], width: int
    ) -> list[tuple[Tensor, Tensor]]:
        """For each row its first tokens' distributions, padded to `width` of them, on the CPU."""
        batch: dict[str, Any] = self._trainer.data_collator(list(rows))
        take_origin(batch)
        labels = batch.pop("labels")
        where = first_places(labels, self._setting.count)
        device = self._trainer.args.device
        inputs = {name: value.to(device) for name, value in batch.items()}
        logits = model(**inputs, use_cache=False).logits[where.to(device)]
        sizes = where.sum(1).tolist()
        tokens, log_probs = (torch.split(one.cpu(), sizes) for one in likeliest(logits))
        found = []
        for part, probs in zip(tokens, log_probs, strict=True):
            pad = (0, 0, 0, width - len(part))
            found.append((functional.pad(part, pad), functional.pad(probs, pad)))
        return found


def _places(rows: Rows, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """For each source the place of each of its rows in the table; -1 for those not in it."""
    found: dict[str, Tensor] = {}
    begin = 0
    for name, numbers in rows.items():
        found[name] = torch.full((sizes[name],), -1, dtype=torch.int64)
        found[name][list(numbers)] = torch.arange(begin, begin + len(numbers))
        begin += len(numbers)
    return found


def _joined(own: Tensor, ranks: Sequence[Sequence[int]], counts: Sequence[int]) -> Tensor:
    """All ranks' rows in order, without padding.

    Args:
        own: [n, width, K] of this rank's rows; n is the same on every rank.
        ranks: for each rank, the numbers of its rows.
        counts: tokens of each row.
    """
    parts = [own]
    if collective.size() > 1:
        sent = own.to(collective.device())
        parts = [torch.empty_like(sent) for _ in ranks]
        dist.all_gather(parts, sent)
    by_number: dict[int, Tensor] = {}
    for numbers, part in zip(ranks, parts, strict=True):
        by_number |= dict(zip(numbers, part.cpu(), strict=True))
    return torch.cat([by_number[n][: counts[n]] for n in range(len(counts))])
