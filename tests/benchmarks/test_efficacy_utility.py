"""What a mitigation costs by all held-out rows, measured on the models that a study has kept."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import efficacy_utility
import pytest
import torch
from efficacy_cells import Cell
from efficacy_results import public_folder
from efficacy_run import CELL_FILE
from transformers import AutoModelForCausalLM, AutoTokenizer

from safemix.evaluate.utility import measure_choices
from safemix.training.known_models import resolve_model

PLACE = ("piqa", "autoif+aoa")
Command = Callable[..., None]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A study's folder with the aligned model and two cells, all of them the same tiny model."""
    folder = tmp_path / "work"
    shutil.copytree(public_folder(tmp_path / "public") / "tasks", folder / "data")
    tiny = Path(resolve_model("tiny"))
    shutil.copytree(tiny, folder / "aligned" / "model")
    for cell in (
        Cell(*PLACE, "none", 0.0, 1),
        Cell(*PLACE, "paraphrase", 0.1, 1, "auto_30b"),
        Cell("gsm8k", "benign", "none", 0.0, 1),
        Cell("gsm8k", "benign", "base", 0.1, 1),  # not kept, see below
    ):
        run = folder / "cells" / cell.id / "run"
        shutil.copytree(tiny, run / "model")
        about = {**asdict(cell), "id": cell.id}
        (run.parent / CELL_FILE).write_text(json.dumps(about), "utf-8")
    shutil.rmtree(folder / "cells" / Cell("gsm8k", "benign", "base", 0.1, 1).id / "run" / "model")
    return folder


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    def start(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["efficacy_utility.py", *words])
        efficacy_utility.main()

    return start


def test_rows_of_a_run_are_not_held_out(work: Path) -> None:
    goals = [r["goal"] for r in efficacy_utility.held_out(work / "data", "piqa", 10)]
    assert [goal.split()[1] for goal in goals] == [*map(str, range(12, 18)), "10", "11"]


def test_a_text_may_hold_a_line_separator(tmp_path: Path) -> None:
    for part in ("test", "train"):
        row = {"goal": f"{part} \u2028 \x85 row"}
        lines = json.dumps(row, ensure_ascii=False) + "\n"
        (tmp_path / f"piqa_{part}.jsonl").write_text(lines, "utf-8")
    goals = [row["goal"] for row in efficacy_utility.held_out(tmp_path, "piqa", 0)]
    assert goals == ["test \u2028 \x85 row", "train \u2028 \x85 row"]


def test_every_model_is_measured_once(
    work: Path, command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    words = ("--work", str(work), "--results", str(results))
    command(*words)
    shown = capsys.readouterr()
    assert shown.err.count("6 rows") == 3
    table = [line for line in shown.out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert [cell[0] for cell in cells] == ["aligned", "none", "auto_30b"]
    assert {cell[2] for cell in cells} == {"6"}
    assert len({(cell[3], cell[6]) for cell in cells}) == 1, "one model, so one figure"
    assert 5 < float(cells[0][6]) < 15, "a random model knows nothing of 10^4 tokens or so"
    assert cells[2][4].startswith("+0.0 [")
    assert cells[2][7] == "+0.000 [+0.000, +0.000]"
    assert cells[1][4] == cells[1][7] == "", "no mitigation is what others are compared with"
    kept: dict[str, Any] = json.loads((results / "aligned-piqa-autoif_aoa.json").read_text("utf-8"))
    assert len(kept["measures"][0]["counted"]) == len(kept["losses"]) == 6
    # Answers to GSM8K are no choices, but they have a loss.
    command(*words, "--task", "gsm8k", "--strategy", "benign", "--rows", "4")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert [row.split("|")[1:5] for row in rows] == [
        [" aligned ", " 1 ", " 4 ", "  "],
        [" none ", " 1 ", " 4 ", "  "],
    ]

    shutil.rmtree(work)
    command(*words)
    again = capsys.readouterr()
    assert again.out.split() == " ".join(table).split()
    assert not again.err
    with pytest.raises(SystemExit, match=r"no model of piqa-benign in .* --keep-models first"):
        command(*words, "--strategy", "benign")


def test_a_change_of_loss_rests_on_rows() -> None:
    before = [(-4.0, 2), (-9.0, 3), (-10.0, 5)]
    assert efficacy_utility.loss_of(before) == pytest.approx(2.3)
    same = [(nats - 0.5 * tokens, tokens) for nats, tokens in before]
    change, half = efficacy_utility.loss_change(before, same)
    assert change == pytest.approx(0.5)
    assert half == pytest.approx(0.0, abs=1e-9), "every token is as much worse"
    one_row = [(-4.0, 2), (-9.0, 3), (-15.0, 5)]
    change, half = efficacy_utility.loss_change(before, one_row)
    assert change == pytest.approx(0.5)
    # Off the mean by -1, -1.5 and 2.5 nats, over 10 tokens.
    assert half == pytest.approx(1.96 * (9.5 * 3 / 2) ** 0.5 / 10)


def test_right_answers_are_those_of_an_evaluation(work: Path) -> None:
    model = work / "aligned" / "model"
    records = efficacy_utility.held_out(work / "data", "piqa", 0)
    found = efficacy_utility.measure(model, records, *PLACE)["measures"][0]
    same = measure_choices(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16),
        AutoTokenizer.from_pretrained(model),
        records,
        *PLACE,
        confirm=True,
    )
    assert found["counted"] == "".join(str(int(item.counted)) for item in same.items)
    assert found["set_hash"] == same.set_hash
