"""Work that one rank does for all: judging, dressing, reading and writing what was answered."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

from safemix.hosts.leader import from_leader

_calls = itertools.count()
T = TypeVar("T")


def rank() -> int:
    """This process's rank; 0 alone."""
    return _distributed().get_rank() if in_job() else 0


def ranks() -> int:
    """Number of processes that take part."""
    return int(_distributed().get_world_size()) if in_job() else 1


def in_job() -> bool:
    """Whether other processes take part."""
    dist = _distributed()
    return bool(dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def _distributed() -> Any:
    import torch.distributed as dist  # late: `import safemix.evaluate` stays light

    return dist


def on_leader(work: Callable[[], T]) -> T:
    """Do something on rank 0 and give its result, or its error, to all ranks.

    All ranks call it, in the same order. The others wait without a collective, so that no
    collective's timeout cuts a long wait short.

    Args:
        work: what to do; its result must be plain JSON data.

    Raises:
        SafemixError: on every rank, if rank 0 failed.
    """
    if not in_job():
        return work()
    key = f"safemix/evaluate/{next(_calls)}"
    return from_leader(key, work, leads=rank() == 0, words=_words)


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
