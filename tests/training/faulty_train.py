"""`launchers/train.py` with one fault, from `SAFEMIX_TEST_FAULT`, at an exact place.

kill:RANK:STEP       SIGKILL when that rank has trained STEP optimizer steps
kill_save:RANK:STEP  SIGKILL when all of checkpoint STEP is written but its manifest
kill_end:RANK:STEP   SIGKILL when the last checkpoint is complete, before the result is saved
full:RANK:STEP       no file above 8 KB can be written from checkpoint STEP on: a full disk
full_anchor:RANK:0   the same from where the anchor is written on
"""

from __future__ import annotations

import os
import resource
import signal
from typing import Any


def arm(fault: str) -> None:
    kind, rank, step = fault.split(":")
    if os.environ.get("RANK", "0") != rank:
        return
    faults = {
        "kill": _kill,
        "kill_save": _kill_save,
        "kill_end": _kill_end,
        "full": _full,
        "full_anchor": _full_anchor,
    }
    faults[kind](int(step))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill(step: int) -> None:
    from safemix.hosts.guard import MixtureGuard

    stepped = MixtureGuard.stepped

    def dying(self: Any) -> None:
        stepped(self)
        if self.step == step:
            _die()

    MixtureGuard.stepped = dying  # type: ignore[method-assign]


def _kill_save(step: int) -> None:
    from safemix.training import trainer

    write = trainer.write_manifest

    def dying(folder: Any, **kwargs: Any) -> None:
        if kwargs["step"] == step:
            _die()
        write(folder, **kwargs)

    trainer.write_manifest = dying  # type: ignore[assignment]


def _kill_end(step: int) -> None:
    from safemix.training import run

    run._save_result = lambda *_: _die()  # type: ignore[assignment]


def _full(step: int) -> None:
    from safemix.training.trainer import RunTrainer

    save = RunTrainer._save_checkpoint

    def full(self: Any, *args: Any) -> None:
        if self.state.global_step == step:
            _fill_disk()
        save(self, *args)

    RunTrainer._save_checkpoint = full  # type: ignore[method-assign]


def _fill_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))


def _full_anchor(_: int) -> None:
    from safemix.training import anchor

    write = anchor.write_table

    def full(*args: Any) -> None:
        _fill_disk()
        write(*args)

    anchor.write_table = full


if __name__ == "__main__":
    from safemix.training.main import main
    from safemix.training.process import quiet_imports

    with quiet_imports():
        arm(os.environ["SAFEMIX_TEST_FAULT"])
    main()
