"""Where collectives run, and over whom."""

from __future__ import annotations

import torch
import torch.distributed as dist


def ready() -> bool:
    """Whether this process is one of several that speak to each other."""
    return dist.is_available() and dist.is_initialized()


def size(group: dist.ProcessGroup | None = None) -> int:
    """Ranks in a group, by default all; 1 without `torch.distributed`."""
    return dist.get_world_size(group) if ready() else 1


def device(group: dist.ProcessGroup | None = None) -> torch.device:
    """The device whose tensors a group's backend moves: a batch may still be on the CPU."""
    backend = str(dist.get_backend(group)) if ready() else "gloo"
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or any(name in backend for name in ("gloo", "mpi", "undefined")):
        return torch.device("cpu")
    return torch.device(accelerator.type, torch.accelerator.current_device_index())
