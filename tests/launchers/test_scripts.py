"""The launcher scripts: they parse, and do what they say with stand-ins for what they call."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from safemix.settings import load_settings
from safemix.training.ds_config import load_ds_config

ROOT = Path(__file__).resolve().parents[2]
LAUNCHERS = ROOT / "launchers"
SCRIPTS = [*sorted(LAUNCHERS.glob("*.sh")), *sorted(LAUNCHERS.glob("*.sbatch"))]
SCRIPTS += [ROOT / ".ci" / "run"]
CONFIGS = [
    path for path in sorted((LAUNCHERS / "configs").glob("*.yaml")) if "sweep" not in path.stem
]
# Processes that a configuration is meant for.
PROCESSES = {"llama3_8b_full": 8, "llama3_70b_lora": 8}


def bash(
    text: str, *, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run bash with `path` first on the PATH, without variables of the caller that matter."""
    mine = {"DEVICE", "NUM_PROCESSES", "LAUNCHER", "PYTHON", "SAFEMIX_VENV", "MASTER_PORT"}
    mine |= {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "DS_ACCELERATOR", "BASH_ENV"}
    env = {name: value for name, value in os.environ.items() if name not in mine}
    if path is not None:
        env["PATH"] = f"{path}{os.pathsep}{env['PATH']}"
    return subprocess.run(
        ["bash", "-c", text],
        env={**env, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def common(text: str, **keywords: object) -> subprocess.CompletedProcess[str]:
    return bash(f"set -euo pipefail; source launchers/common.sh; {text}", **keywords)  # type: ignore[arg-type]


def stand_in(folder: Path, name: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/usr/bin/env bash\n{text}\n")
    program.chmod(0o755)


@pytest.fixture
def venv(tmp_path) -> Path:
    """An environment whose launchers only tell how they were called."""
    folder = tmp_path / "venv"
    for name in ("deepspeed", "torchrun", "accelerate", "srun"):
        told = '"$OMP_NUM_THREADS" "${DS_ACCELERATOR:-}" "${CUDA_VISIBLE_DEVICES-unset}"'
        stand_in(folder / "bin", name, f"printf '%s\\n' {name} {told} \"$@\"")
    stand_in(folder / "bin", "python", f'exec {sys.executable} "$@"')
    return folder


@pytest.fixture
def gpus(tmp_path) -> Path:
    """A folder with an nvidia-smi that shows eight GPUs."""
    stand_in(tmp_path / "gpus", "nvidia-smi", "seq 0 7")
    return tmp_path / "gpus"


@pytest.fixture
def no_gpu(tmp_path) -> Path:
    stand_in(tmp_path / "no_gpu", "nvidia-smi", "echo 'no driver' >&2; exit 9")
    return tmp_path / "no_gpu"


# ---- text -------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses_and_is_sound(script):
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = script.read_text()
    assert "\r" not in text
    assert "\t" not in text
    if script.name != "common.sh":
        assert text.startswith("#!/usr/bin/env bash\n")
        assert os.access(script, os.X_OK)
        assert "\nset -euo pipefail\n" in text
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert "`" not in code
    assert not re.search(r"\b(curl|wget|sudo|eval)\b", code)
    assert not re.search(r"(?<![\"\w])\$@", code), "an unquoted $@ splits arguments"


def test_shellcheck_finds_nothing():
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")
    command = [program, "-x", "-P", str(LAUNCHERS), *map(str, SCRIPTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_constraints_pin_every_package_once():
    lines = [
        line
        for line in (LAUNCHERS / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!]*", line) for line in lines)
    names = [re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines]
    assert len(names) == len(set(names))
    needed = {"torch", "transformers", "deepspeed", "peft", "gguf", "wandb", "pytest", "ruff"}
    assert needed <= set(names)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_fits_itself(path):
    settings = load_settings(path)
    assert settings.ds_config is not None
    assert (ROOT / "ds_configs" / f"{settings.ds_config}.json").is_file()
    load_ds_config(settings.ds_config, settings, PROCESSES.get(path.stem, 2))
    assert settings.output_dir == f"runs/{path.stem}"
    assert settings.max_steps or settings.epochs


def test_the_configurations_are_all_there():
    names = {path.stem for path in CONFIGS}
    assert {"quickstart", "llama3_8b_lora", "llama3_8b_full", "llama3_70b_lora", "gsm8k"} <= names


# ---- Python and the environment ---------------------------------------------------------------


def test_python_is_found_and_a_wrong_one_is_told(tmp_path):
    assert common("find_python", PYTHON=sys.executable).stdout.strip() == sys.executable
    stand_in(tmp_path, "old", "[[ $1 == -V ]] && echo 'Python 3.9.1' && exit; exit 1")
    done = common("find_python", PYTHON=str(tmp_path / "old"))
    assert done.returncode == 2
    assert "is Python 3.9.1: give Python 3.11 or newer" in done.stderr
    done = common("find_python", PYTHON="no-such-python")
    assert done.returncode == 2
    assert "is not a program" in done.stderr


def test_without_any_new_python_it_says_so(tmp_path):
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python"):
        stand_in(tmp_path, name, "[[ $1 == -V ]] && echo 'Python 3.8.0' && exit; exit 1")
    done = common("find_python", path=tmp_path)
    assert done.returncode == 2
    assert "no Python 3.11 or newer found (Python 3.8.0)" in done.stderr


def test_without_the_venv_module_it_names_the_package(tmp_path):
    text = '[[ "$2" == *venv* ]] && exit 1; exit 0'
    stand_in(tmp_path, "bare", text)
    done = common("make_venv", PYTHON=str(tmp_path / "bare"), SAFEMIX_VENV=str(tmp_path / "v"))
    assert done.returncode == 2
    assert "apt install python3-venv" in done.stderr


def test_a_second_setup_installs_nothing(venv, tmp_path, no_gpu):
    log = tmp_path / "pip.log"
    pip = f'if [[ "$*" == *"-m pip"* && "$*" == *install* ]]; then echo "$*" >>{log}; exit; fi'
    stand_in(venv / "bin", "python", f'{pip}\nexec {sys.executable} "$@"')
    where = {"SAFEMIX_VENV": str(venv), "path": no_gpu}
    text = 'torch_options() { :; }; setup_environment "$EXTRAS"; command -v torchrun'

    first = common(text, EXTRAS="deepspeed,wandb", **where)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip() == str(venv / "bin" / "torchrun")
    calls = log.read_text().splitlines()
    assert len(calls) == 2
    assert calls[0].endswith("constraints.txt torch")
    assert calls[1].endswith(f"-e {ROOT}[deepspeed,wandb]")

    again = common(text, EXTRAS="wandb", **where)
    assert (again.returncode, again.stderr) == (0, "")
    assert len(log.read_text().splitlines()) == 2
    common(text, EXTRAS="deepspeed,wandb,dev", **where)
    assert len(log.read_text().splitlines()) == 4


def test_a_failed_install_is_told_and_tried_again(venv, no_gpu):
    fails = f'[[ "$*" == *"-e {ROOT}"* ]] && exit 1'
    pip = f'if [[ "$*" == *"-m pip"* && "$*" == *install* ]]; then {fails}; exit 0; fi'
    stand_in(venv / "bin", "python", f'{pip}\nexec {sys.executable} "$@"')
    text = "torch_options() { :; }; setup_environment wandb; echo reached"
    done = common(text, SAFEMIX_VENV=str(venv), path=no_gpu)
    assert done.returncode == 2
    assert "pip cannot install safemix[wandb]" in done.stderr
    assert "reached" not in done.stdout
    assert not (venv / ".safemix-stamp").exists()


# ---- starting jobs ----------------------------------------------------------------------------


def started(venv: Path, path: Path, **variables: str) -> list[str]:
    text = 'PATH="$VENV/bin:$PATH"; n="$(default_processes)"; start_job "$n" --a "b c"'
    done = common(text, path=path, SAFEMIX_VENV=str(venv), MASTER_PORT="4242", **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_on_a_cpu_two_processes_share_the_cores(venv, no_gpu):
    name, threads, accelerator, visible, *rest = started(venv, no_gpu)
    assert (name, accelerator, visible) == ("deepspeed", "cpu", "")
    assert 1 <= int(threads) <= max(1, (os.cpu_count() or 1) // 2)
    train = str(LAUNCHERS / "train.py")
    assert rest[-3:] == [train, "--a", "b c"]
    assert " ".join(rest).startswith("--log_level error --num_gpus 2 --master_port 4242")


def test_one_process_a_gpu(venv, gpus):
    _, threads, accelerator, visible, *rest = started(venv, gpus)
    assert (threads, accelerator, visible) == ("1", "", "unset")
    assert "--num_gpus 8" in " ".join(rest)


def test_the_gpus_that_may_be_used_are_kept(venv, gpus):
    words = " ".join(started(venv, gpus, CUDA_VISIBLE_DEVICES="2,5,7"))
    assert "--include localhost:2,5,7 " in words
    assert "--num_gpus" not in words
    words = " ".join(started(venv, gpus, CUDA_VISIBLE_DEVICES="2,5,7", NUM_PROCESSES="2"))
    assert "--include localhost:2,5 " in words


def test_device_cpu_leaves_the_gpus_alone(venv, gpus):
    words = started(venv, gpus, DEVICE="cpu", NUM_PROCESSES="3", CUDA_VISIBLE_DEVICES="1")
    assert words[2:4] == ["cpu", ""]
    assert "--num_gpus 3" in " ".join(words)


@pytest.mark.parametrize(
    ("launcher", "words"),
    [
        ("torchrun", "--nproc_per_node 8 --master_port 4242"),
        ("accelerate", "launch --num_processes 8 --num_machines 1 --mixed_precision no"),
    ],
)
def test_other_launchers(venv, gpus, launcher, words):
    name, *rest = started(venv, gpus, LAUNCHER=launcher)
    assert name == launcher
    assert words in " ".join(rest)
    assert rest[-2:] == ["--a", "b c"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"NUM_PROCESSES": "two"}, "give a number from 1"),
        ({"NUM_PROCESSES": "9"}, "but there are 8 GPUs"),
        ({"LAUNCHER": "mpirun"}, "give deepspeed, torchrun or accelerate"),
    ],
)
def test_wrong_variables_are_told(venv, gpus, variables, words):
    text = 'n="$(default_processes)"; start_job "$n" --a b'
    done = common(text, path=gpus, SAFEMIX_VENV=str(venv), MASTER_PORT="4242", **variables)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_ports_are_free_ones(venv):
    ports = {common("free_port", SAFEMIX_VENV=str(venv)).stdout.strip() for _ in range(2)}
    assert all(1024 < int(port) < 65536 for port in ports)


# ---- several machines -------------------------------------------------------------------------


def multi_node(
    venv: Path, path: Path, hosts: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run multi_node.sh on an environment that counts as installed."""
    mark = common("fingerprint", path=path, SAFEMIX_VENV=str(venv)).stdout.strip()
    (venv / ".safemix-stamp").write_text(f"{mark}\ndeepspeed,wandb,gguf\n")
    stand_in(venv / "bin", "deepspeed", 'echo "$@"; cat "$DS_ENV_FILE"')
    text = "launchers/multi_node.sh --config run.yaml"
    where = {"SAFEMIX_VENV": str(venv), "HOSTFILE": str(hosts)}
    return bash(text, path=path, **where, **variables)


def test_a_hostfile_starts_deepspeed_and_passes_what_is_no_secret(venv, gpus, tmp_path):
    stand_in(gpus, "pdsh", "exit 0")
    hosts = tmp_path / "hosts"
    hosts.write_text("# two machines\nnode1 slots=8\n\nnode2 slots=8  # the second\n")
    secret = {"WANDB_API_KEY": "k1", "HF_TOKEN": "k2"}
    wanted = {"NCCL_SOCKET_IFNAME": "eth0", "WANDB_MODE": "offline", "MINE": "x"}
    passed = {"PASS_ENV": "MINE", "MASTER_ADDR": "node1"}
    done = multi_node(venv, gpus, hosts, **passed, **secret, **wanted)
    assert done.returncode == 0, done.stderr
    command, *environment = done.stdout.splitlines()
    assert f"--hostfile {hosts} --launcher pdsh --master_addr node1 --master_port 29500" in command
    assert command.endswith("launchers/train.py --config run.yaml")
    for name, value in wanted.items():
        assert f"{name}={value}" in environment
    assert all(re.fullmatch(r"[A-Z0-9_]+=.*", line) for line in environment)
    assert not any(line.startswith(("WANDB_API_KEY", "HF_TOKEN")) for line in environment)


@pytest.mark.parametrize(
    ("text", "words"),
    [("node1\n", "line 1:node1: write 'node1 slots=8'"), (None, "cannot be read")],
)
def test_a_bad_hostfile_is_told(venv, gpus, tmp_path, text, words):
    stand_in(gpus, "pdsh", "exit 0")
    hosts = tmp_path / "hosts"
    if text is not None:
        hosts.write_text(text)
    done = multi_node(venv, gpus, hosts)
    assert done.returncode == 2
    assert words in done.stderr


def test_slurm_starts_one_torchrun_a_node(venv, tmp_path):
    stand_in(tmp_path / "slurm", "scontrol", "printf 'node7\\nnode8\\n'")
    variables = {
        "SAFEMIX_VENV": str(venv),
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "123456",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "32",
    }
    done = bash(
        "launchers/slurm.sbatch --config run.yaml --ratio 0.1",
        path=tmp_path / "slurm",
        **variables,
    )
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.splitlines()[4:])
    assert words == (
        "--ntasks-per-node=1 --kill-on-bad-exit=1 --cpus-per-task=32 torchrun "
        "--nnodes 2 --nproc_per_node 4 "
        "--rdzv_id 123456 --rdzv_backend c10d --rdzv_endpoint node7:23456 "
        "launchers/train.py --config run.yaml --ratio 0.1"
    )
    done = bash("launchers/slurm.sbatch --config run.yaml", SAFEMIX_VENV=str(venv))
    assert done.returncode != 0
    assert "single_node.sh" in done.stderr


def test_ci_runs_the_test_script_and_nothing_else():
    code = [
        line
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert code[0] == "set -euo pipefail"
    assert len(code) == 2
    assert "launchers/test.sh" in code[1]
