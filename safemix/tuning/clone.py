"""Population-based training: a trial goes on from where another one stands.

The checkpoint holds the plan's state: which rows were drawn, from which step on with which ratio.
So the trial that takes it over draws exactly the rows that the other one would have drawn next, at
the new ratio: none is lost and none comes again. Its own folder then tells the whole story of the
weights it has: metrics and audit up to that step are the other run's.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from safemix.errors import CheckpointError
from safemix.training import outputs
from safemix.training.checkpoints import MANIFEST

_HISTORY: Final = (outputs.METRICS, outputs.AUDIT)


def clone_run(checkpoint: Path, folder: Path) -> None:
    """Make a trial's folder go on from a checkpoint of another trial; its own does nothing.

    Args:
        checkpoint: folder `checkpoint-STEP` of the run to go on from.
        folder: of the trial that takes it over. Its own checkpoints are removed: what they led to
            is given up.

    Raises:
        CheckpointError: if the checkpoint is no longer there, or the disk is full.
    """
    source = checkpoint.parent
    if source.resolve() == folder.resolve():
        return
    if not (checkpoint / MANIFEST).is_file():
        raise CheckpointError(
            f"{checkpoint} is no longer there to go on from: raise save_total_limit of the run"
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for old in folder.glob("checkpoint-*"):
            shutil.rmtree(old)
        for name in _HISTORY:
            _copy(source / name, folder / name)
        # Last: from here on the folder is a run to go on from.
        partial = folder / f".{checkpoint.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(checkpoint, partial)
        partial.rename(folder / checkpoint.name)
    except OSError as error:
        raise CheckpointError(f"{folder}: {checkpoint} cannot be taken over: {error}") from error


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)
