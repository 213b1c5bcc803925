"""What a run leaves behind, and how it is shown."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from safemix.errors import DataError
from safemix.evaluate.results import Evaluation, read_evaluation
from safemix.hosts.resume import write_json
from safemix.mitigation.inference import INFERENCE_FILE
from safemix.mitigation.interface import Mitigation
from safemix.mitigation.secret import SECRET_FILE, write_secret_file
from safemix.settings import Settings
from safemix.tracking.curves import plot_curves
from safemix.tracking.metrics import drop_after
from safemix.tracking.summary import Summary, render, summarise
from safemix.training.evaluation_rates import evaluation_rates

METRICS, CURVES, SETTINGS, AUDIT = "metrics.jsonl", "curves.png", "settings.yaml", "audit"
FINISHED, NOTES, EVALUATIONS = "finished.json", "notes.txt", "evaluations"
# What is written before training begins.
_FIRST = (SETTINGS, NOTES, INFERENCE_FILE, SECRET_FILE)
_OWN = (METRICS, CURVES, FINISHED, AUDIT, EVALUATIONS, "adapter", "model", "wandb", *_FIRST)
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
    if {path.name for path in found} <= set(_FIRST):
        return None  # a run that stopped before it trained leaves no result
    number = 1
    while (target := output_dir / f"previous-{number}").exists():
        number += 1
    target.mkdir()
    for path in found:
        path.rename(target / path.name)
    return target


def keep_evaluation(output_dir: Path, step: int, found: Evaluation) -> None:
    """Write an evaluation of the run, whole or not at all; called on rank 0."""
    path = evaluation_file(output_dir, step)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"step": step, **found.to_json(completions=False)})


def evaluation_file(output_dir: Path, step: int) -> Path:
    """Where the evaluation of a step lies."""
    return output_dir / EVALUATIONS / f"step-{step:06d}.json"


def kept_evaluation(output_dir: Path, step: int) -> Evaluation | None:
    """The evaluation of a step; None if it is not there or damaged."""
    try:
        return read_evaluation(evaluation_file(output_dir, step).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, DataError):
        return None


def before(output_dir: Path, step: int) -> Evaluation | None:
    """The last evaluation before a step; None if there is none."""
    names = (path.stem.removeprefix("step-") for path in (output_dir / EVALUATIONS).glob("step-*"))
    steps = [int(name) for name in names if name.isdigit() and int(name) < step]
    return kept_evaluation(output_dir, max(steps)) if steps else None


def write_first(
    output_dir: Path,
    settings: Settings,
    mitigation: Mitigation,
    secret: str | None,
    notes: Sequence[str],
) -> None:
    """Write what is known before training: settings, notes, and what holds at inference.

    Args:
        output_dir: the run's folder.
        settings: as they were given; they never hold the secret.
        mitigation: of the run.
        secret: its secret prompt; kept in a file of its own that others cannot read.
        notes: what was found and done while the rows were prepared, a line each.
    """
    settings.save(output_dir / SETTINGS)
    (output_dir / NOTES).write_text("".join(f"{note}\n" for note in notes), "utf-8")
    inference = mitigation.at_inference()
    write_json(output_dir / INFERENCE_FILE, inference.to_json())
    if secret is not None and inference.secret_file is not None:
        write_secret_file(output_dir / inference.secret_file, secret)
    else:
        # Of a run in this folder that stopped before it trained.
        (output_dir / SECRET_FILE).unlink(missing_ok=True)


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
    summary = summarise(metrics)
    Console().print(render(summary, places, _counted(output_dir, summary)))


def _counted(output_dir: Path, summary: Summary) -> dict[tuple[str, int], str]:
    """Rates of the evaluations that the summary shows, with count and interval."""
    found: dict[tuple[str, int], str] = {}
    for step in {step for steps in summary.read_at.values() for step in steps}:
        evaluation = kept_evaluation(output_dir, step)
        rates = evaluation_rates(evaluation) if evaluation is not None else {}
        found |= {(name, step): str(rate) for name, rate in rates.items()}
    return found
