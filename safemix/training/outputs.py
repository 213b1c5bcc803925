"""What a run leaves behind, and how it is shown."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from safemix.settings import Settings
from safemix.tracking.curves import plot_curves
from safemix.tracking.summary import render, summarise

METRICS, CURVES = "metrics.jsonl", "curves.png"
_OWN = (METRICS, CURVES, "settings.yaml", "audit", "adapter", "model", "wandb")


def set_aside(output_dir: Path) -> None:
    """Move the results of an earlier run in this folder to `previous-N`: nothing is lost."""
    found = [output_dir / name for name in _OWN if (output_dir / name).exists()]
    found += sorted(output_dir.glob("checkpoint-*")) if output_dir.is_dir() else []
    if not found:
        return
    number = 1
    while (target := output_dir / f"previous-{number}").exists():
        number += 1
    target.mkdir()
    for path in found:
        path.rename(target / path.name)


def show(settings: Settings, output_dir: Path, wandb_dir: Path | None = None) -> None:
    """Draw the curves and print the summary table; called on rank 0."""
    metrics = output_dir / METRICS
    if not metrics.exists():
        return
    plot_curves(metrics, output_dir / CURVES)
    weights = output_dir / ("model" if settings.lora is False else "adapter")
    places = {
        "model" if settings.lora is False else "adapter": weights,
        "metrics": metrics,
        "curves": output_dir / CURVES,
    }
    if wandb_dir is not None:
        places["W&B run"] = wandb_dir
    Console().print(render(summarise(metrics), places))
