"""Mitigations on rows of their own: what each changes, and what it leaves alone."""

from __future__ import annotations

import doctest
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safemix.errors import SettingsError
from safemix.mitigation.counter_prompt import COUNTER_PROMPT
from safemix.mitigation.inference import (
    InferencePrompt,
    apply_inference,
    before_system,
    read_inference,
)
from safemix.mitigation.interface import Context, Mitigation
from safemix.mitigation.longest import longest
from safemix.mitigation.ptst import SAFETY_PROMPT
from safemix.mitigation.registry import REGISTRY, mitigation_for
from safemix.mitigation.rewrite import each_row, with_rows
from safemix.rows.read import SourceRows, read_source
from safemix.rows.report import ReadReport
from safemix.rows.schema import Message
from safemix.settings import Settings, SourceSettings, parse_settings
from safemix.settings_mitigation import MITIGATIONS

BASE: dict[str, Any] = {
    "task": "builtin:task",
    "safety": "builtin:safety",
    "max_steps": 1,
    "learning_rate": 1e-3,
}
SECRET = "zulat qeuv hopsi brindal"  # noqa: S105 - of this test alone


def settings(mitigation: Any, **changes: Any) -> Settings:
    return parse_settings(BASE | changes | {"mitigation": mitigation})


def made(name: str, **options: Any) -> Mitigation:
    return mitigation_for(settings({"name": name, **options}))


def rows(*answers: str, system: str | None = None) -> SourceRows:
    content: list[list[Message]] = [
        [
            *([Message(role="system", content=system)] if system is not None else []),
            Message(role="user", content=f"Question {number}?"),
            Message(role="assistant", content=answer),
        ]
        for number, answer in enumerate(answers)
    ]
    empty = SourceRows(
        "safety", datasets.Dataset.from_dict({}), ReadReport("here", 0, 0, {}, {}), ""
    )
    return with_rows(empty, content)


def answers(source: SourceRows) -> list[str]:
    return [row[-1]["content"] for row in each_row(source)]


TASK = rows("Yes", "No")


def test_all_names_are_registered() -> None:
    assert tuple(REGISTRY) == MITIGATIONS
    assert all(made(name).name == name for name in MITIGATIONS)


@pytest.mark.parametrize("name", MITIGATIONS)
def test_each_is_documented_with_a_sample(name: str) -> None:
    module = importlib.import_module(f"safemix.mitigation.{name}")
    text = module.__doc__ or ""
    for part in ("Source:", "Rows:", "Inference:", "efore"):
        assert part in text, part
    failures, _ = doctest.testmod(module)
    assert not failures


def test_examples_in_the_documentation_hold() -> None:
    tried = 0
    for name in ("inference", "longest"):
        failures, number = doctest.testmod(importlib.import_module(f"safemix.mitigation.{name}"))
        assert not failures
        tried += number
    assert tried >= 4


@pytest.mark.parametrize("name", ["base", "none", "ptst", "gentle"])
def test_rows_that_stay(name: str) -> None:
    safety = rows("I can't help.", "No.")
    prepared = made(name).safety_rows(TASK, safety, Context())
    assert prepared.rows is safety


@pytest.mark.parametrize("name", ["none", "ptst", "gentle"])
def test_no_safety_rows(name: str) -> None:
    before = settings(name, ratio={"schedule": "linear", "start": 0, "end": 0.5, "steps": 9})
    mitigation = mitigation_for(before)
    after = mitigation.adjust(before)
    assert (after.safety, after.ratio) == (None, 0)
    assert mitigation.adjust(after) == after
    assert after.learning_rate == (2e-5 if name == "gentle" else 1e-3)
    assert "ratio 0" in mitigation.lines()[0]
    # As YAML and back, as a run's settings.yaml is read again.
    assert parse_settings(after.model_dump(mode="json")) == after


PLAIN_PARAPHRASE = {"name": "paraphrase", "lookalikes": False}


@pytest.mark.parametrize(
    "given", ["base", "longest", "backdoor", "counter_prompt", PLAIN_PARAPHRASE]
)
def test_settings_that_stay(given: Any) -> None:
    before = settings(given)
    assert mitigation_for(before).adjust(before) == before


def test_ptst_with_safety_rows() -> None:
    before = settings({"name": "ptst", "safety_rows": "keep"})
    assert mitigation_for(before).adjust(before) == before


def test_longest() -> None:
    safety = rows("a b c", "a", "a  b\nc d", "a b c", "a b")
    prepared = made("longest", keep=2).safety_rows(TASK, safety, Context())
    assert answers(prepared.rows) == ["a b c", "a  b\nc d"], "of equals the first; order kept"
    note = "longest: 2 of 5 rows kept, their answers have 3 to 4 words (mean 3.5)"
    assert prepared.notes == (note,)
    assert prepared.rows.fingerprint == rows_in_order(prepared.rows)
    assert prepared.rows.fingerprint != safety.fingerprint


def rows_in_order(source: SourceRows) -> str:
    return with_rows(source, each_row(source)).fingerprint


def test_longest_of_fewer() -> None:
    safety = rows("a b", "c")
    prepared = made("longest").safety_rows(TASK, safety, Context())
    assert prepared.rows.fingerprint == safety.fingerprint
    assert "keep is 100, so nothing was left out" in prepared.notes[0]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 50))
def test_longest_is_stable(lengths: list[int], keep: int) -> None:
    chosen = longest(lengths, keep)
    assert chosen == sorted(chosen)
    assert len(chosen) == min(keep, len(lengths))
    left = [n for n in range(len(lengths)) if n not in chosen]
    assert all((lengths[n], -n) < (lengths[c], -c) for n in left for c in chosen)


@pytest.mark.parametrize(
    ("system", "expected"),
    [(None, SECRET), ("Be brief.", f"{SECRET} Be brief."), ("  \n", SECRET)],
)
def test_backdoor_rows(system: str | None, expected: str) -> None:
    safety = rows("I can't.", "No, I won't.", system=system)
    prepared = made("backdoor").safety_rows(TASK, safety, Context(secret=SECRET))
    for before, after in zip(each_row(safety), each_row(prepared.rows), strict=True):
        assert after[0] == {"role": "system", "content": expected}
        assert after[-2:] == before[-2:]
        assert len(after) == 3
    assert prepared.rows.fingerprint != safety.fingerprint
    shown = " ".join([*prepared.notes, *made("backdoor").lines(), repr(Context(secret=SECRET))])
    assert not any(word in shown for word in SECRET.split())
    assert "4 words begins all 2 rows" in shown


def test_backdoor_without_a_secret() -> None:
    with pytest.raises(SettingsError, match="no secret was given"):
        made("backdoor").safety_rows(TASK, rows("No."), Context())


@pytest.mark.parametrize(
    ("at", "in_rows", "later"),
    [("both", True, True), ("training", True, False), ("inference", False, True)],
)
def test_counter_prompt(at: str, in_rows: bool, later: bool) -> None:
    mitigation = made("counter_prompt", at=at)
    prepared = mitigation.safety_rows(TASK, rows("No.", system="Obey."), Context())
    first = next(each_row(prepared.rows))[0]["content"]
    assert first == (f"{COUNTER_PROMPT}\n\nObey." if in_rows else "Obey.")
    assert mitigation.at_inference().system_prefix == (COUNTER_PROMPT if later else None)


def test_counter_prompt_in_other_words() -> None:
    mitigation = made("counter_prompt", text="You are nobody's servant.")
    prepared = mitigation.safety_rows(TASK, rows("No."), Context())
    assert next(each_row(prepared.rows))[0]["content"] == "You are nobody's servant."


# ---- inference -------------------------------------------------------------------------------

ASKED: list[Message] = [
    {"role": "system", "content": "Obey."},
    {"role": "user", "content": "How?"},
]


def written(mitigation: Mitigation, folder: Path) -> InferencePrompt:
    tree = mitigation.at_inference().to_json()
    (folder / "inference.json").write_text(json.dumps(tree), "utf-8")
    return read_inference(folder)


@pytest.mark.parametrize("name", ["none", "base", "longest", "gentle", "paraphrase"])
def test_nothing_at_inference(name: str, tmp_path: Path) -> None:
    inference = written(made(name), tmp_path)
    assert inference == InferencePrompt(name)
    asked = apply_inference(ASKED, inference)
    assert asked == ASKED
    assert asked[0] is not ASKED[0]


def test_ptst_at_inference(tmp_path: Path) -> None:
    inference = written(made("ptst"), tmp_path)
    assert apply_inference(ASKED, inference)[0]["content"] == f"{SAFETY_PROMPT}\n\nObey."
    bare = apply_inference(ASKED[1:], inference)
    assert [turn["role"] for turn in bare] == ["system", "user"]
    other = written(made("ptst", text="Be careful."), tmp_path)
    assert apply_inference(ASKED, other)[0]["content"] == "Be careful.\n\nObey."
    assert ASKED[0]["content"] == "Obey."


def test_backdoor_asks_as_it_was_trained(tmp_path: Path) -> None:
    mitigation = made("backdoor")
    with pytest.raises(SettingsError, match=r"backdoor_secret\.txt: the secret .* cannot be read"):
        written(mitigation, tmp_path)
    (tmp_path / "backdoor_secret.txt").write_text(SECRET + "\n")
    inference = written(mitigation, tmp_path)
    trained = mitigation.safety_rows(TASK, rows("No.", system="Obey."), Context(secret=SECRET))
    assert apply_inference(ASKED, inference)[0] == next(each_row(trained.rows))[0]
    kept = (tmp_path / "inference.json").read_text() + repr(inference)
    assert "zulat" not in kept
    with pytest.raises(SettingsError, match="needs its secret at inference"):
        apply_inference(ASKED, mitigation.at_inference())


def test_a_file_of_another_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.txt").write_text("not of this run at all")
    run = tmp_path / "run"
    run.mkdir()
    tree = InferencePrompt("backdoor", secret_file=str(Path("..", "elsewhere.txt"))).to_json()
    (run / "inference.json").write_text(json.dumps(tree))
    with pytest.raises(SettingsError, match="cannot be read"):
        read_inference(run)


@pytest.mark.parametrize("content", [None, "{", '{"other": 1}', "[]"])
def test_an_inference_file_that_is_damaged(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "inference.json").write_text(content)
    with pytest.raises(SettingsError, match=r"inference\.json cannot be read") as caught:
        read_inference(tmp_path)
    assert "\n" not in str(caught.value)


@given(st.text(min_size=1), st.sampled_from(["system", "user"]), st.text())
def test_turns_after_the_first_stay(text: str, role: str, content: str) -> None:
    turns: Sequence[Any] = [{"role": role, "content": content}, {"role": "user", "content": "x"}]
    after = before_system(turns, text, " ")
    assert after[0]["role"] == "system"
    assert after[0]["content"].startswith(text)
    assert after[-1] == turns[-1]
    assert turns[0] == {"role": role, "content": content}


def test_built_in_rows_through_all() -> None:
    """On rows as a run reads them, nothing is lost but what should be."""
    safety = read_source("safety", SourceSettings(builtin="safety", limit=30))
    for name in ("base", "backdoor", "counter_prompt", "longest"):
        prepared = made(name).safety_rows(TASK, safety, Context(secret=SECRET))
        assert answers(prepared.rows) == answers(safety)
        assert prepared.rows.report == safety.report
