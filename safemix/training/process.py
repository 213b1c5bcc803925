"""One process of a job: who it is, how it speaks, how it ends."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from safemix.errors import SafemixError

# A user's mistake is found by every rank. Rank 0 speaks; the launcher ends the others while they
# wait here. A rank that is alone in its trouble speaks after this time.
_OTHERS_WAIT_S = 5.0
USER_ERROR, CRASH, INTERRUPTED = 2, 1, 130


def rank() -> int:
    """This process's rank over all nodes, from the launcher; 0 without one."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes over all nodes, from the launcher; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def skip_shared_memory_op() -> None:
    """Do not compile DeepSpeed's shared-memory all-reduce for CPUs.

    Every rank would wait a minute for the compiler at the first start, and for ever if an
    earlier start was killed while compiling and left its lock. Gloo does the same work.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def say(text: str) -> None:
    """One line on stderr, from rank 0 only."""
    if rank() == 0:
        print(f"safemix: {text}", file=sys.stderr, flush=True)


def quieten() -> None:
    """Keep libraries from speaking once a rank."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("deepspeed", "DeepSpeed", "torch.distributed", "accelerate", "datasets", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)


def guarded(work: Callable[[], Any], *, debug: bool) -> None:
    """Run a job's work; end the process in good order whatever happens.

    Exit codes: 0 done, 2 a mistake that the user can mend, 130 interrupted, 1 anything else. A
    failed process leaves at once, so that its launcher ends the other ranks and none hangs.
    """
    try:
        work()
    except SafemixError as error:
        _leave(str(error), USER_ERROR, debug)
    except KeyboardInterrupt:
        _leave("interrupted; run the same command again to go on", INTERRUPTED, debug)
    except Exception as error:
        known = known_failure(error)
        hint = "" if known else " (run again with --debug for the traceback)"
        text = known or f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        _leave(text + hint, USER_ERROR if known else CRASH, debug)
    end_distributed()


def known_failure(error: BaseException) -> str | None:
    """Plain words for failures of the machine, not of the program."""
    text = " ".join(str(error).split())
    if "out of memory" in text.lower() or isinstance(error, MemoryError):
        return (
            "out of memory: use a smaller micro_batch_size or max_length, gradient_checkpointing: "
            "true, or a higher ZeRO stage; `safemix estimate` says what fits"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}: {error.filename or text}"
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
