"""Starts real jobs of two processes on the CPU, each in a folder with a model and two sources."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
SIZES = {"task": 60, "safety": 10}
RATIO, GLOBAL_BATCH, MICRO_BATCH, RANKS = 0.125, 8, 2, 2
SECONDS = 120


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


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start(launcher: str, script: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script on two processes and wait for it; its output is shown where a test fails."""
    bin_folder = Path(sys.executable).parent
    port = str(free_port())
    head = {
        "torchrun": ["torchrun", "--nproc_per_node", str(RANKS), "--master_port", port],
        "deepspeed": ["deepspeed", "--num_gpus", str(RANKS), "--master_port", port],
    }[launcher]
    env = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    command = [str(bin_folder / head[0]), *head[1:], str(SCRIPTS / script), *args]
    job = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = job.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)  # the ranks too, not the launcher alone
        out, err = job.communicate()
        print(out[-4000:], err[-6000:])
        raise
    print(out[-4000:], err[-6000:])
    return subprocess.CompletedProcess(command, job.returncode, out, err)


def audits(folder: Path) -> list[str]:
    """The audit file of each rank."""
    return [(folder / "audit" / f"rank{rank}.jsonl").read_text("utf-8") for rank in range(RANKS)]


def forget_after(folder: Path, keep: str) -> None:
    """Remove what a run made but the checkpoint that is kept and the audit."""
    for path in (folder / "out").glob("checkpoint-*"):
        if path.name != keep:
            shutil.rmtree(path)
