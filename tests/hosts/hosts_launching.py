"""Starts real jobs of two processes on the CPU, each in a folder with a model and two sources."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from launching_for_tests import ROOT, launch_script

__all__ = ["ROOT"]  # for tests of this folder
SCRIPTS = Path(__file__).parent / "scripts"
SIZES = {"task": 60, "safety": 10}
RATIO, GLOBAL_BATCH, MICRO_BATCH, RANKS = 0.125, 8, 2, 2
SECONDS = 280


def fill(folder: Path, model: Path) -> Path:
    """Put the model and `task.jsonl`, `safety.jsonl` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model").symlink_to(model, target_is_directory=True)
    for name, size in SIZES.items():
        lines = (json.dumps({"messages": chat(name, n)}) for n in range(size))
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return folder


def chat(source: str, number: int) -> list[dict[str, str]]:
    answer = "I cannot help with that." if source == "safety" else "seven " * (1 + number % 5)
    return [
        {"role": "user", "content": f"{source} question {number}"},
        {"role": "assistant", "content": answer.strip()},
    ]


def start(launcher: str, script: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder on two processes and wait for it."""
    path = SCRIPTS / script
    return launch_script(launcher, path, *args, seconds=SECONDS, ranks=RANKS, cwd=cwd)


def audits(folder: Path) -> list[str]:
    """The audit file of each rank."""
    return [(folder / "audit" / f"rank{rank}.jsonl").read_text("utf-8") for rank in range(RANKS)]


def forget_after(folder: Path, keep: str) -> None:
    """Remove what a run made but the checkpoint that is kept and the audit."""
    for path in (folder / "out").glob("checkpoint-*"):
        if path.name != keep:
            shutil.rmtree(path)
