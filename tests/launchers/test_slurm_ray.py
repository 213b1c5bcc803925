"""`slurm_ray.sbatch`: its steps, with stand-ins for Slurm's commands and for Ray."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launcher_stand_ins import LAUNCHERS, QUICK, ROOT, environment, lines, program
from launching_for_tests import free_port

RUN_STEP = """
import os, signal, socket, sys, time
where = sys.argv[sys.argv.index("--log") + 1]
if "--head" in sys.argv:
    listener = socket.socket()
    listener.bind(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
    listener.listen()
signal.signal(signal.SIGTERM, lambda *_: (open(where, "a").write("ended\\n"), os._exit(0)))
time.sleep(60)
"""
FAKE_RAY = """
import os, time
calls = []
def init(**given):
    open(os.environ["LOG"], "a").write(f"joined {given['address']}\\n")
def nodes():
    calls.append(1)
    if len(calls) > 4: time.monotonic = lambda: float("inf")  # the time is over
    return [{"Alive": True}] * min(len(calls), int(os.environ["COME_UP"]))
"""


@pytest.fixture
def slurm(tmp_path) -> Path:
    """Stand-ins: srun writes down what it is to start, and waits; the nodes come up in turn."""
    (tmp_path / "step.py").write_text(RUN_STEP)
    log = tmp_path / "log"
    told = f'echo "$RAY_AUTH_MODE $(stat -c %a "$RAY_AUTH_TOKEN_PATH")" >>{tmp_path}/token'
    program(
        tmp_path / "bin/srun",
        f'echo "srun $*" >>{log}; {told}; [[ -z "${{SRUN_FAILS:-}}" ]] || exit 1\n'
        f'exec {sys.executable} {tmp_path}/step.py "$@" --log {log}',
    )
    program(tmp_path / "bin/scontrol", r'[[ "$*" == "show hostnames "* ]] && printf "$NODES"')
    addresses = "127.0.1.1 STREAM\\n10.0.0.7 STREAM\\n10.0.0.8 STREAM\\n"
    program(tmp_path / "bin/getent", f'printf "{addresses}"')
    program(tmp_path / "venv/bin/python", f'exec {sys.executable} "$@"')
    program(tmp_path / "venv/bin/ray", "exit 1")
    program(
        tmp_path / "venv/bin/safemix",
        f'echo "safemix $*" >>{log}\ntrap "exit 130" USR1\n'
        'for _ in $(seq "${SWEEP_TENTHS:-0}"); do sleep 0.1; done\nexit 3',
    )
    fake = tmp_path / "fake/ray/__init__.py"
    fake.parent.mkdir(parents=True)
    fake.write_text(FAKE_RAY)
    return tmp_path


def allocation(folder: Path, **variables: str) -> dict[str, str]:
    return environment(
        folder,
        **{
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_NODELIST": "node[7-9]",
            "SLURM_JOB_ID": "123456",
            "SLURM_CPUS_PER_TASK": "32",
            "SLURM_GPUS_ON_NODE": "8",
            "HEAD_ADDRESS": "127.0.0.1",
            "RAY_PORT": str(free_port()),
            "NODES_WAIT_S": "60",
            "NODES": "node7\\nnode8\\nnode9\\n",
            "COME_UP": "3",
            "LOG": str(folder / "log"),
            **variables,
        },
    )


def batch(folder: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LAUNCHERS / "slurm_ray.sbatch", *(args or sweep_args(folder))],
        env=allocation(folder, **variables),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def sweep_args(folder: Path) -> tuple[str, ...]:
    return ("--config", QUICK, "--set", f"output_dir={folder}/sweep")


def test_slurm_brings_up_the_head_then_the_others_then_the_sweep(slurm):
    done = batch(slurm, RAY_PORT="", SLURM_JOB_ID="123457")
    assert done.returncode == 3, done.stderr
    told = [line for line in lines(slurm / "log") if line != "ended"]
    common = "srun --export=ALL --no-kill --wait=0 --kill-on-bad-exit=0 --cpus-per-task=32"
    ray = "ray start --block --num-cpus 32 --num-gpus 8 --temp-dir /tmp/ray-123457"
    at = "127.0.0.1:23457"
    head, *rest = told
    assert head == (
        f"{common} --nodes=1 --ntasks=1 --nodelist=node7 {ray} --head "
        "--node-ip-address 127.0.0.1 --port 23457 --include-dashboard false"
    )
    spread = "--nodes=2 --ntasks=2 --ntasks-per-node=1 --exclude=node7"
    others = f"{common} {spread} {ray} --address {at}"
    assert sorted(rest[:2]) == sorted([others, f"joined {at}"])  # side by side
    args = " ".join(sweep_args(slurm))
    assert rest[2:] == [f"safemix tune {args} --set address={at}"]


def test_ray_takes_the_options_that_slurms_steps_give_it(slurm):
    scripts = pytest.importorskip("ray.scripts.scripts")
    assert batch(slurm).returncode == 3
    steps = [line.split(" ray start ")[1] for line in lines(slurm / "log") if "ray start" in line]
    head, worker = (scripts.start.make_context("start", step.split()).params for step in steps)
    assert (head["head"], head["num_cpus"], head["num_gpus"], head["block"]) == (True, 32, 8, True)
    assert head["include_dashboard"] is False
    assert worker["address"] == f"{head['node_ip_address']}:{head['port']}"
    assert not worker["head"]


def test_slurms_cluster_asks_for_a_token_that_nobody_else_can_read(slurm):
    assert batch(slurm).returncode == 3
    assert lines(slurm / "token") == ["token 600"] * 2
    assert list((slurm / "sweep").iterdir()) == []


def test_ray_ends_with_the_sweep(slurm):
    assert batch(slurm).returncode == 3
    deadline = time.monotonic() + 20
    while lines(slurm / "log").count("ended") < 2:
        assert time.monotonic() < deadline, lines(slurm / "log")
        time.sleep(0.05)


def test_on_one_node_there_are_no_others(slurm):
    assert batch(slurm, NODES="node7\\n", COME_UP="1").returncode == 3
    assert sum(line.startswith("srun") for line in lines(slurm / "log")) == 1


def test_a_job_that_is_requeued_goes_on_with_its_sweep(slurm):
    (slurm / "sweep").mkdir()
    (slurm / "sweep" / "sweep.json").touch()
    assert batch(slurm).returncode == 3
    (call,) = [line for line in lines(slurm / "log") if line.startswith("safemix")]
    assert f" --resume {slurm}/sweep --set address=" in call
    assert batch(slurm, "--resume", f"{slurm}/sweep").returncode == 3
    call = [line for line in lines(slurm / "log") if line.startswith("safemix")][-1]
    assert call.count("--resume") == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--config", QUICK, "--set", "workers=3"), "global_batch_size 8 is not divisible"),
        (("--config", QUICK, "--set", "searcher=best"), "searcher = 'best'"),
        (("--set", "trials=3"), "give --config FILE, or --resume DIR"),
    ],
)
def test_a_mistake_is_told_before_a_node_starts_ray(slurm, args, words):
    done = batch(slurm, *args)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert lines(slurm / "log") == []


@pytest.mark.parametrize(
    ("variables", "code", "words"),
    [
        ({"SRUN_FAILS": "1"}, 2, "Ray did not start on node7"),
        ({"COME_UP": "2"}, 1, "2 of 3 nodes came up within 60 s"),
        ({"HEAD_ADDRESS": "", "NODES_WAIT_S": "0"}, 2, "does not answer at 10.0.0.7:"),
        ({"GPUS_PER_NODE": "all"}, 2, "GPUS_PER_NODE=all: give a number"),
        ({"SLURM_SUBMIT_DIR": "/"}, 2, "/ is not the safemix repository"),
        ({"SAFEMIX_VENV": "/nowhere"}, 2, "no safemix[ray] in /nowhere"),
    ],
)
def test_nodes_that_do_not_come_up_are_told(slurm, variables, code, words):
    done = batch(slurm, **variables)
    assert done.returncode == code
    assert words in done.stderr
    assert not any(line.startswith("safemix") for line in lines(slurm / "log"))


def test_before_the_time_limit_the_sweep_is_stopped_and_may_report(slurm):
    variables = {"NODES": "node7\\n", "COME_UP": "1", "SWEEP_TENTHS": "300"}
    job = subprocess.Popen(
        [LAUNCHERS / "slurm_ray.sbatch", *sweep_args(slurm)],
        env=allocation(slurm, **variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 40
        while not any(line.startswith("safemix") for line in lines(slurm / "log")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)  # the stand-in sets its trap, the script its own
        job.send_signal(signal.SIGUSR1)
        assert job.wait(20) == 130
    finally:
        job.kill()
