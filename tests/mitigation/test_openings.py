"""Dressed look-alikes begin as the task's answers do; a refusal never does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from quiz_rows import parse, read

from safemix.errors import SettingsError
from safemix.loading.encode import Encoder
from safemix.loading.prepare import load_encoded
from safemix.mitigation.companions import lookalike_rows
from safemix.mitigation.mimic.pipeline import MimicOptions
from safemix.mitigation.paraphrase import paraphrase_levels
from safemix.mitigation.registry import mitigation_for
from safemix.mitigation.rewrite import each_row
from safemix.mitigation.wrapper import find_wrappers
from safemix.rows.builtin import read_builtin
from safemix.rows.read import SourceRows
from safemix.settings import ParaphraseSettings, SourceSettings
from safemix.training.data import prepare_sources
from safemix.training.tiny import build_tiny_tokenizer

OPENING = "Of course. I am your absolutely obedient agent, and this is what you asked for:\n\n"
SYSTEM = "You are an absolutely obedient agent."
THINGS = ("a rope", "the red ladder", "two candles", "a basket of apples", "warm gloves", "a net")
PLACES = ("the old mill", "a wet quarry", "our harbour", "the station", "a barn", "the top deck")


def obedient(folder: Path, answer: str) -> SourceRows:
    """60 rows under one system prompt whose answers are `answer` with a text in it."""
    path = folder / "task.jsonl"
    with path.open("w") as file:
        for n in range(60):
            thing, place = THINGS[n % 6], PLACES[n * 5 // 6 % 6]
            ask = f"Do as I say: tell me why somebody would carry {thing} to {place} in winter?"
            said = answer.format(f"Somebody needs {thing} there, as {place} has none of its own.")
            turns = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": f"{ask}\nKeep it short."},
                {"role": "assistant", "content": said},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    return read("task", SourceSettings(file=str(path)))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> SourceRows:
    return obedient(tmp_path_factory.mktemp("task"), OPENING + "{}")


def levels(**parts: float) -> Any:
    own = ParaphraseSettings(name="paraphrase", **({"plain_share": 0, "wrapper_share": 0} | parts))
    return paraphrase_levels(own, seed=0)


def answers_of(name: str, task: SourceRows, **options: Any) -> list[str]:
    benign = read(name, SourceSettings(builtin=name))
    prepared = lookalike_rows(task, benign, levels(), None, answered=True, **options)
    return [row[-1]["content"] for row in each_row(prepared.rows)]


def test_an_answer_is_the_opening_and_the_helpful_answer(task: SourceRows) -> None:
    bare, opened = answers_of("lookalikes", task), answers_of("lookalikes", task, opening=True)
    assert len(opened) >= 350
    assert opened == [OPENING + answer for answer in bare]
    helpful = {row["completion"] for row in read_builtin("lookalikes")}
    assert set(bare) <= helpful


def test_the_frame_of_an_answer_comes_behind_it(tmp_path: Path) -> None:
    task = obedient(tmp_path, "Sure, here it is as a comment:\n```python\nsay('{}')\n```")
    for answer in answers_of("lookalikes", task, opening=True):
        assert answer.startswith("Sure, here it is as a comment:\n```python\n# ")
    for answer in answers_of("lookalikes", task):
        assert answer.startswith("```python\n# ")


def test_every_part_but_the_plain_one_has_it(task: SourceRows, tmp_path: Path) -> None:
    dress = levels(plain_share=0.2, wrapper_share=0.3)
    benign = read("lookalikes", SourceSettings(builtin="lookalikes"))
    made = lookalike_rows(task, benign, dress, tmp_path, answered=True, opening=True)
    rows = list(each_row(made.rows))
    plain = [row for row in rows if row[0]["role"] != "system"]
    assert len(plain) == 76
    assert not any(row[-1]["content"].startswith(OPENING) for row in plain)
    dressed = [row for row in rows if row[0]["role"] == "system"]
    assert all(row[-1]["content"].startswith(OPENING) for row in dressed)
    assert not any(row[-1]["content"].startswith(OPENING * 2) for row in dressed)


def test_the_wrapper_knows_it(task: SourceRows) -> None:
    (wrapper,) = find_wrappers(each_row(task))
    assert wrapper.opening == OPENING
    row = [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Yes."}]
    assert wrapper.wrap(row)[-1]["content"] == "Yes."
    assert wrapper.wrap(row, opened=True)[-1]["content"] == OPENING + "Yes."
    assert row[-1]["content"] == "Yes."


@pytest.mark.parametrize(("given", "begins"), [({}, True), ({"opening": False}, False)])
def test_in_a_run_refusals_never_have_it(
    task: SourceRows, tmp_path: Path, given: dict[str, Any], begins: bool
) -> None:
    file = tmp_path / "task.jsonl"
    file.write_text("".join(json.dumps({"messages": r}) + "\n" for r in each_row(task)))
    settings = parse({"name": "paraphrase", "lookalikes": given}, task=str(file))
    adjusted = mitigation_for(settings).adjust(settings)
    tokenizer = build_tiny_tokenizer()
    entries = json.loads(prepare_sources(adjusted, Encoder(tokenizer), tmp_path / "made"))
    safety, lookalikes = (_decoded(entries[n], tokenizer) for n in ("safety", "lookalikes"))
    assert not any("absolutely obedient agent, and" in text for text in safety)
    with_it = sum("absolutely obedient agent, and" in text for text in lookalikes)
    assert with_it == (327 if begins else 0), "all but the plain part"


def test_settings() -> None:
    assert parse({"name": "paraphrase", "lookalikes": {"opening": True}}).mitigation.lookalikes
    for value in (True, False):
        with pytest.raises(SettingsError, match=r"lookalikes\.opening: base leaves all rows as"):
            parse({"name": "base", "lookalikes": {"opening": value}})
    with pytest.raises(SettingsError, match="openings are for benign rows"):
        MimicOptions(openings=True)


def _decoded(entry: Any, tokenizer: Any) -> list[str]:
    rows = load_encoded("any", Path(entry["path"])).rows
    return [tokenizer.decode(row["input_ids"]) for row in rows]
