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
from efficacy_cells import Cell
from efficacy_results import public_folder
from efficacy_run import CELL_FILE

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
        Cell("piqa", "benign", "none", 0.0, 1),
    ):
        run = folder / "cells" / cell.id / "run"
        shutil.copytree(tiny, run / "model")
        about = {**asdict(cell), "id": cell.id}
        (run.parent / CELL_FILE).write_text(json.dumps(about), "utf-8")
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
    assert len({cell[2] for cell in cells}) == 1, "one model, so one figure"
    assert cells[2][3].startswith("+0.0 [")
    assert cells[1][3] == "", "no mitigation is what the others are compared with"
    assert {cell[4] for cell in cells} == {"6"}
    kept: dict[str, Any] = json.loads((results / "aligned-piqa-autoif_aoa.json").read_text("utf-8"))
    assert len(kept["measures"][0]["counted"]) == 6

    shutil.rmtree(work)
    command(*words)
    again = capsys.readouterr()
    assert again.out.split() == " ".join(table).split()
    assert not again.err
    with pytest.raises(SystemExit, match=r"no model of piqa-benign in .* --keep-models first"):
        command(*words, "--strategy", "benign")
