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
from safemix.tracking.metrics import drop_after
from safemix.training import outputs
from safemix.training.checkpoints import MANIFEST, read_checkpoint

_HISTORY: Final = (outputs.METRICS, outputs.AUDIT)
# What the trial's own steps have led to, beside its checkpoints.
_GIVEN_UP: Final = (*_HISTORY, outputs.EVALUATIONS, outputs.FINISHED)


def clone_run(checkpoint: Path, folder: Path) -> None:
    """Make a trial's folder go on from a checkpoint of another trial; its own does nothing.

    Args:
        checkpoint: folder `checkpoint-STEP` of the run to go on from.
        folder: of the trial that takes it over. Its own checkpoints and what they led to are
            removed, once the other run's lie beside them.

    Raises:
        CheckpointError: if the checkpoint is no longer there or damaged, or the disk is full. The
            trial's folder is as it was then.
    """
    source = checkpoint.parent
    if source.resolve() == folder.resolve():
        return
    if not (checkpoint / MANIFEST).is_file():
        raise CheckpointError(
            f"{checkpoint} is no longer there to go on from: raise save_total_limit of the run"
        )
    partial = folder / ".taken-over"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        for name in (*_HISTORY, checkpoint.name):
            _copy(source / name, partial / name)
        # The other run may have deleted it meanwhile, file by file.
        step = read_checkpoint(partial / checkpoint.name).step
        if (partial / outputs.METRICS).exists():
            drop_after(partial / outputs.METRICS, step)
        for old in (*folder.glob("checkpoint-*"), *(folder / name for name in _GIVEN_UP)):
            _remove(old)
        # The checkpoint last: with it the folder is a run to go on from.
        for name in (*_HISTORY, checkpoint.name):
            if (partial / name).exists():
                (partial / name).rename(folder / name)
        partial.rmdir()
    except (OSError, CheckpointError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder}: {checkpoint} cannot be taken over: {reason}") from error


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
