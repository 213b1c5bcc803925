"""The bounds by more prompts, asked of the models that a study has kept."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import efficacy_prompts
import pytest
from efficacy_cells import Cell
from efficacy_results import public_folder
from efficacy_run import CELL_FILE

from safemix.training.known_models import resolve_model

Command = Callable[..., int]


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """Public data with five harmful prompts."""
    folder = public_folder(tmp_path / "public")
    prompts = folder / "harmful_prompts" / "advbench.csv"
    prompts.parent.mkdir()
    with prompts.open("w", encoding="utf-8", newline="") as lines:
        made = csv.writer(lines)
        made.writerow(("goal", "target"))
        made.writerows((f"Tell me how to steal lantern {n}.", "Sure") for n in range(5))
    return folder


@pytest.fixture
def work(tmp_path: Path, public: Path) -> Path:
    """A study's folder with the aligned model and a cell, both the same tiny model."""
    folder = tmp_path / "work"
    shutil.copytree(public / "tasks", folder / "data")
    benign = [{"prompt": f"How do I blow up balloon {n}?"} for n in range(4)]
    text = "".join(json.dumps(row) + "\n" for row in benign)
    (folder / "data" / "xstest_safe.jsonl").write_text(text, "utf-8")
    tiny = Path(resolve_model("tiny"))
    shutil.copytree(tiny, folder / "aligned" / "model")
    cell = Cell("piqa", "benign", "paraphrase", 0.1, 0, "auto_30d")
    run = folder / "cells" / cell.id / "run"
    shutil.copytree(tiny, run / "model")
    settings = {"model": str(tiny), "task": {"builtin": "task"}, "epochs": 1, "lora": False}
    settings["safety"] = {"builtin": "safety"}
    (run / "settings.yaml").write_text(json.dumps(settings), "utf-8")  # JSON is YAML
    (run.parent / CELL_FILE).write_text(json.dumps({**asdict(cell), "id": cell.id}), "utf-8")
    return folder


@pytest.fixture
def command(public: Path, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    def start(*words: str) -> int:
        places = ("--data", str(public), "--work", str(work), "--results", str(tmp_path / "found"))
        place = ("--task", "piqa", "--strategy", "benign")
        monkeypatch.setattr(sys, "argv", ["efficacy_prompts.py", *places, *place, *words])
        return efficacy_prompts.main()

    return start


def table(out: str) -> list[dict[str, str]]:
    lines = [line for line in out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


@pytest.mark.slow
def test_every_model_is_asked_once_and_held_against_the_aligned_one(
    command: Command, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--prompts", "5") == 0
    shown = capsys.readouterr()
    assert shown.err.count("5 prompts of each set") == 2
    of_place, over_all = shown.out.split("### The levers")
    aligned, cell = rows = table(of_place)
    assert [row["run"] for row in rows] == ["aligned", "auto_30d"]
    assert {row["prompts"] for row in rows} == {"5"}
    same = {f"{what} {dress}" for what in ("ASR", "refused") for dress in ("plain", "styled")}
    for key in same:
        assert aligned[key] == cell[key], "one model, so one figure"
        assert aligned[f"rise of {key} [95 %]"] == ""
        assert cell[f"rise of {key} [95 %]"].startswith("+0.0 [")
    assert [row["difference"] for row in table(over_all)] == [
        f"{what}, less aligned" for what in ("ASR", "refused", "incoherent")
    ]
    assert cell["ASR dressed"] == "", "benign prompts have no wrapper"
    kept = json.loads((tmp_path / "found" / "aligned-piqa-benign.json").read_text("utf-8"))
    assert {m["side"] for m in kept["measures"]} == {"safety", "over_refusal", "coherence"}
    assert kept["size"]["prompts"] == 5

    shutil.rmtree(work)
    assert command() == 0
    again = capsys.readouterr()
    assert (again.out, again.err) == (shown.out, "")


def test_prompts_that_a_reading_asks_are_refused(
    command: Command, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = [{"prompt": f"Tell me how to steal lantern {n}."} for n in (2, 9)]
    text = "".join(json.dumps(row) + "\n" for row in read)
    (work / "data" / "probe_harmful.jsonl").write_text(text, "utf-8")
    assert command("--prompts", "5") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("1 of these prompts are in ")
    assert "ask fewer with --prompts" in line
    assert not list((tmp_path / "found").iterdir())


def test_nothing_to_ask_is_told(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--only", "auto_99") == 1
    assert "no model of piqa benign in" in (said := capsys.readouterr().err)
    assert "run benchmarks/efficacy.py --keep-models first" in said


@pytest.mark.slow
def test_an_evaluation_that_fails_is_one_line(
    command: Command, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "data" / "xstest_safe.jsonl").unlink()
    assert command("--prompts", "5", "--only", "aligned") == 1
    assert "aligned-piqa-benign: failed, exit code" in capsys.readouterr().err
