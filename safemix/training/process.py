"""One process of a job: who it is, how it speaks, how it ends."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from safemix.errors import SafemixError, out_of_memory
from safemix.hosts.leader import from_leader

# A user's mistake is found by every rank. Rank 0 speaks; the launcher ends the others while they
# wait here. A rank that is alone in its trouble speaks after this time.
_OTHERS_WAIT_S = 5.0
# A rank that only noticed the end of another one leaves the word to that one for so long.
_VICTIM_WAIT_S = 20.0
USER_ERROR, CRASH, INTERRUPTED = 2, 1, 130
# What collectives say on the ranks that are left when one has gone.
_PEER_GONE = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "remote process has exited",
    "nccl communicator was aborted",
    "failed to recv, got 0 bytes",
)
_calls = itertools.count()


def rank() -> int:
    """This process's rank over all nodes, from the launcher; 0 without one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes over all nodes, from the launcher; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def meet_alone() -> None:
    """Let DeepSpeed start in a process that no launcher started: a job of one."""
    if "RANK" in os.environ:
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ.update(alone | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})


def node_leader() -> int:
    """The rank that leads this process's machine."""
    return rank() - int(os.environ.get("LOCAL_RANK", "0"))


def shared(work: Callable[[], Any], leader: int = 0) -> Any:
    """Do something on one rank and give its result, or its error, to the ranks it leads.

    All ranks call it, in the same order. The others wait without a collective, so that the wait
    is not cut short by a collective's timeout, and they touch nothing that the leader changes.

    Args:
        work: what to do; its result must be plain JSON data.
        leader: the rank that does it. Ranks may name different leaders in one call.

    Returns:
        The leader's result.

    Raises:
        SafemixError: on every rank, if the leader failed.
    """
    key = f"safemix/{next(_calls)}/{leader}"
    if world_size() == 1:
        return work()
    return from_leader(key, work, leads=rank() == leader, words=plain_words)


def say(text: str) -> None:
    """One line on stderr, from rank 0 only."""
    if rank() == 0:
        print(f"safemix: {text}", file=sys.stderr, flush=True)


def quieten() -> None:
    """Keep libraries from speaking once a rank; call it before torch is imported."""
    # When one rank leaves with a message, the others' C++ side prints stack frames about it.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("deepspeed", "DeepSpeed", "torch.distributed", "accelerate", "datasets", "peft"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        # DeepSpeed sets its level again when it is imported; a filter stays.
        logger.addFilter(lambda record: record.levelno >= logging.ERROR)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Keep transformers from announcing W&B's mode on every rank while it is imported."""
    mode = os.environ.pop("WANDB_MODE", None)
    try:
        yield
    finally:
        if mode is not None:
            os.environ["WANDB_MODE"] = mode


def guarded(work: Callable[[], Any], *, debug: bool) -> None:
    """Run a job's work; end the process in good order whatever happens.

    Exit codes: 0 done, 2 a mistake that the user can mend, 130 interrupted, 1 anything else. A
    failed process leaves at once, so that its launcher ends the other ranks and none hangs.
    """
    try:
        work()
    except KeyboardInterrupt:
        _leave("interrupted; run the same command again to go on", INTERRUPTED, debug)
    except Exception as error:
        if lost_peer(error):
            # The one that failed has the reason; its launcher ends this process meanwhile.
            time.sleep(_VICTIM_WAIT_S)
        known = isinstance(error, SafemixError) or known_failure(error) is not None
        hint = "" if known else " (run again with --debug for the traceback)"
        _leave(plain_words(error) + hint, USER_ERROR if known else CRASH, debug)
    end_distributed()


def plain_words(error: BaseException) -> str:
    """One line for a person."""
    if isinstance(error, SafemixError):
        return " ".join(str(error).split())
    known = known_failure(error)
    return known or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def lost_peer(error: BaseException) -> bool:
    """Whether this process only noticed that another one is gone."""
    if world_size() == 1 or not isinstance(error, RuntimeError) or isinstance(error, SafemixError):
        return False
    text = str(error).lower()
    return any(sign in text for sign in _PEER_GONE)


def known_failure(error: BaseException) -> str | None:
    """Plain words for failures of the machine, not of the program."""
    if lost_peer(error):
        return (
            "another process of the job has ended: see its message, then run the same command "
            "again to go on from the last checkpoint"
        )
    if out_of_memory(error):
        return (
            "out of memory: use a smaller micro_batch_size or max_length, gradient_checkpointing: "
            "true, or a higher ZeRO stage; `safemix estimate` says what fits"
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return None


def end_distributed(engine: Any = None) -> None:
    """Destroy the engine and the process group; without it ZeRO-3 aborts at exit."""
    import torch.distributed as dist

    if engine is not None and hasattr(engine, "destroy"):
        engine.destroy()
    if dist.is_available() and dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def _leave(text: str, code: int, debug: bool) -> NoReturn:
    if rank() != 0:
        time.sleep(_OTHERS_WAIT_S)
    if debug:
        traceback.print_exc()
    prefix = "safemix: error" if rank() == 0 else f"safemix: error (rank {rank()})"
    print(f"{prefix}: {text}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)
