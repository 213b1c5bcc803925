"""W&B follows a job and never stops it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from safemix.settings import TrackingSettings
from safemix.tracking.tracker import Tracking
from safemix.tracking.wandb_run import STEP, WandbRun, run_id, wandb_mode, without_secrets


class FakeRun:
    def __init__(self, folder: str) -> None:
        self.dir = f"{folder}/wandb/offline-run-x/files"
        self.logged: list[dict[str, Any]] = []
        self.defined: list[tuple[str, str | None]] = []
        self.finished = 0
        self.trouble: Exception | None = None

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.defined.append((name, step_metric))

    def log(self, data: dict[str, Any]) -> None:
        if self.trouble:
            raise self.trouble
        self.logged.append(data)

    def finish(self) -> None:
        if self.trouble:
            raise self.trouble
        self.finished += 1


class FakeSettings(dict):
    """Knows some settings only, as an older W&B does, and refuses the others."""

    model_fields = dict.fromkeys(["console", "silent", "save_code", "init_timeout"])

    def __init__(self, **values: Any) -> None:
        assert set(values) <= set(self.model_fields), values
        super().__init__(values)


@pytest.fixture
def wandb(monkeypatch):
    """A W&B that records what it is asked; `fails` is what `init` raises, one mode a key."""
    fake = SimpleNamespace(Settings=FakeSettings, calls=[], runs=[], fails={})

    def init(**keywords: Any) -> FakeRun:
        fake.calls.append(keywords)
        if keywords["mode"] in fake.fails:
            raise fake.fails[keywords["mode"]]
        fake.runs.append(FakeRun(keywords["dir"]))
        return fake.runs[-1]

    fake.init, fake.setup = init, lambda settings: None
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    return fake


def start(folder: Path, resume_step: int = 0, **settings: Any) -> WandbRun:
    return WandbRun(TrackingSettings(**settings), folder, {"model": "tiny"}, resume_step)


def test_mode_follows_the_setting_then_the_environment(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert wandb_mode(TrackingSettings()) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert wandb_mode(TrackingSettings()) == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode(TrackingSettings()) == "disabled"
    assert wandb_mode(TrackingSettings(wandb="offline")) == "offline"


def test_the_step_is_an_axis_of_its_own(tmp_path, wandb):
    run = start(tmp_path)
    run.log(17, {"safety/loss": 1.0})
    run.close()
    assert wandb.runs[0].defined == [(STEP, None), ("*", STEP)]
    assert wandb.runs[0].logged == [{STEP: 17, "safety/loss": 1.0}]
    assert wandb.runs[0].finished == 1
    assert run.directory == tmp_path / "wandb" / "offline-run-x"
    assert wandb.calls[0]["settings"]["console"] == "off"


def test_a_resumed_job_goes_on_in_its_run_and_a_new_one_does_not(tmp_path, wandb):
    start(tmp_path)
    start(tmp_path, resume_step=3)
    start(tmp_path)
    first, resumed, fresh = wandb.calls
    assert resumed["id"] == first["id"]
    assert (first["resume"], resumed["resume"]) == (None, "allow")
    assert fresh["id"] != first["id"]


def test_a_spoilt_id_file_gives_a_new_id(tmp_path):
    first = run_id(tmp_path, 0)
    (tmp_path / "wandb" / "safemix_run_id").write_text("../../etc\n")
    assert run_id(tmp_path, 5) not in (first, "../../etc")


def test_offline_when_the_server_cannot_be_reached(tmp_path, wandb, capfd):
    wandb.fails["online"] = ConnectionError("no\nnetwork")
    run = start(tmp_path, wandb="online")
    run.log(1, {"a": 1})
    assert [call["mode"] for call in wandb.calls] == ["online", "offline"]
    assert wandb.calls[0]["id"] == wandb.calls[1]["id"]
    assert wandb.runs[0].logged
    assert capfd.readouterr().err.splitlines() == [
        "safemix: warning: W&B cannot be reached (ConnectionError: no): this run is kept offline"
    ]


@pytest.mark.parametrize("when", ["init", "log", "finish"])
def test_a_failure_is_one_line_and_training_goes_on(tmp_path, wandb, capfd, when):
    trouble = OSError(28, "No space left on device")
    if when == "init":
        wandb.fails["offline"] = trouble
    run = start(tmp_path)
    if when == "log":
        wandb.runs[0].trouble = trouble
    run.log(1, {"a": 1})
    if when == "finish":
        wandb.runs[0].trouble = trouble
    run.log(2, {"a": 1}) if when != "finish" else None
    run.close()
    run.close()
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert "No space left" in said[0]


def test_an_absent_package_is_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = start(tmp_path, wandb="offline")
    run.log(1, {"a": 1})
    run.close()
    assert "pip install 'safemix[wandb]'" in capfd.readouterr().err
    assert run.directory is None


def test_secrets_are_blanked():
    config = {
        "hub_token": "hf_x",
        "API_KEY": "k",
        "ratio_of": "tokens",
        "pad_token_id": 3,
        "task": {"file": "https://me:pw@host/x.jsonl", "password": "p"},
        "sources": [{"secret": "s"}],
    }
    assert without_secrets(config) == {
        "hub_token": "***",
        "API_KEY": "***",
        "ratio_of": "tokens",
        "pad_token_id": 3,
        "task": {"file": "https://***@host/x.jsonl", "password": "***"},
        "sources": [{"secret": "***"}],
    }


def test_tracking_writes_both_and_an_idle_source_has_no_loss(tmp_path, wandb):
    tracking = Tracking(TrackingSettings(), tmp_path, {})
    nan = float("nan")
    tracking.log(1, {"safety/loss": nan, "safety/row_share": 0.0, "utility/loss": nan})
    tracking.close()
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 1, "safety/loss": null, "safety/row_share": 0.0, "utility/loss": null, '
        '"nonfinite": ["utility/loss"]}\n'
    )
    logged = wandb.runs[0].logged[0]
    assert "safety/loss" not in logged
    assert logged["utility/loss"] != logged["utility/loss"]
    assert tracking.wandb_dir == tmp_path / "wandb" / "offline-run-x"


def test_a_rank_that_does_not_log_touches_nothing(tmp_path, wandb):
    tracking = Tracking(TrackingSettings(), tmp_path, {}, enabled=False)
    tracking.log(1, {"a": 1})
    tracking.close()
    assert tracking.wandb_dir is None
    assert not list(tmp_path.iterdir())
    assert not wandb.calls


def test_real_wandb_offline_keeps_what_is_logged_after_a_resume(tmp_path, monkeypatch, capfd):
    real = pytest.importorskip("wandb")
    if not hasattr(real, "init"):
        pytest.skip("wandb is not whole here")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    settings = TrackingSettings(wandb="offline")
    for resume_step in (0, 2):
        tracking = Tracking(settings, tmp_path, {"model": "tiny"}, resume_step)
        for step in range(resume_step + 1, resume_step + 4):
            tracking.log(step, {"safety/loss": 1.0 / step})
        tracking.close()
        folder = tracking.wandb_dir
        assert folder is not None
        records = list(folder.glob("run-*.wandb"))
        assert len(records) == 1
        # Its own process writes the file, and may be a moment behind.
        until = time.monotonic() + 30
        while records[0].read_bytes().count(b"safety/loss") < 3 and time.monotonic() < until:
            time.sleep(0.1)
        content = records[0].read_bytes()
        assert content.count(b"safety/loss") >= 3
        assert STEP.encode() in content
    assert len({path.name for path in tmp_path.glob("wandb/offline-run-*/run-*.wandb")}) == 1
    assert capfd.readouterr().err == ""
