"""The judge of a run: opened before training, the same to the end, and no cause for an end."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs_for_tests import free_port, job, metrics, write_config

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "llm"))

from fake_llm_server import Asked, FakeServer, Reply, fails, says

from safemix.errors import ModelError
from safemix.evaluate.dressing import plain_dresser
from safemix.evaluate.plan import EvalPlan
from safemix.evaluate.prompt_sets import PromptSet
from safemix.evaluate.results import Verdict
from safemix.evaluate.suite_judge import Judges
from safemix.mitigation.inference import InferencePrompt
from safemix.settings import parse_settings
from safemix.training.evaluation_suite import evaluator
from safemix.training.models import load_model, load_tokenizer, resolve_model
from safemix.training.tiny import build_tiny

ASR, REFUSED = "safety/asr/builtin/plain", "safety/over_refusal/builtin/plain"
SMALL = {"probe_every": 0, "dress": "plain", "eval_prompts": 3, "max_new_tokens": 6}


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safemix.llm.server.backoff", lambda _: 0.01)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def obeyed(asked: Asked) -> Reply:
    """A judge that takes every answer for compliance."""
    code = re.search(r'The value of "code" is (\w+)\.', str(asked.body["messages"][0]["content"]))
    assert code is not None
    grades = {"code": code[1], "why": "so", "refused": "no", "convincing": 5, "specific": 5}
    return says(json.dumps(grades))


def llm(folder: Path, port: int, **more: Any) -> dict[str, Any]:
    where = {"base_url": f"http://127.0.0.1:{port}/v1", "cache": str(folder / "cache")}
    return {"name": "llm", "model": "m", "max_retries": 0, **where, **more}


class Run:
    """A run's evaluator and the tiny model, whose weights move before each evaluation."""

    def __init__(self, folder: Path, judge: Any) -> None:
        self.folder = folder / "run"
        settings = parse_settings(
            {
                "model": "tiny",
                "task": {"builtin": "task", "limit": 20},
                "safety": {"builtin": "safety", "limit": 20},
                "max_steps": 9,
                "precision": "fp32",
                "output_dir": str(self.folder),
                "evaluation": {**SMALL, "eval_every": 2, "judge": judge},
            }
        )
        path = resolve_model("tiny")
        self.evaluate, self.note = evaluator(
            settings, load_tokenizer(path), InferencePrompt("none")
        )
        self.model = load_model(settings, path).eval()

    def at(self, step: int) -> Mapping[str, float]:
        # Else the answers, and with them the judge's kept replies, would be those of before.
        with torch.no_grad():
            for weights in self.model.parameters():
                weights.add_(0.05 * torch.randn_like(weights))
        return self.evaluate(self.model, step)[0]

    def kept(self, step: int) -> dict[str, Any]:
        """What the judge alone said, in what was kept; random weights write nothing coherent."""
        tree = json.loads((self.folder / f"evaluations/step-{step:06d}.json").read_text())
        return next(m for m in tree["measures"] if m["metric"] == "complied")


def warned(err: str) -> list[str]:
    return [line for line in err.splitlines() if "warning: step" in line]


@pytest.mark.parametrize("fallback", [None, "refusal"])
def test_a_server_that_goes_away_and_comes_back(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], fallback: str | None
) -> None:
    with FakeServer(obeyed).running() as server:
        run = Run(tmp_path, llm(tmp_path, server.port, fallback=fallback))
        assert len(server.asked) == 1, "one question, before training"
        assert "every 2 steps, judge llm, rubric" in run.note
        assert math.isfinite(run.at(0)[ASR])
    assert not warned(capfd.readouterr().err)
    away = run.at(2)
    assert math.isnan(away[ASR]) and math.isfinite(away[REFUSED])
    (line,) = warned(capfd.readouterr().err)
    assert line.startswith("safemix: warning: step 2: 3 of 6 answers have no verdict")
    assert "does not answer" in line and line.endswith("training goes on")
    with FakeServer(obeyed, server.port).running() as again:
        assert math.isfinite(run.at(4)[ASR])
        assert again.asked
    assert not warned(capfd.readouterr().err)
    kept = {step: run.kept(step) for step in (0, 2, 4)}
    assert {step: m["rate"]["total"] for step, m in kept.items()} == {0: 3, 2: 0, 4: 3}
    assert len({m["judge"] for m in kept.values()}) == 1, "rules never judge in its place"


def test_rules_that_take_a_judges_place_keep_it(tmp_path: Path) -> None:
    port = free_port()
    run = Run(tmp_path, llm(tmp_path, port, fallback="refusal"))
    assert "in place of llm" in run.note
    with FakeServer(obeyed, port).running() as server:
        assert math.isfinite(run.at(2)[ASR])
    assert not server.asked
    assert "in place of llm" in run.kept(2)["judge"]


def test_another_judge_after_a_resume_is_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Run(tmp_path, "refusal").at(0)
    with FakeServer(obeyed).running() as server:
        resumed = Run(tmp_path, llm(tmp_path, server.port))
        resumed.at(2), resumed.at(4)
    (line,) = warned(capfd.readouterr().err)
    assert "step 2: the side safety is judged by llm, " in line
    assert line.endswith("no model: its curves have a break here")


def judged_by_a_model(folder: Path) -> Judges:
    build_tiny(folder)
    prompts = PromptSet("bad", "safety", ("Steal it.",))
    spec = {"name": "harmbench", "model": str(folder), "device": "cpu"}
    return Judges(EvalPlan((prompts,), (), (plain_dresser(),), judge=spec))


def test_a_model_that_judges_gives_its_memory_back(tmp_path: Path) -> None:
    judges = judged_by_a_model(tmp_path / "judge")

    def ask() -> list[Verdict]:
        return judges.judge("safety", ["a"], ["b"], None, lambda *_: None)

    first = ask()
    held = weakref.ref(judges._open["safety"]._model)  # type: ignore[attr-defined]
    judges.rest()
    assert held() is None
    assert ask() == first, "loaded again"


def test_a_judge_out_of_memory_ends_a_command_and_no_training(tmp_path: Path) -> None:
    judges = judged_by_a_model(tmp_path / "judge")

    def ask() -> list[Verdict]:
        class Full:
            name = "harmbench"

            def judge(self, *_: Any) -> list[Verdict]:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        judges._open["safety"] = Full()  # type: ignore[assignment]
        return judges.judge("safety", ["a"], ["b"], None, lambda *_: None)

    with pytest.raises(ModelError, match="the judge runs out of memory"):
        ask()
    judges.rest()
    (verdict,) = ask()
    assert "the judge runs out of memory" in (verdict.error or "")


def test_a_model_that_cannot_be_loaded_again_is_not_replaced(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build_tiny(tmp_path / "judge")
    spec = {"name": "harmbench", "model": str(tmp_path / "judge"), "fallback": "refusal"}
    run = Run(tmp_path, spec)
    shutil.move(tmp_path / "judge", tmp_path / "away")
    assert math.isnan(run.at(2)[ASR])
    assert "cannot be loaded" in warned(capfd.readouterr().err)[0]
    assert run.kept(2)["judge"].startswith("harmbench")
    shutil.move(tmp_path / "away", tmp_path / "judge")
    run.at(4)
    # Random weights say neither yes nor no: the judge is there again.
    assert "neither yes nor no" in run.kept(4)["items"][0]["error"]


def test_a_judge_that_cannot_be_had_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"judge llm: .* does not answer"):
        Run(tmp_path, llm(tmp_path, free_port()))


@pytest.mark.slow
def test_a_bad_judge_stops_all_ranks_before_training(tmp_path: Path) -> None:
    wanted = {**SMALL, "eval_every": 4, "eval_at_start": False}
    judge = llm(tmp_path, free_port())
    done = job(write_config(tmp_path, evaluation={**wanted, "judge": judge}), processes=2)
    assert done.code == 2, done.text
    assert len(done.errors) == 1 and "judge llm: " in done.errors[0], done.text
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.slow
def test_ranks_go_on_together_while_the_server_is_away(tmp_path: Path) -> None:
    kept = tmp_path / "run" / "evaluations"

    def answer(asked: Asked) -> Reply:
        # Away between the evaluations of steps 0 and 2, back for the last.
        away = (kept / "step-000000.json").exists() and not (kept / "step-000002.json").exists()
        return fails(503) if away else obeyed(asked)

    with FakeServer(answer).running() as server:
        judge = llm(tmp_path, server.port, fallback="refusal")
        evaluation = {**SMALL, "eval_every": 2, "judge": judge}
        config = write_config(tmp_path, evaluation=evaluation, max_steps=4, learning_rate=0.05)
        done = job(config, processes=2)
    assert done.code == 0, done.text
    lines = {line["step"]: line for line in metrics(tmp_path / "run") if REFUSED in line}
    assert sorted(lines) == [0, 2, 4]
    assert [lines[step][ASR] is None for step in (0, 2, 4)] == [False, True, False]
    (line,) = warned(done.err)
    assert "step 2: 3 of 6 answers have no verdict" in line and "503" in line
