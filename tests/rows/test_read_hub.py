"""Datasets in folders, and by name against a Hub that is played by a small server."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants

from safemix.errors import DataError
from safemix.rows import hub
from safemix.rows.read import read_source
from safemix.settings import SourceSettings

ROWS = {"prompt": ["Q", "Q2"], "completion": ["A", "{B}"], "number": [1, 2]}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's cache, nor prints progress."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def read(**keys):
    return read_source("task", SourceSettings(**{k: str(v) for k, v in keys.items()}))


def refusal(**keys) -> str:
    with pytest.raises(DataError) as caught:
        read(**keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference.jsonl"
    pairs = zip(ROWS["prompt"], ROWS["completion"], strict=True)
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in pairs))
    return read(file=path).fingerprint


def test_a_saved_dataset(tmp_path, reference):
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict(ROWS).save_to_disk(folder)
    source = read(hub=folder)
    assert source.fingerprint == reference
    assert source.dataset.column_names == ["messages"]


def test_a_saved_dataset_with_splits(tmp_path, reference):
    folder = tmp_path / "saved"
    rows = datasets.Dataset.from_dict(ROWS)
    datasets.DatasetDict(train=rows, val=rows.select([0])).save_to_disk(folder)
    assert read(hub=folder).fingerprint == reference
    assert len(read(hub=folder, split="val")) == 1
    assert "no split 'test', legal are train, val" in refusal(hub=folder, split="test")


def test_a_folder_of_files(tmp_path, reference):
    folder = tmp_path / "files"
    folder.mkdir()
    datasets.Dataset.from_dict(ROWS).to_json(folder / "train.jsonl")
    assert read(hub=folder).fingerprint == reference
    assert "test" in refusal(hub=folder, split="test")
    assert "nope" in refusal(hub=folder, config="nope")
    # A changed file must not come out of a cache.
    changed = datasets.Dataset.from_dict({"prompt": ["new"], "completion": ["row"]})
    changed.to_json(folder / "train.jsonl")
    assert read(hub=folder).dataset[0]["messages"][0]["content"] == "new"


def test_folders_that_hold_no_dataset(tmp_path):
    empty, broken, code = (tmp_path / name for name in ("empty", "broken", "code"))
    for folder in (empty, broken, code):
        folder.mkdir()
    (broken / "state.json").write_text("{")
    (code / "code.py").write_text("raise SystemExit('this ran')")
    assert "any data files" in refusal(hub=empty)
    assert "cannot load the saved dataset" in refusal(hub=broken)
    assert "scripts are no longer supported" in refusal(hub=code)
    assert "no such dataset folder" in refusal(hub=tmp_path / "none")
    assert "no such file" in refusal(hub="rows-not-here.jsonl")
    (tmp_path / "a.csv").write_text("prompt,completion\n")
    assert "write it as `file:`" in refusal(hub=tmp_path / "a.csv")


def test_unknown_columns_of_a_dataset(tmp_path):
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "saved")
    assert "found 'text'" in refusal(hub=tmp_path / "saved")


class _Hub(BaseHTTPRequestHandler):
    """Answers by the dataset's name: a status code, an error code, or silence."""

    def do_GET(self) -> None:
        name = self.path.split("/api/datasets/")[-1].split("/")[1]
        if name == "silent":
            time.sleep(5)
            return
        status, code = {
            "unknown": (401, "RepoNotFound"),
            "gated": (403, "GatedRepo"),
            "revision": (404, "RevisionNotFound"),
            "forbidden": (403, "Other"),
            "down": (503, "Other"),
        }[name]
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def server(monkeypatch):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as httpd:
        httpd.daemon_threads = True
        httpd.block_on_close = False
        thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{httpd.server_port}")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield
        httpd.shutdown()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("unknown", ["neither a folder here nor a dataset", "check the name"]),
        ("gated", ["a gated dataset", "https://huggingface.co/datasets/org/gated"]),
        ("revision", ["no revision 'v9'"]),
        ("forbidden", ["refused by the Hugging Face Hub"]),
        ("down", ["cannot be reached", "is in the local cache", "503"]),
        ("silent", ["cannot be reached", "timed out"]),
    ],
)
def test_what_the_hub_answers_is_said_plainly(server, monkeypatch, name, parts):
    monkeypatch.setattr(hub, "_PROBE_SECONDS", 0.5 if name == "silent" else 10.0)
    began = time.monotonic()
    text = refusal(hub=f"org/{name}", revision="v9")
    assert time.monotonic() - began < 3
    for part in (f"task: org/{name}", *parts):
        assert part in text


def test_an_address_that_is_looked_up_for_ever_is_given_up(monkeypatch):
    """The look-up of a name has no time limit of its own: the thread's limit must hold."""
    monkeypatch.setattr(hub, "_PROBE_SECONDS", 0.3)
    monkeypatch.setattr(hub.HfApi, "dataset_info", lambda *_, **__: time.sleep(5))
    began = time.monotonic()
    assert "no answer in" in refusal(hub="org/name")
    assert time.monotonic() - began < 2


def test_no_network_and_offline_mode_fail_fast(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    assert "cannot be reached" in refusal(hub="org/name")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal(hub="org/name")
    assert time.monotonic() - began < 3
    assert datasets.config.HF_HUB_OFFLINE is True


def test_a_name_that_cannot_be():
    assert "nor a legal dataset name" in refusal(hub="a b!")


def _cache_a_dataset(tmp_path: Path) -> None:
    """Put a dataset where the library keeps one that came from the Hub."""
    source = tmp_path / "source"
    source.mkdir()
    datasets.Dataset.from_dict(ROWS).to_json(source / "train.jsonl")
    datasets.load_dataset(str(source), split="train")
    found = next((tmp_path / "cache" / "source").glob("default/0.0.0/*/dataset_info.json")).parent
    target = tmp_path / "cache" / "org___name" / "default" / "0.0.0" / COMMIT
    target.parent.mkdir(parents=True)
    found.rename(target)
    for file in target.glob("source-*"):
        file.rename(file.with_name(file.name.replace("source-", "name-")))


def test_a_cached_dataset_is_used_without_a_network(tmp_path, monkeypatch, reference):
    _cache_a_dataset(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert read(hub="org/name").fingerprint == reference
    assert datasets.config.HF_HUB_OFFLINE is False
    assert read(hub="org/name", revision=COMMIT).fingerprint == reference
    # The library would give the cached copy for any revision.
    assert "not known to be revision 'v2'" in refusal(hub="org/name", revision="v2")
