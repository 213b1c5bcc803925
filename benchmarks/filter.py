"""How good are the offline rules? Harmful requests found, harmless rows flagged, refusals judged.

Two parts. The offline guard of `safemix filter`, on public sets of harmful prompts against rows
of the seven tasks, ordinary instructions and XSTest's safe prompts. And the refusal rules, on the
human labels of XSTest's completions (full compliance against full refusal).

The public sets are read from SAFEMIX_DATA (default ../shared/data) and are not part of safemix.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench import machine, parser, print_header, print_table, write_json

from safemix.rows.builtin import read_builtin
from safemix.screening.guards import OfflineGuard
from safemix.screening.refusal import is_refusal

DATA = Path(os.environ.get("SAFEMIX_DATA") or Path(__file__).parents[2] / "shared" / "data")
DEVELOPED, HELD_OUT = "developed on", "held out"
JUDGED = {"mistralinstruct": DEVELOPED, "gpt4": HELD_OUT, "llama2orig": HELD_OUT}


def main() -> None:
    """Print both tables."""
    arguments = parser(__doc__ or "").parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"no public data in {DATA}: set SAFEMIX_DATA to its folder")
    facts = machine(())
    print_header("Offline filter and refusal rules", facts)
    limit = 50 if arguments.quick else None
    filtered = filter_table(limit)
    judged = judge_table(limit)
    write_json(arguments.json, facts, {"filter": filtered, "refusal": judged})


def filter_table(limit: int | None) -> list[dict[str, Any]]:
    """Rates of the offline guard on every set, and precision and recall over them."""
    results = []
    for name, kind, state, texts in prompt_sets():
        rows = list(texts)[:limit]
        start = time.perf_counter()
        flagged = sum(map(is_flagged, rows))
        took = time.perf_counter() - start
        results.append(
            {
                "set": name,
                "kind": kind,
                "state": state,
                "rows": len(rows),
                "flagged": flagged,
                "rows_per_s": round(len(rows) / took),
            }
        )
    print_table(
        ("set", "what", "rules were", "rows", "flagged", "share", "rows/s"),
        [
            (
                r["set"],
                r["kind"],
                r["state"],
                f"{r['rows']:,}",
                f"{r['flagged']:,}",
                f"{100 * r['flagged'] / r['rows']:.2f} %",
                f"{r['rows_per_s']:,}",
            )
            for r in results
        ],
    )
    print_overall(results)
    return results


def print_overall(results: list[dict[str, Any]]) -> None:
    """Precision and recall for all sets, and for those that the rules never saw."""
    lines = []
    for name, states in (("all sets", (DEVELOPED, HELD_OUT)), ("held out", (HELD_OUT,))):
        chosen = [r for r in results if r["state"] in states]
        # Sets that mix harmful and harmless questions tell nothing of either.
        harmful = [r for r in chosen if r["kind"] == "harmful"]
        task = [r for r in chosen if r["kind"] == "task rows"]
        safe = [r for r in chosen if r["kind"] == "safe look-alikes"]
        ordinary = [r for r in chosen if r["kind"] == "ordinary instructions"]
        hits, misses = total(harmful, "flagged"), total([*task, *safe, *ordinary], "flagged")
        lines.append(
            (
                name,
                share(hits, hits + misses),
                share(hits, total(harmful, "rows")),
                share(total(task, "flagged"), total(task, "rows")),
                share(total(ordinary, "flagged"), total(ordinary, "rows")),
                share(total(safe, "flagged"), total(safe, "rows")),
            )
        )
    head = (
        "sets",
        "precision",
        "recall",
        "flagged: task rows",
        "flagged: ordinary instructions",
        "flagged: safe look-alikes",
    )
    print_table(head, lines)


def judge_table(limit: int | None) -> list[dict[str, Any]]:
    """Balanced accuracy of the refusal rules on each model's labelled completions."""
    results = []
    for name, state in JUDGED.items():
        rows = table(f"judge/xstest_completions_{name}.csv")[:limit]
        by_label = {
            label: [is_refusal(r["completion"]) for r in rows if r["final_label"][0] == label]
            for label in "123"
        }
        complied, refused, partly = (by_label[label] for label in "123")
        found = sum(refused) / max(1, len(refused))
        spared = 1 - sum(complied) / max(1, len(complied))
        results.append(
            {
                "model": name,
                "state": state,
                "refusals": len(refused),
                "found": found,
                "compliances": len(complied),
                "spared": spared,
                "balanced": (found + spared) / 2,
                "partial": len(partly),
                "partial_as_refusal": sum(partly),
            }
        )
    print_table(
        ("model", "rules were", "refusals found", "compliances spared", "balanced", "partial"),
        [
            (
                r["model"],
                r["state"],
                f"{r['found']:.3f} of {r['refusals']}",
                f"{r['spared']:.3f} of {r['compliances']}",
                f"{r['balanced']:.3f}",
                f"{r['partial_as_refusal']} of {r['partial']} as refusal",
            )
            for r in results
        ],
    )
    average = sum(r["balanced"] for r in results) / len(results)
    print(f"Balanced accuracy on average: {average:.3f}\n")
    return results


def prompt_sets() -> Iterable[tuple[str, str, str, Iterable[str]]]:
    """(name, kind, developed on or held out, texts) of every set."""
    harmful = "harmful_prompts/"
    yield "AdvBench", "harmful", DEVELOPED, column(table(harmful + "advbench.csv"), "goal")
    builtin = (row["prompt"] for row in read_builtin("safety"))
    yield "built-in safety prompts", "harmful", DEVELOPED, builtin
    yield "Q-Harm", "mixed questions", DEVELOPED, column(lines(harmful + "q_harm.jsonl"), "prompt")
    pool = (r for r in lines("safety/safety_tuned_llamas.jsonl") if is_refusal(r["output"]))
    texts = column(pool, "instruction")
    yield "Safety-Tuned LLaMAs, refused", "mixed questions", DEVELOPED, texts
    for name, file in (
        ("I-MaliciousInstructions", "i_malicious_instructions.jsonl"),
        ("I-CoNa", "i_cona.jsonl"),
    ):
        yield name, "harmful", HELD_OUT, column(lines(harmful + file), "prompt")
    strong = table(harmful + "strongreject.csv")
    yield "StrongREJECT", "harmful", HELD_OUT, column(strong, "forbidden_prompt")
    xstest = table("over_refusal/xstest_prompts.csv")
    for label, kind in (("unsafe", "harmful"), ("safe", "safe look-alikes")):
        texts = column((r for r in xstest if r["label"] == label), "prompt")
        yield f"XSTest {label}", kind, HELD_OUT, texts
    lookalikes = list(read_builtin("lookalikes"))
    first = [r for r in lookalikes[:120] if r["category"] not in ("public_facts", "fair_treatment")]
    rest = [row for row in lookalikes if row not in first]
    name = "built-in look-alikes"
    yield f"{name}, first 100", "safe look-alikes", DEVELOPED, column(first, "prompt")
    yield f"{name}, the others", "safe look-alikes", HELD_OUT, column(rest, "prompt")
    for name, prompt in TASKS.items():
        for split, state in (("train", DEVELOPED), ("test", HELD_OUT)):
            texts = map(prompt, lines(f"tasks/{name}_{split}.jsonl"))
            yield f"{name} {split}", "task rows", state, texts
    alpaca = lines("instructions/alpaca_1k.jsonl")
    texts = (f"{r['instruction']}\n{r['input']}".strip() for r in alpaca)
    yield "Alpaca", "ordinary instructions", DEVELOPED, texts
    mild = lines("instructions/i_alpaca.jsonl")
    yield "I-Alpaca", "ordinary instructions", HELD_OUT, column(mild, next(iter(mild[0])))


def is_flagged(text: str) -> bool:
    """Whether the offline guard would quarantine a prompt by itself."""
    guard = OfflineGuard()
    return guard.score([[{"role": "user", "content": text}]])[0].score >= guard.threshold


def table(file: str) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    with (DATA / file).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def lines(file: str) -> list[dict[str, Any]]:
    """Rows of a JSON lines file."""
    with (DATA / file).open(encoding="utf-8", newline="\n") as stream:
        return [json.loads(line) for line in stream if line.strip()]


def column(rows: Iterable[dict[str, Any]], name: str) -> list[str]:
    """One column of some rows."""
    return [row[name] for row in rows]


def lettered(choices: Iterable[str]) -> str:
    """Choices, one a line, with their letters."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", choices, strict=False))


TASKS: dict[str, Callable[[dict[str, Any]], str]] = {
    "boolq": lambda r: f"{r['passage']}\nQuestion: {r['question']}?",
    "gsm8k": lambda r: r["question"],
    "hellaswag": lambda r: f"{r['ctx']}\n{lettered(r['endings'])}",
    "mmlu": lambda r: f"{r['question']}\n{lettered(r['choices'])}",
    "openbookqa": lambda r: r["Complete Question"],
    "piqa": lambda r: f"{r['goal']}\n{lettered((r['sol1'], r['sol2']))}",
    "winogrande": lambda r: f"{r['sentence']}\n{lettered((r['option1'], r['option2']))}",
}


def total(results: Iterable[dict[str, Any]], key: str) -> int:
    """Sum of one figure over some sets."""
    return sum(r[key] for r in results)


def share(part: int, whole: int) -> str:
    """A share in percent, or a dash."""
    return f"{100 * part / whole:.2f} % ({part:,}/{whole:,})" if whole else "-"


if __name__ == "__main__":
    main()
