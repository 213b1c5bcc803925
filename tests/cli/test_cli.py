"""The command-line app: exit codes, one-line errors, and the commands estimate and check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

import safemix
from safemix.cli import app as module
from safemix.cli.app import app, run

ROOT = Path(__file__).resolve().parents[2]
LORA = ["estimate", "--model", "llama3-8b", "--ds_config", "llama3_8b_lora", "--gpus", "8"]
FULL = ["estimate", "--model", "llama3-70b", "--ds-config", "llama3_70b_full", "--gpus", "8"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def real(*args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "safemix.cli.app", *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def as_json(*args: str) -> dict[str, object]:
    result = CliRunner().invoke(app, [*args, "--json"])
    assert result.exit_code in (0, 3), result.output
    return json.loads(result.stdout)


def settings_file(**changes: object) -> str:
    tree = {"task": "builtin:task", "safety": "builtin:safety", "global_batch_size": 16}
    Path("run.yaml").write_text(yaml.safe_dump({**tree, **changes}), "utf-8")
    return "run.yaml"


def test_version_and_help() -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["--version"]).stdout.strip() == f"safemix {safemix.__version__}"
    help_text = runner.invoke(app, ["--help"]).stdout
    for name in ("estimate", "check", "--debug", "--version"):
        assert name in help_text
    assert "--ds_config" in runner.invoke(app, ["estimate", "-h"]).stdout


def test_help_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from safemix.cli.app import run\n"
        "code = run(['--help'])\n"
        "heavy = {'torch', 'transformers', 'deepspeed', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    times = []
    for _ in range(3):
        start = time.perf_counter()
        result = subprocess.run([sys.executable, "-c", code], env=env, check=False)
        times.append(time.perf_counter() - start)
        assert result.returncode == 0
    assert min(times) < 1.0


def test_estimate_prints_a_table_and_the_verdict() -> None:
    result = real(*LORA)
    assert result.returncode == 0, result.stderr
    for word in ("weights", "optimizer", "activations", "logits and loss", "host", "total"):
        assert word in result.stdout
    assert "8,072,204,288 parameters, 41,943,040 trained" in result.stdout
    assert "fits in 80 GiB: a GPU needs" in result.stdout
    assert result.stderr == ""


def test_a_run_that_cannot_fit_is_refused_with_the_cheapest_change() -> None:
    result = real(*FULL)
    assert result.returncode == 3
    assert "does not fit in 80 GiB" in result.stdout
    assert "Cheapest change that fits: gradient_checkpointing: true" in result.stdout
    # what it advises does fit
    assert real(*FULL, "--gradient_checkpointing").returncode == 0


def test_a_host_that_is_too_small_is_named() -> None:
    more = ["--gradient_checkpointing", "--host_memory", "512"]
    result = CliRunner().invoke(app, [*FULL, *more])
    assert result.exit_code == 3
    assert "a host needs 1206.7 GiB and has 512 GiB" in result.stdout


def test_options_are_spelt_with_underscores_or_dashes() -> None:
    tail = ["2", "--sequence_length", "512", "--gpu_memory", "24", "--no_lora"]
    underscores = as_json(*LORA, "--micro_batch_size", *tail)
    dashes = [arg.replace("_", "-") if arg.startswith("--") else arg for arg in (*LORA, *tail[1:])]
    assert as_json(*dashes, "--micro-batch-size", "2") == underscores
    assert underscores["micro_batch_size"] == 2
    assert underscores["lora"] is False


def test_json_adds_up() -> None:
    report = as_json(*LORA)
    parts = report["parts"]
    assert isinstance(parts, list)
    held = [p for p in parts if p["where"] == "gpu" and report["peak_phase"] in p["phases"]]
    assert sum(part["bytes"] for part in held) == report["gpu_bytes"]
    assert report["fits"] is True
    assert report["cheapest_change"] is None
    small = as_json(*LORA, "--gpu-memory", "20")
    assert small["fits"] is False
    assert small["cheapest_change"]
    assert small["gpu_bytes_with_change"] <= small["gpu_memory_bytes"]


def test_lora_follows_the_name_unless_it_is_said() -> None:
    base = ["estimate", "--model", "llama3-8b", "--ds_config"]
    assert as_json(*base, "llama3_8b_full")["lora"] is False
    assert as_json(*base, "llama3_8b_full", "--lora")["lora"] is True
    assert as_json(*base, "zero2")["lora"] is True
    assert as_json(*base, "none", "--no-lora")["zero_stage"] == 0


USER_ERRORS = [
    (["estimate", "--model", "tiny", "--ds_config", "zero5"], "ds_config 'zero5' is unknown"),
    (["estimate", "--model", "tiny", "--ds_config", "no.json"], "no.json: no such file"),
    (["estimate", "--model", "/nowhere"], "model '/nowhere' is no preset"),
    (["estimate", "--model", "tiny", "--precision", "int8"], "--precision 'int8': use one of"),
    (["estimate", "--model", "tiny", "--quantize", "nf4", "--no-lora"], "--quantize nf4 needs"),
    (["estimate", "--model", "tiny", "--gpus", "0"], "--gpus"),
    (["estimate"], "--model"),
    (["estimate", "--modle", "tiny"], "--modle"),
    (["train-it"], "train-it"),
    (["check", "--config", "absent.yaml"], "absent.yaml: no such settings file"),
]


@pytest.mark.parametrize(("args", "part"), USER_ERRORS)
def test_a_users_mistake_is_one_line_and_code_2(
    args: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(args) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("safemix: error: ")
    assert captured.err.count("\n") == 1
    assert part in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "mistake", [["eval", "--modell", "x"], ["eval", "--model", "tiny", "--confidence", "0.9"]]
)
def test_one_process_of_a_node_tells_what_is_wrong_with_the_settings(
    mistake: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, said in (("0", 1), ("1", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert run(mistake) == 2
        assert len(capsys.readouterr().err.splitlines()) == said
    # What is read from a disk may be wrong on one node alone, or for one process.
    assert run(["eval", "--model", "tiny", "--harmful", "no.jsonl"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_real_process_says_the_same_and_debug_shows_the_traceback() -> None:
    args = ("estimate", "--model", "tiny", "--ds_config", "zero5")
    plain = real(*args)
    assert plain.returncode == 2
    assert plain.stderr.startswith("safemix: error: ds_config 'zero5' is unknown")
    assert "Traceback" not in plain.stderr
    for with_debug in (("--debug", *args), (*args, "--debug")):
        result = real(*with_debug)
        assert result.returncode == 2
        assert "Traceback" in result.stderr
        assert result.stderr.splitlines()[-1] == plain.stderr.strip()


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (
            RuntimeError("lost\nit"),
            1,
            "safemix: error: unexpected RuntimeError: lost it (run again with --debug)\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_is_not_expected(
    error: BaseException,
    code: int,
    lines: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = typer.Typer()

    @broken.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(module, "app", broken)
    assert run([]) == code
    assert capsys.readouterr().err == lines


def test_check_prints_the_resolved_tree() -> None:
    path = settings_file(micro_batch_size=2)
    result = real("check", "--config", path, "ratio=1/20", "lora.r=8", "--gpus", "2")
    assert result.returncode == 0, result.stderr
    tree = yaml.safe_load(result.stdout)
    assert (tree["ratio"], tree["lora"]["r"], tree["ds_config"]) == ("1/20", 8, "zero2")
    assert tree["task"]["builtin"] == "task"
    assert "gradient accumulation with 2 processes: 4" in result.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "10 % of all rows: as many as safety rows"),
        (["ratio=0.4"], "10 % of all rows: with more the task would have less than half"),
        (["ratio=0.6"], "none, as at ratio 0.6 the task would have less than half"),
    ],
)
def test_check_tells_how_many_look_alikes_there_are(args: list[str], words: str) -> None:
    path = settings_file(mitigation="paraphrase", ratio=0.1, ds_config=None)
    result = CliRunner().invoke(app, ["check", "--config", path, *args])
    assert result.exit_code == 0, result.output
    assert f"# paraphrase: lookalikes: {words}" in result.stdout
    assert yaml.safe_load(result.stdout)["mitigation"]["lookalikes"]["share"] is None
    off = CliRunner().invoke(app, ["check", "-c", path, *args, "mitigation.lookalikes=false"])
    assert "# paraphrase" not in off.stdout


@pytest.mark.parametrize(
    ("changes", "args", "part"),
    [
        ({"ratios": 1}, [], "unknown key 'ratios', did you mean 'ratio'?"),
        ({}, ["ratio=2"], "ratio"),
        ({}, ["ratio"], "override 'ratio' is not of the form key=value"),
        ({"ds_config": "zero9"}, [], "ds_config 'zero9' is unknown"),
        ({"ds_config": "zero3", "lora": {"quantize": "nf4"}}, [], "lora.quantize = nf4"),
        ({"micro_batch_size": 3}, ["--gpus", "2"], "global_batch_size 16 is not divisible"),
        ({"evaluation": {"harmful": "advbnch"}}, [], "unknown prompt set 'advbnch'"),
        ({"evaluation": {"lookalikes": "absent.csv"}}, [], "absent.csv"),
        ({"evaluation": {"eval_every": 5, "judge": "harmbech"}}, [], "harmbech"),
    ],
)
def test_check_refuses(
    changes: dict[str, object],
    args: list[str],
    part: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["check", "--config", settings_file(**changes), *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("safemix: error: ")
    assert part in error
    assert error.count("\n") == 1


def test_check_imports_no_torch() -> None:
    path = settings_file()
    code = (
        "import sys; from safemix.cli.app import run; code = run(sys.argv[1:]);"
        "sys.exit('torch' in sys.modules or code)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, "check", "--config", path]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
