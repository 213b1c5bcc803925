"""Look-alikes and plain rows: which rows, in which dress, with which answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from quiz_rows import TEXTS, TREE, parse, quiz, read

from safemix.errors import DataError, SettingsError
from safemix.loading.encode import Encoder
from safemix.mitigation.companions import lookalike_rows
from safemix.mitigation.paraphrase import paraphrase_levels
from safemix.mitigation.registry import mitigation_for
from safemix.mitigation.rewrite import each_row, with_rows
from safemix.rows.read import SourceRows
from safemix.screening.refusal import is_refusal
from safemix.settings import (
    LookalikesSettings,
    ParaphraseSettings,
    SafetySettings,
    SourceSettings,
    parse_settings,
)
from safemix.training.data import prepare_sources
from safemix.training.tiny import build_tiny_tokenizer


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> SourceRows:
    return quiz(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def benign() -> SourceRows:
    return read("lookalikes", SourceSettings(builtin="lookalikes"))


def dress() -> Any:
    """The whole dress for all rows."""
    own = ParaphraseSettings(name="paraphrase", plain_share=0, wrapper_share=0)
    return paraphrase_levels(own, seed=0)


# ---- look-alikes -----------------------------------------------------------------------------


def test_dressed_look_alikes_have_the_tasks_dress_and_their_own_helpful_answer(
    task: SourceRows, benign: SourceRows, tmp_path: Path
) -> None:
    prepared = lookalike_rows(task, benign, dress(), tmp_path, answered=True)
    rows, helpful = list(each_row(prepared.rows)), [r[-1]["content"] for r in each_row(benign)]
    assert len(rows) >= 0.9 * len(benign)
    assert prepared.rows.name == "lookalikes"
    for row in rows:
        assert [turn["role"] for turn in row] == ["system", "user", "assistant"]
        assert row[0]["content"] == TEXTS[1]
        for mark in ("Question: ", "\nA) ", "\nB) ", "Reply inside the tag."):
            assert mark in row[1]["content"]
        answer = row[2]["content"]
        assert answer.startswith("<answer>")
        assert answer.endswith("</answer>")
        assert answer.removeprefix("<answer>").removesuffix("</answer>").strip() in helpful
    assert prepared.notes[0].startswith(f"mimicry: {len(benign)} look-alikes, ")
    again = lookalike_rows(task, benign, dress(), tmp_path, answered=True)
    assert again.rows.fingerprint == prepared.rows.fingerprint
    plain = lookalike_rows(task, benign, None, tmp_path, answered=True)
    assert plain.rows is benign


def test_answers_that_refuse_are_left_out(task: SourceRows, benign: SourceRows) -> None:
    turns = [list(row) for row in each_row(benign)][:20]
    no = "I'm sorry, but I can't help with that request."
    for number in (3, 7):
        turns[number] = [turns[number][0], {"role": "assistant", "content": no}]
    mixed = with_rows(benign, turns)
    prepared = lookalike_rows(task, mixed, None, None, answered=False)
    left = [row[-1]["content"] for row in each_row(prepared.rows)]
    assert not any(map(is_refusal, left))
    assert no not in left
    assert len(left) == 18
    assert prepared.rows.fingerprint != mixed.fingerprint
    assert prepared.notes == ("2 of 20 look-alikes left out: their answer is a refusal",)
    kept = with_rows(benign, [row for n, row in enumerate(turns) if n not in (3, 7)])
    assert lookalike_rows(task, kept, None, None, answered=False).rows is kept
    only = with_rows(benign, [turns[3]])
    with pytest.raises(DataError, match=r"^lookalikes: .*all 1 answers refuse: give benign"):
        lookalike_rows(task, only, dress(), None, answered=False)


def test_an_error_of_mimicry_names_the_look_alikes(task: SourceRows, benign: SourceRows) -> None:
    said = [
        [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Sure, here is how."}]
    ]
    with pytest.raises(DataError, match=r"^lookalikes: .*none of 1 rows could be mimicked"):
        lookalike_rows(task, with_rows(benign, said), dress(), None, answered=True)


@pytest.mark.parametrize("name", ["base", "paraphrase"])
def test_they_are_a_further_source(name: str) -> None:
    settings = parse({"name": name, "lookalikes": 0.02})
    mitigation = mitigation_for(settings)
    adjusted = mitigation.adjust(settings)
    source = adjusted.sources["lookalikes"]
    assert (source.builtin, source.ratio) == ("lookalikes", 0.02)
    assert mitigation.adjust(adjusted) == adjusted
    assert "ratio 0.02" in mitigation.lines()[0]
    off = parse({"name": name, "lookalikes": False})
    assert mitigation_for(off).adjust(off) is off
    assert mitigation_for(off).lines() == ()


def test_forms_and_round_trip() -> None:
    short = parse({"name": "base", "lookalikes": 0.05})
    assert short == parse({"name": "base", "lookalikes": {"share": 0.05}})
    given = parse({"name": "base", "lookalikes": True}).mitigation.lookalikes
    assert given == LookalikesSettings()
    assert given.share is None
    for none in (None, False, 0):
        assert parse({"name": "base", "lookalikes": none}) == parse("base")
        off = parse({"name": "paraphrase", "lookalikes": none})
        assert off.mitigation.lookalikes is None
        assert parse_settings(off.model_dump()) == off
    assert parse({"name": "paraphrase", "lookalikes": True}) == parse("paraphrase")
    own = {"share": 0.1, "file": "own.jsonl", "fields": {"prompt": "ask", "completion": "say"}}
    settings = parse({"name": "paraphrase", "lookalikes": own, "wrapper_share": 0.25})
    source = mitigation_for(settings).adjust(settings).sources["lookalikes"]
    assert (source.file, source.builtin, source.fields) == ("own.jsonl", None, own["fields"])
    assert parse_settings(settings.model_dump()) == settings


def test_beside_the_key_mimic_of_the_safety_source() -> None:
    safety = {"builtin": "safety", "mimic": {"answer_design": "option"}}
    both = parse({"name": "paraphrase", "lookalikes": 0.02, "plain_share": 0.5}, safety=safety)
    assert both.mitigation.answer_design == "option"
    assert (both.mitigation.lookalikes.share, both.mitigation.plain_share) == (0.02, 0.5)
    assert parse_settings(both.model_dump()) == both
    alone = parse_settings(TREE | {"safety": safety}).mitigation
    assert alone == parse({"name": "paraphrase", "answer_design": "option"}).mitigation
    assert alone.lookalikes == LookalikesSettings()


@pytest.mark.parametrize(
    ("mitigation", "words"),
    [
        (
            {"name": "base", "lookalikes": 1},
            "lookalikes.share = 1: input should be less",
        ),
        ({"name": "base", "lookalikes": -0.1}, "mitigation.lookalikes.share = -0.1"),
        ({"name": "base", "lookalikes": "few"}, "lookalikes.share = 'few': expected a number"),
        ({"name": "base", "lookalikes": {"file": "a", "hub": "b"}}, "give file or hub, not both"),
        ({"name": "base", "lookalikes": {"config": "b"}}, "config belongs to hub"),
        ({"name": "base", "lookalikes": {"fields": {}}}, "the built-in rows take no fields"),
        ({"name": "base", "lookalikes": {"rate": 1}}, "unknown key 'mitigation.lookalikes.rate'"),
        ({"name": "longest", "lookalikes": 0.1}, "unknown key 'mitigation.lookalikes'"),
        ({"name": "paraphrase", "plain_share": 1}, "mitigation.plain_share = 1: input should be"),
        ({"name": "base", "plain_share": 0.1}, "unknown key 'mitigation.plain_share'"),
        ({"name": "paraphrase", "wrapper_share": -1}, "mitigation.wrapper_share = -1: input"),
    ],
)
def test_settings_that_are_refused(mitigation: Any, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(mitigation)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_look_alikes_may_have_parts_of_their_own() -> None:
    both = parse({"name": "paraphrase", "lookalikes": {"plain_share": 0.05}})
    assert both.mitigation.lookalike_parts == (0.05, 0.35)
    assert parse("paraphrase").mitigation.lookalike_parts == (0.15, 0.35)
    assert parse({"name": "paraphrase", "lookalikes": False}).mitigation.lookalike_parts
    plain = parse("paraphrase")
    made, same = (mitigation_for(one).adjust(one).sources["lookalikes"] for one in (both, plain))
    assert made == same, "the rows are the same, dressed otherwise"
    assert parse_settings(both.model_dump()) == both
    with pytest.raises(SettingsError, match=r"lookalikes: plain_share 0\.7 and wrapper"):
        parse({"name": "paraphrase", "lookalikes": {"plain_share": 0.7}})
    with pytest.raises(SettingsError, match=r"lookalikes\.wrapper_share: base leaves all rows"):
        parse({"name": "base", "lookalikes": {"wrapper_share": 0.1}})


def test_the_parts_of_the_look_alikes_are_those_that_were_given(tmp_path: Path) -> None:
    own = {"plain_share": 0.0, "wrapper_share": 0.0, "share": 0.1}
    told: dict[str, list[str]] = {}
    for name, lookalikes in (("own", own), ("same", {"share": 0.1})):
        settings = parse({"name": "paraphrase", "lookalikes": lookalikes})
        encoder = Encoder(build_tiny_tokenizer())
        entries = json.loads(
            prepare_sources(mitigation_for(settings).adjust(settings), encoder, tmp_path / name)
        )
        told[name] = entries["lookalikes"]["notes"]
    assert any("plain_share: " in line for line in told["same"])
    assert not any("_share: " in line for line in told["own"])


OWN = {"lookalikes": {"builtin": "lookalikes", "ratio": 0.1}}


@pytest.mark.parametrize("name", ["base", "paraphrase"])
@pytest.mark.parametrize("given", [0.1, True, {"limit": 3}])
def test_a_source_of_that_name_and_the_key_are_refused(name: str, given: Any) -> None:
    with pytest.raises(SettingsError, match=r"sources\.lookalikes: mitigation\.lookalikes makes"):
        parse({"name": name, "lookalikes": given}, sources=OWN)


@pytest.mark.parametrize(
    "changes",
    [
        {"mitigation": "base"},
        {"mitigation": "paraphrase"},
        {"mitigation": {"name": "paraphrase", "backend": "offline"}},
        {"mitigation": {"name": "paraphrase", "lookalikes": False}},
        {"mitigation": ParaphraseSettings(name="paraphrase")},
        {"safety": {"builtin": "safety", "mimic": "offline"}},
        {"safety": SafetySettings(builtin="safety", mimic="offline"), "mitigation": "paraphrase"},
        {
            "safety": {"builtin": "safety", "mimic": "offline"},
            "mitigation": ParaphraseSettings(name="paraphrase", plain_share=0.5),
        },
    ],
)
def test_a_source_of_that_name_of_ones_own_stays(changes: dict[str, Any]) -> None:
    settings = parse_settings(TREE | {"sources": OWN} | changes, "run.yaml")
    assert settings.mitigation.lookalikes is None
    assert mitigation_for(settings).adjust(settings).sources["lookalikes"].ratio == 0.1
    assert parse_settings(settings.model_dump()) == settings
    alone = parse_settings(TREE | changes, "run.yaml").mitigation
    assert alone.model_copy(update={"lookalikes": None}) == settings.mitigation
