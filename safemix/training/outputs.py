"""What a run leaves behind, and how it is shown."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from rich.console import Console

from safemix.hosts.resume import write_json
from safemix.settings import Settings
from safemix.tracking.curves import plot_curves
from safemix.tracking.metrics import drop_after
from safemix.tracking.summary import render, summarise

METRICS, CURVES, SETTINGS, AUDIT = "metrics.jsonl", "curves.png", "settings.yaml", "audit"
FINISHED = "finished.json"
_OWN = (METRICS, CURVES, SETTINGS, FINISHED, AUDIT, "adapter", "model", "wandb")
# What a checkpoint holds beside the weights and the tokenizer.
_TRAINING_STATE = re.compile(
    r".*\.(pt|pth|py)|latest.*|safemix.*|global_step.*|trainer_state\.json|\..*"
)


def weights_folder(settings: Settings) -> Path:
    """Where the result lies: an adapter, or a whole model."""
    return Path(settings.output_dir) / ("model" if settings.lora is False else "adapter")


def set_aside(output_dir: Path) -> Path | None:
    """Move the results of an earlier run in this folder to `previous-N`: nothing is lost.

    Returns:
        Where they went, or None if there were none.
    """
    found = [output_dir / name for name in _OWN if (output_dir / name).exists()]
    if output_dir.is_dir():
        found += sorted(output_dir.glob("checkpoint-*")) + sorted(output_dir.glob("unused-*"))
    if {path.name for path in found} <= {SETTINGS}:
        return None  # a run that stopped before it trained leaves no result
    number = 1
    while (target := output_dir / f"previous-{number}").exists():
        number += 1
    target.mkdir()
    for path in found:
        path.rename(target / path.name)
    return target


def cut_audit(output_dir: Path, steps: int, ranks: int) -> None:
    """Remove what ranks that no longer exist have written after `steps` optimizer steps.

    The ranks of this run cut their own files; without this, a resume on fewer ranks would leave
    rows of undone steps in the audit.
    """
    for path in (output_dir / AUDIT).glob("rank*.jsonl"):
        number = path.stem.removeprefix("rank")
        if number.isdigit() and int(number) >= ranks:
            drop_after(path, steps - 1)


def finished_at(output_dir: Path) -> int | None:
    """The step at which this folder's result was saved; None if there is no result."""
    try:
        step = json.loads((output_dir / FINISHED).read_text("utf-8"))["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


def publish(partial: Path, target: Path, step: int) -> None:
    """Put a whole result in its place and note that the run is finished; on one rank."""
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    write_json(target.parent / FINISHED, {"step": step, "result": target.name})


def copy_weights(checkpoint: Path, partial: Path) -> None:
    """The result out of the last checkpoint, for a run that was stopped between the two."""
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for path in checkpoint.iterdir():
        if path.is_file() and not _TRAINING_STATE.fullmatch(path.name):
            shutil.copy2(path, partial / path.name)


def show(settings: Settings, output_dir: Path, wandb_dir: Path | None = None) -> None:
    """Draw the curves and print the summary table; called on rank 0."""
    metrics = output_dir / METRICS
    if not metrics.exists():
        return
    plot_curves(metrics, output_dir / CURVES)
    weights = weights_folder(settings)
    places = {weights.name: weights, "metrics": metrics, "curves": output_dir / CURVES}
    if wandb_dir is not None:
        places["W&B run"] = wandb_dir
    Console().print(render(summarise(metrics), places))
