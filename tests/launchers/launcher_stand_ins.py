"""Stand-ins for programs that launchers call."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = ROOT / "launchers"
QUICK = "launchers/configs/sweep_quick.yaml"
_MINE = re.compile(r"SLURM_|RAY_|JOB_|SAFEMIX_|BASH_ENV|.*_PER_NODE|HEAD_ADDRESS|NODES_WAIT_S")


def program(path: Path, text: str) -> None:
    """Write a program in bash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """The caller's, without what would matter, and with the stand-ins in `folder` first."""
    kept = {name: value for name, value in os.environ.items() if not _MINE.match(name)}
    kept["PATH"] = f"{folder / 'bin'}{os.pathsep}{kept['PATH']}"
    kept["PYTHONPATH"] = f"{folder / 'fake'}{os.pathsep}{ROOT}"
    return {**kept, "SAFEMIX_VENV": str(folder / "venv"), **variables}


def lines(path: Path) -> list[str]:
    """Lines of a file; none if it is not there."""
    return path.read_text().splitlines() if path.exists() else []
