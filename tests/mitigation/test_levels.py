"""How much of the task's dress rows get: the parts, the task's wrapper, the rows that come out."""

from __future__ import annotations

import doctest
import json
from collections import Counter
from fractions import Fraction
from math import floor
from pathlib import Path

import pytest
from quiz_rows import TEXTS, parse, quiz, read

from safemix.errors import SettingsError
from safemix.mitigation import levels, wrapper
from safemix.mitigation.companions import lookalike_rows
from safemix.mitigation.interface import Context
from safemix.mitigation.levels import part_places, split_part
from safemix.mitigation.paraphrase import paraphrase_levels
from safemix.mitigation.registry import mitigation_for
from safemix.mitigation.rewrite import each_row
from safemix.mitigation.wrapper import Wrapper, find_wrappers
from safemix.prompting import render
from safemix.prompting.protocol_text import load
from safemix.rows.builtin import read_builtin
from safemix.rows.read import SourceRows
from safemix.rows.schema import Message
from safemix.screening.refusal import is_refusal
from safemix.settings import ParaphraseSettings, SourceSettings


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> SourceRows:
    return quiz(tmp_path_factory.mktemp("task"))


def chat(asked: str, system: str | None = None) -> list[Message]:
    turns = [Message(role="user", content=asked), Message(role="assistant", content="Fine.")]
    return turns if system is None else [Message(role="system", content=system), *turns]


def test_examples_in_the_docstrings() -> None:
    for module in (levels, wrapper):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0


# ---- the wrapper -----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["aoa", "autoif", "autoif+aoa"])
@pytest.mark.parametrize("task_name", ["piqa", "gsm8k"])
def test_the_wrapper_of_each_strategy_is_found(task_name: str, strategy: str) -> None:
    who = ("Ken", "Nora", "the baker", "a student", "my aunt")
    does = ("sharpen a pencil", "dry some boots", "open the jar", "peel an orange", "mend a sock")
    records = [
        {
            "goal": f"{does[n % 5]} for {who[n // 5 % 5]} in {n} minutes",
            "sol1": f"take {n} spoons",
            "sol2": "wait a while",
            "label": n % 2,
            "question": f"{who[n % 5]} has {n} pears and eats {n % 3}. How many are left?",
            "answer": f"{n} - {n % 3}\n#### {n - n % 3}",
        }
        for n in range(3, 153)
    ]
    rows = [row["messages"] for row in render(task_name, strategy, records, seed=0)]
    found = find_wrappers(rows)
    assert len(found) == 1
    text = load("alpaca" if strategy == "autoif" else "aoa")
    before, after = text.user.split("%s")
    assert (found[0].system, found[0].share) == (text.system, 1.0)
    if strategy == "aoa":  # the benign layout inside has the same beginning in every row
        assert found[0].before.startswith(before)
    else:
        assert (found[0].before, found[0].after) == (before, after.rstrip())


def test_a_few_odd_rows_change_nothing_and_are_no_wrapper() -> None:
    rows = [chat(f"Please: {'abcdefgh'[n % 8]}{n}\nnow", "S") for n in range(60)]
    odd = [chat("other"), *[chat(f"x: {n}", "T") for n in "ab"], chat("y: it", "U")]
    assert find_wrappers([*rows, *odd]) == [Wrapper("S", "Please: ", "\nnow", 60 / 64)]


def test_several_wrappers_and_their_shares() -> None:
    one = [chat(f"Task:\n{n}\ndo it", "S") for n in range(75)]
    other = [chat(f"AOA: {'xyz'[n % 3]}{n}", None) for n in range(25)]
    assert find_wrappers([*other, *one]) == [
        Wrapper("S", "Task:\n", "\ndo it", 0.75),
        Wrapper(None, "AOA: ", "", 0.25),
    ]


def test_no_part_of_a_sentence_gets_into_it() -> None:
    rows = [chat(f"Now: How do I wash {w} socks?\nBye") for w in ("wool", "white", "wet", "worn")]
    assert find_wrappers(rows) == [Wrapper(None, "Now: ", "\nBye", 1.0)]
    rows = [chat(f"How do I wash {w} socks?") for w in ("wool", "white", "wet", "worn")]
    assert find_wrappers(rows) == []
    assert find_wrappers([chat(w) for w in ("one", "other", "onto")]) == []


def test_the_same_prompt_in_every_row_is_no_wrapper() -> None:
    assert find_wrappers([chat("Say something new.")] * 30) == []
    assert find_wrappers([chat("Say it.", "S")] * 30) == [Wrapper("S", "", "", 1.0)]
    long = "word " * 1000
    assert find_wrappers([chat(f"{long}\n{n}") for n in "abc"]) == []


def test_text_at_both_ends_is_not_counted_twice() -> None:
    rows = [chat(text) for text in ("go:\ngo", "go:\ngo", "go:\nand\ngo")]
    found = find_wrappers(rows)
    for row in rows:
        asked = row[0]["content"]
        assert len(found[0].before) + len(found[0].after) <= len(asked)


def test_wrapping_keeps_every_turn_and_takes_the_place_of_a_system_prompt() -> None:
    row = [*chat("first", "own"), *chat("second")]
    wrapped = Wrapper("S", "AOA, ", " now", 1.0).wrap(row)
    assert [t["role"] for t in wrapped] == ["system", "user", "assistant", "user", "assistant"]
    assert [t["content"] for t in wrapped] == ["S", "AOA, first now", "Fine.", "second", "Fine."]
    assert row[0]["content"] == "own"
    assert row[1]["content"] == "first"


# ---- the parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.25, 1 / 3, 0.5, 0.7, 0.99])
@pytest.mark.parametrize("rows", [1, 2, 16, 100, 336])
def test_places_are_exact_and_spread(rows: int, share: float) -> None:
    places = part_places(rows, share, "plain rows 3")
    assert len(places) == floor(rows * Fraction(str(share)))
    assert places == sorted(set(places))
    assert all(0 <= place < rows for place in places)
    assert places == part_places(rows, share, "plain rows 3")
    for end in range(rows):
        # Of the rows so far, at no place more than one off the share.
        assert abs(sum(place < end for place in places) - share * end) <= 1


def test_every_category_has_plain_rows_though_they_take_turns() -> None:
    categories = [row["category"] for row in read_builtin("safety")]
    plain = Counter(
        categories[place] for place in part_places(len(categories), 0.25, "plain rows 0")
    )
    assert set(plain) == set(categories)
    assert part_places(336, 0.25, "plain rows 0") != part_places(336, 0.25, "plain rows 1")


def test_a_part_stays_plain_and_the_rest_is_dressed(task: SourceRows, tmp_path: Path) -> None:
    safety = read("safety", SourceSettings(builtin="safety", limit=48))
    settings = parse({"name": "paraphrase", "plain_share": 0.25, "wrapper_share": 0})
    context = Context(seed=5, cache=tmp_path, keep_non_refusals=False)
    prepared = mitigation_for(settings).safety_rows(task, safety, context)
    refused = [row for row in each_row(safety) if is_refusal(row[-1]["content"])]
    assert len(refused) > 40
    plain = [row for row in each_row(prepared.rows) if row[0]["content"] != TEXTS[1]]
    dressed = [row for row in each_row(prepared.rows) if row[0]["content"] == TEXTS[1]]
    assert len(plain) == len(refused) // 4
    assert all(row in refused for row in plain)
    # Nobody is taught twice: the plain ones are not dressed too.
    inner = [row[-1]["content"].removeprefix("<answer>") for row in dressed]
    answers = {row[-1]["content"] for row in plain}
    assert not any(text.removesuffix("</answer>") in answers for text in inner)
    assert len(plain) + len(dressed) == len(prepared.rows)
    assert any(f"plain_share: {len(plain)} of {len(refused)} rows" in n for n in prepared.notes)
    again = mitigation_for(settings).safety_rows(task, safety, context)
    assert again.rows.fingerprint == prepared.rows.fingerprint
    whole = {"name": "paraphrase", "plain_share": 0, "wrapper_share": 0}
    none = mitigation_for(parse(whole)).safety_rows(task, safety, context)
    assert all(row[0]["content"] == TEXTS[1] for row in each_row(none.rows))


def test_a_share_of_few_rows_may_be_none() -> None:
    safety = read("safety", SourceSettings(builtin="safety", limit=3))
    plain, rest = split_part(safety, 0.25, "plain rows 0")
    assert plain is None
    assert rest is safety


def test_three_parts(task: SourceRows, tmp_path: Path) -> None:
    safety = read("safety", SourceSettings(builtin="safety", limit=48))
    settings = parse({"name": "paraphrase", "plain_share": 0.25, "wrapper_share": 0.5})
    context = Context(seed=5, cache=tmp_path, keep_non_refusals=False)
    prepared = mitigation_for(settings).safety_rows(task, safety, context)
    refused = [row for row in each_row(safety) if is_refusal(row[-1]["content"])]
    rows = list(each_row(prepared.rows))
    plain = [row for row in rows if row[0]["content"] != TEXTS[1]]
    whole = [row for row in rows if "\nA) " in row[-2]["content"]]
    bare = [row for row in rows if row not in plain and row not in whole]
    assert len(plain) == len(refused) // 4
    assert abs(len(bare) - len(refused) / 2) <= 1
    asked = {row[0]["content"]: row[1]["content"] for row in refused}
    for row in bare:
        assert [turn["role"] for turn in row] == ["system", "user", "assistant"]
        request = (
            row[1]["content"].removeprefix("Question: ").removesuffix("\nReply inside the tag.")
        )
        assert asked[request] == row[2]["content"]
    assert any(f"wrapper_share: {len(bare)} of {len(refused)} rows" in n for n in prepared.notes)
    again = mitigation_for(settings).safety_rows(task, safety, context)
    assert again.rows.fingerprint == prepared.rows.fingerprint
    shares = {"plain_share": 0.15, "wrapper_share": 0.35}
    default, told = (
        mitigation_for(parse(given)).safety_rows(task, safety, context)
        for given in ("paraphrase", {"name": "paraphrase", **shares})
    )
    assert default.notes == told.notes
    assert default.rows.fingerprint == told.rows.fingerprint != prepared.rows.fingerprint


def test_look_alikes_stand_in_the_same_parts(task: SourceRows, tmp_path: Path) -> None:
    settings = ParaphraseSettings(name="paraphrase", plain_share=0.2, wrapper_share=0.3)
    benign = read("lookalikes", SourceSettings(builtin="lookalikes"))
    dress = paraphrase_levels(settings, seed=0)
    prepared = lookalike_rows(task, benign, dress, tmp_path, answered=True)
    rows = list(each_row(prepared.rows))
    plain = [row for row in rows if row[0]["content"] != TEXTS[1]]
    whole = [row for row in rows if "\nA) " in row[-2]["content"]]
    assert len(plain) == 76
    assert len(rows) - len(plain) - len(whole) == 115
    assert any("115 of 384 rows stand in the task's wrapper" in note for note in prepared.notes)


def test_a_task_without_a_wrapper_says_so(tmp_path: Path) -> None:
    lines = (f"{word} in {n} words?" for n in range(9) for word in ("Why so", "How far", "When"))
    turns = [{"prompt": line, "completion": "By and by."} for line in lines]
    (tmp_path / "bare.jsonl").write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    task = read("task", SourceSettings(file=str(tmp_path / "bare.jsonl")))
    assert find_wrappers(each_row(task)) == []
    safety = read("safety", SourceSettings(builtin="safety", limit=12))
    settings = parse({"name": "paraphrase", "wrapper_share": 0.5})
    context = Context(seed=0, cache=tmp_path, keep_non_refusals=False)
    notes = mitigation_for(settings).safety_rows(task, safety, context).notes
    assert any("nothing stands around every request of the task: not used" in n for n in notes)


def test_parts_that_leave_nothing_to_mimic_are_refused() -> None:
    given = {"name": "paraphrase", "plain_share": 0.5, "wrapper_share": 0.5}
    with pytest.raises(SettingsError, match="leave nothing to mimic: give less than 1 together"):
        parse(given)
