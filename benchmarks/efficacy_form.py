"""Have the study's runs learned the form of the task's answers?

A small model gets few answers right before or after tuning, so the share of right ones says little
of what a mitigation costs. What so short a tuning does teach is the form of the rows. This counts,
of the answers to held-out task prompts, those that open as the confirmed AOA rows do, and those
that have GSM8K's line of the final answer. It reads what `efficacy.py` leaves in its `--work`:

    python benchmarks/efficacy_form.py --work runs/efficacy
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import bench

from safemix.evaluate.results import Rate
from safemix.prompting.protocol_text import load

HEAD: Final = ("run", "opens as the rows do", "line of the final answer")
_FINAL: Final = re.compile(r"^####\s*-?[\d.,]+\s*$", re.MULTILINE)


def form_of(answers: Sequence[str]) -> tuple[Rate, Rate]:
    """How many answers open by the confirmation of AOA rows, and have a line such as "#### 42"."""
    opening = load("aoa_confirmation").text.strip()
    opened = sum(answer.lstrip().startswith(opening) for answer in answers)
    final = sum(_FINAL.search(answer) is not None for answer in answers)
    return Rate(opened, len(answers)), Rate(final, len(answers))


def generated(work: Path) -> Iterator[tuple[str, list[str]]]:
    """Runs and baselines of a study whose task is answered by generation, with those answers."""
    found = (*work.glob("baselines/*/eval.json"), *work.glob("cells/*/eval/eval.json"))
    for path in sorted(found):
        folder = path.parent.parent if path.parent.name == "eval" else path.parent
        for measure in json.loads(path.read_text("utf-8"))["measures"]:
            if measure["side"] != "utility" or measure["metric"] == "accuracy":
                continue
            answers = [item["completion"] for item in measure["items"] if item["error"] is None]
            yield folder.name, answers


def main() -> None:
    """Read the folder and print the table."""
    parser = argparse.ArgumentParser(description="form of the answers to held-out task prompts")
    parser.add_argument("--work", type=Path, default=Path("runs/efficacy"))
    work = parser.parse_args().work
    rows = [(name, *map(str, form_of(answers))) for name, answers in generated(work)]
    if not rows:
        parser.error(
            f"{work} holds no evaluation of a task that is answered by generation: give the --work "
            "of a benchmarks/efficacy.py that has run cells on GSM8K"
        )
    bench.print_table(HEAD, rows)


if __name__ == "__main__":
    main()
