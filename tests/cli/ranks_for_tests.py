"""A command of safemix on two ranks, as torchrun starts it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def torchrun(folder: Path, script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a Python script, given as text, in a folder on two ranks."""
    (folder / "job.py").write_text(script, "utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    left = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.run(
        [str(Path(sys.executable).parent / "torchrun"), "--nproc_per_node", "2",
         "--master_port", port, "job.py", *args],
        cwd=folder, capture_output=True, text=True, timeout=240, check=False,
        env={**left, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
