"""Encoded sources: the cache, its keys, its counts, and what happens when things go wrong."""

import errno
import json
import multiprocessing
import os
import pickle
import signal
import time
from dataclasses import dataclass

import datasets
import numpy as np
import pytest
from tokenizers_for_tests import qwen_tokenizer

from safemix.errors import DataError
from safemix.loading import prepare
from safemix.loading.encode import IGNORE, Encoder
from safemix.loading.prepare import load_encoded, prepare_source
from safemix.loading.prepare_store import BATCH_ROWS, trained_spans


@dataclass
class Rows:
    name: str
    dataset: datasets.Dataset
    fingerprint: str


def chat(prompt, answer):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def make_rows(chats, fingerprint="f0", name="safety"):
    return Rows(name, datasets.Dataset.from_dict({"messages": chats}), fingerprint)


def make_encoder(**kwargs):
    return Encoder(qwen_tokenizer(), template="chatml", **{"max_length": 60, **kwargs})


GOOD = [chat(f"Tom has {n} apples?", f"He has {n}.") for n in range(6)]
LONG = chat("Tom has three apples. " * 40, "B")
EMPTY = chat("Tom?", " ")


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_rows_come_back_as_they_were_encoded(where, tmp_path):
    rows = make_rows([GOOD[0], EMPTY, LONG, GOOD[1], EMPTY])
    encoder = make_encoder()
    source = prepare_source(rows, encoder, tmp_path if where == "disk" else None)
    assert len(source) == len(source.rows) == 3
    assert source.row_ids.tolist() == [0, 2, 3]
    for n, row in enumerate(source.row_ids):
        expected = encoder.encode(rows.dataset[int(row)]["messages"])
        item = source.rows[n]
        assert item["input_ids"].tolist() == expected.input_ids
        assert item["labels"].tolist() == expected.labels
        assert item["input_ids"].dtype == item["labels"].dtype == np.int64
    assert (source.path is None) == (where == "memory")
    for wrong in (-1, 3):
        with pytest.raises(IndexError):
            source.rows[wrong]


def test_report(tmp_path):
    encoder = make_encoder()
    source = prepare_source(make_rows([GOOD[0], EMPTY, LONG, GOOD[1], EMPTY]), encoder, tmp_path)
    report = source.report
    kept = [source.rows[n] for n in range(3)]
    trained = sum(int((item["labels"] != IGNORE).sum()) for item in kept)
    assert (report.rows, report.kept, report.cut_rows) == (5, 3, 1)
    whole = make_encoder(max_length=10_000).encode(LONG)
    assert report.cut_tokens == len(whole.input_ids) - 60
    assert report.trained_tokens == trained
    assert report.prompt_tokens == sum(len(item["labels"]) for item in kept) - trained
    assert report.mean_trained_tokens == pytest.approx(trained / 3)
    assert list(report.dropped.values()) == [2]
    assert list(report.first_dropped.values()) == [(1, 4)]
    assert "2 x no answer" in report.lines()[1] and "1, 4" in report.lines()[1]
    assert "1 over-long rows cut" in report.lines()[0]


def test_only_the_first_numbers_of_dropped_rows_are_kept():
    source = prepare_source(make_rows([EMPTY] * 30 + GOOD), make_encoder(), None)
    (numbers,) = source.report.first_dropped.values()
    assert numbers == tuple(range(20))
    assert source.report.lines()[1].endswith("19, ...)")


def test_more_rows_than_one_batch(tmp_path):
    chats = [GOOD[n % 6] for n in range(2 * BATCH_ROWS + 5)]
    chats[BATCH_ROWS] = EMPTY
    encoder = make_encoder()
    source = prepare_source(make_rows(chats), encoder, tmp_path)
    assert len(source) == 2 * BATCH_ROWS + 4
    for n in (0, BATCH_ROWS - 1, BATCH_ROWS, 2 * BATCH_ROWS - 1, 2 * BATCH_ROWS, len(source) - 1):
        expected = encoder.encode(chats[int(source.row_ids[n])])
        assert source.rows[n]["labels"].tolist() == expected.labels


class Counting(Encoder):
    calls = 0

    def encode(self, messages):
        Counting.calls += 1
        return super().encode(messages)


def test_cache_is_used_for_the_same_content_alone(tmp_path):
    def calls(rows, **kwargs):
        before = Counting.calls
        encoder = Counting(qwen_tokenizer(), **{"template": "chatml", "max_length": 60, **kwargs})
        source = prepare_source(rows, encoder, tmp_path)
        return Counting.calls - before, source.path

    first, path = calls(make_rows(GOOD))
    assert first == 6
    assert calls(make_rows(GOOD)) == (0, path)
    # The name of a source is no part of its content.
    assert calls(make_rows(GOOD, name="task")) == (0, path)
    others = {
        calls(make_rows(GOOD, fingerprint="f1")),
        calls(make_rows(GOOD), max_length=61),
        calls(make_rows(GOOD), template="qwen"),
        calls(make_rows(GOOD), overlong="drop"),
    }
    assert {n for n, _ in others} == {6}
    assert len({path, *(p for _, p in others)}) == 5
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_open_what_was_written_and_send_it_to_a_worker(tmp_path):
    source = prepare_source(make_rows(GOOD), make_encoder(), tmp_path)
    again = load_encoded("safety", source.path)
    assert again.report == source.report
    assert again.row_ids.tolist() == source.row_ids.tolist()
    sent = pickle.dumps(source.rows)
    assert len(sent) < 1000
    copy = pickle.loads(sent)
    assert copy[5]["labels"].tolist() == source.rows[5]["labels"].tolist()
    in_memory = prepare_source(make_rows(GOOD), make_encoder(), None).rows
    copy = pickle.loads(pickle.dumps(in_memory))
    assert copy[5]["labels"].tolist() == source.rows[5]["labels"].tolist()


def test_an_item_can_be_changed_without_harm(tmp_path):
    source = prepare_source(make_rows(GOOD), make_encoder(), tmp_path)
    before = source.rows[0]["input_ids"].tolist()
    source.rows[0]["input_ids"][:] = 0
    assert source.rows[0]["input_ids"].tolist() == before


@pytest.mark.parametrize("where", ["disk", "memory"])
@pytest.mark.parametrize("chats", [[EMPTY, EMPTY], []])
def test_no_usable_row(where, chats, tmp_path):
    rows = make_rows(chats)
    with pytest.raises(DataError) as caught:
        prepare_source(rows, make_encoder(), tmp_path if where == "disk" else None)
    message = str(caught.value)
    assert message.startswith(f"safety: none of {len(chats)} rows can be used")
    assert ("2 x no answer" in message and "0, 1" in message) or "is empty" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_disk_full(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepare, "_to_disk", full)
    with pytest.raises(DataError, match="No space left on device: make room"):
        prepare_source(make_rows(GOOD), make_encoder(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "missing", "report", "count"])
def test_damaged_cache_is_named(damage, tmp_path):
    path = prepare_source(make_rows(GOOD), make_encoder(), tmp_path).path
    arrow, report = path / "rows.arrow", path / "report.json"
    if damage == "cut":
        arrow.write_bytes(arrow.read_bytes()[:200])
    elif damage == "missing":
        arrow.unlink()
    elif damage == "report":
        report.write_text("{}")
    else:
        report.write_text(json.dumps({**json.loads(report.read_text()), "kept": 5}))
    with pytest.raises(DataError, match="delete that folder") as caught:
        prepare_source(make_rows(GOOD), make_encoder(), tmp_path)
    assert str(path) in str(caught.value)


class Slow(Encoder):
    def encode(self, messages):
        time.sleep(0.02)
        return super().encode(messages)


def _prepare_slowly(folder):
    encoder = Slow(qwen_tokenizer(), template="chatml", max_length=60)
    prepare_source(make_rows(GOOD * 10), encoder, folder)


def test_killed_writer_leaves_nothing_that_is_read(tmp_path):
    worker = multiprocessing.get_context("fork").Process(target=_prepare_slowly, args=(tmp_path,))
    worker.start()
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob(".*/rows.arrow")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert list(tmp_path.glob(".*/rows.arrow")) and not list(tmp_path.glob("rows-*"))
    assert len(prepare_source(make_rows(GOOD * 10), make_encoder(), tmp_path)) == 60


def test_several_writers_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_prepare_slowly, args=(tmp_path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 1
    assert len(prepare_source(make_rows(GOOD * 10), make_encoder(), tmp_path)) == 60


@pytest.mark.parametrize(
    ("labels", "spans"),
    [
        ([-100, 5, 6, -100, 7], [1, 3, 4, 5]),
        ([5, 6], [0, 2]),
        ([-100], []),
        ([-100, 0, -100], [1, 2]),
    ],
)
def test_trained_spans(labels, spans):
    assert trained_spans(labels) == spans
