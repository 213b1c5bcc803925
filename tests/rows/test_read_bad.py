"""A user's mistakes: each is one line that names the source, the place and the mend."""

from __future__ import annotations

import gzip
import json
import os

import pytest

from safemix.errors import DataError
from safemix.rows.read import read_source
from safemix.settings import SourceSettings

GOOD = b'{"prompt": "Q", "completion": "A"}\n'
CSV = b"prompt,completion\n"

# name of the file, its bytes, further settings, what the line must say
BAD_FILES = {
    "empty": ("a.jsonl", b"", {}, ["a.jsonl is empty"]),
    "blank": ("a.jsonl", b"\n \n", {}, ["a.jsonl has no rows"]),
    "bom only": ("a.jsonl", b"\xef\xbb\xbf", {}, ["no rows"]),
    "blank json": ("a.json", b" \n", {}, ["no rows"]),
    "empty list": ("a.json", b"[ ]", {}, ["no rows"]),
    "csv header only": ("a.csv", CSV, {}, ["no rows"]),
    "csv blank": ("a.csv", b"\n\n", {}, ["is empty"]),
    "broken line": ("a.jsonl", GOOD * 2 + b'{"prompt": "Q",\n', {}, ["a.jsonl line 3", "JSON"]),
    "broken late": ("a.jsonl", GOOD * 1500 + b"{'a': 1}\n", {}, ["line 1501", "column 2"]),
    "two objects": ("a.jsonl", GOOD.strip() + GOOD, {}, ["line 1", "Extra data"]),
    "array line": ("a.jsonl", b"[1, 2]\n", {}, ["line 1 is no object of columns: '[1, 2]'"]),
    "number line": ("a.jsonl", GOOD + b"5\n", {}, ["line 2 is no object of columns: '5'"]),
    "list in jsonl": ("a.jsonl", b"[\n{}\n]", {}, ["line 1", "needs the name .json"]),
    "deep": ("a.jsonl", b'{"a":' * 200_000, {}, ["line 1", "nested too deeply"]),
    "deep json": ("a.json", b"[" * 200_000, {}, ["a.json", "nested too deeply"]),
    "broken json": ("a.json", b'[{"a": 1},\n {"a": }]', {}, ["a.json line 2", "Expecting value"]),
    "open list": ("a.json", b'[{"a": 1}', {}, ["line 1", "Expecting ',' or ']'"]),
    "trailing comma": ("a.json", b'[{"a": 1},]', {}, ["line 1", "broken JSON"]),
    "after the list": ("a.json", b"[]\n[]", {}, ["line 2", "Extra data"]),
    "no list": ("a.json", b'{"a": 1}', {}, ["one list of them inside", "0 lists (keys 'a')"]),
    "two lists": ("a.json", b'{"a": [], "b": []}', {}, ["2 lists (keys 'a', 'b')"]),
    "bare json": ("a.json", b'"x"', {}, ["neither a list of objects nor"]),
    "list of text": ("a.json", b'["x"]', {}, ["row 1 is no object"]),
    "latin-1": (
        "a.jsonl",
        GOOD + '{"prompt": "é"}'.encode("latin-1"),
        {},
        ["a.jsonl line 2", "0xe9", "save it as UTF-8"],
    ),
    "latin-1 json": (
        "a.json",
        b'[\n"' + "é".encode("latin-1") + b'"]',
        {},
        ["a.json line 2", "save it as UTF-8"],
    ),
    "latin-1 csv": ("a.csv", CSV + b"Q,\xe9\n", {}, ["line 2", "save it as UTF-8"]),
    "utf-16": ("a.jsonl", GOOD.decode().encode("utf-16"), {}, ["UTF-16", "save it as UTF-8"]),
    "utf-16 csv": ("a.csv", CSV.decode().encode("utf-16"), {}, ["UTF-16", "save it as UTF-8"]),
    "columns": (
        "a.jsonl",
        b'{"question": "Q", "answer": "A"}\n',
        {},
        ["a.jsonl: no known columns: found 'question', 'answer'", "instruction", "fields:"],
    ),
    "csv columns": ("a.csv", b"Prompt,Completion\nQ,A\n", {}, ["'Prompt', 'Completion'"]),
    "csv semicolons": ("a.csv", b"prompt;completion\nQ;A\n", {}, ["found 'prompt;completion'"]),
    "field column": (
        "a.jsonl",
        GOOD,
        {"fields": {"prompt": "promt", "completion": "completion"}},
        ["a.jsonl: fields.prompt: no column 'promt', did you mean 'prompt'?"],
    ),
    "field attribute": (
        "a.jsonl",
        GOOD,
        {"fields": {"prompt": "{prompt.__class__}", "completion": "completion"}},
        ["{prompt.__class__} is not legal"],
    ),
    "ragged": ("a.csv", CSV + b"Q,A\nQ,A,B\n", {}, ["line 3: 3 fields", "header has 2"]),
    "short": ("a.csv", CSV + b"Q\n", {}, ["line 2: 1 fields", "header has 2"]),
    "open quote": ("a.csv", CSV + b'"Q,A\nQ,A\n', {}, ["line 2: broken CSV"]),
    "bad quote": ("a.csv", CSV + b'"Q"x,A\n', {}, ["line 2: broken CSV"]),
    "twice": ("a.csv", b"prompt,prompt\nQ,A\n", {}, ["column 'prompt' stands twice"]),
    "no parquet": ("a.parquet", GOOD, {}, ["a.parquet is not a Parquet file"]),
    "no gzip": ("a.jsonl.gz", GOOD, {}, ["a.jsonl.gz is not a whole gzip file"]),
    "cut gzip": (
        "a.jsonl.gz",
        gzip.compress(GOOD * 5000)[:100],
        {},
        ["not a whole gzip file"],
    ),
    "kind": ("a.txt", GOOD, {}, ["unknown kind of file '.txt'", ".jsonl", ".parquet"]),
    "no suffix": ("a", GOOD, {}, ["unknown kind of file ''"]),
    "nothing left": (
        "a.jsonl",
        b'{"prompt": "Q", "completion": ""}\n' * 3,
        {},
        ["none of 3 rows can be used: empty answer (3 rows, first at line 1)"],
    ),
    "refused": (
        "a.jsonl",
        GOOD * 2 + b'{"prompt": "Q", "completion": " "}\n' + GOOD,
        {"on_bad_row": "refuse"},
        ["a.jsonl line 3: empty answer", "on_bad_row: skip"],
    ),
    "refused json": (
        "a.json",
        b'[{"prompt": "", "completion": "A"}]',
        {"on_bad_row": "refuse"},
        ["a.json row 1: empty prompt"],
    ),
    "surrogate": (
        "a.jsonl",
        GOOD + b'{"prompt": "Q", "completion": "\\ud83d"}\n',
        {"on_bad_row": "refuse"},
        ["line 2: completion holds half a surrogate pair"],
    ),
}


def refusal(**keys) -> str:
    with pytest.raises(DataError) as caught:
        read_source("safety", SourceSettings(**keys))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("safety: ")
    return text


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_gives_one_line(tmp_path, case):
    name, data, keys, parts = BAD_FILES[case]
    path = tmp_path / name
    path.write_bytes(data)
    text = refusal(file=str(path), **keys)
    for part in [str(path), *parts]:
        assert part in text


def test_a_missing_file_names_near_ones(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(GOOD)
    text = refusal(file=str(tmp_path / "trian.jsonl"))
    assert "no such file, did you mean train.jsonl?" in text
    assert f"no such file in {tmp_path}" in refusal(file=str(tmp_path / "zzz.csv"))
    assert f"nor is there a folder {tmp_path / 'no'}" in refusal(file=str(tmp_path / "no/a.csv"))


def test_a_folder_given_as_a_file(tmp_path):
    assert "is a folder" in refusal(file=str(tmp_path))


@pytest.mark.parametrize("given", ["a\x00b.jsonl", "x" * 5000 + ".jsonl", "~nobody-here/a.jsonl"])
def test_a_path_that_cannot_be(given):
    refusal(file=given)


def test_a_pipe_is_refused_without_hanging(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    assert "not a regular file" in refusal(file=str(tmp_path / "a.jsonl"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD)
    path.chmod(0)
    assert "Permission denied" in refusal(file=str(path))


def test_a_parquet_file_damaged_inside(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    rows = {"prompt": [os.urandom(20).hex() for _ in range(5000)], "completion": ["A"] * 5000}
    pq.write_table(pa.table(rows), path, compression="gzip")
    data = bytearray(path.read_bytes())
    data[200:20_000] = os.urandom(19_800)
    path.write_bytes(data)
    assert str(path) in refusal(file=str(path))


def test_bad_rows_are_skipped_unless_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"prompt": "Q", "completion": a} for a in ("A", "", None, [1], "B")]
    path.write_text("\n".join(json.dumps(r) for r in rows))
    source = read_source("task", SourceSettings(file=str(path)))
    assert source.report.kept == 2
    assert set(source.report.skipped) == {
        "empty answer",
        "a message is text, not an object with role and content",
    }
