"""`ray_job.sh`: what it asks of `ray job submit`, and what comes back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from launcher_stand_ins import LAUNCHERS, environment, lines, program


@pytest.fixture
def job(tmp_path) -> Path:
    """An environment whose Python tells how `ray job submit` was called, and ends as $ENDS says."""
    program(
        tmp_path / "venv/bin/python",
        'case "$1 $2" in\n'
        '  "-c import aiohttp, ray") exit "${NO_RAY:-0}" ;;\n'
        f'  "-m ray.scripts.scripts") shift 2; printf "%s\\n" "$@" >{tmp_path}/submitted\n'
        '    exit "${ENDS:-0}" ;;\n'
        f'  *) exec {sys.executable} "$@" ;;\n'
        "esac",
    )
    fake = tmp_path / "fake/ray/job_submission.py"
    fake.parent.mkdir(parents=True)
    (fake.parent / "__init__.py").touch()
    fake.write_text(
        "import os\nfrom types import SimpleNamespace\n"
        "class JobSubmissionClient:\n"
        "    def get_job_info(self, job):\n"
        "        if 'LOST' in os.environ: raise RuntimeError('no\\nsuch job')\n"
        "        return SimpleNamespace(driver_exit_code=int(os.environ['CODE']))\n"
    )
    return tmp_path


def submit(folder: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LAUNCHERS / "ray_job.sh", *args],
        env=environment(folder, **variables),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_job_is_submitted_with_arguments_that_ray_takes(job):
    cli = pytest.importorskip("ray.dashboard.modules.job.cli")
    change = "search.ratio={log_uniform: [0.01, 0.3]}"
    done = submit(job, "--config", "s.yaml", "--set", change, JOB_ID="mine", JOB_WAIT="0")
    assert (done.returncode, done.stderr) == (0, "")
    name, action, *args = lines(job / "submitted")
    assert (name, action) == ("job", "submit")
    given = cli.submit.make_context("submit", args).params
    assert (given["submission_id"], given["no_wait"]) == ("mine", True)
    assert json.loads(given["runtime_env_json"]) == {
        "env_vars": {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
    }
    safemix = str(job / "venv/bin/safemix")
    assert list(given["entrypoint"]) == [
        "env", f"--chdir={job}", safemix, "tune", "--config", "s.yaml", "--set", change,
        "--set", "address=auto",
    ]  # fmt: skip


def test_a_job_may_run_another_safemix_elsewhere(job):
    done = submit(job, "--resume", "/s", JOB_DIR="/data", JOB_SAFEMIX="safemix")
    assert done.returncode == 0
    submitted = lines(job / "submitted")
    assert "--no-wait" not in submitted
    at = submitted.index("--")
    assert submitted[at + 1 : at + 5] == ["env", "--chdir=/data", "safemix", "tune"]
    assert re.fullmatch(r"safemix-\d{8}-\d{6}", submitted[submitted.index("--submission-id") + 1])


@pytest.mark.parametrize(
    ("variables", "code", "words"),
    [
        ({"ENDS": "1", "CODE": "3"}, 3, ""),
        ({"ENDS": "1", "LOST": "1"}, 1, "does not say how job mine ended: no such job"),
        ({"NO_RAY": "1"}, 2, "no ray[default] in"),
        ({"JOB_ID": "a b"}, 2, "JOB_ID=a b: give letters"),
    ],
)
def test_a_jobs_end_is_the_sweeps(job, variables, code, words):
    done = submit(job, "--config", "s.yaml", **{"JOB_ID": "mine", **variables})
    assert done.returncode == code
    assert words in done.stderr
    assert done.stderr.count("\n") == bool(words)


def test_without_arguments_it_says_how(job):
    done = submit(job)
    assert done.returncode == 2
    assert "usage: launchers/ray_job.sh --config FILE" in done.stderr
