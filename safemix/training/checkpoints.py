"""Which checkpoint to go on from: complete, undamaged, the latest.

A checkpoint is complete once its manifest is written, which happens last and atomically. The
manifest lists every file with its size and a hash (of the whole file up to a bound, else of
both ends: hashing terabytes would cost more than the training they save). A checkpoint that does
not match is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from safemix.errors import CheckpointError
from safemix.hosts.hf_trainer import STATE_FILE
from safemix.hosts.resume import write_json

TRAINER_STATE: Final = "trainer_state.json"
"""File of the Trainer's own state in a checkpoint."""

MANIFEST = "safemix_manifest.json"
_NAME = re.compile(r"^checkpoint-(\d+)$")
_WHOLE = 32 * 2**20
_END = 2**20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Path
    step: int
    world_size: int
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Settings that may not change when training goes on from here."""

    def to_json(self) -> dict[str, Any]:
        """As plain data, for other ranks."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Checkpoint:
        """From `to_json`."""
        return cls(**{**tree, "folder": Path(tree["folder"])})


def write_manifest(
    folder: Path, *, step: int, world_size: int, fixed: Mapping[str, Any] | None = None
) -> None:
    """Declare a checkpoint complete: call it on one rank after all ranks have written."""
    files = {
        str(path.relative_to(folder)): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    content = {"step": step, "world_size": world_size, "fixed": dict(fixed or {}), "files": files}
    write_json(folder / MANIFEST, content)


def find_checkpoint(output_dir: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The latest complete and undamaged checkpoint of a run, or None if there is none.

    Args:
        output_dir: the run's folder.
        warn: gets one line for each checkpoint that is passed over.

    Raises:
        CheckpointError: if there are complete checkpoints but all are damaged.
    """
    damaged = 0
    for _, folder in sorted(_numbered(output_dir), reverse=True):
        if not (folder / MANIFEST).exists():
            warn(f"{folder} is incomplete (the run stopped while it was written): passed over")
            continue
        try:
            return read_checkpoint(folder)
        except CheckpointError as error:
            damaged += 1
            warn(f"{error}: passed over")
    if damaged:
        raise CheckpointError(
            f"all {damaged} checkpoints in {output_dir} are damaged: restore one, or set "
            "resume: never to start again"
        )
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Check one checkpoint against its manifest.

    Raises:
        CheckpointError: naming the file that is missing or differs.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
        files, step = manifest["files"], int(manifest["step"])
        ranks, fixed = int(manifest["world_size"]), dict(manifest.get("fixed", {}))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no {MANIFEST}: it is no complete checkpoint") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder / MANIFEST} is damaged") from None
    if STATE_FILE not in files:
        raise CheckpointError(f"{folder} holds no plan state ({STATE_FILE})")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing")
        if _digest(path) != expected:
            raise CheckpointError(f"{path} is damaged: its content is not what was written")
    return Checkpoint(folder, step, ranks, fixed)


def callback_state(folder: Path, name: str) -> dict[str, Any] | None:
    """What a stateful callback wrote into a checkpoint; None if its run had none of that name.

    Raises:
        OSError, ValueError, TypeError, AttributeError: if it cannot be read.
    """
    tree = json.loads((folder / TRAINER_STATE).read_text("utf-8"))
    own = tree.get("stateful_callbacks", {}).get(name)
    return None if own is None else dict(own["attributes"])


def check_fixed(checkpoint: Checkpoint, now: Mapping[str, Any]) -> None:
    """Refuse to go on with settings that do not fit what the checkpoint holds.

    Raises:
        CheckpointError: naming the setting, its value now and then.
    """
    for name, then in checkpoint.fixed.items():
        if name in now and now[name] != then:
            raise CheckpointError(
                f"{name} is {now[name]} but {checkpoint.folder} was made with {then}: set it "
                "back, or start a new output_dir"
            )


def rotate(output_dir: Path, keep: int | None) -> None:
    """Delete the oldest complete checkpoints beyond `keep`; call it on one rank.

    It is called when the newest one is complete, so a run always has `keep` to fall back on.
    """
    complete = [(n, path) for n, path in _numbered(output_dir) if (path / MANIFEST).exists()]
    for _, folder in sorted(complete)[: -keep if keep else 0]:
        # Without its manifest a half-deleted checkpoint is not taken for a damaged one.
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def clear_after(output_dir: Path, step: int) -> None:
    """Make room for the checkpoints to come; call it on one rank before training.

    Unfinished checkpoints are removed. Later complete ones that were passed over are renamed,
    so that they are neither mistaken for this run's nor lost.
    """
    for number, folder in _numbered(output_dir):
        if not (folder / MANIFEST).exists():
            shutil.rmtree(folder, ignore_errors=True)
        elif number > step:
            aside = folder.with_name(f"unused-{folder.name}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)


def _numbered(output_dir: Path) -> list[tuple[int, Path]]:
    if not output_dir.is_dir():
        return []
    found = ((_NAME.search(path.name), path) for path in output_dir.iterdir() if path.is_dir())
    return [(int(match.group(1)), path) for match, path in found if match]


def _digest(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    sha = hashlib.sha256()
    with path.open("rb") as file:
        if size <= _WHOLE:
            while block := file.read(_END):
                sha.update(block)
        else:
            sha.update(file.read(_END))
            file.seek(-_END, 2)
            sha.update(file.read(_END))
    return {"bytes": size, "sha256": sha.hexdigest()}
