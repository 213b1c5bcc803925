"""The study from its command line to its results, with made-up runs in the place of real ones."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import efficacy
import efficacy_data
import efficacy_run
import pytest
import yaml
from efficacy_cells import DEFAULT_RATIO, QUICK, SMALL, Size, small_matrix
from efficacy_results import evaluation
from efficacy_variants import VARIANTS

ALIGNING = ("general", "safety", "dressed", "general_dressed", "lookalikes", "tasks")
PLACES = ("piqa-autoif_aoa", "piqa-benign", "gsm8k-autoif_aoa", "gsm8k-benign")
Study = Callable[..., int]


class Runs:
    """Stands for the launcher and `safemix eval`: leaves what they leave, and keeps count.

    Attributes:
        trained: output folders of the runs.
        evaluated: models that were evaluated.
        fails: text in the name of a run that ends with an error.
    """

    def __init__(self) -> None:
        self.trained: list[Path] = []
        self.evaluated: list[Path] = []
        self.fails = "nothing at all"

    def __call__(self, command: Sequence[str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("what it printed\nsafemix: error: out of memory\n", "utf-8")
        if self.fails in str(log):
            raise efficacy_run.RunFailedError(f"exit code 1, see {log}: out of memory")
        self._evaluate(command) if "eval" in command else self._train(command)

    def _train(self, command: Sequence[str]) -> None:
        tree = yaml.safe_load(Path(command[-1]).read_text("utf-8"))
        folder = Path(tree["output_dir"])
        for name in ("model", "checkpoint-50"):
            (folder / name).mkdir(parents=True)
        line = {"step": 50, "safety/margin/plain": 0.5, "safety/row_share": 0.125}
        (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
        self.trained.append(folder)

    def _evaluate(self, command: Sequence[str]) -> None:
        given = dict(pairwise(command))
        out = Path(given["--out"])
        out.mkdir(parents=True)
        sides = {"asr": "0100", "refused": "0010", "incoherent": "0000"}
        tree = evaluation(given["--strategy"], sides, "1101").to_json()
        (out / "eval.json").write_text(json.dumps(tree), "utf-8")
        self.evaluated.append(Path(given["--model"]))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    found = Runs()
    monkeypatch.setattr(efficacy_run, "_call", found)
    return found


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Starts the command in a folder of its own; returns its exit code."""

    def prepared(public: Path, folder: Path, size: Size) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ALIGNING:
            (folder / f"align_{name}.jsonl").write_text("{}\n{}\n", "utf-8")

    def start(*words: str) -> int:
        places = {"data": "public", "work": "work", "results": "results", "pictures": "pictures"}
        options = [part for k, v in places.items() for part in (f"--{k}", str(tmp_path / v))]
        (tmp_path / "pictures").mkdir(exist_ok=True)
        monkeypatch.setattr(sys, "argv", ["efficacy.py", *options, *words])
        return efficacy.main()

    monkeypatch.setattr(efficacy_data, "prepare", prepared)
    monkeypatch.setattr(efficacy_data, "prepare_probe", lambda *given: None)
    return start


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.json")}


def test_parts_together_make_every_cell_once(study: Study, runs: Runs, tmp_path: Path) -> None:
    for part in ("1/3", "2/3", "3/3"):
        assert study("--no-report", "--part", part) == 0
    made = [folder.parent.name for folder in runs.trained[1:]]  # the first is the aligned model
    assert len(made) == 40
    assert set(made) == {cell.id for cell in small_matrix()}
    places = {(cell.task, cell.strategy.replace("+", "_")) for cell in small_matrix()}
    baselines = {f"{name}-{task}-{s}" for name in ("stock", "aligned") for task, s in places}
    assert names(tmp_path / "results") == set(made) | baselines
    assert len(runs.evaluated) == 40 + 8
    assert runs.trained[0] == tmp_path / "work" / "aligned"


def test_a_part_that_is_not_the_first_waits_for_the_aligned_model(
    study: Study, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study("--no-report", "--part", "2/2") == 1
    said = capsys.readouterr().err.strip()
    assert "let --part 1/2 make it first" in said
    assert "\n" not in said
    assert not runs.trained


def test_what_is_done_is_not_run_again(study: Study, runs: Runs, tmp_path: Path) -> None:
    words = ("--no-report", "--only", "gsm8k-benign-base", "piqa-benign-none")
    assert study(*words) == 0
    kept = {path: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    assert len(kept) == 2 + 4
    assert study(*words) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "results").iterdir()} == kept
    assert len(runs.trained) == 1 + 2


def test_a_result_holds_its_cell_and_its_weights_are_gone(
    study: Study, runs: Runs, tmp_path: Path
) -> None:
    assert study("--no-report", "--only", "gsm8k-benign-base") == 0
    [path] = (tmp_path / "results").glob("gsm8k*.json")
    tree = json.loads(path.read_text("utf-8"))
    cell = {"task": "gsm8k", "strategy": "benign", "mitigation": "base", "ratio": DEFAULT_RATIO}
    assert cell.items() <= tree["cell"].items()
    assert tree["cell"]["id"] == path.stem
    assert tree["margins"] == {"safety/margin/plain": 0.5}
    assert tree["size"]["prompts"] == SMALL.prompts
    assert set(tree["seconds"]) == {"train", "evaluate"}
    assert tree["machine"]["cores"] >= 1
    run = tmp_path / "work" / "cells" / path.stem / "run"
    assert [one.name for one in run.iterdir()] == ["metrics.jsonl"]


def test_seeds_and_models_that_are_kept(study: Study, runs: Runs, tmp_path: Path) -> None:
    words = ("--no-report", "--keep-models", "--seeds", "1", "2", "--only", "gsm8k-benign-base")
    assert study(*words) == 0
    cells = {path.stem for path in (tmp_path / "results").glob("gsm8k*.json")}
    assert cells == {"gsm8k-benign-base-10pct-s1", "gsm8k-benign-base-10pct-s2"}
    for name in cells:
        folder = tmp_path / "work" / "cells" / name
        assert (folder / "run" / "model").is_dir()
        assert json.loads((folder / "cell.json").read_text("utf-8"))["id"] == name
        assert yaml.safe_load((folder / "run.yaml").read_text("utf-8"))["seed"] == int(name[-1])


def test_a_cell_that_fails_is_named_and_the_others_go_on(
    study: Study, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.fails = "piqa-benign-longest"
    assert study("--no-report", "--only", "piqa-benign") == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("piqa-benign-longest-10pct-s0: failed, exit code 1, see ")
    assert len([name for name in names(tmp_path / "results") if name.endswith("-s0")]) == 7
    runs.fails = "nothing at all"
    assert study("--no-report", "--only", "piqa-benign") == 0
    assert "piqa-benign-longest-10pct-s0" in names(tmp_path / "results")


def test_without_the_aligned_model_there_is_one_line(
    study: Study, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.fails = "aligned"
    assert study("--no-report") == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("the study cannot begin: exit code 1, see ")
    assert "\n" not in said


@pytest.mark.parametrize("name", ["piqa-benign-none-0pct-s0", "stock-piqa-benign"])
def test_results_of_another_size_are_refused(
    study: Study, runs: Runs, tmp_path: Path, name: str
) -> None:
    assert study("--no-report", "--only", "piqa-benign-none") == 0
    path = tmp_path / "results" / f"{name}.json"
    tree = json.loads(path.read_text("utf-8"))
    tree["size"]["prompts"] += 1
    path.write_text(json.dumps(tree), "utf-8")
    with pytest.raises(SystemExit, match="is of a study of another size: give another --results"):
        study("--no-report", "--only", "piqa-benign-none")
    assert len(runs.trained) == 2


def test_quick_is_two_cells_and_ends_with_a_report(
    study: Study, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study("--quick") == 0
    text = capsys.readouterr().out
    assert "2 cells, 0 done, 2 to do" in text
    assert "### piqa, autoif+aoa" in text
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        *("efficacy_asr.png", "efficacy_tradeoff.png"),
    }
    tree = yaml.safe_load((runs.trained[1].parent / "run.yaml").read_text("utf-8"))
    assert tree["task"]["limit"] == QUICK.task_rows


def test_a_budget_begins_no_more_cells(
    study: Study, runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study("--no-report", "--budget", "0") == 0
    assert "stopped after 0 minutes with 40 cells to do" in capsys.readouterr().out
    assert len(runs.trained) == 1


def test_variants_go_in_the_place_of_the_matrix(study: Study, runs: Runs, tmp_path: Path) -> None:
    assert study("--no-report", "--variants", "bare", "default") == 0
    cells = {name for name in names(tmp_path / "results") if name.endswith("-s0")}
    variants = ("bare", "default")
    assert cells == {f"{p}-paraphrase-10pct-{v}-s0" for p in PLACES for v in variants}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--part", "3/2", "--data", "d"], "argument --part: '3/2': give I/N with I from 1 to N"),
        (["--part", "0/2", "--data", "d"], "argument --part: '0/2': give I/N"),
        (["--part", "2", "--data", "d"], "argument --part: '2': give I/N"),
        ([], "give --data, or SAFEMIX_DATA: the folder with the public data"),
        (["--data", "d", "--matrix", "full"], "starts from an aligned model: give its folder as"),
        (["--data", "d", "--aligned", "nowhere"], "--aligned nowhere is no folder: give that of"),
        (["--data", "d", "--variants", "bear"], "argument --variants: invalid choice: 'bear'"),
        (["--data", "d", "--matrix", "huge"], "argument --matrix: invalid choice: 'huge'"),
    ],
)
def test_a_wrong_option_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAFEMIX_DATA", raising=False)
    with pytest.raises(SystemExit) as stopped:
        efficacy._arguments(words)
    assert stopped.value.code == 2
    usage, _, error = capsys.readouterr().err.partition("error: ")
    assert usage.startswith("usage: ")
    assert said in error
    assert error.count("\n") == 1


def test_options_that_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEMIX_DATA", str(tmp_path))
    args = efficacy._arguments(["--part", "2/4", "--variants", *VARIANTS])
    assert (args.part, args.data, args.variants) == ((2, 4), tmp_path, list(VARIANTS))
    full = efficacy._arguments(["--matrix", "full", "--aligned", str(tmp_path)])
    assert len(efficacy._cells(full)) == 2772
    assert efficacy._study(full).start == tmp_path


def test_a_command_that_ends_badly_is_told_with_its_last_line(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run.log"
    script = "import os, sys; print(os.environ['PYTHONPATH']); sys.exit('no room left')"
    with pytest.raises(efficacy_run.RunFailedError) as failed:
        efficacy_run._call([sys.executable, "-c", script], log)
    assert str(failed.value) == f"exit code 1, see {log}: no room left"
    first = log.read_text("utf-8").splitlines()[0]
    assert str(efficacy_run.ROOT) in first.split(os.pathsep)
