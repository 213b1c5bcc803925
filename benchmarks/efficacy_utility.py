"""What does a mitigation cost on the task, by every row that was not trained on?

The study measures 200 held-out rows a run, which cannot tell two models that both guess. This asks
the models that `efficacy.py --keep-models` left in its `--work`, and the aligned one, all held-out
rows of a task with choices: its test file, and its training file after the rows of the run. Figures
go to `--results`, one file a model, and one that is there is not measured again.

    python benchmarks/efficacy_utility.py --work runs/efficacy --task piqa --strategy autoif+aoa
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import bench
from efficacy_cells import SMALL, STRATEGIES, TASKS, confirms
from efficacy_clusters import compare
from efficacy_compare import utility
from efficacy_figures import Pool, load_results, pool_seeds
from efficacy_run import CELL_FILE, figures

from safemix.evaluate.results import Evaluation

_HERE: Final = Path(__file__).resolve().parent
# Answers of GSM8K are generated.
CHOICES: Final = tuple(name for name in TASKS if name != "gsm8k")
HEAD: Final = ("run", "seeds", "right [95 %]", "against no mitigation [95 %]", "rows", "p")


def held_out(data: Path, task: str, trained: int) -> list[dict[str, Any]]:
    """Records of a task that no run of the study is tuned on.

    Args:
        data: the study's folder of data.
        task: its name.
        trained: records at the beginning of its training file that runs are tuned on.
    """
    test, train = (_records(data / f"{task}_{part}.jsonl") for part in ("test", "train"))
    return test + train[trained:]


def kept(work: Path, task: str, strategy: str) -> Iterator[tuple[str, dict[str, Any], Path]]:
    """Name, cell and weights of each model that is there, the aligned one first."""
    aligned = work / "aligned" / "model"
    place = f"{task}-{strategy.replace('+', '_')}"
    if aligned.is_dir():
        baseline = {"baseline": "aligned", "task": task, "strategy": strategy}
        yield f"aligned-{place}", baseline, aligned
    for model in sorted(work.glob(f"cells/{place}-*/run/model")):
        cell = model.parents[1] / CELL_FILE
        yield cell.parent.name, {"cell": json.loads(cell.read_text("utf-8"))}, model


def measure(model: Path, records: Sequence[Any], task: str, strategy: str) -> dict[str, Any]:
    """Accuracy of a model over records, in the form of the study's results."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from safemix.evaluate.utility import measure_choices

    found = measure_choices(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16),
        AutoTokenizer.from_pretrained(model),
        records,
        task,
        strategy,
        confirm=confirms(strategy),
    )
    return figures(Evaluation(str(model), (found,)).to_json())


def print_table(pools: Sequence[Pool]) -> None:
    """Right answers of each run, and how many points it lies from no mitigation."""
    none = next((pool for pool in pools if pool.label == "none"), None)
    rows = []
    for pool in pools:
        name = pool.first.variant or pool.label
        own: list[object] = [name, pool.seeds, pool.utility()]
        if none is None or pool is none:
            rows.append((*own, "", pool.utility().prompts, ""))
            continue
        change = compare([(utility(none), utility(pool))])
        rows.append((*own, change, change.prompts, f"{change.p_value:.2g}"))
    bench.print_table(HEAD, [tuple(map(str, row)) for row in rows])


def main() -> None:
    """Measure what is missing and print the table."""
    args = _arguments()
    place = f"{args.task}-{args.strategy.replace('+', '_')}"
    args.results.mkdir(parents=True, exist_ok=True)
    models = list(kept(args.work, args.task, args.strategy))
    todo = [one for one in models if not (args.results / f"{one[0]}.json").exists()]
    records = held_out(args.work / "data", args.task, SMALL.task_rows) if todo else []
    for name, cell, model in todo:
        print(f"{name}: {len(records)} rows", file=sys.stderr, flush=True)
        found = measure(model, records, args.task, args.strategy)
        tree = {"machine": bench.machine(("torch", "transformers")), **cell, **found}
        bench.keep_json(args.results / f"{name}.json", tree | {"size": asdict(SMALL)})
    pools = pool_seeds(load_results(args.results))
    here = [p for p in pools if p.place == (args.task, args.strategy)]
    if not here:
        sys.exit(
            f"no model of {place} in {args.work} and no figures in {args.results}: run "
            "benchmarks/efficacy.py --keep-models first"
        )
    print_table(here)


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description="what a mitigation costs, by all held-out rows")
    made.add_argument("--work", type=Path, default=Path("runs/efficacy"), metavar="DIR")
    results = _HERE / "efficacy" / "utility"
    made.add_argument("--results", type=Path, default=results, metavar="DIR")
    made.add_argument("--task", choices=CHOICES, default="piqa")
    made.add_argument("--strategy", choices=STRATEGIES, default="autoif+aoa")
    return made.parse_args()


if __name__ == "__main__":
    main()
