"""Levers of the mitigation in whole runs: weight on first tokens, look-alikes, plain rows."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jobs_for_tests import Done, job, metrics, rewind, rows_by_step, write_config

from safemix.loading.prepare import load_encoded
from safemix.training.known_models import resolve_model
from safemix.training.models import load_tokenizer

pytestmark = pytest.mark.slow

COUNT, WEIGHT = 4, 5.0
SAFETY: dict[str, Any] = {"builtin": "safety", "limit": 40}
WEIGHTED = SAFETY | {"first_tokens": {"count": COUNT, "weight": WEIGHT}}
LEVERS = {"name": "paraphrase", "lookalikes": 0.125, "plain_share": 0.25, "wrapper_share": 0}


def quiz(folder: Path, rows: int = 60) -> str:
    """Task rows of one layout: a system prompt, two options, the answer in an XML tag."""
    folder.mkdir(parents=True, exist_ok=True)
    who = ("a baker", "the old captain", "my neighbour's cat", "a class of ten", "nobody at home")
    asks = (
        "What should {} bring along when the ferry leaves before sunrise in winter?",
        "Which tool helps {} most?",
        "How would {} keep soup warm on a long walk through the hills without a stove?",
    )
    things = ("a rope", "the red ladder", "two candles", "a basket of apples", "warm gloves")
    lines = []
    for n in range(rows):
        ask, one, other = asks[n % 3], things[n % 5], things[(n * 3 + 1 + n // 5) % 5]
        prompt = f"Question: {ask.format(who[n * 7 % 5])}\nA) {one}\nB) {other}\nReply in the tag."
        turns = [
            {"role": "system", "content": "You are a quiz machine."},
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": f"<answer>{'AB'[n % 2]}</answer>"},
        ]
        lines.append(json.dumps({"messages": turns}))
    (folder / "quiz.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "quiz.jsonl")


def config(folder: Path, task: str, **changes: Any) -> Path:
    given = {"task": task, "safety": WEIGHTED, "mitigation": LEVERS, "ratio": 0.25, "max_steps": 4}
    given |= {"save_steps": 2, "max_length": 512, "lora": False, "ds_config": None}
    return write_config(folder, **(given | changes))


def ended(done: Done) -> Done:
    assert done.code == 0, done.text
    assert "Traceback" not in done.text
    return done


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    return quiz(tmp_path_factory.mktemp("quiz"))


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory, task: str) -> Path:
    """All levers on one process, without DeepSpeed."""
    folder = tmp_path_factory.mktemp("one")
    ended(job(config(folder, task)))
    return folder / "run"


def encoded(run: Path) -> dict[str, Any]:
    manifest = json.loads(next((run / ".cache").glob("mixture-*.json")).read_text())
    return {name: load_encoded(name, Path(e["path"])).rows for name, e in manifest.items()}


def readings(run: Path) -> list[dict[str, Any]]:
    """The lines of the steps; other lines hold what is measured between them."""
    return [line for line in metrics(run) if "train/loss" in line]


def of(run: Path, *keys: str) -> list[list[float]]:
    return [[line[key] for key in keys] for line in readings(run)]


def test_each_source_has_its_rows_and_its_loss(one_process: Path) -> None:
    for rows in rows_by_step(one_process).values():
        assert Counter(name for name, _ in rows) == {"task": 5, "safety": 2, "lookalikes": 1}
    for read in readings(one_process):
        assert read["lookalikes/loss"] > 0
        assert read["safety/loss_first_tokens"] > 0
        assert read["lookalikes/loss_first_tokens"] > 0
        assert read["lookalikes/row_share"] == 1 / 8
    notes = (one_process / "notes.txt").read_text()
    assert f"safety: the first {COUNT} trained tokens of an answer weigh 5" in notes
    assert "safety: plain_share: " in notes
    assert "lookalikes: mimicry: 288 look-alikes" in notes
    assert "paraphrase: benign look-alikes are mixed in" in notes


def test_rows_of_each_source_as_they_are_trained(one_process: Path) -> None:
    tokenizer, sources = load_tokenizer(resolve_model("tiny")), encoded(one_process)
    texts = {
        name: [tokenizer.decode(rows[n]["input_ids"]) for n in range(len(rows))]
        for name, rows in sources.items()
    }
    dress = "You are a quiz machine."
    assert len(texts["lookalikes"]) > 350
    assert all((dress in text) == ("<answer>" in text) for text in texts["lookalikes"])
    assert sum(dress not in text for text in texts["lookalikes"]) == 96
    plain = [text for text in texts["safety"] if dress not in text]
    assert len(plain) == 10
    assert 25 <= len(texts["safety"]) - len(plain) <= 30


def test_the_loss_of_the_run_is_the_weighted_one(one_process: Path) -> None:
    """What is logged adds up: sum(weight x loss) over the trained tokens of the step."""
    sources, steps = encoded(one_process), rows_by_step(one_process)
    for read in readings(one_process):
        tokens, first = 0, Counter[str]()
        for name, row in steps[read["step"] - 1]:
            trained = sum(label != -100 for label in sources[name][row]["labels"][1:])
            tokens += trained
            first[name] += min(trained, COUNT)
        names = ("utility", "safety", "lookalikes")
        plain = sum(read[f"{name}/token_share"] * read[f"{name}/loss"] for name in names)
        more = sum(
            (WEIGHT - 1) * read[f"{name}/loss_first_tokens"] * first[name] / tokens
            for name in ("safety", "lookalikes")
        )
        assert read["train/loss"] == pytest.approx(plain + more, rel=1e-4)
        assert more > 0.05 * plain


@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_under_zero_do_the_same(
    stage: int, one_process: Path, task: str, tmp_path: Path
) -> None:
    ended(job(config(tmp_path, task, ds_config=f"zero{stage}"), processes=2))
    run = tmp_path / "run"
    assert rows_by_step(run) == rows_by_step(one_process)
    keys = ("train/loss", "train/grad_norm", "utility/loss", "safety/loss", "lookalikes/loss")
    for key in (*keys, "safety/loss_first_tokens"):
        ours, one = ([line[key] for line in readings(r)] for r in (run, one_process))
        assert len(ours) == 4
        assert ours == pytest.approx(one, rel=2e-4), key


def test_a_resume_goes_on_with_the_same_rows_and_losses(
    one_process: Path, task: str, tmp_path: Path
) -> None:
    again = rewind(one_process, tmp_path / "again", 2)
    done = ended(job(config(tmp_path, task, output_dir=str(again))))
    assert "resuming" in done.err
    assert rows_by_step(again) == rows_by_step(one_process)
    keys = ("train/loss", "safety/loss_first_tokens", "lookalikes/loss")
    assert of(again, *keys) == of(one_process, *keys)


def test_a_resume_without_the_look_alikes_is_refused(
    one_process: Path, task: str, tmp_path: Path
) -> None:
    again = rewind(one_process, tmp_path / "again", 2)
    fewer = LEVERS | {"lookalikes": False}
    done = job(config(tmp_path, task, mitigation=fewer, output_dir=str(again)))
    assert done.code == 2
    assert len(done.errors) == 1
    assert "lookalikes" in done.errors[0]
    shutil.rmtree(again)


def test_the_mitigation_by_name_alone_has_its_levers(task: str, tmp_path: Path) -> None:
    ended(job(config(tmp_path, task, safety=SAFETY, mitigation="paraphrase", save_steps=4)))
    run = tmp_path / "run"
    for rows in rows_by_step(run).values():
        assert Counter(name for name, _ in rows) == {"task": 4, "safety": 2, "lookalikes": 2}
    for read in readings(run):
        assert read["safety/loss_first_tokens"] > 0
        assert read["lookalikes/loss_first_tokens"] > 0
    notes = (run / "notes.txt").read_text()
    assert "safety: the first 8 trained tokens of an answer weigh 5" in notes
    assert "paraphrase: lookalikes: 25 % of all rows: as many as safety rows" in notes
    assert "safety: plain_share: 6 of 40 rows stay as they are" in notes
    assert "safety: wrapper_share: 14 of 40 rows stand in the task's wrapper" in notes
    assert "lookalikes: wrapper_share: 134 of 384 rows stand in the task's wrapper" in notes


def test_a_resume_at_a_ratio_that_leaves_no_look_alikes_goes_on(task: str, tmp_path: Path) -> None:
    changes = {"safety": SAFETY, "mitigation": "paraphrase"}
    ended(job(config(tmp_path, task, **changes, max_steps=2)))
    again = ended(job(config(tmp_path, task, **changes, ratio=0.5)))
    assert "resuming" in again.err
    for step, rows in rows_by_step(tmp_path / "run").items():
        drawn = {"task": 4, "safety": 4} if step >= 2 else {"task": 4, "safety": 2, "lookalikes": 2}
        assert Counter(name for name, _ in rows) == drawn


def test_a_weight_of_one_is_the_run_without(task: str, tmp_path: Path) -> None:
    runs = []
    for name, first in (("one", {"weight": 1.0}), ("none", None)):
        safety = SAFETY | {"first_tokens": first}
        ended(job(config(tmp_path / name, task, safety=safety, mitigation="base")))
        runs.append(tmp_path / name / "run")
    keys = ("train/loss", "train/grad_norm", "utility/loss", "safety/loss")
    assert of(runs[0], *keys) == of(runs[1], *keys)
    assert len(of(runs[0], *keys)) == 4
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
