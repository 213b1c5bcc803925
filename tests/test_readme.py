"""What the README shows is run here."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from safemix.evaluate.plan import open_plan
from safemix.rows.builtin import read_builtin
from safemix.settings import load_settings
from safemix.settings_controller import ControllerSettings
from safemix.settings_evaluation import EvaluationSettings

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The tiny model and its tokenizer."""
    from safemix.training.models import load_model, load_tokenizer, resolve_model

    monkeypatch.setenv("SAFEMIX_CACHE", str(tmp_path))
    path = resolve_model("tiny")
    settings = load_settings(_settings(tmp_path, "model: tiny\nlora: false\nds_config: null\n"))
    return load_model(settings, path), load_tokenizer(path)


def test_the_loop_of_your_own(tiny: tuple[Any, Any]) -> None:
    code, _ = blocks("python")
    model, tokenizer = tiny
    before = [p.clone() for p in model.parameters()]
    row = {"prompt": "How many?", "completion": "Two of them."}
    names: dict[str, Any] = {
        "task_rows": [dict(row) for _ in range(90)],
        "safety_rows": [{"prompt": "Do harm.", "completion": "No, I will not."}] * 7,
        "tokenizer": tokenizer,
        "model": model,
        "optimizer": torch.optim.AdamW(model.parameters(), lr=1e-3),
        "epochs": 2,
    }
    exec(code, names)  # noqa: S102 - our own README
    guard, plan = names["guard"], names["plan"]
    assert guard.step == 2 * plan.steps_per_epoch == 4
    assert plan.consumed(guard.step)["safety"] == round(0.05 * 64 * 4)
    moved = zip(before, model.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in moved)


def test_measuring_from_python(tiny: tuple[Any, Any]) -> None:
    _, code = blocks("python")
    model, tokenizer = tiny
    names: dict[str, Any] = {
        "model": model,
        "tokenizer": tokenizer,
        "task_rows": list(read_builtin("task", 40)),
        "steps": 1,
    }
    # The test is to be quick: fewer and shorter answers, fewer prompts of the probe.
    for old, new in (("limit=20, max_new_tokens=64", "limit=2, max_new_tokens=4"), ("(32)", "(2)")):
        assert old in code
        code = code.replace(old, new)
    exec(code, names)  # noqa: S102 - our own README
    assert not names["verdict"].complied
    assert {measure.side for measure in names["found"].measures} == {
        "safety", "over_refusal", "coherence",
    }  # fmt: skip
    assert set(names["margins"]) == {"safety/margin/plain", "safety/margin/styled"}


def test_the_commands_of_the_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option of each command, without loading a model; the first one writes its rows."""
    from safemix.cli import eval_run
    from safemix.cli.app import app

    jobs: list[eval_run.EvalJob] = []

    def keep(job: eval_run.EvalJob) -> int:
        jobs.append(job)
        return 0

    monkeypatch.setattr(eval_run, "evaluate", keep)
    monkeypatch.chdir(tmp_path)
    (first, gate) = [text for text in blocks("bash") if "safemix eval" in text]
    program = re.search(r'python -c "(.*?)" > held_out.jsonl', first, flags=re.DOTALL)
    assert program is not None
    with contextlib.redirect_stdout(io.StringIO()) as rows:
        exec(program[1], {})  # noqa: S102 - our own README
    (tmp_path / "held_out.jsonl").write_text(rows.getvalue(), "utf-8")
    for text in (first, gate):
        command = text[text.index("safemix eval") :].replace("\\\n", " ")
        done = CliRunner().invoke(app, shlex.split(command)[1:])
        assert done.exit_code == 0, done.output
    for job in jobs:
        eval_run._check(job)
        assert len(open_plan(job.settings).task.rows) == 6  # type: ignore[union-attr]
    assert [job.rule.asked for job in jobs] == [False, True]


def test_the_tables_of_defaults() -> None:
    """Keys and defaults that the README shows are those of the settings."""
    shown = _rows_after("| `evaluation:` | default | |")
    fields = EvaluationSettings.model_fields
    assert {name for names, _ in shown for name in names} == set(fields)
    for names, default in shown:
        for name in names:
            assert default == _written(fields[name].default), name
    controller = ControllerSettings(controller="target", min_margin=0.5)
    shown = _rows_after("| key | default | |")
    named = {name for names, _ in shown for name in names}
    assert named == set(ControllerSettings.model_fields) - {"controller"}
    by_name = {name: default for names, default in shown for name in names}
    assert by_name["start"] == f"{float(controller.first)}, {controller.min}, {controller.max}"
    for name in ("of", "gain", "hysteresis", "every", "patience"):
        assert by_name[name] == _written(ControllerSettings.model_fields[name].default), name


def _rows_after(head: str) -> list[tuple[list[str], str]]:
    """Rows of a table: names in the first column, and the second."""
    lines = README.read_text("utf-8").split(head + "\n", 1)[1].splitlines()[1:]
    found = []
    for line in itertools.takewhile(lambda line: line.startswith("|"), lines):
        first, default = line.split("|")[1:3]
        found.append((re.findall(r"`(\w+)`", first), default.strip().replace("`", "")))
    return found


def _written(default: Any) -> str:
    """A default as the README writes it."""
    if default is None:
        return "unset"
    if isinstance(default, list):
        return f"[{', '.join(default)}]"
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_the_settings_file(tmp_path: Path) -> None:
    # The last is a sweep: see test_sweep_launchers.py.
    text, strongest, controlled, _ = blocks("yaml")
    made = load_settings(_settings(tmp_path, f"{strongest}epochs: 1\n"))
    assert getattr(made.mitigation, "logit_adjustment", None) == "auto"
    assert load_settings(_settings(tmp_path, f"{controlled}epochs: 1\n")).evaluation.probes
    settings = load_settings(_settings(tmp_path, text, task=""))
    assert settings.ratio == 0.1
    assert settings.global_batch_size == 128
    assert settings.task.fields == {"prompt": "question", "completion": "answer"}
    for line in re.findall(
        r"`(ratio: \{.*?\}|sources: \{.*?\}\}|ratio_of: \w+|mitigation: \{.*?\})`",
        README.read_text("utf-8"),
    ):
        assert load_settings(_settings(tmp_path, f"{line}\nepochs: 1\n"))
    for file in sorted((README.parent / "launchers" / "configs").glob("*.yaml")):
        assert "sweep" in file.stem or load_settings(file), file


def test_the_files_and_commands_that_it_names() -> None:
    root, text = README.parent, README.read_text("utf-8")
    for name in re.findall(r"\]\(([^)#]+)\)", text):
        assert (root / name).exists(), name
    for name in re.findall(r"(?:\./)?(launchers/[\w.]+)", text):
        assert (root / name).exists(), name


def _settings(folder: Path, text: str, task: str = "task: a.jsonl\n") -> Path:
    path = folder / "run.yaml"
    length = "" if "epochs" in text else "epochs: 1\n"
    safety = "" if "safety:" in text else "safety: b.jsonl\n"
    path.write_text(text + length + safety + task, "utf-8")
    return path
