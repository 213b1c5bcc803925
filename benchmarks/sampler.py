"""How fast samplers start, run and resume, and what memory they take, at 10^6 and 10^9 rows.

One rank of 8, global batch 128, micro batch 16, 5 % safety rows. Times: all samplers in this
process, alternating, the order turned round every repeat. Memory and the first ("cold") start:
a fresh process for each sampler and size. Linux only: it reads and resets the peak in /proc.
"""

from __future__ import annotations

import gc
import itertools
import json
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import bench
import sampler_peers
import torch
from sampler_peers import Contender, Job

PACKAGES = ("torch", "numpy", "datasets", "accelerate", "grain")
FAR_INDICES = 200_000
"""Indices taken at the large size, where an epoch of one rank has 125 million."""


def main() -> None:
    """Run the benchmark, or one child of it."""
    parser = bench.parser(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--child", nargs=2, metavar=("SAMPLER", "ROWS"), help="one memory reading")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.child:
        print(json.dumps(_cold(_by_name(args.child[0]), Job(int(args.child[1]), args.seed))))
        return
    sizes = (10**3, 10**5) if args.quick else (10**6, 10**9)
    repeats = 2 if args.quick else args.repeats
    facts = bench.machine(PACKAGES)
    bench.print_header("Sampler", facts)
    results = _measure([Job(rows, args.seed) for rows in sizes], repeats)
    for rows in sizes:
        _show(rows, [result for result in results if result["rows"] == rows])
    bench.write_json(args.json, facts, results)


def _by_name(name: str) -> Contender:
    return next(c for c in sampler_peers.contenders() if c.name == name)


def _measure(jobs: list[Job], repeats: int) -> list[dict[str, Any]]:
    small, large = jobs
    results = []
    for job in jobs:
        runnable = []
        for contender in sampler_peers.contenders():
            result: dict[str, Any] = {"sampler": contender.name, "rows": job.rows}
            result["mixes"] = contender.mixes
            results.append(result)
            known = next(r for r in results if r["sampler"] == contender.name)  # smaller size
            reason = _too_large(contender, known, job) if job is large else None
            if reason is not None:
                result["not_run"] = reason
                continue
            result.update(_in_child(contender, job))
            runnable.append((contender, result))
        limit = None if job is small else FAR_INDICES
        _time_all(runnable, job, repeats, limit)
    return results


def _too_large(contender: Contender, small: dict[str, Any], job: Job) -> dict[str, float] | None:
    """What it would need and what there is, in bytes, if it does not fit."""
    if not contender.grows:
        return None
    needed = small["peak_bytes"] / small["rows"] * job.rows
    available = _status("MemAvailable", "/proc/meminfo")
    return {"needs_bytes": needed, "available_bytes": available} if needed > available else None


# ---- time --------------------------------------------------------------------------------------


def _time_all(
    runnable: list[tuple[Contender, dict[str, Any]]], job: Job, repeats: int, limit: int | None
) -> None:
    for contender, result in runnable:
        contender.prepare(job)
        result.update(start_s=[], resume_s=[], per_s=[])
    for repeat in range(repeats):
        for contender, result in runnable if repeat % 2 else reversed(runnable):
            gc.collect()
            first, rate = _run(contender, job, limit)
            result["start_s"].append(first)
            result["per_s"].append(rate)
            result["resume_s"].append(_resume(contender, job))


def _run(contender: Contender, job: Job, limit: int | None) -> tuple[float, float]:
    """Seconds to the first index, and indices per second with the start-up included."""
    counter = itertools.count(1)
    begin = time.perf_counter()
    indices = contender.start(job)
    next(indices)
    first = time.perf_counter() - begin
    # Both run in C, so the loop adds next to nothing to what is measured.
    deque(zip(itertools.islice(indices, limit), counter, strict=False), maxlen=0)
    elapsed = time.perf_counter() - begin
    return first, next(counter) / elapsed


def _resume(contender: Contender, job: Job) -> float:
    """Seconds to the first index at 90 % of an epoch."""
    step = job.rows // job.global_batch * 9 // 10
    gc.collect()
    begin = time.perf_counter()
    next(contender.resume(job, step))
    return time.perf_counter() - begin


# ---- memory ------------------------------------------------------------------------------------


def _in_child(contender: Contender, job: Job) -> dict[str, float]:
    words = [sys.executable, str(Path(__file__)), "--seed", str(job.seed)]
    words += ["--child", contender.name, str(job.rows)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _cold(contender: Contender, job: Job) -> dict[str, float]:
    """First use in a process: seconds to the first index, and the most memory while running."""
    contender.prepare(job)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # the peak counts from here
    before = _status("VmRSS", "/proc/self/status")
    begin = time.perf_counter()
    indices = contender.start(job)
    next(indices)
    first = time.perf_counter() - begin
    at_start = _status("VmHWM", "/proc/self/status") - before
    deque(itertools.islice(indices, FAR_INDICES), maxlen=0)
    peak = _status("VmHWM", "/proc/self/status") - before
    return {"cold_start_s": first, "start_peak_bytes": at_start, "peak_bytes": peak}


def _status(key: str, file: str) -> int:
    """A size from a /proc file, in bytes."""
    lines = Path(file).read_text("ascii").splitlines()
    line = next(line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


# ---- table -------------------------------------------------------------------------------------


def _show(rows: int, results: list[dict[str, Any]]) -> None:
    print(f"### {rows:,} rows, one rank of 8: median (quartiles)\n")
    head = ["sampler", "mixes", "start-up, ms", "cold start-up, ms", "peak memory, MB"]
    head += ["resume at 90 %, ms", "indices/s, thousands, start-up included"]
    bench.print_table(head, [_row(result) for result in results])


def _row(result: dict[str, Any]) -> list[str]:
    name = [result["sampler"], result["mixes"]]
    if "not_run" in result:
        needed, available = (
            f"{result['not_run'][key] / 1e9:.0f} GB" for key in ("needs_bytes", "available_bytes")
        )
        reason = f"not run: needs {needed} (memory at the smaller size, scaled), {available} free"
        return [*name, reason, "", "", "", ""]
    return [
        *name,
        bench.spread(result["start_s"]).text(1e3),
        f"{result['cold_start_s'] * 1e3:,.1f}",
        f"{result['peak_bytes'] / 1e6:,.1f}",
        bench.spread(result["resume_s"]).text(1e3),
        bench.spread(result["per_s"]).text(1e-3),
    ]


if __name__ == "__main__":
    main()
