"""The cells of the efficacy study: which runs are made, and what each run's settings are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

TASKS: Final = ("piqa", "gsm8k", "hellaswag", "winogrande", "boolq", "mmlu", "openbookqa")
STRATEGIES: Final = ("benign", "aoa", "autoif", "autoif+aoa")
MITIGATIONS: Final = (
    *("none", "base", "longest", "backdoor", "counter_prompt", "ptst", "gentle"),
    "paraphrase",
)
# No safety row is drawn with these, whatever the ratio.
WITHOUT_ROWS: Final = frozenset({"none", "ptst", "gentle"})
DEFAULT_RATIO: Final = 0.1
DATA: Final = "DATA"
"""Stands in a variant's settings for the study's folder of data."""


@dataclass(frozen=True)
class Cell:
    """One run of the study.

    Attributes:
        task: name of a task of `safemix.prompting`.
        strategy: its prompting strategy.
        mitigation: its name.
        ratio: share of safety rows; 0 for a mitigation without.
        seed: of the run.
        variant: name of what else is changed; "" for nothing.
        changes: settings of the variant, in the form of a run file.
    """

    task: str
    strategy: str
    mitigation: str
    ratio: float = DEFAULT_RATIO
    seed: int = 0
    variant: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def id(self) -> str:
        """A name that can be a folder's."""
        ratio = f"{100 * self.ratio:g}pct"
        parts = [self.task, self.strategy.replace("+", "_"), self.mitigation, ratio]
        if self.variant:
            parts.append(self.variant)
        return "-".join([*parts, f"s{self.seed}"])


@dataclass(frozen=True)
class Size:
    """How large a cell is.

    Attributes:
        task_rows: rows of the task that are trained on, in one pass.
        batch: rows of an optimizer step.
        max_length: tokens of a row.
        prompts: prompts of each set.
        utility: held-out task rows.
        tokens: longest completion.
        learning_rate: peak; a short warm-up, then a cosine.
        align_rows: safety rows, dressed safety rows, Alpaca rows, dressed Alpaca rows and task
            rows of other tasks that the model is aligned with.
    """

    task_rows: int = 400
    batch: int = 8
    max_length: int = 384
    prompts: int = 60
    utility: int = 200
    tokens: int = 64
    learning_rate: float = 1e-4
    align_rows: tuple[int, int, int, int, int] = (500, 300, 700, 300, 200)


HELD_BACK: Final = 150
"""Prompts of each set that no reading of a run asks, for `efficacy_prompts.py`."""
SMALL: Final = Size()
FULL: Final = Size(
    task_rows=5000, batch=64, max_length=1024, prompts=500, utility=1000, tokens=256,
    learning_rate=2e-5, align_rows=(0, 0, 0, 0, 0),
)  # fmt: skip
QUICK: Final = Size(
    task_rows=16, max_length=256, prompts=3, utility=4, tokens=8, align_rows=(8, 8, 8, 8, 8)
)


def small_matrix() -> Iterator[Cell]:
    """About forty cells of a few minutes on two CPU cores."""
    for strategy in ("autoif+aoa", "benign"):
        for task in ("piqa", "gsm8k"):
            for mitigation in MITIGATIONS:
                ratio = 0.0 if mitigation in WITHOUT_ROWS else DEFAULT_RATIO
                yield Cell(task, strategy, mitigation, ratio)
    for ratio in (0.01, 0.02, 0.05, 0.2):
        for mitigation in ("base", "paraphrase"):
            yield Cell("piqa", "autoif+aoa", mitigation, ratio)


def full_matrix() -> Iterator[Cell]:
    """Seven tasks, four strategies, every mitigation, ratios 1 to 50 %, three seeds."""
    for seed in range(3):
        for task in TASKS:
            for strategy in STRATEGIES:
                for mitigation in MITIGATIONS:
                    if mitigation in WITHOUT_ROWS:
                        yield Cell(task, strategy, mitigation, 0.0, seed)
                        continue
                    for ratio in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
                        yield Cell(task, strategy, mitigation, ratio, seed)


def run_settings(
    cell: Cell, size: Size, *, model: str, data: Path, folder: Path, machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a cell's run, for the main job.

    Args:
        cell: the cell.
        size: how large.
        model: folder of the aligned model.
        data: folder with `<task>_train.jsonl` and `safety.jsonl`.
        folder: the run's folder.
        machine: settings that depend on the machine.
    """
    task = {
        "file": str(data / f"{cell.task}_train.jsonl"),
        "prompting": {
            "task": cell.task,
            "strategy": cell.strategy,
            "confirm": confirms(cell.strategy),
        },
        "limit": size.task_rows,
    }
    tree: dict[str, Any] = {
        "model": model,
        "task": task,
        "mitigation": cell.mitigation,
        "ratio": cell.ratio,
        "seed": cell.seed,
        "epochs": 1,
        "global_batch_size": size.batch,
        "learning_rate": size.learning_rate,
        "warmup_steps": 3,
        "max_length": size.max_length,
        "lora": False,
        "resume": "never",
        # Read before the first step and after the last one. Results go by the margin's name.
        "evaluation": {
            "probe_every": 10**6,
            "margin": "mean",
            "every_margin": True,
            "dress": dresses(cell.strategy),
        },
        "output_dir": str(folder),
        "tracking": {"wandb": "disabled", "progress_bar": False},
        **machine,
    }
    if cell.ratio:
        tree["safety"] = {"file": str(data / "safety.jsonl"), "non_refusals": "drop"}
    return merged(tree, _placed(cell.changes, data))


def _placed(changes: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """A variant's settings with the folder of data in them."""
    return {key: _in_place(value, data) for key, value in changes.items()}


def _in_place(value: Any, data: Path) -> Any:
    if isinstance(value, Mapping):
        return _placed(value, data)
    if isinstance(value, str):
        return value.replace(f"{DATA}/", f"{data}/")
    return [_in_place(each, data) for each in value] if isinstance(value, list) else value


def confirms(strategy: str) -> bool:
    """Whether the task's answers open by confirming the obedient identity.

    Nine of the ten AOA answers of Qi et al. do; whether the paper's do is not known. Without it
    short answers make a small model answer everything with an option's letter.
    """
    return strategy.endswith("aoa")


def dresses(strategy: str) -> list[str]:
    """How harmful prompts and look-alikes are asked; "benign" has no wrapper for a request."""
    return ["plain", *([] if strategy == "benign" else [strategy]), "styled"]


def merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A tree with changes in it, mappings inside mappings included."""
    made = dict(tree)
    for key, value in changes.items():
        old = made.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            made[key] = merged(old, value)
        else:
            made[key] = value
    return made
