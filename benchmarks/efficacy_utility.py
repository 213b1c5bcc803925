"""What does a mitigation cost on the task, by rows that were not trained on?

The study measures 200 held-out rows a run by right answers, which cannot tell two models that both
guess. This asks the models that `efficacy.py --keep-models` left in its `--work`, and the aligned
one, all held-out rows of a task: its test file, and its training file after the rows of the run.
It counts right answers where the task has choices, and takes the loss of the right answer, which
says what a run has learned long before a model of this size gets one right. Figures go to
`--results`, one file a model, and one that is there is not measured again.

    python benchmarks/efficacy_utility.py --work runs/efficacy --task piqa --strategy autoif+aoa
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import bench
from efficacy_cells import SMALL, STRATEGIES, TASKS, confirms
from efficacy_clusters import compare
from efficacy_compare import utility
from efficacy_figures import Pool, load_results, pool_seeds
from efficacy_run import CELL_FILE, figures

from safemix.evaluate.results import Evaluation, Item, Measure
from safemix.evaluate.utility_rows import Question, chats, digest, of_records
from safemix.prompting import render

if TYPE_CHECKING:
    from safemix.evaluate.loglik import AnswerScore

_HERE: Final = Path(__file__).resolve().parent
HEAD: Final = (
    *("run", "seeds", "rows", "right [95 %]", "points from no mitigation [95 %]", "p"),
    *("loss, nats a token", "from no mitigation [95 %]"),
)
# Log-probability of a row's right answer, in nats, and its tokens.
Loss = tuple[float, int]


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
    for cell in sorted(work.glob(f"cells/{place}-*/{CELL_FILE}")):
        model = cell.parent / "run" / "model"
        if model.is_dir():
            yield cell.parent.name, {"cell": json.loads(cell.read_text("utf-8"))}, model


def measure(folder: Path, records: Sequence[Any], task: str, strategy: str) -> dict[str, Any]:
    """Right answers and losses over records, in the form of the study's results.

    Returns:
        As `figures` gives it, and `losses`: a `Loss` for each record.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from safemix.evaluate.loglik import answer_scores

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    tokenizer, confirm = AutoTokenizer.from_pretrained(folder), confirms(strategy)
    questions: list[Question] = []
    if task != "gsm8k":  # the one whose answers are no choices
        questions = of_records(task, strategy, records, confirm=confirm)
    asked = [{"messages": chat} for question in questions for chat in chats(question, None)]
    asked = asked or [*render(task, strategy, records, confirm=confirm)]
    scores = answer_scores(model, tokenizer, asked)
    right, found = _right(questions, scores, task, strategy) if questions else (scores, [])
    tree = figures(Evaluation(str(folder), tuple(found)).to_json())
    return {**tree, "losses": [(round(one.log_prob, 4), one.tokens) for one in right]}


def _right(
    questions: Sequence[Question], scores: Sequence[AnswerScore], task: str, strategy: str
) -> tuple[list[AnswerScore], list[Measure]]:
    """Scores of the right answers, and how often they were likeliest, as in `measure_choices`."""
    each, right, items = iter(scores), [], []
    for number, question in enumerate(questions):
        own = [next(each) for _ in question.answers]
        gold = own.pop(question.gold)
        right.append(gold)
        likeliest = gold.log_prob > max(one.log_prob for one in own)
        items.append(Item(f"{task}/{strategy}/{number}", "", "", likeliest))
    named = digest([[*q.prompt, *q.answers, q.gold] for q in questions])
    how = ("likeliest choice", "log-likelihood", named)
    return right, [Measure("utility", task, strategy, "accuracy", tuple(items), *how)]


def loss_of(losses: Sequence[Loss]) -> float:
    """Mean loss of a token, in nats."""
    return -sum(nats for nats, _ in losses) / sum(tokens for _, tokens in losses)


def loss_change(before: Sequence[Loss], after: Sequence[Loss]) -> tuple[float, float]:
    """Difference of two models' losses on the same rows, and half of its 95 % interval.

    A ratio of sums over rows (Cochran 1977, chapter 2), so that tokens of one row hang together.
    """
    change = loss_of(after) - loss_of(before)
    off = [one[0] - two[0] - change * one[1] for one, two in zip(before, after, strict=True)]
    spread = sum(each * each for each in off) * len(off) / max(1, len(off) - 1)
    return change, 1.96 * math.sqrt(spread) / sum(tokens for _, tokens in before)


def print_table(pools: Sequence[Pool]) -> None:
    """What each run got right, its loss, and how far both lie from no mitigation."""
    none = next((pool for pool in pools if pool.label == "none"), None)
    rows = []
    for pool in pools:
        losses = _losses(pool)
        shown = [pool.first.variant or pool.label, str(pool.seeds), str(len(losses) // pool.seeds)]
        counted, other = bool(utility(pool)), none is not None and pool is not none
        shown.append(str(pool.utility()) if counted else "")
        if none is not None and other and counted:
            change = compare([(utility(none), utility(pool))])
            shown += [str(change), f"{change.p_value:.2g}"]
        else:
            shown += ["", ""]
        shown.append(f"{loss_of(losses):.3f}")
        shown.append(_loss_text(none, pool) if none is not None and other else "")
        rows.append(tuple(shown))
    bench.print_table(HEAD, rows)


def main() -> None:
    """Measure what is missing and print the table."""
    args = _arguments()
    place = f"{args.task}-{args.strategy.replace('+', '_')}"
    args.results.mkdir(parents=True, exist_ok=True)
    models = list(kept(args.work, args.task, args.strategy))
    todo = [one for one in models if not (args.results / f"{one[0]}.json").exists()]
    records = held_out(args.work / "data", args.task, SMALL.task_rows) if todo else []
    for name, cell, model in todo:
        asked = records[: args.rows]
        print(f"{name}: {len(asked)} rows", file=sys.stderr, flush=True)
        found = measure(model, asked, args.task, args.strategy)
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


def _losses(pool: Pool) -> list[Loss]:
    """Of all seeds, one after the other."""
    return [(nats, tokens) for run in pool.runs for nats, tokens in run.tree["losses"]]


def _loss_text(none: Pool, pool: Pool) -> str:
    """Difference of the losses, each seed of one against the same rows of the other's mean."""
    before, after = _mean_losses(none), _mean_losses(pool)
    if [tokens for _, tokens in before] != [tokens for _, tokens in after]:
        return "other rows"
    change, half = loss_change(before, after)
    return f"{change:+.3f} [{change - half:+.3f}, {change + half:+.3f}]"


def _mean_losses(pool: Pool) -> list[Loss]:
    """Of each row, the mean over the seeds."""
    runs = [run.tree["losses"] for run in pool.runs]
    return [
        (sum(nats for nats, _ in same) / len(same), same[0][1]) for same in zip(*runs, strict=True)
    ]


def _records(path: Path) -> list[dict[str, Any]]:
    # Not str.splitlines, which also splits at characters that may stand in a text.
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _arguments() -> argparse.Namespace:
    made = argparse.ArgumentParser(description="what a mitigation costs, by held-out rows")
    made.add_argument("--work", type=Path, default=Path("runs/efficacy"), metavar="DIR")
    results = _HERE / "efficacy" / "utility"
    made.add_argument("--results", type=Path, default=results, metavar="DIR")
    made.add_argument("--task", choices=TASKS, default="piqa")
    made.add_argument("--strategy", choices=STRATEGIES, default="autoif+aoa")
    made.add_argument("--rows", type=int, metavar="N", help="the first ones only; unset: all")
    return made.parse_args()


if __name__ == "__main__":
    main()
