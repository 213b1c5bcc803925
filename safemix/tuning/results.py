"""What a sweep leaves in its folder: the table, the pictures, the report, and the run to use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from safemix.settings import ScheduleSettings, parse_settings
from safemix.tuning.choose import Recommendation, recommend
from safemix.tuning.front import pareto
from safemix.tuning.points import RATIO, run_tree
from safemix.tuning.records import TrialRecord
from safemix.tuning.settings import SweepSettings

BEST: Final = "best.yaml"
CHOICE: Final = "recommendation.json"


def write_results(sweep: SweepSettings, records: Sequence[TrialRecord]) -> Recommendation:
    """Write `trials.csv`, the pictures, `report.html`, and `best.yaml` where a trial is chosen.

    It may be called at any time; what is there of each trial goes in. A `best.yaml` of an earlier
    time that no longer holds is removed.

    Raises:
        OSError: if the folder cannot be written.
    """
    from safemix.tuning.report.html import write_html
    from safemix.tuning.report.plots import draw_by_ratio, draw_curves, draw_front
    from safemix.tuning.report.trials_csv import write_csv

    folder = Path(sweep.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    made, front = recommend(records, sweep.bounds), pareto(records)
    best = made.record
    (folder / BEST).unlink(missing_ok=True)
    if best is not None:
        write_best(folder / BEST, sweep, best)
    _write(folder / CHOICE, _choice(made))
    write_csv(folder / "trials.csv", records)
    draw_front(folder / "front.png", records, front, best, sweep.bounds)
    draw_by_ratio(folder / "ratios.png", records, best, sweep.bounds)
    draw_curves(folder / "curves.png", records, best)
    pictures = {
        "Safety against utility": folder / "front.png",
        "By ratio": folder / "ratios.png",
        "While training": folder / "curves.png",
    }
    write_html(
        folder / "report.html",
        sweep.to_tree(),
        records,
        front,
        recommended=best,
        why=made.why,
        pictures=pictures,
    )
    return made


def write_best(path: Path, sweep: SweepSettings, best: TrialRecord) -> None:
    """The run file that draws the rows of a trial again, from the first step to the last.

    A ratio that was set while the trial ran, by population-based training or a controller, is
    written as the steps it held from, and the run's length in steps; a schedule of the run's own
    stays as it is.
    """
    tree = run_tree(sweep, best.point, output_dir=str(Path(sweep.output_dir) / "best"))
    own = parse_settings(tree, best.name).ratio
    if len(best.ratios) > 1 and not isinstance(own, ScheduleSettings):
        # What was drawn is known as shares of all rows, whatever the run's ratio is of.
        tree |= {RATIO: {"schedule": "piecewise", "points": dict(best.ratios)}, "ratio_of": "rows"}
        tree.pop("epochs", None)
        tree["max_steps"] = best.max_steps
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    _write(path, f"# {best.name} of the sweep {sweep.name}\n{text}")


def _choice(made: Recommendation) -> str:
    """The recommendation for a program to read."""
    tree: dict[str, Any] = {
        "trial": made.record.name if made.record else None,
        "point": dict(made.record.point) if made.record else None,
        "ratio": made.record.ratio if made.record else None,
        "why": made.why,
        "within_bounds": [record.name for record in made.feasible],
        "nearest": made.nearest.name if made.nearest else None,
        "shortfall": made.shortfall,
        "prompts_needed": made.prompts_needed,
    }
    return json.dumps(tree, indent=1) + "\n"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)
