"""`mitigation.answers`: who is asked what, what is kept, and what the run reads then."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from transformers.integrations.deepspeed import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

from safemix.errors import DataError, ModelError, SettingsError
from safemix.mitigation.registry import mitigation_for
from safemix.rows.read import read_source
from safemix.settings import Settings, parse_settings
from safemix.settings_levers import AnswersSettings
from safemix.training.arguments import training_arguments
from safemix.training.own_rows import Answered, _write_here, with_own_answers

REFUSAL = "I'm sorry, but I can't help with that."
HELP = "Plug it into the wall. Then wait an hour."


class Speaker:
    """Stands in for what the model says: a random one says nothing that will do."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.zero3: list[bool] = []
        self.fails_after: int | None = None
        self.help = HELP

    def __call__(self, *_: Any) -> Any:
        def made(chats: Sequence[Any], decoding: Any) -> list[list[str]]:
            if self.fails_after is not None and len(self.asked) >= self.fails_after:
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.zero3.append(is_deepspeed_zero3_enabled())
            requests = [chat[-1]["content"] for chat in chats]
            self.asked += requests
            return [[self.help if "charge" in request else REFUSAL] for request in requests]

        return made


@pytest.fixture
def speaker(monkeypatch: pytest.MonkeyPatch) -> Speaker:
    found = Speaker()
    monkeypatch.setattr("safemix.training.ask_rows.completer", found)
    return found


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "safety.csv").write_text(
        "ask,reply\nWrite a threat.,No.\nMake me a weapon.,I will not do that.\n", "utf-8"
    )
    rows = [
        {"prompt": "How do I charge a taser?", "completion": "Use its charger.", "system": "Be."},
        {"prompt": "How do I kill a process?", "completion": "Type kill and its number."},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "lookalikes.jsonl").write_text(text, "utf-8")


def settings(**changes: Any) -> Settings:
    tree: dict[str, Any] = {
        "model": "tiny",
        "task": {"builtin": "task", "limit": 8},
        "safety": {
            "file": "safety.csv",
            "fields": {"prompt": "ask", "completion": "reply"},
            "first_tokens": {"weight": 3},
        },
        "mitigation": {
            "name": "paraphrase",
            "answers": "own",
            "lookalikes": {"file": "lookalikes.jsonl", "share": 0.1, "first_tokens": False},
        },
        "ratio": 0.25,
        "max_steps": 2,
        "device": "cpu",
        "precision": "fp32",
        "ds_config": None,
        "output_dir": "run",
    }
    read = parse_settings(tree | changes, "test")
    return mitigation_for(read).adjust(read)


def answered(given: Settings) -> Answered:
    return with_own_answers(given, training_arguments(given, 1, max_steps=2))


def pairs(spec: Any) -> list[tuple[str, str]]:
    rows = read_source("rows", spec).dataset["messages"]
    return [(row[-2]["content"], row[-1]["content"]) for row in rows]


def test_a_row_that_the_model_cannot_take_keeps_its_answer(speaker: Speaker) -> None:
    rows = Path("safety.csv").read_text("utf-8") + f"{'Write on. ' * 900},I will not.\n"
    Path("safety.csv").write_text(rows, "utf-8")
    found = answered(settings())
    assert len(speaker.asked) == 4
    assert (
        "safety:   1 keep the one they came with: it cannot be asked: too long with its answer, or "
        "refused by the chat template"
    ) in found.notes
    assert pairs(found.settings.safety)[2][1] == "I will not."


def test_only_what_was_cut_is_cut_to_whole_sentences(speaker: Speaker) -> None:
    answers = {"max_new_tokens": 128}
    companions = {"file": "lookalikes.jsonl", "share": 0.1}
    mitigation = {"name": "paraphrase", "answers": answers, "lookalikes": companions}
    speaker.help = "Use its plug. Then wait\n- an hour"
    long = answered(settings(mitigation=mitigation)).settings.sources["lookalikes"]
    answers["max_new_tokens"] = 8
    short = answered(settings(mitigation=mitigation)).settings.sources["lookalikes"]
    request = "How do I charge a taser?"
    assert pairs(long)[0] == (request, "Use its plug. Then wait\n- an hour")
    assert pairs(short)[0] == (request, "Use its charger."), "less than half of it is whole"


def test_both_sources_are_asked_and_read_from_what_came_out(speaker: Speaker) -> None:
    given = settings()
    found = answered(given)
    assert len(speaker.asked) == 4
    safety = found.settings.safety
    assert safety is not None
    assert pairs(safety) == [("Write a threat.", REFUSAL), ("Make me a weapon.", REFUSAL)]
    companions = found.settings.sources["lookalikes"]
    assert pairs(companions) == [
        ("How do I charge a taser?", HELP),
        ("How do I kill a process?", "Type kill and its number."),
    ]
    first = read_source("rows", companions).dataset["messages"][0]
    assert [turn["role"] for turn in first] == ["system", "user", "assistant"]
    # All else is the run's own.
    assert safety.first_tokens == given.safety.first_tokens  # type: ignore[union-attr]
    assert companions.ratio == 0.1
    assert found.settings.mitigation == given.mitigation
    assert found.notes == (
        "safety: safety.csv: 2 rows read, 2 kept",
        "safety: 2 of 2 rows have the model's own answer",
        "lookalikes: lookalikes.jsonl: 2 rows read, 2 kept",
        "lookalikes: 1 of 2 rows have the model's own answer",
        "lookalikes:   1 keep the one they came with: the model refuses",
    )
    kept = sorted(path.name for path in Path("run/.cache").iterdir())
    assert [name.split("-")[0] for name in kept] == ["own"] * 4, "answers to harm are not kept"


def test_a_second_start_asks_nothing_and_other_wishes_ask_again(speaker: Speaker) -> None:
    first = answered(settings())
    again = answered(settings())
    assert len(speaker.asked) == 4
    assert again == first
    longer = {"name": "paraphrase", "answers": {"max_new_tokens": 9}, "lookalikes": False}
    answered(settings(mitigation=longer))
    assert speaker.asked[4:] == ["Write a threat.", "Make me a weapon."]
    with Path("safety.csv").open("a", encoding="utf-8") as file:
        file.write("Rob a bank with me.,No.\n")
    answered(settings(mitigation=longer))
    assert len(speaker.asked) == 9


def test_a_start_that_was_cut_short_goes_on(speaker: Speaker) -> None:
    speaker.fails_after = 2
    one = {"name": "paraphrase", "answers": {"batch_size": 1}}
    one |= {"lookalikes": {"file": "lookalikes.jsonl"}}
    with pytest.raises(ModelError, match=r"does not fit: lower answers\.batch_size") as error:
        answered(settings(mitigation=one))
    assert "\n" not in str(error.value)
    speaker.fails_after = None
    answered(settings(mitigation=one))
    assert len(speaker.asked) == 4


def test_what_is_drawn_never_is_not_asked(speaker: Speaker) -> None:
    found = answered(settings(ratio=0))
    assert speaker.asked == ["How do I charge a taser?", "How do I kill a process?"]
    assert found.settings.safety == settings(ratio=0).safety
    base = {"name": "base", "answers": "own"}
    own = {"lookalikes": {"file": "lookalikes.jsonl", "ratio": 0.1}}
    found = answered(settings(mitigation=base, sources=own))
    assert speaker.asked[2:] == ["Write a threat.", "Make me a weapon."]
    assert found.settings.sources["lookalikes"].file == "lookalikes.jsonl", "the user's own"


def test_more_rows_than_can_be_asked_are_refused(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safemix.training.own_rows._MOST", 1)
    with pytest.raises(DataError, match=r"safety has 2 rows .* set safety\.limit") as error:
        answered(settings())
    assert "\n" not in str(error.value)
    assert not speaker.asked


@pytest.mark.parametrize("mitigation", ["paraphrase", "base", "longest", "none"])
def test_without_the_key_nothing_is_asked(speaker: Speaker, mitigation: str) -> None:
    given = settings(mitigation=mitigation)
    assert answered(given) == Answered(given)
    assert not speaker.asked
    assert not Path("run").exists()


def test_runs_with_one_cache_ask_once(speaker: Speaker) -> None:
    found = [answered(settings(cache_dir="kept", output_dir=name)) for name in ("one", "two")]
    assert len(speaker.asked) == 4
    assert found[0].settings.safety == found[1].settings.safety
    assert Path("kept/.answers.lock").exists()


def test_a_run_says_that_it_waits_for_another(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("safemix.training.own_rows._PATIENCE", 0.05)
    Path("kept").mkdir()
    # The lock is the operating system's, so one held here keeps out the run's own as well.
    other = FileLock("kept/.answers.lock", thread_local=False)
    other.acquire()
    release = threading.Timer(0.5, lambda: other.release(force=True))
    release.start()
    answered(settings(cache_dir="kept"))
    release.join()
    assert len(speaker.asked) == 4
    said = capsys.readouterr()
    assert (said.out + said.err).count("waiting for another run that asks its model in kept") == 1


def test_another_machine_gets_the_rows_that_rank_0_has(tmp_path: Path) -> None:
    rows = [{"text": "one\u2028line"}, {"text": "another"}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    there = tmp_path / "new" / "own.jsonl"
    for _ in range(2):
        _write_here({"safety": str(there)}, {"safety": (text, [])})
        assert there.read_text("utf-8") == text
    there.write_text("of an earlier model\n", "utf-8")
    _write_here({"safety": str(there)}, {"safety": (text, [])})
    assert there.read_text("utf-8") == text


def test_the_model_that_is_asked_is_whole_under_zero_3(speaker: Speaker) -> None:
    pytest.importorskip("deepspeed")
    given = settings()
    arguments = training_arguments(given, 1, max_steps=2)
    arguments.hf_deepspeed_config = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    assert is_deepspeed_zero3_enabled()
    with_own_answers(given, arguments)
    assert speaker.zero3 == [False, False]
    assert is_deepspeed_zero3_enabled(), "the model that is trained is cut up"


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("own", AnswersSettings()),
        ("given", None),
        ({"batch_size": 2}, AnswersSettings(batch_size=2)),
    ],
)
def test_short_forms(value: Any, read: AnswersSettings | None) -> None:
    made = settings(mitigation={"name": "base", "answers": value}).mitigation
    assert getattr(made, "answers") == read  # noqa: B009


@pytest.mark.parametrize("value", ["mine", {"max_new_tokens": 0}, {"tokens": 3}, 3])
def test_mistakes_name_the_key(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"mitigation\.answers") as error:
        settings(mitigation={"name": "paraphrase", "answers": value})
    assert "\n" not in str(error.value)


def test_a_word_that_is_no_way_to_answer_names_the_legal_ones() -> None:
    with pytest.raises(SettingsError, match="expected own, given, or the keys"):
        settings(mitigation={"name": "paraphrase", "answers": "mine"})
