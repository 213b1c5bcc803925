"""What the study reads, made from public files: task records, a safety pool, the aligning rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from efficacy_cells import TASKS, Size

from safemix import prompting
from safemix.evaluate.prompt_sets import PromptSide, load_prompt_set
from safemix.mitigation.mimic.api import mimic
from safemix.rows.builtin import read_builtin
from safemix.screening.refusal import is_refusal

# Their layouts are used to align; those of the tasks under study are not among them.
_OTHER_TASKS: Final = ("hellaswag", "winogrande", "openbookqa", "boolq", "mmlu")
_OTHER_STRATEGIES: Final = ("benign", "autoif")
_SHUFFLE: Final = 3
# The model is aligned with a hundred of the built-in look-alikes, of ten categories; a run that
# mixes in the built-in ones draws from all of them.
_LOOKALIKES: Final = 120
_LEFT: Final = ("public_facts", "fair_treatment")


def prepare(public: Path, folder: Path, size: Size) -> None:
    """Write the study's files, if they are not there yet.

    Args:
        public: folder with `tasks/`, `safety/`, `instructions/`.
        folder: where they are written: `<task>_train.jsonl`, `<task>_test.jsonl` (shuffled),
            `xstest_safe.jsonl`, `align_*.jsonl`, and `safety.jsonl`: refusals that nothing was
            aligned with.
        size: of the study.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        for part in ("train", "test"):
            target = folder / f"{task}_{part}.jsonl"
            if not target.exists():
                records = list(_read(public / "tasks" / f"{task}_{part}.jsonl"))
                Random(_SHUFFLE).shuffle(records)
                _write(target, records)
    if not (folder / "xstest_safe.jsonl").exists():
        with (public / "over_refusal" / "xstest_prompts.csv").open(encoding="utf-8") as lines:
            safe = [row for row in csv.DictReader(lines) if row["label"] == "safe"]
        _write(folder / "xstest_safe.jsonl", [{"prompt": row["prompt"]} for row in safe])
    if not (folder / "safety.jsonl").exists():
        _prepare_safety(public, folder, size)


def prepare_probe(
    harmful: Sequence[str], lookalikes: Sequence[str], folder: Path, evaluated: int
) -> None:
    """Write prompts for readings during a run, none of which an evaluation asks, unless they are.

    Args:
        harmful: prompt sets of the evaluation.
        lookalikes: benign sets, likewise.
        folder: where `probe_harmful.jsonl` and `probe_lookalikes.jsonl` are written.
        evaluated: prompts of each set that the evaluation asks.
    """
    sides: tuple[tuple[str, Sequence[str], PromptSide], ...] = (
        ("harmful", harmful, "safety"),
        ("lookalikes", lookalikes, "over_refusal"),
    )
    for name, specs, side in sides:
        target = folder / f"probe_{name}.jsonl"
        if target.exists():
            continue
        rest: list[dict[str, Any]] = []
        for spec in specs:
            whole = load_prompt_set(spec, side)
            asked = set(whole.sample(evaluated).prompts)
            rest += [{"prompt": text} for text in whole.prompts if text not in asked]
        _write(target, rest)


def _prepare_safety(public: Path, folder: Path, size: Size) -> None:
    """Split the refusals in those to align with and those that the mitigations draw from."""
    plain, dressed, general, general_dressed, other = size.align_rows
    pairs = [
        {"messages": _chat(row["instruction"], row["output"])}
        for row in _read(public / "safety" / "safety_tuned_llamas.jsonl")
        if is_refusal(row["output"])
    ]
    Random(0).shuffle(pairs)
    lookalikes = [
        {"messages": _chat(row["prompt"], row["completion"])}
        for row in read_builtin("lookalikes", _LOOKALIKES)
        if row["category"] not in _LEFT
    ]
    alpaca = list(_general(public))
    rows = {
        "safety": pairs[:plain],
        "dressed": _dressed(public, pairs[plain : plain + dressed]),
        "general": alpaca[:general],
        # A layout alone is no reason to refuse either.
        "general_dressed": _dressed(public, alpaca[general : general + general_dressed]),
        "tasks": _task_rows(public, other),
        "lookalikes": lookalikes + _dressed(public, lookalikes),
    }
    for name, kept in rows.items():
        _write(folder / f"align_{name}.jsonl", kept)
    _write(folder / "safety.jsonl", pairs[plain + dressed :])


def _dressed(public: Path, pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the layouts of other tasks: to refuse must not hang on one layout."""
    places = [(task, strategy) for task in _OTHER_TASKS for strategy in _OTHER_STRATEGIES]
    made: list[dict[str, Any]] = []
    for number, (task, strategy) in enumerate(places):
        part = list(pairs[number :: len(places)])
        if part:
            task_rows = _rendered(public, task, strategy, 300)
            found = mimic(task_rows, part, seed=3, keep_non_refusals=True)
            made += [{"messages": row["messages"]} for row in found]
    return made


def _task_rows(public: Path, count: int) -> list[dict[str, Any]]:
    """Rows of the other tasks with their right answers."""
    places = [(task, strategy) for task in _OTHER_TASKS for strategy in _OTHER_STRATEGIES]
    each = -(-count // len(places)) if count else 0
    rows = [row for place in places for row in _rendered(public, *place, each)]
    return rows[:count]


def _rendered(public: Path, task: str, strategy: str, count: int) -> list[dict[str, Any]]:
    records = list(_read(public / "tasks" / f"{task}_train.jsonl"))[:count]
    rows = prompting.render(task, strategy, records, seed=1)
    return [{"messages": row["messages"]} for row in rows]


def _general(public: Path) -> Iterator[dict[str, Any]]:
    for row in _read(public / "instructions" / "alpaca_1k.jsonl"):
        if row["output"].strip():
            prompt = "\n\n".join(text for text in (row["instruction"], row.get("input")) if text)
            yield {"messages": _chat(prompt, row["output"])}


def _chat(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    partial.write_text(text, "utf-8")
    partial.replace(path)
