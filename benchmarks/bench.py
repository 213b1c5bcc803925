"""What all benchmarks share: the machine line, statistics, Markdown tables, the JSON file."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of some repeats, in the unit of the values."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""
    repeats: int

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """`median (first quartile .. third quartile)` of the values times `scale`."""
        low, middle, high = (scale * v for v in (self.low, self.median, self.high))
        return f"{middle:,.{digits}f} ({low:,.{digits}f} .. {high:,.{digits}f})"


def spread(values: Iterable[float]) -> Spread:
    """Median and quartiles.

    Raises:
        ValueError: if there is no value.
    """
    array = np.asarray(list(values), dtype=np.float64)
    if not array.size:
        raise ValueError("no values to take a median of")
    low, median, high = np.percentile(array, (25, 50, 75))
    return Spread(float(median), float(low), float(high), array.size)


def median_interval(
    values: Sequence[float], seed: int = 0, resamples: int = 4000
) -> tuple[float, float, float]:
    """Median with its 95 % bootstrap interval: (median, low, high)."""
    array = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).choice(array, (resamples, array.size))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return float(np.median(array)), float(low), float(high)


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """CPU, cores that this process may use, memory in GiB, versions, and the GPU if any."""
    found: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch_threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found


def version(package: str) -> str:
    """Installed version, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def print_header(title: str, facts: dict[str, Any]) -> None:
    """Title, machine line and command, as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    gpu = f", {facts['gpu']}" if "gpu" in facts else ""
    threads = f", {facts['torch_threads']} torch threads" if "torch_threads" in facts else ""
    print(f"## {title}\n")
    versions = f", {versions}" if versions else ""
    print(
        f"Machine: {facts['cpu']}, {facts['cores']} cores{threads}, {facts['memory_gib']} GiB"
        f"{gpu}, {facts['system']}, Python {facts['python']}{versions}  "
    )
    print(f"Command: `{command()}`\n", flush=True)


def command() -> str:
    """The command that started this script."""
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def print_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    made.add_argument("--seed", type=int, default=0)
    return made


def keep_json(path: Path, tree: Any) -> None:
    """Write a result on one line, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(tree, separators=(",", ":")) + "\n", "utf-8")
    partial.replace(path)


def write_json(path: Path | None, facts: dict[str, Any], results: Any) -> None:
    """Write machine, command and figures, if a file is named."""
    if path is not None:
        content = {"machine": facts, "command": command(), "results": results}
        path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
