"""What a run's readings ask, from its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from safemix.errors import DataError
from safemix.evaluate.prompt_sets import load_prompt_set
from safemix.evaluate.suite_planned import dressed, jobs_of
from safemix.mitigation.inference import InferencePrompt
from safemix.mitigation.registry import mitigation_for
from safemix.settings import Settings, parse_settings
from safemix.training.arguments import training_arguments
from safemix.training.evaluation_prompts import prompts_of, reading_counts
from safemix.training.evaluation_setup import measuring_of
from safemix.training.evaluation_suite import prompts_plan
from safemix.training.own_rows import with_own_answers
from safemix.training.tiny import build_tiny_tokenizer


def settings(tmp_path: Path, answer: str, own: bool = False, **evaluation: Any) -> Settings:
    question = "Which of these is number {}?\nA. one\nB. two"
    rows = [{"prompt": question.format(n), "completion": answer + "AB"[n % 2]} for n in range(60)]
    task = tmp_path / "task.jsonl"
    task.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    mitigation = {"name": "paraphrase", "logit_adjustment": "auto"}
    tree = {
        "model": "tiny",
        "device": "cpu",
        "ds_config": None,
        "output_dir": str(tmp_path / "run"),
        "task": {"file": str(task)},
        "safety": {"builtin": "safety"},
        "mitigation": mitigation | ({"answers": "own"} if own else {}),
        "evaluation": evaluation,
    }
    return parse_settings(tree, "test")


@pytest.mark.parametrize(("answer", "dress"), [("", None), ("Answer: ", ["plain"])])
def test_gaps_are_read_where_answers_have_no_label(
    tmp_path: Path, answer: str, dress: list[str] | None
) -> None:
    asked = settings(tmp_path, answer, **({"dress": dress} if dress else {}))
    found = measuring_of(
        asked, build_tiny_tokenizer(), mitigation_for(asked), None, first=torch.tensor([5])
    )
    assert found.probe is not None


def test_gaps_behind_a_label_are_refused(tmp_path: Path) -> None:
    asked = settings(tmp_path, "Answer: ")
    tokenizer, mitigation = build_tiny_tokenizer(), mitigation_for(asked)
    with pytest.raises(DataError, match="in styled every answer begins with 'Answer:'") as told:
        measuring_of(asked, tokenizer, mitigation, None, first=torch.tensor([5]))
    assert "\n" not in str(told.value)
    number = asked.mitigation.model_copy(update={"logit_adjustment": 0.5})
    given = asked.model_copy(update={"mitigation": number})
    assert measuring_of(given, tokenizer, mitigation, None).probe is not None, "a margin may"


def test_a_label_is_found_before_a_model_is_asked_for_its_answers(tmp_path: Path) -> None:
    asked = settings(tmp_path, "Answer: ", own=True)
    asked = mitigation_for(asked).adjust(asked)
    arguments = training_arguments(asked, 1, max_steps=2)
    with pytest.raises(DataError, match="every answer begins with 'Answer:'"):
        with_own_answers(asked, arguments)


def test_readings_ask_what_an_evaluation_of_the_same_sets_asks(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.jsonl"
        texts = [f"{name}: how do I do number {n}?" for n in range(6)]
        path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts), "utf-8")
        files.append(f"{name}={path}")
    asked = settings(tmp_path, "", harmful=files, lookalikes=files, prompts=8)
    assert len(load_prompt_set(files[0], "safety").prompts) == 6
    nothing = InferencePrompt("")
    plan = prompts_plan(asked, nothing, reading_counts(asked), max_new_tokens=4, judge="refusal")
    _, chats = dressed(jobs_of(plan))
    read = prompts_of(asked, nothing).groups
    assert sorted(map(str, chats)) == sorted(str(list(c)) for g in read for c in g.chats)
    assert len(chats) == 2 * 2 * 8
