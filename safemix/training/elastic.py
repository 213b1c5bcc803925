"""Going on with another number of processes than the checkpoint was written with.

ZeRO 2 and 3 write each rank's part of the optimizer and refuse another number of ranks.
DeepSpeed's universal checkpoint brings the parts together; the plan needs nothing, as its rows do
not depend on the number of ranks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from safemix.errors import CheckpointError
from safemix.training.checkpoints import Checkpoint


def needs_conversion(checkpoint: Checkpoint | None, world_size: int, zero_stage: int) -> bool:
    """Whether a checkpoint must be converted before `world_size` processes can load it."""
    return checkpoint is not None and zero_stage > 0 and checkpoint.world_size != world_size


def convert(checkpoint: Checkpoint) -> None:
    """Write the universal form beside the checkpoint's own; call it on one rank.

    Raises:
        CheckpointError: if DeepSpeed cannot convert it.
    """
    folder = checkpoint.folder
    tag = (folder / "latest").read_text("utf-8").strip()
    target = folder / f"{tag}_universal"
    done = folder / "latest_universal"
    if done.exists() and done.read_text("utf-8").strip() == target.name and target.is_dir():
        return
    done.unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)  # what a conversion that was cut short has left
    command = [
        sys.executable,
        "-m",
        "deepspeed.checkpoint.ds_to_universal",
        "--input_folder",
        str(folder / tag),
        "--output_folder",
        str(target),
        "--inject_missing_state",
    ]
    # The tool is one process of its own; it must not take itself for a rank of this job.
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise CheckpointError(
            f"{folder} was written by {checkpoint.world_size} processes and DeepSpeed cannot "
            f"convert it ({reason}): resume with {checkpoint.world_size} processes"
        )
    done.write_text(target.name, "utf-8")
