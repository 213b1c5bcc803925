"""The launchers of a sweep: what can be read off them, and the settings beside them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from launcher_stand_ins import LAUNCHERS, ROOT, lines

from safemix.tuning.points import trial_count
from safemix.tuning.settings import load_sweep

SCRIPTS = [LAUNCHERS / "ray_job.sh", LAUNCHERS / "slurm_ray.sbatch"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_says_how_far_it_was_tried(script):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert os.access(script, os.X_OK)
    assert "\nset -euo pipefail\n" in text
    assert re.search(r"^# Checked: .*not run ", "\n".join(text.splitlines()[:4]), re.MULTILINE)
    assert "\t" not in text
    assert max(map(len, text.splitlines())) <= 110


def test_shellcheck_finds_nothing_in_them():
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    command = [checker, "-x", "-P", str(LAUNCHERS), *map(str, SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_tests_install_what_a_sweep_needs():
    pins = lines(LAUNCHERS / "constraints.txt")
    assert {"ray==2.60.0", "optuna==5.0.0"} <= set(pins)
    setup = re.search(r"^setup_environment (\S+)$", (LAUNCHERS / "test.sh").read_text(), re.M)
    assert setup is not None
    assert "ray" in setup[1].split(",")


@pytest.mark.parametrize("name", ["sweep", "sweep_quick"])
def test_a_sweep_to_start_from_can_be_read(name):
    sweep = load_sweep(LAUNCHERS / "configs" / f"{name}.yaml")
    assert sweep.output_dir == f"runs/{name}"
    assert next(iter(sweep.search)) == "ratio"


def test_the_quick_one_is_small_and_needs_no_download():
    sweep = load_sweep(LAUNCHERS / "configs" / "sweep_quick.yaml")
    assert (trial_count(sweep), sweep.workers, sweep.address) == (3, 2, None)
    assert sweep.resources.gpus_per_worker == 0
    assert sweep.resources.cpus_per_worker * sweep.workers <= 2
    run = sweep.run
    assert (run["model"], run["task"], run["safety"]) == ("tiny", "builtin:task", "builtin:safety")
    assert run["evaluation"]["task"]["file"] == "builtin:task"


def test_the_sweep_of_the_readme(tmp_path):
    found = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (text,) = [block for block in found if "\nsearch:" in block]
    (tmp_path / "run.yaml").write_text(found[0])
    (tmp_path / "sweep.yaml").write_text(text)
    changes = ["trials=24", "search.ratio.log_uniform=[0.02, 0.2]"]
    sweep = load_sweep(tmp_path / "sweep.yaml", changes)
    assert (sweep.scheduler, sweep.trials, sweep.bounds) == ("none", 24, {"asr": 0.05})
    for change in changes:  # as the README's command line has them
        assert change.replace("[", "'[").replace("]", "]'") in (ROOT / "README.md").read_text()
