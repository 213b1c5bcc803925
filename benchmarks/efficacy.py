"""Does mixing in safety rows keep an aligned model's refusals, and at what cost?

Aligns a small model, fine-tunes it on a task by the main job for each cell of a matrix (task x
prompting strategy x mitigation x ratio), and evaluates all four sides of every result. A cell
that is done is not run again: stop it at any time and start the same command.

    python benchmarks/efficacy.py --data DATA                 # the small matrix, on two CPU cores
    python benchmarks/efficacy.py --data DATA --matrix full   # seven tasks, on GPUs
    python benchmarks/efficacy.py --report                    # tables and pictures again
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import keep_json, machine
from efficacy_cells import FULL, HELD_BACK, QUICK, SMALL, Cell, Size, full_matrix, small_matrix
from efficacy_run import RunFailedError, Study, align, evaluate, train_and_evaluate
from efficacy_variants import VARIANTS, variant_cells

_HERE = Path(__file__).resolve().parent
_PART = "every Nth cell, from the Ith on: for N processes side by side, each on cores of its own"
_SEEDS = "of the runs, in place of the matrix's own"
_KEEP = "leave the tuned models, for efficacy_utility.py and efficacy_prompts.py"
_UNMITIGATED = "results whose runs without a mitigation are compared with, where there is none"
_PACKAGES = ("torch", "deepspeed", "transformers", "safemix")


def main() -> int:
    """Run what is missing, then write the report."""
    args = _arguments()
    try:
        failed = 0 if args.report else _run(args)
    except RunFailedError as error:  # without the aligned model there is nothing to compare
        print(f"the study cannot begin: {error}", file=sys.stderr)
        return 1
    if args.no_report:
        return int(failed > 0)
    from efficacy_report import write_report

    write_report(args.results, args.pictures, args.unmitigated)
    return int(failed > 0)


def _run(args: Namespace) -> int:
    from efficacy_data import prepare, prepare_probe

    study = _study(args)
    study.results.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    part, parts = args.part
    if part > 1 and not study.start.is_dir():
        raise RunFailedError(f"{study.start} is not there: let --part 1/{parts} make it first")
    prepare(args.data, study.data, study.size)
    asked = max(study.size.prompts, HELD_BACK)
    prepare_probe(study.harmful, study.lookalikes, study.data, asked)
    align(study)
    cells = _cells(args)
    if part == 1:
        _baselines(study, cells)
    cells = cells[part - 1 :: parts]
    todo = [cell for cell in cells if not _done(study, cell.id)]
    print(f"{len(cells)} cells, {len(cells) - len(todo)} done, {len(todo)} to do", flush=True)
    failed = 0
    for number, cell in enumerate(todo):
        minutes = (time.perf_counter() - begin) / 60
        if args.budget is not None and minutes > args.budget:
            print(f"stopped after {minutes:.0f} minutes with {len(todo) - number} cells to do")
            break
        failed += not _one(study, cell)
    return failed


def _done(study: Study, name: str) -> bool:
    """Whether a cell or baseline has its figures.

    Raises:
        SystemExit: if they are of another size: the folder belongs to another study.
    """
    path = _result(study, name)
    if not path.exists():
        return False
    size = json.loads(path.read_text("utf-8"))["size"]
    if size != json.loads(json.dumps(asdict(study.size))):
        raise SystemExit(f"{path} is of a study of another size: give another --results")
    return True


def _one(study: Study, cell: Cell) -> bool:
    """Run a cell and keep its figures; says how it went."""
    begin = time.perf_counter()
    try:
        found = train_and_evaluate(study, cell)
    except RunFailedError as error:
        print(f"{cell.id}: failed, {error}", file=sys.stderr, flush=True)
        return False
    _keep(study, cell.id, found)
    print(f"{cell.id}: {_line(found)}, {time.perf_counter() - begin:.0f} s", flush=True)
    return True


def _baselines(study: Study, cells: Iterable[Cell]) -> None:
    """The model before and after aligning, asked as each task and strategy will be."""
    places = dict.fromkeys((cell.task, cell.strategy) for cell in cells)
    for task, strategy in places:
        for name, model in (("stock", study.model), ("aligned", str(study.start))):
            label = f"{name}-{task}-{strategy.replace('+', '_')}"
            if _done(study, label):
                continue
            out = study.work / "baselines" / label
            found = evaluate(study, model, task, strategy, out)
            found |= {"baseline": name, "task": task, "strategy": strategy}
            _keep(study, label, found | {"size": asdict(study.size)})
            print(f"{label}: {_line(found)}", flush=True)


def _line(found: dict[str, Any]) -> str:
    """The rates of a result in one line."""
    shown = []
    for measure in found["measures"]:
        if measure["metric"] in ("asr", "refused", "accuracy", "number_match"):
            value = measure["rate"]["value"]
            text = "none" if value is None else f"{100 * value:.0f} %"
            shown.append(f"{measure['metric']} {measure['name']} {measure['dress']} {text}")
    return ", ".join(shown)


def _keep(study: Study, name: str, found: dict[str, Any]) -> None:
    tree = {"machine": machine(_PACKAGES), **found}
    keep_json(_result(study, name), tree)


def _result(study: Study, name: str) -> Path:
    return study.results / f"{name}.json"


def _cells(args: Namespace) -> list[Cell]:
    cells = list(full_matrix() if args.matrix == "full" else small_matrix())
    if args.variants:
        cells = list(variant_cells(args.variants))
    if args.seeds:
        cells = list(dict.fromkeys(replace(c, seed=s) for s in args.seeds for c in cells))
    if args.only:
        cells = [cell for cell in cells if any(word in cell.id for word in args.only)]
    return cells[:2] if args.quick else cells


def _study(args: Namespace) -> Study:
    size: Size = QUICK if args.quick else FULL if args.matrix == "full" else SMALL
    machine_settings: dict[str, Any] = {"micro_batch_size": args.micro_batch, "ds_config": "zero2"}
    if args.device == "cpu":
        machine_settings |= {"device": "cpu", "precision": "bf16"}
    harmful = args.harmful or [f"advbench={args.data / 'harmful_prompts' / 'advbench.csv'}:goal"]
    lookalikes = args.lookalikes or [f"xstest={args.work.resolve() / 'data' / 'xstest_safe.jsonl'}"]
    return Study(
        work=args.work.resolve(),
        results=args.results.resolve(),
        harmful=tuple(harmful),
        lookalikes=tuple(lookalikes),
        size=size,
        processes=args.processes,
        keep=args.keep_models,
        model=args.model,
        aligned=args.aligned,
        machine=machine_settings,
    )


def _part(text: str) -> tuple[int, int]:
    first, _, last = text.partition("/")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last)):
        raise ArgumentTypeError(f"{text!r}: give I/N with I from 1 to N, for example 1/2")
    return int(first), int(last)


def _arguments(given: Sequence[str] | None = None) -> Namespace:
    made = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    data = os.environ.get("SAFEMIX_DATA")
    read = "public data: tasks/, safety/, instructions/, harmful_prompts/, over_refusal/"
    made.add_argument("--data", type=Path, default=data, metavar="DIR", help=read)
    made.add_argument("--work", type=Path, default=Path("runs/efficacy"), metavar="DIR")
    made.add_argument("--results", type=Path, default=_HERE / "efficacy", metavar="DIR")
    made.add_argument("--unmitigated", type=Path, metavar="DIR", help=_UNMITIGATED)
    made.add_argument("--pictures", type=Path, default=_HERE, metavar="DIR")
    made.add_argument("--matrix", choices=("small", "full"), default="small")
    made.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="levers, not matrix")
    made.add_argument("--only", nargs="*", metavar="TEXT", help="cells whose name holds a text")
    made.add_argument("--seeds", type=int, nargs="+", metavar="N", help=_SEEDS)
    made.add_argument("--keep-models", action="store_true", help=_KEEP)
    made.add_argument("--part", type=_part, default=(1, 1), metavar="I/N", help=_PART)
    made.add_argument("--budget", type=float, metavar="MIN", help="begin no cell after so long")
    made.add_argument("--model", default="smollm2", help="aligned first")
    made.add_argument("--aligned", type=Path, metavar="DIR", help="a model that is aligned already")
    made.add_argument("--harmful", nargs="*", metavar="SET")
    made.add_argument("--lookalikes", nargs="*", metavar="SET")
    made.add_argument("--device", choices=("cpu", "auto"), default="cpu")
    made.add_argument("--processes", type=int, default=1)
    made.add_argument("--micro-batch", type=int, default=4)
    made.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    made.add_argument("--report", action="store_true", help="run nothing, write the report again")
    made.add_argument("--no-report", action="store_true", help="leave the report for later")
    args = made.parse_args(given)
    if args.data is None and not args.report:
        made.error("give --data, or SAFEMIX_DATA: the folder with the public data")
    if args.matrix == "full" and args.aligned is None and not args.report:
        made.error("--matrix full starts from an aligned model: give its folder as --aligned")
    if args.aligned is not None and not args.aligned.is_dir():
        made.error(f"--aligned {args.aligned} is no folder: give that of an aligned model")
    args.data = Path(args.data) if args.data else None
    return args


if __name__ == "__main__":
    sys.exit(main())
