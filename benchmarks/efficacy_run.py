"""Runs of the study: each is the main job under the real launcher, then `safemix eval`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from efficacy_cells import Cell, Size, confirms, dresses, run_settings

ROOT: Final = Path(__file__).resolve().parents[1]
CELL_FILE: Final = "cell.json"
"""What a cell is, in its folder."""
_BIN: Final = Path(sys.executable).parent
# Once each they leave the aligned model refusing half of XSTest.
_LOOKALIKE_PASSES: Final = 2


class RunFailedError(Exception):
    """A run or an evaluation that did not end with 0; the text says where its log is."""


@dataclass(frozen=True)
class Study:
    """Where the study works and what all its cells share.

    Attributes:
        work: folder for data, models and logs.
        results: folder for the figures of the cells, which is kept.
        harmful: prompt sets as `safemix eval` takes them.
        lookalikes: benign sets, likewise.
        size: of a cell.
        processes: of the launcher.
        keep: whether the tuned models stay when they are evaluated.
        model: that is aligned first.
        aligned: folder of an aligned model; None to align `model`.
        machine: settings that depend on the machine.
    """

    work: Path
    results: Path
    harmful: tuple[str, ...]
    lookalikes: tuple[str, ...]
    size: Size
    processes: int
    keep: bool
    model: str
    aligned: Path | None
    machine: Mapping[str, Any]

    @property
    def data(self) -> Path:
        """The prepared files."""
        return self.work / "data"

    @property
    def start(self) -> Path:
        """The model that every cell begins with."""
        return self.aligned or self.work / "aligned" / "model"


def align(study: Study) -> None:
    """Fine-tune the model to refuse, unless that is done."""
    if study.start.is_dir():
        return
    counts = {
        name: sum(1 for _ in (study.data / f"align_{name}.jsonl").open("rb"))
        for name in ("general", "safety", "dressed", "general_dressed", "lookalikes", "tasks")
    }
    counts["lookalikes"] *= _LOOKALIKE_PASSES
    total = sum(counts.values())

    def source(name: str) -> dict[str, Any]:
        file = str(study.data / f"align_{name}.jsonl")
        return {"file": file, "ratio": f"{counts[name]}/{total}"}

    tree = {
        "model": study.model,
        "task": {"file": str(study.data / "align_general.jsonl")},
        "safety": {"file": str(study.data / "align_safety.jsonl")},
        "ratio": f"{counts['safety']}/{total}",
        "sources": {name: source(name) for name in sorted(counts.keys() - {"general", "safety"})},
        "epochs": 1,
        "global_batch_size": study.size.batch,
        "learning_rate": 1e-4,
        "warmup_steps": 5,
        "max_length": study.size.max_length,
        "lora": False,
        "output_dir": str(study.work / "aligned"),
        "evaluation": {"probe_every": 0},
        "tracking": {"wandb": "disabled", "progress_bar": False},
        **study.machine,
    }
    _train(study, tree, study.work / "aligned.yaml")


def train_and_evaluate(study: Study, cell: Cell) -> dict[str, Any]:
    """One cell from settings to figures; its weights are deleted at the end, unless kept.

    Returns:
        The figures, as `figures` gives them, with the settings, the times in seconds and the
        last reading of the refusal margin.

    Raises:
        RunFailedError: if the run or the evaluation fails.
    """
    folder = study.work / "cells" / cell.id
    run = folder / "run"
    settings = run_settings(
        cell,
        study.size,
        model=str(study.start),
        data=study.data,
        folder=run,
        machine=study.machine,
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begin = time.perf_counter()
    _train(study, settings, folder / "run.yaml")
    trained = time.perf_counter()
    found = evaluate(study, str(run), cell.task, cell.strategy, folder / "eval")
    about = {**asdict(cell), "id": cell.id}
    (folder / CELL_FILE).write_text(json.dumps(about) + "\n", "utf-8")
    found |= {
        "cell": about,
        "size": asdict(study.size),
        "seconds": {
            "train": round(trained - begin, 1),
            "evaluate": round(time.perf_counter() - trained, 1),
        },
        **last_readings(run / "metrics.jsonl"),
    }
    for weights in () if study.keep else ("model", "adapter"):
        shutil.rmtree(run / weights, ignore_errors=True)
    for checkpoint in run.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return found


def evaluate(study: Study, model: str, task: str, strategy: str, out: Path) -> dict[str, Any]:
    """The four sides of a model, asked plain, dressed by the strategy and styled like the task.

    Raises:
        RunFailedError: if `safemix eval` fails.
    """
    size = study.size
    command = [
        *(sys.executable, "-m", "safemix.cli.app", "eval", "--model", model),
        *_repeated("--harmful", study.harmful),
        *_repeated("--lookalikes", study.lookalikes),
        *_repeated("--dress", dresses(strategy)),
        *("--task", str(study.data / f"{task}_test.jsonl"), "--task-name", task),
        *("--strategy", strategy, "--task-limit", str(size.utility)),
        *(["--confirm"] if confirms(strategy) else []),
        *("--limit", str(size.prompts), "--max-new-tokens", str(size.tokens)),
        *("--batch-size", "64", "--out", str(out), "--overwrite"),
    ]
    _call(command, out.with_name(f"{out.name}.log"))
    return figures(json.loads((out / "eval.json").read_text("utf-8")))


def figures(tree: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation without texts: what was counted, prompt by prompt, so that cells can be paired.

    Args:
        tree: of `eval.json`.
    """
    measures = []
    for measure in tree["measures"]:
        entry = {key: value for key, value in measure.items() if key != "items"}
        items = measure["items"]
        entry["counted"] = "".join(
            "?" if item["error"] is not None else "01"[item["counted"]] for item in items
        )
        measures.append(entry)
    return {"measures": measures, "settings": tree["settings"]}


def last_readings(metrics: Path) -> dict[str, Any]:
    """The last value of each refusal margin, and the mean shares of rows and trained tokens.

    In results `safety/margin/` is the mean of openers, also where the run itself goes by the odds.
    """
    lines = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    margins: dict[str, float] = {}
    shares: dict[str, list[float]] = {"safety/row_share": [], "safety/token_share": []}
    for line in lines:
        margins |= {
            _by_mean(key, line): value
            for key, value in line.items()
            if key.startswith("safety/margin") and value is not None
        }
        for name, values in shares.items():
            if line.get(name) is not None:
                values.append(line[name])
    means = {name: sum(v) / len(v) for name, v in shares.items() if v}
    return {"margins": margins, "shares": means, "steps": len(shares["safety/row_share"])}


def _train(study: Study, settings: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(settings), sort_keys=False), "utf-8")
    command = [
        *(str(_BIN / "deepspeed"), "--num_gpus", str(study.processes)),
        *("--master_port", str(_free_port()), str(ROOT / "launchers" / "train.py")),
        *("--config", str(path)),
    ]
    _call(command, path.with_suffix(".log"))


def _call(command: Sequence[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }
    with log.open("wb") as output:
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False
        )
    if done.returncode:
        last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        raise RunFailedError(f"exit code {done.returncode}, see {log}: {''.join(last)[:200]}")


def _repeated(option: str, values: Sequence[str]) -> list[str]:
    return [part for value in values for part in (option, value)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _by_mean(key: str, line: Mapping[str, Any]) -> str:
    """The name of a margin in the results, told by which other ways stand beside it."""
    margin, _, dress = key.rpartition("/")
    if f"{margin}_mean/{dress}" in line:
        return f"{margin}_odds/{dress}"
    return key.replace("_mean/", "/")
