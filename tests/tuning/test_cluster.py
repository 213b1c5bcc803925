"""The cluster of a sweep: whether a trial fits, what is waited for, and an address with nobody."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
import ray
from sweeps_for_tests import sweep

from safemix.errors import SettingsError
from safemix.tuning import cluster


@pytest.fixture
def joined(monkeypatch):
    """A cluster that is there already; tests say what it has, from look to look."""
    looks: list[dict[str, float]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(
        ray, "cluster_resources", lambda: looks.pop(0) if len(looks) > 1 else looks[0]
    )
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: None)
    return looks


def connected(joined: list[dict[str, float]], *there: dict[str, float], **changes: Any):
    joined[:] = there
    said: list[str] = []
    return cluster.connect(sweep(**changes), said.append), said


@pytest.mark.parametrize(
    ("there", "changes", "trials"),
    [
        ({"CPU": 2.0}, {}, 1),
        ({"CPU": 7.0, "memory": 1e9}, {}, 3),
        ({"CPU": 7.0}, {"workers": 1, "resources": {"cpus_per_worker": 0.5}}, 14),
        ({"CPU": 64.0, "GPU": 8.0}, {"resources": {"gpus_per_worker": 1}}, 4),
        ({"CPU": 64.0, "GPU": 1.0}, {"workers": 1, "resources": {"gpus_per_worker": 0.25}}, 4),
        ({"CPU": 4.0, "GPU": 8.0}, {"resources": {"gpus_per_worker": 1}}, 2),
        ({"CPU": 64.0}, {"parallel": 3}, 3),
    ],
)
def test_as_many_trials_as_fit(joined, there, changes, trials):
    assert connected(joined, there, **changes) == (trials, [])


def test_fewer_than_were_asked_for_is_said(joined):
    found, said = connected(joined, {"CPU": 4.0}, parallel=8)
    assert found == 2
    assert said == ["parallel: 8 trials asked for, 2 fit at a time"]


def test_a_trial_that_does_not_fit_is_refused_at_once_with_need_and_have(joined):
    with pytest.raises(SettingsError) as caught:
        connected(joined, {"CPU": 2.0, "node:1": 1.0}, workers=4, resources={"gpus_per_worker": 1})
    text = str(caught.value)
    assert "a trial needs 4 CPU, 4 GPU (4 workers), the cluster has 2 CPU, 0 GPU" in text
    assert "wait_for_resources" in text
    assert "\n" not in text


def test_it_waits_for_nodes_only_if_told_to_and_says_so_once(joined):
    few, more = {"CPU": 1.0}, {"CPU": 4.0}
    found, said = connected(joined, few, few, few, more, wait_for_resources=60)
    assert found == 2
    assert said == ["waiting up to 60 s for 2 CPU"]


def test_it_does_not_wait_for_ever(joined, monkeypatch):
    now = iter(range(0, 1000, 5))
    monkeypatch.setattr(cluster.time, "monotonic", lambda: next(now))
    with pytest.raises(SettingsError, match="the cluster has 1 CPU"):
        connected(joined, {"CPU": 1.0}, wait_for_resources=12)


def test_population_based_training_needs_room_for_all_its_trials(joined):
    changes = {"scheduler": "pbt", "trials": 3}
    assert connected(joined, {"CPU": 6.0}, **changes)[0] == 3
    with pytest.raises(SettingsError, match="lower trials, workers or resources") as caught:
        connected(joined, {"CPU": 5.0}, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_where_nobody_answers_is_told_in_seconds(address):
    begun = time.monotonic()
    with pytest.raises(SettingsError) as caught:
        cluster.connect(sweep(address=address), pytest.fail)
    assert time.monotonic() - begun < 5
    assert f"address {address!r} cannot be reached: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cluster_that_answers_is_joined(monkeypatch):
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **kwargs: asked.append(kwargs))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert cluster.connect(sweep(address=address), pytest.fail) == 1
    assert asked[0]["address"] == address
    assert cluster.os.environ["RAY_USAGE_STATS_ENABLED"] == "0", "nothing leaves the machine"


def test_an_address_that_does_not_answer_as_ray_does_is_told_while_ray_tries(monkeypatch):
    said: list[str] = []
    answered = threading.Event()
    monkeypatch.setattr(cluster, "_REACH_S", 0.05)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **kwargs: answered.wait(30))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})

    def say(text: str) -> None:
        said.append(text)
        answered.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert cluster.connect(sweep(address=address), say) == 1
    assert said == [
        f"still trying {address!r}: something listens there, but has not answered as Ray yet; "
        "Ctrl-C ends this"
    ]


@pytest.mark.parametrize("address", [None, "local", "auto"])
def test_without_an_address_ray_starts_here(monkeypatch, address):
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **kwargs: asked.append(kwargs))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    cluster.connect(sweep(address=address), pytest.fail)
    assert asked[0]["address"] == ("auto" if address == "auto" else "local")
    assert asked[0].get("include_dashboard", address == "auto") == (address == "auto")


def test_ray_that_finds_no_cluster_is_one_line(monkeypatch):
    def none_there(**kwargs: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nPlease specify the one")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", none_there)
    with pytest.raises(SettingsError, match="Could not find any running Ray instance") as caught:
        cluster.connect(sweep(address="auto"), pytest.fail)
    assert "\n" not in str(caught.value)
