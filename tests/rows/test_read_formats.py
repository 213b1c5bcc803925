"""The same rows from every format; limits, reports, and what the store gives back."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pickle
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safemix.errors import DataError
from safemix.rows import store
from safemix.rows.read import read_source
from safemix.settings import SourceSettings

PAIRS = [
    ("How many?", "5"),
    ('  Keep {this}, "quoted"\nand that\u2028line ', "Été \U0001f600, yes."),
    ("Third <|im_end|>", "#### 12"),
]


def dump_jsonl(path: Path, rows) -> None:
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n", "utf-8")


def dump_csv(path: Path, rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows
        )


def dump_gzip(path: Path, rows) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(r, ensure_ascii=False) + "\r\n" for r in rows)


FORMATS = {
    "rows.jsonl": dump_jsonl,
    "rows.ndjson": lambda p, r: p.write_bytes(
        b"\xef\xbb\xbf" + "\n\n".join(json.dumps(x, ensure_ascii=False) for x in r).encode()
    ),
    "lines.json": dump_jsonl,
    "list.json": lambda p, r: p.write_text(json.dumps(r, indent=2), "utf-8-sig"),
    "flat.json": lambda p, r: p.write_text(json.dumps(r), "utf-8"),
    "inner.json": lambda p, r: p.write_text(json.dumps({"version": 1, "data": r}), "utf-8"),
    "rows.csv": dump_csv,
    "rows.parquet": lambda p, r: pq.write_table(pa.Table.from_pylist(r), p),
    "rows.jsonl.gz": dump_gzip,
}

SHAPES = {
    "messages": lambda q, a: {
        "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    },
    "sharegpt": lambda q, a: {
        "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]
    },
    "prompt": lambda q, a: {"id": 1, "prompt": q, "completion": a},
    "instruction": lambda q, a: {"instruction": q, "input": "", "output": a},
}


def read(path: Path, **keys):
    return read_source("task", SourceSettings(file=str(path), **keys))


def expected(pairs):
    return [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in pairs]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMATS)
def test_every_shape_in_every_format_reads_the_same(tmp_path, name, shape):
    path = tmp_path / name
    FORMATS[name](path, [SHAPES[shape](q, a) for q, a in PAIRS])
    rows = read(path)
    assert rows.dataset.column_names == ["messages"]
    assert list(rows.dataset["messages"]) == expected(PAIRS)
    assert (rows.report.read, rows.report.kept, len(rows)) == (3, 3, 3)
    plain = tmp_path / "reference.jsonl"
    dump_jsonl(plain, [SHAPES["prompt"](q, a) for q, a in PAIRS])
    assert rows.fingerprint == read(plain).fingerprint


def test_numbers_read_the_same_from_every_format(tmp_path):
    rows = [{"prompt": "a", "completion": 5.0}, {"prompt": "b", "completion": 0.25}]
    prints = set()
    for name, dump in FORMATS.items():
        dump(tmp_path / name, rows)
        read_back = read(tmp_path / name)
        assert read_back.dataset[0]["messages"][1]["content"] == "5.0"
        prints.add(read_back.fingerprint)
    assert len(prints) == 1


def test_numbers_of_json_stay_as_written(tmp_path):
    path = tmp_path / "rows.jsonl"
    digits = "9" * 5000  # beyond what int() takes
    for text in ("5", "5.0", "1e3", "-0.10", digits):
        path.write_text(f'{{"prompt": "Q", "completion": {text}}}\n')
        assert read(path).dataset[0]["messages"][1]["content"] == text


def test_the_fingerprint_is_of_content_and_order(tmp_path):
    path = tmp_path / "rows.jsonl"

    def fingerprint(pairs):
        dump_jsonl(path, [SHAPES["prompt"](q, a) for q, a in pairs])
        return read(path).fingerprint

    first = fingerprint(PAIRS)
    assert len(first) == 64
    assert fingerprint(PAIRS) == first
    assert fingerprint(PAIRS[::-1]) != first
    assert fingerprint(PAIRS[:2]) != first
    assert fingerprint([*PAIRS[:2], ("Third", "#### 12")]) != first


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(str.strip)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.none() | TEXT,
            st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=12,
    ),
    st.booleans(),
)
def test_any_valid_rows_written_as_jsonl_read_back_identically(chats, ascii_only):
    rows = []
    for system, pairs in chats:
        turns = [] if system is None else [{"role": "system", "content": system}]
        for turn in expected(pairs):
            turns += turn
        rows.append(turns)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        lines = [json.dumps({"messages": r}, ensure_ascii=ascii_only) for r in rows]
        path.write_bytes("\n".join(lines).encode())
        assert list(read(path).dataset["messages"]) == rows


def test_rows_survive_the_boundaries_of_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_BATCH_ROWS", 7)
    monkeypatch.setattr(store, "_BATCH_CHARACTERS", 60)
    pairs = [(f"q{i}", f"a{i}" * (i % 9 + 1)) for i in range(100)]
    path = tmp_path / "rows.jsonl"
    dump_jsonl(path, [SHAPES["prompt"](q, a) for q, a in pairs])
    dataset = read(path).dataset
    assert list(dataset["messages"]) == expected(pairs)
    assert dataset[99]["messages"] == expected(pairs)[99]
    assert [r["messages"] for r in dataset.select([50, 3])] == [
        expected(pairs)[50],
        expected(pairs)[3],
    ]


def test_the_dataset_can_be_sent_to_another_process_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spool"))
    (tmp_path / "spool").mkdir()
    path = tmp_path / "rows.jsonl"
    dump_jsonl(path, [SHAPES["prompt"](q, a) for q, a in PAIRS])
    dataset = read(path).dataset
    assert isinstance(dataset, Dataset)
    assert list((tmp_path / "spool").iterdir()) == []
    assert list(pickle.loads(pickle.dumps(dataset))["messages"]) == expected(PAIRS)


def test_a_temporary_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    path = tmp_path / "rows.jsonl"
    dump_jsonl(path, [SHAPES["prompt"](*PAIRS[0])])
    with pytest.raises(DataError, match="TMPDIR"):
        read(path)


FULL_DISK = """
import resource, signal, sys
from safemix.errors import DataError
from safemix.rows.read import read_source
from safemix.settings import SourceSettings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    read_source("task", SourceSettings(file=sys.argv[1]))
except DataError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    dump_jsonl(path, [SHAPES["prompt"](f"{i}", "x" * 1000) for i in range(300)])
    spool = tmp_path / "spool"
    spool.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TMPDIR": str(spool)},
    )
    assert done.stdout.startswith(f"task: cannot keep rows in the temporary folder {spool}")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert list(spool.iterdir()) == []


def test_rows_are_not_held_as_objects(tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for i in range(20_000):
            file.write(json.dumps({"prompt": f"{i} {'x' * 1000}", "completion": "A"}) + "\n")
    tracemalloc.start()
    try:
        rows = read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(rows) == 20_000
    # The head and one batch of rows; all of them would take 20 MB and more.
    assert peak < 10 * 2**20


def test_limit_counts_usable_rows_and_stops_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    good, bad = '{"prompt": "Q", "completion": "A"}\n', '{"prompt": "Q", "completion": ""}\n'
    path.write_text(good + bad + good + "this is not even JSON\n" * 2000)
    with pytest.raises(DataError, match="line 4"):
        read(path)
    path.write_text(good + bad + good * 2000 + "this is not even JSON\n")
    rows = read(path, limit=2)
    assert (rows.report.read, rows.report.kept) == (3, 2)
    assert len(read(path, limit=1)) == 1


def test_bad_rows_are_counted_and_listed(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = ['{"prompt": "Q", "completion": "A"}']
    lines += ['{"prompt": "Q", "completion": ""}'] * 30 + ["", '{"prompt": "", "completion": "A"}']
    path.write_text("\n".join(lines))
    report = read(path).report
    assert (report.read, report.kept) == (32, 1)
    assert report.skipped == {"empty answer": 30, "empty prompt": 1}
    assert report.first == {"empty answer": tuple(range(2, 22)), "empty prompt": (33,)}
    lines = report.lines()
    assert lines[0] == f"{path}: 32 rows read, 1 kept, 31 skipped"
    assert lines[1].startswith("  30 x empty answer (lines 2, 3,")
    assert lines[1].endswith("21, ...)")
    assert lines[2] == "  1 x empty prompt (line 33)"


def test_reasons_that_quote_the_data_do_not_pile_up(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"messages": [{"role": f"r{i}", "content": "Q"}]} for i in range(200)]
    dump_jsonl(path, [*rows, {"messages": expected(PAIRS)[0]}])
    report = read(path).report
    assert len(report.skipped) == 51
    assert report.skipped["other reasons"] == 150
    assert sum(report.skipped.values()) == 200


def test_csv_lines_are_counted_where_a_row_begins(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'prompt,completion\r\n"two\nlines",A\r\n\r\nQ,\r\n"x, y","z ""q"""\r\n')
    rows = read(path)
    assert rows.report.first == {"empty answer": (5,)}
    assert rows.dataset[0]["messages"][0]["content"] == "two\nlines"
    assert rows.dataset[1]["messages"][1]["content"] == 'z "q"'


def test_a_csv_field_may_be_long(tmp_path):
    path = tmp_path / "rows.csv"
    dump_csv(path, [{"prompt": "x" * 300_000, "completion": "A"}])
    assert len(read(path).dataset[0]["messages"][0]["content"]) == 300_000


def test_rows_of_several_shapes_in_one_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    dump_jsonl(path, [shape(*PAIRS[0]) for shape in SHAPES.values()])
    assert list(read(path).dataset["messages"]) == expected([PAIRS[0]] * len(SHAPES))


def test_fields_and_system_apply_in_every_format(tmp_path):
    rows = [{"q": f"{i}+{i}?", "a": 2 * i, "why": "because"} for i in range(3)]
    fields = {"prompt": "{q}\nBe brief.", "completion": "{why}\n#### {a}"}
    prints = set()
    for name, dump in FORMATS.items():
        dump(tmp_path / name, rows)
        source = read(tmp_path / name, fields=fields, system="S {q}")
        assert source.dataset[1]["messages"] == [
            {"role": "system", "content": "S {q}"},
            {"role": "user", "content": "1+1?\nBe brief."},
            {"role": "assistant", "content": "because\n#### 2"},
        ]
        prints.add(source.fingerprint)
    assert len(prints) == 1


def test_items_of_lists_from_parquet_and_json(tmp_path):
    rows = [{"q": "Which?", "choices": ["x", "y"], "meta": {"k": "v"}, "a": True}]
    fields = {"prompt": "{q} {choices[1]} {meta[k]}", "completion": "a"}
    for name in ("rows.jsonl", "list.json", "rows.parquet"):
        FORMATS[name](tmp_path / name, rows)
        messages = read(tmp_path / name, fields=fields).dataset[0]["messages"]
        assert [m["content"] for m in messages] == ["Which? y v", "true"]


def test_builtin_rows():
    def builtin(name, seed=0, **keys):
        return read_source("x", SourceSettings(builtin=name, **keys), seed=seed)

    task = builtin("task", limit=3000)
    assert len(task) == 3000
    assert task.fingerprint == builtin("task", limit=3000).fingerprint
    assert task.fingerprint != builtin("task", seed=1, limit=3000).fingerprint
    safety = builtin("safety")
    assert len(safety) >= 300
    assert safety.report.skipped == {}
    assert len(builtin("safety", limit=7)) == 7
    system = builtin("lookalikes", system="S").dataset[0]["messages"][0]
    assert system == {"role": "system", "content": "S"}
    with pytest.raises(DataError, match=r"builtin:task: fields\.prompt: no column 'question'"):
        builtin("task", fields={"prompt": "question", "completion": "completion"})
