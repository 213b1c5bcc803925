"""The keys `mitigation`, `safety.mimic` and `safety.non_refusals`: forms and contradictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from safemix.errors import SettingsError
from safemix.mitigation.paraphrase import mimic_options
from safemix.settings import (
    BaseSettings,
    ParaphraseSettings,
    SafetySettings,
    Settings,
    load_settings,
    parse_settings,
)

TREE: dict[str, Any] = {"task": "builtin:task", "safety": "builtin:safety", "max_steps": 1}
ALL = "none, base, longest, backdoor, counter_prompt, ptst, gentle, paraphrase"
OPENAI = {"backend": "openai", "model": "m", "base_url": "http://localhost:1/v1"}


def parse(**changes: Any) -> Settings:
    return parse_settings(TREE | changes, "run.yaml")


def safety(**keys: Any) -> dict[str, Any]:
    return {"builtin": "safety", **keys}


def test_forms_of_a_mitigation() -> None:
    assert parse().mitigation == BaseSettings()
    longest = parse(mitigation="longest").mitigation
    assert longest == parse(mitigation={"name": "longest", "keep": 100}).mitigation
    assert parse(mitigation=longest).mitigation == longest


@pytest.mark.parametrize("given", [OPENAI, {"backend": "offline", "answer_design": "option"}])
def test_mimic_and_paraphrase_are_one(given: dict[str, Any], tmp_path: Path) -> None:
    alone = parse(safety=safety(mimic=given))
    assert isinstance(alone.mitigation, ParaphraseSettings)
    assert alone.mitigation == parse(mitigation={"name": "paraphrase", **given}).mitigation
    assert parse(safety=safety(mimic=given), mitigation="paraphrase") == alone
    both = parse(safety=safety(mimic=given), mitigation={"name": "paraphrase", **given})
    assert both == alone
    alone.save(tmp_path / "settings.yaml")
    assert load_settings(tmp_path / "settings.yaml") == alone
    assert parse_settings(alone.model_dump()) == alone


def test_mimic_in_one_word_or_not_at_all() -> None:
    offline = parse(safety=safety(mimic="offline"))
    assert offline.mitigation == parse(mitigation="paraphrase").mitigation
    assert parse(safety=safety(mimic=False)).mitigation == BaseSettings()


def test_a_pool() -> None:
    found = parse(safety="pool:some-pool").safety
    assert found is not None
    assert (found.pool, found.file, found.hub) == ("some-pool", None, None)


def test_settings_made_in_python() -> None:
    own = SafetySettings(builtin="safety", mimic=OPENAI)
    assert parse(safety=own).mitigation.name == "paraphrase"
    with pytest.raises(SettingsError, match=r"leave out safety\.mimic"):
        parse(safety=own, mitigation="base")


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(TREE | {"mitigation": "longest"}))
    assert load_settings(path, ["mitigation.keep=5"]).mitigation.model_dump() == {
        "name": "longest",
        "keep": 5,
    }
    assert load_settings(path, ["mitigation=none"]).mitigation.name == "none"
    given = ["mitigation=paraphrase", "safety.mimic=openai", "safety.mimic.model=m"]
    mitigation = load_settings(path, given).mitigation
    assert isinstance(mitigation, ParaphraseSettings)
    assert (mitigation.backend, mitigation.model) == ("openai", "m")
    with pytest.raises(SettingsError, match="unknown mitigation 'longst', did you mean 'longest'"):
        load_settings(path, ["mitigation=longst", "mitigation.keep=5"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mitigation": "longst"}, f"did you mean 'longest'?; legal are {ALL}"),
        ({"mitigation": None}, f"no mitigation is named; legal are {ALL}"),
        ({"mitigation": {"keep": 1}}, "no mitigation is named"),
        ({"mitigation": ["longest"]}, "no mitigation is named"),
        ({"mitigation": {"name": "longest", "keep": 0}}, "mitigation.keep = 0: input should be"),
        ({"mitigation": {"name": "base", "keep": 1}}, "unknown key 'mitigation.keep'"),
        ({"mitigation": {"name": "gentle", "decay": 1}}, "mitigation.decay = 1: input should be"),
        ({"mitigation": {"name": "ptst", "text": ""}}, "mitigation.text = ''"),
        ({"mitigation": "longest", "safety": None}, "but there is no safety source: set safety"),
        ({"mitigation": "paraphrase", "safety": None, "ratio": 0}, "there is no safety source"),
        ({"safety": None}, "ratio is above 0 but there is no safety source"),
        ({"safety": safety(mimic="on")}, "safety.mimic.backend = 'on': input should be 'offline'"),
        ({"safety": safety(mimic="openai")}, "backend openai needs model"),
        ({"safety": safety(mimic={"model": "m"})}, "the offline backend takes no model"),
        ({"safety": safety(non_refusals="no")}, "safety.non_refusals = 'no'"),
        (
            {"safety": safety(mimic="offline"), "mitigation": "longest"},
            "safety.mimic rewrites the safety rows, mitigation longest does not",
        ),
        (
            {"safety": safety(mimic=OPENAI), "mitigation": {"name": "paraphrase", "model": "n"}},
            "differ in their options: give them in one place",
        ),
        ({"task": {"builtin": "task", "mimic": "offline"}}, "unknown key 'task.mimic'"),
        (
            {"mitigation": {"name": "paraphrase", "preset": "strict"}},
            "mitigation.preset = 'strict': input should be 'calibrated'",
        ),
        ({"mitigation": {"name": "base", "preset": "calibrated"}}, "preset is a key of mitigation"),
        (
            {"mitigation": {"name": "paraphrase", "preset": "calibrated"}, "evaluation": False},
            "mitigation.logit_adjustment: auto goes by what evaluation.probe_every reads, which is",
        ),
        (
            {"mitigation": {"name": "base", "lookalikes": {"share": 0.1, "per_safety_row": 3}}},
            "give share or per_safety_row, not both",
        ),
    ],
)
def test_what_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(**changes)
    message = str(caught.value)
    assert message.startswith("run.yaml: ")
    assert words in message
    assert "\n" not in message


def test_a_preset_fills_what_is_not_given(tmp_path: Path) -> None:
    def preset(**given: Any) -> ParaphraseSettings:
        found = parse(mitigation={"name": "paraphrase", "preset": "calibrated", **given})
        assert isinstance(found.mitigation, ParaphraseSettings)
        assert parse_settings(found.model_dump()) == found
        found.save(tmp_path / "settings.yaml")
        assert load_settings(tmp_path / "settings.yaml") == found
        return found.mitigation

    whole = preset()
    assert whole.lookalikes is not None and whole.answers is not None
    assert (whole.lookalikes.share, whole.lookalikes.per_safety_row) == (None, 3)
    assert (whole.plain_share, whole.wrapper_share) == (0.15, 0.3)
    assert whole.lookalike_parts == (0.1, 0.15)
    assert whole.logit_adjustment == "auto"
    assert whole.answers.max_new_tokens == 64
    assert preset(plain_share=0.5).wrapper_share == 0.3
    longer = preset(answers="own").answers
    assert longer is not None and longer.max_new_tokens == 128
    assert preset(answers="given", logit_adjustment=0).answers is None
    shared = preset(lookalikes=0.02).lookalikes
    assert shared is not None
    assert (shared.share, shared.per_safety_row, shared.plain_share) == (0.02, 1, 0.1)
    own = preset(lookalikes={"file": "own.jsonl", "wrapper_share": 0.3}).lookalikes
    assert own is not None
    assert (own.file, own.per_safety_row, own.plain_share) == ("own.jsonl", 3, 0.1)
    assert own.wrapper_share == 0.3
    assert preset(lookalikes=False).lookalikes is None
    assert preset(lookalikes=True).lookalikes == whole.lookalikes


def test_a_preset_where_else_the_mitigation_is_told_of(tmp_path: Path) -> None:
    given = {"name": "paraphrase", "preset": "calibrated"}
    source = {"lookalikes": {"file": "own.jsonl", "ratio": 0.05}}
    beside = parse(mitigation=given, sources=source).mitigation
    assert isinstance(beside, ParaphraseSettings)
    assert (beside.lookalikes, beside.logit_adjustment) == (None, "auto")
    mimicked = parse(mitigation=given, safety=safety(mimic={"answer_design": "text"})).mitigation
    assert isinstance(mimicked, ParaphraseSettings)
    assert (mimicked.answer_design, mimicked.plain_share) == ("text", 0.15)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(TREE | {"mitigation": "paraphrase"}))
    named = load_settings(path, ["mitigation.preset=calibrated"]).mitigation
    assert named == parse(mitigation=given).mitigation


@pytest.mark.parametrize("name", ["none", "ptst", "gentle"])
def test_no_safety_source_is_needed(name: str) -> None:
    assert parse(mitigation=name, safety=None).safety is None


def test_options_reach_mimicry() -> None:
    given = {**OPENAI, "answer_design": "option", "on_failed": "reject", "api_key_env": "KEY"}
    mitigation = parse(mitigation={"name": "paraphrase", **given}).mitigation
    assert isinstance(mitigation, ParaphraseSettings)
    options = mimic_options(mitigation, seed=7, keep_non_refusals=True)
    assert (options.backend, options.seed, options.answer_design) == ("openai", 7, "option")
    assert (options.on_failed, options.keep_non_refusals) == ("reject", True)
    assert options.llm is not None
    assert (options.llm.model, options.llm.base_url) == ("m", "http://localhost:1/v1")
    assert options.llm.api_key_env == "KEY"
    offline = parse(mitigation="paraphrase").mitigation
    assert isinstance(offline, ParaphraseSettings)
    assert mimic_options(offline, seed=0).llm is None
