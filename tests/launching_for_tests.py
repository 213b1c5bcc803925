"""Starts a script under a real launcher, on processes of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def launch_script(
    launcher: str,
    script: Path,
    *args: str,
    seconds: float,
    ranks: int = 2,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a script on some processes on the CPU and wait for it.

    What it printed is printed again, so that it is shown where a test fails.

    Args:
        launcher: "deepspeed" or "torchrun".
        script: to run.
        *args: for the script.
        seconds: it may take; then all its processes are killed.
        ranks: number of processes.
        cwd: folder it runs in; None for that of the tests.

    Raises:
        subprocess.TimeoutExpired: if it takes longer.
    """
    count = {"deepspeed": "--num_gpus", "torchrun": "--nproc_per_node"}[launcher]
    bin_folder = Path(sys.executable).parent
    head = [str(bin_folder / launcher), count, str(ranks), "--master_port", str(free_port())]
    command = [*head, str(script), *args]
    job = subprocess.Popen(
        command,
        cwd=cwd,
        env=_environment(bin_folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = job.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)  # the ranks too, not the launcher alone
        out, err = job.communicate()
        print(out[-4000:], err[-6000:])
        raise
    print(out[-4000:], err[-6000:])
    return subprocess.CompletedProcess(command, job.returncode, out, err)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment(bin_folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
