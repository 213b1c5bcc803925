"""A trial goes on from another one: it takes checkpoint, metrics and audit, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from runs_for_tests import attempt, checkpoint, evaluation, metrics, plan_of

from safemix.errors import CheckpointError
from safemix.hosts.hf_trainer import STATE_FILE
from safemix.hosts.resume import restored_plan
from safemix.training.checkpoints import MANIFEST, find_checkpoint
from safemix.tuning.clone import clone_run


def run_folder(folder: Path, steps: int, mark: str) -> Path:
    """A run that has come to a step, with all that it writes."""
    attempt(folder, 0, steps, ends=False)
    metrics(folder, plan_of(), range(0, steps + 1, 5), more={"train/loss": len(mark)})
    checkpoint(folder, steps // 20 * 10)
    last = checkpoint(folder, steps // 10 * 10)
    audit = folder / "audit"
    audit.mkdir()
    (audit / "rank0.jsonl").write_text(f'{{"step": 0, "of": "{mark}"}}\n', "utf-8")
    evaluation(folder, steps)
    (folder / "finished.json").write_text('{"step": 1}', "utf-8")
    for name in ("settings.yaml", "notes.txt", "trial.json"):
        (folder / name).write_text(f"{mark}\n", "utf-8")
    return last


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_trial_takes_over_and_the_donor_stays_as_it_is(tmp_path):
    donor, own = tmp_path / "trial-00", tmp_path / "trial-01"
    taken = run_folder(donor, 40, "donor")
    run_folder(own, 20, "own own")
    before, mine = everything(donor), everything(own)
    clone_run(taken, own)
    assert everything(donor) == before
    after = everything(own)
    assert {name for name in after if name.startswith("checkpoint")} == {
        f"checkpoint-40/{name}" for name in (STATE_FILE, "model.safetensors", MANIFEST)
    }
    for name in after:
        if name.startswith(("checkpoint", "metrics", "audit")):
            assert after[name] == before[name], name
        else:
            assert after[name] == mine[name], f"{name} is the trial's own"
    gone = {"evaluations/step-000020.json", "finished.json"}
    assert gone & after.keys() == set(), "they belong to weights that are given up"
    assert {"attempts.jsonl", "settings.yaml", "notes.txt", "trial.json"} <= after.keys()
    found = find_checkpoint(own, pytest.fail)
    assert found is not None
    assert found.step == 40


def test_readings_after_the_checkpoint_are_not_the_trials(tmp_path):
    run_folder(tmp_path / "donor", 40, "donor")
    clone_run(tmp_path / "donor" / "checkpoint-20", tmp_path / "new")
    lines = (tmp_path / "new" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 5, 10, 15, 20]


def test_its_own_checkpoint_changes_nothing(tmp_path):
    own = run_folder(tmp_path / "trial-00", 40, "own")
    before = everything(tmp_path / "trial-00")
    clone_run(own, tmp_path / "trial-00" / ".." / "trial-00")
    assert everything(tmp_path / "trial-00") == before


@pytest.mark.parametrize("fault", ["gone", "no manifest", "damaged", "half deleted"])
def test_a_checkpoint_that_is_not_whole_is_refused_and_the_trial_keeps_its_own(tmp_path, fault):
    donor, own = tmp_path / "donor", tmp_path / "own"
    taken = run_folder(donor, 40, "donor")
    run_folder(own, 20, "own")
    before = everything(own)
    if fault == "gone":
        shutil.rmtree(taken)
    elif fault == "no manifest":
        (taken / MANIFEST).unlink()
    elif fault == "damaged":
        (taken / "model.safetensors").write_bytes(b"weights of step 99")
    else:
        (taken / STATE_FILE).unlink()
    with pytest.raises(CheckpointError) as caught:
        clone_run(taken, own)
    assert "\n" not in str(caught.value)
    assert "checkpoint-40" in str(caught.value)
    assert everything(own) == before
    assert not (own / ".taken-over").exists()


def test_a_copy_that_was_cut_is_made_again(tmp_path):
    taken = run_folder(tmp_path / "donor", 40, "donor")
    left = tmp_path / "new" / ".taken-over" / "checkpoint-40"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half of it")
    clone_run(taken, tmp_path / "new")
    assert everything(tmp_path / "new" / "checkpoint-40") == everything(taken)
    assert not left.parent.exists()


def test_the_trial_draws_the_donors_next_rows_at_its_own_ratio(tmp_path):
    """No row of either source is lost or comes again at the change."""
    taken = checkpoint(tmp_path / "donor", 20, plan_of(0.1))
    clone_run(taken, tmp_path / "new")
    saved = json.loads((tmp_path / "new" / "checkpoint-20" / STATE_FILE).read_text("utf-8"))
    saved["asked"] = plan_of(0.1).state_dict()["history"]
    mine = plan_of(0.3)
    plan = restored_plan(saved, mine, mine.state_dict()["history"])
    donor = plan_of(0.1)
    assert (plan.cumulative(0, 20) == donor.cumulative(0, 20)).all()
    assert float(plan.ratio("safety", 20)) == 0.3
    drawn: dict[int, list[int]] = {0: [], 1: []}
    for step in range(60):
        rows = (donor if step < 20 else plan).step(step)
        for source, row in zip(rows.source, rows.row, strict=True):
            drawn[int(source)].append(int(row))
    for source, size in enumerate(plan.sizes.values()):
        for first in range(0, len(drawn[source]), size):
            one_pass = drawn[source][first : first + size]
            assert len(set(one_pass)) == len(one_pass)
