"""Public data sets as they come. Skipped where the data is not on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from safemix.rows.read import read_source
from safemix.settings import SourceSettings

DATA = Path(os.environ.get("SAFEMIX_DATA") or Path(__file__).parents[3] / "shared" / "data")

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no public data in {DATA}: set SAFEMIX_DATA to its folder"
)


def read(file: str, **keys):
    return read_source("task", SourceSettings(file=str(DATA / file), **keys))


def raw(file: str) -> list[dict]:
    # Not splitlines: GSM8K has a line separator (U+2028) inside a row.
    return [json.loads(line) for line in (DATA / file).read_text("utf-8").split("\n") if line]


def test_gsm8k():
    rows = raw("tasks/gsm8k_train.jsonl")
    source = read("tasks/gsm8k_train.jsonl", fields={"prompt": "question", "completion": "answer"})
    assert (len(source), source.report.skipped) == (7473, {})
    for index in (0, 4000, 7472):
        turns = source.dataset[index]["messages"]
        assert [m["content"] for m in turns] == [rows[index]["question"], rows[index]["answer"]]


def test_piqa():
    fields = {"prompt": "{goal}\n0: {sol1}\n1: {sol2}", "completion": "label"}
    source = read("tasks/piqa_train.jsonl", fields=fields, system="Answer 0 or 1.")
    assert len(source) == 1438
    for record, row in zip(raw("tasks/piqa_train.jsonl"), source.dataset, strict=True):
        system, user, answer = row["messages"]
        assert system == {"role": "system", "content": "Answer 0 or 1."}
        assert user["content"] == f"{record['goal']}\n0: {record['sol1']}\n1: {record['sol2']}"
        assert answer["content"] == str(record["label"])


def test_mmlu_choices():
    fields = {"prompt": "{question}\nA: {choices[0]}\nD: {choices[3]}", "completion": "{answer}"}
    assert len(read("tasks/mmlu_train.jsonl", fields=fields)) == 1531


def test_safety_tuned_llamas():
    rows = raw("safety/safety_tuned_llamas.jsonl")
    source = read("safety/safety_tuned_llamas.jsonl")
    report = source.report
    usable = [r for r in rows if r["instruction"].strip() and r["output"].strip()]
    assert report.read == len(rows) == 2483
    assert report.kept == len(usable) == len(source)
    assert source.dataset[0]["messages"][1]["content"] == usable[0]["output"]


def test_alpaca():
    rows = raw("instructions/alpaca_1k.jsonl")
    source = read("instructions/alpaca_1k.jsonl")
    usable = [r for r in rows if r["output"].strip()]
    assert len(source) == len(usable)
    with_input = next(i for i, r in enumerate(usable) if r["input"])
    expected = f"{usable[with_input]['instruction']}\n\n{usable[with_input]['input']}"
    assert source.dataset[with_input]["messages"][0]["content"] == expected


def test_a_set_of_prompts_alone_has_no_known_columns():
    with pytest.raises(ValueError, match="no known columns: found 'prompt'"):
        read("instructions/i_alpaca.jsonl")
