"""One process's result for the others, through a real store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d

from safemix.errors import SafemixError
from safemix.hosts.leader import from_leader


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[Any]]:
    """Two members of a job, a thread each with a connection of its own; what each of them gets."""
    wait = timedelta(seconds=30)
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=wait)
    own = threading.local()
    monkeypatch.setattr(c10d, "_get_default_store", lambda: own.store)

    def member(leads: bool, work: Callable[[], Any]) -> Any:
        own.store = server if leads else dist.TCPStore("127.0.0.1", server.port, timeout=wait)
        try:
            return from_leader("key", work, leads=leads, words=lambda error: f"said: {error}")
        except Exception as error:
            return error

    def run(work: Callable[[], Any]) -> list[Any]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda leads: member(leads, work), (True, False)))

    return run


@pytest.mark.parametrize("length", [0, 1, 4 * 2**20 - 14, 4 * 2**20, 3 * 2**22])
def test_all_get_the_result_however_long(both: Any, length: int) -> None:
    # Each of these characters is six bytes on its way: 72 MiB in the last case.
    made = {"text": "ä" * length, "numbers": [1, None]}
    first, second = both(lambda: made)
    assert first is made
    assert second == made


def test_an_error_reaches_all(both: Any) -> None:
    def fails() -> None:
        raise ValueError("no such file")

    first, second = both(fails)
    assert isinstance(first, ValueError)
    assert isinstance(second, SafemixError) and str(second) == "said: no such file"


def test_what_cannot_be_sent_is_an_error_for_all(both: Any) -> None:
    first, second = both(object)
    assert isinstance(first, TypeError)
    assert isinstance(second, SafemixError) and "not JSON serializable" in str(second)
