"""The file of a run's anchor: tensors as safetensors, written by rank 0 and read for all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from safemix.errors import CheckpointError
from safemix.hosts import collective
from safemix.training.process import shared

__all__ = ["Rows", "load_everywhere", "write_table"]

Rows = Mapping[str, Sequence[int]]
"""Source -> numbers of its rows, each once."""


def write_table(path: Path, tensors: Mapping[str, Tensor], count: int) -> None:
    """Write the tensors of an anchor; a reader sees the old file or the whole new one.

    Raises:
        CheckpointError: if there is no room for it, or no right to write it.
    """
    fresh = path.with_name(path.name + ".tmp")
    try:
        save_file(dict(tensors), fresh, metadata={"count": json.dumps(count)})
        fresh.replace(path)
    except (OSError, SafetensorError) as error:
        fresh.unlink(missing_ok=True)
        size = sum(tensor.nbytes for tensor in tensors.values())
        raise CheckpointError(
            f"{path} cannot be written ({' '.join(str(error).split())[:120]}): make room for "
            f"{size / 1e6:.3g} MB, or set safety.anchor: false"
        ) from None


def load_everywhere(path: Path, count: int) -> dict[str, Tensor]:
    """The table that rank 0 has, on every rank: they may see another disk.

    Raises:
        CheckpointError: if it is not there or damaged, or was read with another `count`.
    """
    tensors: dict[str, Tensor] = {}

    def read() -> list[tuple[str, list[int], str]]:
        tensors.update(_load(path, count))
        return [(name, list(t.shape), str(t.dtype)[6:]) for name, t in tensors.items()]

    described = shared(read)
    if collective.size() > 1:
        for name, shape, dtype in described:
            mine = tensors.get(name)
            if mine is None:
                mine = torch.empty(shape, dtype=getattr(torch, dtype))
            sent = mine.to(collective.device())
            dist.broadcast(sent, 0)
            tensors[name] = sent.cpu()
    return tensors


def _load(path: Path, count: int) -> dict[str, Tensor]:
    if not path.exists():
        raise CheckpointError(
            f"{path.parent} is of a run without an anchor, and what the model was before it cannot "
            "be read now: set safety.anchor: false, or resume: never to begin anew"
        )
    try:
        with safe_open(path, "pt") as file:
            began = json.loads((file.metadata() or {}).get("count", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({' '.join(str(error).split())[:120]}): use an older "
            "checkpoint, or set safety.anchor: false"
        ) from None
    if began != count:
        raise CheckpointError(
            f"safety.anchor.count is {count}, but the run began with {began}: keep {began}"
        )
    return tensors
