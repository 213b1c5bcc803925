"""Step time with safemix beside the stock Hugging Face Trainer, on the same rows and model.

Both sides log every step. On the CPU the two loops take turns step by step in one process
("steps"), with a control run of stock beside stock that shows what the method can tell apart. On
a GPU, or under ZeRO, each side runs by itself in a process, in blocks A B B A ("blocks"), and the
peak memory is set beside `safemix estimate`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch
from train_sides import SHAPES, SIDES, Task, build_rows
from train_turns import TurnCallback, Turns, alternating, take_turns
from transformers.utils import logging as hf_logging

from safemix.settings import LoraSettings
from safemix.training.ds_config import read_ds_config
from safemix.training.memory import GIB, ModelShape, estimate

PACKAGES = ("torch", "transformers", "accelerate", "peft", "deepspeed")


def main() -> None:
    """Run the benchmark, or one block of it."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    hf_logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        task = _task(args, Path(folder))
        if args.child:
            args.json.write_text(json.dumps(run_alone(task, args.child)), "utf-8")
            return
        facts = bench.machine(PACKAGES)
        bench.print_header("Training step", facts)
        print(_described(task, args) + "\n", flush=True)
        if args.interleave == "steps":
            pairs = {
                "safemix / stock": _turns(task, args, "safemix"),
                "stock / stock (control)": _turns(task, args, "stock"),
            }
        else:
            pairs = {"safemix / stock": _blocks(args)}
    results = {name: _compared(runs, args) for name, runs in pairs.items()}
    _show(results)
    if args.interleave == "blocks" and args.device == "cuda":
        results["memory"] = _memory(task, pairs["safemix / stock"])
    bench.write_json(args.json, facts, results)


def _arguments() -> argparse.Namespace:
    parser = bench.parser(__doc__ or "")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model-shape", choices=tuple(SHAPES), default="smollm2-135m")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--lora", type=int, metavar="R", help="train adapters of this rank only")
    parser.add_argument("--ds-config", metavar="NAME", help="a DeepSpeed config, such as zero2")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--steps", type=int, default=60, help="steps of a side in a run or block")
    parser.add_argument("--warmup", type=int, default=3, help="first steps left out")
    parser.add_argument("--rounds", type=int, default=2, help="blocks: pairs of blocks")
    parser.add_argument("--micro-batch", type=int, default=2)
    parser.add_argument("--accumulation", type=int, default=2)
    parser.add_argument("--length", type=int, default=128, help="tokens of the longest row")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--interleave", choices=("steps", "blocks"))
    parser.add_argument("--child", choices=tuple(SIDES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.model_shape, args.layers, args.steps, args.length = "tiny", None, 8, 32
    if args.steps <= args.warmup + 2:
        parser.error(f"--steps {args.steps} is too few: use more than {args.warmup + 2}")
    alone = args.device == "cuda" or args.ds_config is not None
    args.interleave = args.interleave or ("blocks" if alone else "steps")
    if args.interleave == "steps" and args.ds_config is not None:
        parser.error("--interleave steps cannot hold two DeepSpeed engines: use blocks")
    return args


def _task(args: argparse.Namespace, folder: Path) -> Task:
    return Task(
        shape=args.model_shape,
        layers=args.layers,
        device=args.device,
        steps=args.steps,
        micro_batch=args.micro_batch,
        accumulation=args.accumulation,
        length=args.length,
        lora=None if args.lora is None else LoraSettings(r=args.lora),
        ds_config=args.ds_config,
        gradient_checkpointing=args.gradient_checkpointing,
        seed=args.seed,
        folder=folder,
    )


def _described(task: Task, args: argparse.Namespace) -> str:
    adapters = f"LoRA r={task.lora.r}" if task.lora else "all weights"
    return (
        f"{task.shape} with {task.config.num_hidden_layers} layers, random weights, {adapters}, "
        f"{task.ds_config or 'no DeepSpeed'}, micro batch {task.micro_batch} x accumulation "
        f"{task.accumulation}, rows of {task.length // 2} to {task.length} tokens, {task.steps} "
        f"steps a side, interleaved by {args.interleave}"
    )


# ---- runs --------------------------------------------------------------------------------------


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _turns(task: Task, args: argparse.Namespace, side: str) -> list[dict[str, Any]]:
    """`side` and the stock Trainer, step by step in turn: the readings of the two."""
    names = {"first": side, "second": "stock"}
    turns = Turns(alternating("first", "second", task.steps), lambda: _wait(task.device))
    rows, trainers = build_rows(task), {}
    for name, kind in names.items():
        trainers[name] = SIDES[kind](replace(task, folder=task.folder / f"{side}-{name}"), rows)
        trainers[name].add_callback(TurnCallback(turns, name))

    def loop(name: str) -> None:
        torch.set_num_threads(args.threads)  # each thread has its own setting
        trainers[name].train()

    take_turns(turns, {"first": lambda: loop("first"), "second": lambda: loop("second")})
    return [
        {"side": kind, **asdict(turns.times[name]), "losses": _losses(trainers[name])}
        for name, kind in names.items()
    ]


def _blocks(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Blocks A B B A ..., a process each: the readings, in pairs of safemix and stock."""
    found = []
    for round_ in range(args.rounds):
        pair = ["safemix", "stock"] if round_ % 2 == 0 else ["stock", "safemix"]
        readings = {side: _child(side) for side in pair}
        found += [readings["safemix"], readings["stock"]]
    return found


def _child(side: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "reading.json"
        words = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
        done = subprocess.run(
            [*words, "--child", side, "--json", str(target)],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"the {side} block failed:\n{done.stderr[-4000:]}")
        reading: dict[str, Any] = json.loads(target.read_text("utf-8"))
    return reading


def run_alone(task: Task, side: str) -> dict[str, Any]:
    """One side by itself; the process ends after it."""
    if task.ds_config is not None:
        _alone_in_the_world()
    rows = build_rows(task)
    if task.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer = SIDES[side](task, rows)
    turns = Turns(["only"] * task.steps, lambda: _wait(task.device))
    trainer.add_callback(TurnCallback(turns, "only"))
    trainer.train()
    reading = {"side": side, **asdict(turns.times["only"]), "losses": _losses(trainer)}
    if task.device == "cuda":
        free, total = torch.cuda.mem_get_info()
        others = total - free - torch.cuda.memory_reserved()  # context and libraries
        reading["allocated_bytes"] = torch.cuda.max_memory_allocated()
        reading["device_bytes"] = torch.cuda.max_memory_reserved() + others
    if task.ds_config is not None:
        trainer.model_wrapped.destroy()
        torch.distributed.destroy_process_group()
    return reading


def _alone_in_the_world() -> None:
    """What a launcher would set for one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# ---- figures -----------------------------------------------------------------------------------


def _compared(runs: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """Ratios step by step; `runs` are pairs of (side, stock). The last step has no next."""
    kept = slice(args.warmup, -1)
    firsts, seconds = runs[::2], runs[1::2]
    result: dict[str, Any] = {}
    for clock in ("wall_s", "cpu_s"):
        first = np.concatenate([run[clock][kept] for run in firsts])
        second = np.concatenate([run[clock][kept] for run in seconds])
        median, low, high = bench.median_interval(first / second, args.seed)
        result[clock] = {"ratio": median, "low": low, "high": high, "steps": len(first)}
        result[clock]["first"] = asdict(bench.spread(first))
        result[clock]["second"] = asdict(bench.spread(second))
        difference, low, high = bench.median_interval(first - second, args.seed)
        result[clock]["difference"] = {"median": difference, "low": low, "high": high}
    gaps = [
        abs(a - b)
        for one, other in zip(firsts, seconds, strict=True)
        for a, b in zip(one["losses"], other["losses"], strict=True)
    ]
    result["largest_loss_difference"] = max(gaps)
    return result


def _show(results: dict[str, Any]) -> None:
    rows = []
    for name, result in results.items():
        for clock, text in (("wall_s", "wall"), ("cpu_s", "CPU time of the process")):
            found = result[clock]
            first, second = (bench.Spread(**found[key]).text(1e3) for key in ("first", "second"))
            ratio = f"{found['ratio']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
            more = found["difference"]
            extra = f"{more['median'] * 1e3:+.2f}"
            extra += f" [{more['low'] * 1e3:+.2f}, {more['high'] * 1e3:+.2f}]"
            loss = f"{result['largest_loss_difference']:.1e}"
            rows.append([name, text, first, second, ratio, extra, found["steps"], loss])
    head = ["pair", "clock", "first, ms a step", "second, ms a step"]
    head += ["ratio a step: median [95 % interval]", "difference, ms", "steps"]
    bench.print_table([*head, "largest loss difference"], rows)


def _memory(task: Task, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Peak memory beside the estimate, in bytes."""
    needed = estimate(
        ModelShape.from_config(task.config, task.shape),
        None if task.ds_config is None else read_ds_config(task.ds_config),
        gpus=1,
        micro_batch_size=task.micro_batch,
        sequence_length=task.length,
        lora=task.lora,
        precision="bf16",
        gradient_checkpointing=task.gradient_checkpointing,
    )
    found: dict[str, Any] = {"estimate_bytes": needed.gpu_bytes}
    for side in SIDES:
        for key in ("allocated_bytes", "device_bytes"):
            found[f"{side}_{key}"] = max(run[key] for run in runs if run["side"] == side)
    bench.print_table(
        ("peak GPU memory", "allocated, GiB", "on the device, GiB", "safemix estimate, GiB"),
        [
            [side]
            + [f"{found[f'{side}_{key}'] / GIB:.2f}" for key in ("allocated_bytes", "device_bytes")]
            + [f"{found['estimate_bytes'] / GIB:.2f}"]
            for side in SIDES
        ],
    )
    return found


if __name__ == "__main__":
    main()
