"""Are the study's bounds kept, by more prompts than a cell is asked?

A cell is asked 60 prompts of each set, and one of them is 1.7 points, nearly the bound of ASR.
This asks the models that `efficacy.py --keep-models` left in its `--work`, and the aligned one,
150 of each set, those of the cell among them, none of which a reading asks. Figures go to
`--results`, one file a model, and one that is there is not measured again.

    python benchmarks/efficacy_prompts.py --data DATA --work runs/efficacy --task piqa \
        --strategy autoif+aoa
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import bench
from efficacy_cells import HELD_BACK, SMALL, STRATEGIES, TASKS, Size
from efficacy_clusters import ClusterRate, cluster_rate
from efficacy_compare import Bound, bounds, print_lever_answers
from efficacy_figures import Pool, load_results, pick, pool_seeds
from efficacy_run import RunFailedError, Study, evaluate
from efficacy_utility import kept

from safemix.evaluate.prompt_sets import PromptSide, load_prompt_set

_HERE: Final = Path(__file__).resolve().parent
_DRESSES: Final = ("plain", "dressed", "styled")
HEAD: Final = (
    *("run", "seeds", "prompts"),
    *(f"{what} {dress}" for what in ("ASR", "refused") for dress in _DRESSES),
    *(f"rise of {what} {dress} [95 %]" for what in ("ASR", "refused") for dress in _DRESSES),
)


def measure(study: Study, model: Path, task: str, strategy: str, out: Path) -> dict[str, Any]:
    """What a model answers, in the form of the study's results; the task's rows are left out.

    Raises:
        RunFailedError: if `safemix eval` fails.
    """
    # The run and not its weights: it knows how it is to be asked.
    asked = model if model == study.start else model.parent
    found = evaluate(study, str(asked), task, strategy, out)
    return found | {"measures": [m for m in found["measures"] if m["side"] != "utility"]}


def asked_by_readings(study: Study) -> int:
    """How many of the prompts that are to be asked a reading of the runs asks too.

    `efficacy.py` holds back as many as this asks by default; files of an older work folder, or
    more prompts, may not.
    """
    found = 0
    sides: tuple[tuple[str, Sequence[str], PromptSide], ...] = (
        ("harmful", study.harmful, "safety"),
        ("lookalikes", study.lookalikes, "over_refusal"),
    )
    for name, specs, side in sides:
        path = study.data / f"probe_{name}.jsonl"
        if path.exists():
            lines = path.read_text("utf-8").split("\n")
            read = {json.loads(line)["prompt"] for line in lines if line}
            for spec in specs:
                asked = load_prompt_set(spec, side).sample(study.size.prompts)
                found += len(read & set(asked.prompts))
    return found


def print_table(pools: Sequence[Pool]) -> None:
    """Rates of each run, and how far each is above the aligned model's."""
    aligned = pick(pools, "aligned", 0.0)
    rows = []
    for pool in pools:
        rates = {(m, d): r for m in ("asr", "refused") for d, r in _rates(pool, m)}
        shown = [pool.first.variant or pool.label, str(pool.seeds)]
        shown.append(str(max((rate.prompts for rate in rates.values()), default=0)))
        own = {"plain": "plain", "dressed": pool.wrapped, "styled": "styled"}
        for metric in ("asr", "refused"):
            found = [rates.get((metric, own[dress])) for dress in _DRESSES]
            shown += ["" if rate is None else f"{100 * rate.value:.0f}" for rate in found]
        held: list[Bound | None] = [None] * 6 if pool is aligned else bounds(pool, aligned, None)
        shown += [_text(bound) for bound in held[:6]]
        rows.append(tuple(shown))
    bench.print_table(HEAD, rows)


def _rates(pool: Pool, metric: str) -> list[tuple[str, ClusterRate]]:
    side = {"asr": "safety", "refused": "over_refusal"}[metric]
    tallies = ((dress, pool.tallies(side, dress, metric)) for dress in pool.dresses)
    return [(dress, cluster_rate(found)) for dress, found in tallies]


def _text(bound: Bound | None) -> str:
    if bound is None:
        return ""
    return f"{bound}{' beyond' if bound.beyond else ''}"


def main() -> int:
    """Measure what is missing; print the table of the place, and differences over all places."""
    args = _arguments()
    size = replace(SMALL, prompts=args.prompts, utility=1)
    study = _study(args, size)
    args.results.mkdir(parents=True, exist_ok=True)
    models = list(kept(study.work, args.task, args.strategy))
    if args.only:
        models = [one for one in models if any(word in one[0] for word in args.only)]
    both = asked_by_readings(study) if models else 0
    if both:
        print(
            f"{both} of these prompts are in {study.data}/probe_*.jsonl, which the runs were "
            "steered by: ask fewer with --prompts, or run the study in another --work",
            file=sys.stderr,
        )
        return 1
    for name, cell, model in models:
        target = args.results / f"{name}.json"
        if target.exists():
            continue
        print(f"{name}: {args.prompts} prompts of each set", file=sys.stderr, flush=True)
        try:
            found = measure(study, model, args.task, args.strategy, study.work / "prompts" / name)
        except RunFailedError as error:
            print(f"{name}: failed, {error}", file=sys.stderr)
            return 1
        tree = {"machine": bench.machine(("torch", "transformers")), **cell, **found}
        bench.keep_json(target, tree | {"size": asdict(size)})
    pools = pool_seeds(load_results(args.results))
    here = [pool for pool in pools if pool.place == (args.task, args.strategy)]
    if not here:
        print(
            f"no model of {args.task} {args.strategy} in {args.work} and no figures in "
            f"{args.results}: run benchmarks/efficacy.py --keep-models first",
            file=sys.stderr,
        )
        return 1
    print_table(here)
    print_lever_answers(pools)
    return 0


def _study(args: argparse.Namespace, size: Size) -> Study:
    work = args.work.resolve()
    return Study(
        work=work,
        results=args.results.resolve(),
        harmful=(f"advbench={args.data / 'harmful_prompts' / 'advbench.csv'}:goal",),
        lookalikes=(f"xstest={work / 'data' / 'xstest_safe.jsonl'}",),
        size=size,
        processes=1,
        keep=True,
        model="",
        aligned=None,
        machine={},
    )


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description="the bounds, by more prompts")
    made.add_argument("--data", type=Path, required=True, metavar="DIR")
    made.add_argument("--work", type=Path, default=Path("runs/efficacy"), metavar="DIR")
    results = _HERE / "efficacy" / "prompts"
    made.add_argument("--results", type=Path, default=results, metavar="DIR")
    made.add_argument("--task", choices=TASKS, default="piqa")
    made.add_argument("--strategy", choices=STRATEGIES, default="autoif+aoa")
    made.add_argument("--prompts", type=int, default=HELD_BACK, metavar="N", help="of each set")
    made.add_argument("--only", nargs="+", metavar="TEXT", help="models whose name contains one")
    return made.parse_args()


if __name__ == "__main__":
    sys.exit(main())
