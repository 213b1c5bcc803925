"""`mitigation.answers: own` in whole runs, with a model that has learned to refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jobs_for_tests import Done, job, metrics, rewind, rows_by_step, write_config

from safemix.rows.read import read_source
from safemix.settings import SourceSettings

pytestmark = pytest.mark.slow

REFUSAL = "I am sorry, but I cannot help with that."


def ended(done: Done) -> Done:
    assert done.code == 0, done.text
    assert "Traceback" not in done.text
    return done


def steps(run: Path) -> list[dict[str, Any]]:
    """The lines of the steps; the one before them has what is read at the start."""
    return [line for line in metrics(run) if "train/loss" in line]


@pytest.fixture(scope="module")
def refuser(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model that refuses whatever it is asked."""
    folder = tmp_path_factory.mktemp("refuser")
    rows = read_source("safety", SourceSettings(builtin="safety", limit=40)).dataset["messages"]
    text = "".join(
        json.dumps({"prompt": row[-2]["content"], "completion": REFUSAL}) + "\n" for row in rows
    )
    (folder / "rows.jsonl").write_text(text, "utf-8")
    alone: dict[str, Any] = {"task": str(folder / "rows.jsonl"), "safety": None, "ratio": 0}
    alone |= {"mitigation": "none", "lora": False, "ds_config": None, "save_steps": 0}
    taught = {"max_steps": 60, "learning_rate": 5e-3, "warmup_steps": 5, "micro_batch_size": 8}
    ended(job(write_config(folder, **alone, **taught)))
    return str(folder / "run" / "model")


def test_two_ranks_under_zero_3_train_on_what_the_model_said(refuser: str, tmp_path: Path) -> None:
    wanted: dict[str, Any] = {
        "model": refuser,
        "lora": False,
        "ds_config": "zero3",
        "ratio": 0.25,
        "max_steps": 4,
        "save_steps": 2,
        "mitigation": {
            "name": "paraphrase",
            "preset": "calibrated",
            "answers": {"max_new_tokens": 48},
            "lookalikes": {"per_safety_row": 1, "limit": 12},
        },
        "evaluation": {"prompts": 4},
    }
    first = ended(job(write_config(tmp_path, **wanted), processes=2))
    assert first.err.count("is asked about 40 rows of safety and 12 rows of lookalikes") == 1
    told = "before training harmful prompts are answered plain 0 %, styled 0 %; look-alikes refused"
    assert first.err.count(f"logit_adjustment: {told} plain 100 %, styled 100 %") == 1
    run = tmp_path / "run"
    notes = (run / "notes.txt").read_text("utf-8")
    assert "safety: 40 of 40 rows have the model's own answer" in notes
    assert "lookalikes:   12 keep the one they came with: the model refuses" in notes
    assert "logit_adjustment: 'I' at the beginning of an answer are raised by as much" in notes
    made = next((run / ".cache").glob("own-safety-*.jsonl")).read_text("utf-8").splitlines()
    assert {json.loads(line)["messages"][-1]["content"] for line in made} == {REFUSAL}
    # They are likely to it from the first step on, which answers of others are not.
    first_step = steps(run)[0]
    assert first_step["safety/loss"] < 0.5 < first_step["utility/loss"]

    again = rewind(run, tmp_path / "again", 2)
    second = ended(job(write_config(tmp_path, **wanted, output_dir=str(again)), processes=2))
    assert "resuming" in second.err
    assert "is asked about" not in second.err and "training harmful" not in second.err
    assert rows_by_step(again) == rows_by_step(run)
    for key in ("train/loss", "safety/gap/plain", "safety/adjustment"):
        assert [line[key] for line in steps(again)] == [line[key] for line in steps(run)]
    assert steps(run)[-1]["safety/adjustment"] != 0, "it follows the probe"
