"""Every benchmark runs at a tiny size, prints its tables and writes its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run(script, tmp_path, *words):
    target = tmp_path / "figures.json"
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), "--quick", "--json", target, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Machine: " in done.stdout
    assert f"Command: `python benchmarks/{script} --quick" in done.stdout
    return done.stdout, json.loads(target.read_text("utf-8"))["results"]


def test_sampler(tmp_path):
    text, results = run("sampler.py", tmp_path)
    ours = {r["rows"]: r for r in results if r["sampler"] == "safemix"}
    assert set(ours) == {10**3, 10**5}
    for result in ours.values():
        assert len(result["start_s"]) == len(result["resume_s"]) == 2
        assert min(result["per_s"]) > 0
        assert result["cold_start_s"] > 0
        # An array of the size of the data would be a hundred times this at the real sizes.
        assert result["peak_bytes"] < 10e6
    assert {r["sampler"] for r in results} >= {"safemix", "torch DistributedSampler"}
    assert "| torch DistributedSampler |" in text


def test_composition(tmp_path):
    picture = tmp_path / "steps.png"
    _, results = run("composition.py", tmp_path, "--png", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    ours = [r for r in results if r["scheme"] == "safemix"]
    assert len(ours) == 4
    for result in ours:
        assert result["max"] - result["min"] <= 1
        assert result["worst_drift"] < 1
        assert result["rank_gap"] <= 1
    first = {r["scheme"]: r for r in results[: len(results) // 4]}
    assert first["HF interleave_datasets + RandomSampler"]["std"] > 1.5  # chance has 2.47
    mosaic = first["stratified (MosaicML Streaming)"]
    assert mosaic["realised"] == pytest.approx(6 / 128)
    assert mosaic["rank_max"] == 1.0
    refused = [r for r in results if "refused" in r]
    assert [r["scheme"] for r in refused] == ["stratified (MosaicML Streaming)"]


@pytest.mark.parametrize("interleave", ["steps", "blocks"])
def test_train_overhead(tmp_path, interleave):
    words = ["--interleave", interleave, "--rounds", "1"]
    text, results = run("train_overhead.py", tmp_path, *words)
    found = results["safemix / stock"]
    kept = 8 - 3 - 1  # steps, less the warm-up and the last
    assert found["wall_s"]["steps"] == found["cpu_s"]["steps"] == kept
    assert found["wall_s"]["low"] <= found["wall_s"]["ratio"] <= found["wall_s"]["high"]
    # Same rows, same order, same weights: only the order of a sum differs.
    assert found["largest_loss_difference"] < 1e-5
    assert ("stock / stock (control)" in results) == (interleave == "steps")
    assert "| safemix / stock | wall |" in text
