"""The anchor in whole runs: read before the first step, the same on all ranks, kept on resume."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from jobs_for_tests import Done, job, metrics, rewind, rows_by_step, write_config
from safetensors import safe_open
from safetensors.torch import load_file

from safemix.mixture import MixturePlan
from safemix.settings import parse_settings
from safemix.training.anchor import FILE, anchor_of, drawn_rows

COUNT = 4
ANCHOR: dict[str, Any] = {"count": COUNT, "weight": 50.0}


def config(folder: Path, **changes: Any) -> Path:
    anchor = changes.pop("anchor", ANCHOR)
    given: dict[str, Any] = {
        "safety": {"builtin": "safety", "limit": 40, "anchor": anchor},
        "mitigation": {"name": "base", "lookalikes": 0.125},
        "ratio": 0.25,
        "max_steps": 4,
        "save_steps": 2,
        "lora": False,
        "ds_config": None,
    }
    return write_config(folder, **(given | changes))


def ended(done: Done) -> Done:
    assert done.code == 0, done.text
    assert "Traceback" not in done.text
    return done


def of(run: Path, key: str) -> list[float]:
    return [line[key] for line in metrics(run) if "train/loss" in line]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On one process, without DeepSpeed."""
    folder = tmp_path_factory.mktemp("one")
    done = ended(job(config(folder)))
    assert "anchor: 12 rows read, as the model is before the first step" in done.err
    return folder / "run"


@pytest.mark.slow
def test_the_table_has_the_rows_that_the_run_draws(one_process: Path) -> None:
    tensors = load_file(one_process / FILE)
    with safe_open(one_process / FILE, "pt") as file:
        assert file.metadata() == {"count": "4"}
    drawn = {row for rows in rows_by_step(one_process).values() for row in rows}
    for name in ("safety", "lookalikes"):
        there = (tensors[name] >= 0).nonzero().ravel().tolist()
        assert there == sorted(row for source, row in drawn if source == name)
    assert len(tensors["starts"]) == 13
    assert tensors["tokens"].shape == tensors["log_probs"].shape == (12 * COUNT, 64)
    assert bool((tensors["log_probs"].exp().sum(1) <= 1.0001).all())


@pytest.mark.slow
def test_it_is_nothing_before_the_first_update_and_holds_afterwards(
    one_process: Path, tmp_path: Path
) -> None:
    held = of(one_process, "safety/anchor_kl")
    assert held[0] == pytest.approx(0, abs=1e-6)
    assert min(held[1:]) > 0
    faint, strong = tmp_path / "faint", tmp_path / "strong"
    ended(job(config(faint, anchor={"count": COUNT, "weight": 1e-6})))
    ended(job(config(strong, anchor={"count": COUNT, "weight": 5e3})))
    assert (
        of(strong / "run", "safety/anchor_kl")[-1] < 0.7 * of(faint / "run", "safety/anchor_kl")[-1]
    )
    none = tmp_path / "none"
    ended(job(config(none, anchor=False)))
    assert "safety/anchor_kl" not in metrics(none / "run")[-1]
    assert not (none / "run" / FILE).exists()
    loss = "train/loss"
    assert of(none / "run", loss) == pytest.approx(of(faint / "run", loss), rel=1e-5)
    assert of(none / "run", loss)[-1] < of(strong / "run", loss)[-1]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "lora"), [(2, False), (3, False), (3, True)])
def test_two_ranks_under_zero_do_the_same(stage: int, lora: bool, tmp_path: Path) -> None:
    runs = []
    for name, changes, processes in (
        ("one", {}, 1),
        ("two", {"ds_config": f"zero{stage}"}, 2),
    ):
        own = {"lora": {"r": 4}} if lora else {}
        ended(job(config(tmp_path / name, **(changes | own)), processes=processes))
        runs.append(tmp_path / name / "run")
    assert rows_by_step(runs[0]) == rows_by_step(runs[1])
    one, two = (load_file(run / FILE) for run in runs)
    assert one.keys() == two.keys()
    for name in ("starts", "safety", "lookalikes"):
        assert one[name].tolist() == two[name].tolist()
    assert two["log_probs"].allclose(one["log_probs"], atol=1e-4)
    for key in ("train/loss", "train/grad_norm", "safety/anchor_kl"):
        assert of(runs[1], key) == pytest.approx(of(runs[0], key), rel=1e-3, abs=1e-6), key


@pytest.mark.slow
def test_a_resume_is_held_near_the_same_model(one_process: Path, tmp_path: Path) -> None:
    again = rewind(one_process, tmp_path / "again", 2)
    before = (again / FILE).read_bytes()
    (again / FILE).unlink()
    done = ended(job(config(tmp_path, output_dir=str(again))))
    assert "resuming" in done.err
    assert "anchor" not in done.err
    assert (again / FILE).read_bytes() == before
    for key in ("train/loss", "safety/anchor_kl"):
        assert of(again, key) == of(one_process, key)


@pytest.mark.slow
def test_an_anchor_that_cannot_be_gone_on_with_stops_the_run(
    one_process: Path, tmp_path: Path
) -> None:
    ended(job(config(tmp_path / "none", anchor=False)))
    for run, count, said in (
        (one_process, 3, "the run began with 4: keep 4"),
        (tmp_path / "none" / "run", 4, "is of a run without an anchor"),
    ):
        again = rewind(run, tmp_path / f"again{count}", 2)
        anchor = ANCHOR | {"count": count}
        done = job(config(tmp_path, output_dir=str(again), anchor=anchor))
        assert done.code == 2
        assert len(done.errors) == 1
        assert said in done.errors[0]


@pytest.mark.slow
def test_rows_that_more_steps_add_are_counted(one_process: Path, tmp_path: Path) -> None:
    again = rewind(one_process, tmp_path / "again", 4)
    done = ended(job(config(tmp_path, output_dir=str(again), max_steps=6)))
    assert "warning: anchor: 4 of 12 rows of safety that the run may draw were not" in done.err
    assert "anchor: 2 of 6 rows of lookalikes" in done.err


# ---- which rows, and the settings ---------------------------------------------------------------


def settings(**safety: Any) -> Any:
    tree = {"task": "builtin:task", "max_steps": 1, "mitigation": "base"}
    return parse_settings(tree | {"safety": {"builtin": "safety"} | safety})


def test_the_rows_of_a_run() -> None:
    plan = MixturePlan({"task": 500, "safety": 30}, {"safety": 0.25}, 8, seed=3)
    given = settings()
    few = drawn_rows(given, plan, 10)["safety"]
    assert len(few) == len(set(few)) == 20
    assert few == [r for s in range(10) for r in plan.step(s).row[plan.step(s).source == 1]]
    assert drawn_rows(given, plan, 15)["safety"] == list(range(30))
    assert drawn_rows(given, plan, 1000)["safety"] == list(range(30))


def test_under_a_controller_as_many_as_it_may_ever_draw() -> None:
    plan = MixturePlan({"task": 5000, "safety": 300}, {"safety": 0.1}, 10, seed=3)
    ratio = {"controller": "target", "min_margin": 0.0, "min": 0.05, "max": 0.4, "start": 0.1}
    tree = {"task": "builtin:task", "safety": "builtin:safety", "max_steps": 1, "ratio": ratio}
    found = drawn_rows(parse_settings(tree | {"mitigation": "base"}), plan, 20)["safety"]
    assert len(found) == 80
    plan.set_ratio("safety", 0.4, 0)
    drawn = [r for s in range(20) for r in plan.step(s).row[plan.step(s).source == 1]]
    assert set(drawn) == set(found), "moved at once to the most, it draws these rows"


def test_settings() -> None:
    assert anchor_of(settings()) is None
    assert anchor_of(settings(anchor=True)) == anchor_of(settings(anchor={}))
    assert anchor_of(settings(anchor={"count": 3})).count == 3
    assert anchor_of(settings(anchor=False)) is None


@pytest.mark.slow
def test_full_disk_where_the_anchor_is_written(tmp_path: Path) -> None:
    done = job(config(tmp_path, ds_config="zero2"), processes=2, fault="full_anchor:0:0")
    assert done.code == 2, done.text
    assert len(done.errors) == 1, done.text
    assert "Traceback" not in done.text
    assert "anchor.safetensors cannot be written" in done.errors[0]
    assert re.search(r"make room for 0\.0\d+ MB, or set safety.anchor: false", done.errors[0])
    assert not list((tmp_path / "run").glob("anchor*"))
