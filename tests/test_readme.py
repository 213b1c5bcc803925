"""What the README shows is run here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from safemix.settings import load_settings

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)


def test_the_loop_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safemix.training.models import load_model, load_tokenizer, resolve_model

    monkeypatch.setenv("SAFEMIX_CACHE", str(tmp_path))
    (code,) = blocks("python")
    path = resolve_model("tiny")
    settings = load_settings(_settings(tmp_path, "model: tiny\nlora: false\nds_config: null\n"))
    model: Any = load_model(settings, path)
    before = [p.clone() for p in model.parameters()]
    row = {"prompt": "How many?", "completion": "Two of them."}
    names: dict[str, Any] = {
        "task_rows": [dict(row) for _ in range(90)],
        "safety_rows": [{"prompt": "Do harm.", "completion": "No, I will not."}] * 7,
        "tokenizer": load_tokenizer(path),
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


def test_the_settings_file(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    settings = load_settings(_settings(tmp_path, text, task=""))
    assert settings.ratio == 0.05
    assert settings.global_batch_size == 128
    assert settings.task.fields == {"prompt": "question", "completion": "answer"}
    for line in re.findall(
        r"`(ratio: \{.*?\}|sources: \{.*?\}\}|ratio_of: \w+)`", README.read_text()
    ):
        assert load_settings(_settings(tmp_path, f"{line}\nepochs: 1\n"))


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
