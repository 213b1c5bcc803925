"""One process's result, or its error, for the others of a job, without a collective.

It goes through the store that the processes met at, so the wait is cut short by no collective's
timeout, and works wherever the job could start. What is long goes in parts: a store refuses more
than 8 MiB at once, and ends the connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypeVar

from safemix.errors import SafemixError

__all__ = ["from_leader"]

# A judge on a server, or large sets that are read and encoded by one rank, may take hours.
_PATIENCE: Final = timedelta(hours=24)
_PART: Final = 4 * 2**20
T = TypeVar("T")


def from_leader(
    key: str, work: Callable[[], T], *, leads: bool, words: Callable[[Exception], str]
) -> T:
    """Do something on one process and give its result to all that call it with the same key.

    Args:
        key: of this exchange; never used before in the job.
        work: what to do; its result must be plain JSON data.
        leads: whether this process does it; true for one of them.
        words: says an error for the others.

    Raises:
        SafemixError: where it failed elsewhere. The leader raises its own error.
    """
    from torch.distributed import distributed_c10d as c10d

    store = c10d._get_default_store()
    if not leads:
        answer = _receive(store, key)
        if "error" in answer:
            raise SafemixError(answer["error"])
        result: T = answer["result"]
        return result
    try:
        found = work()
        text = json.dumps({"result": found})
    except Exception as error:
        _send(store, key, json.dumps({"error": words(error)}))
        raise
    _send(store, key, text)
    return found


def _send(store: Any, key: str, text: str) -> None:
    # ASCII, so a character is a byte.
    begins = range(0, len(text), _PART)
    for number, begin in enumerate(begins):
        store.set(f"{key}/{number}", text[begin : begin + _PART])
    store.set(key, str(len(begins)))  # last: who sees it finds the parts


def _receive(store: Any, key: str) -> dict[str, Any]:
    store.wait([key], _PATIENCE)
    parts = (store.get(f"{key}/{number}") for number in range(int(store.get(key))))
    found: dict[str, Any] = json.loads(b"".join(parts))
    return found
