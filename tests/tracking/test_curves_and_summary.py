"""The picture and the table of a run."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from safemix.tracking.curves import mean_since_start, plot_curves, trailing_mean
from safemix.tracking.metrics import MetricsLog
from safemix.tracking.summary import Summary, render, summarise


def write(path: Path, steps: int, every: int = 1) -> Path:
    """A run with 5 % safety rows in batches of 8, logged every so many steps."""
    with MetricsLog(path) as log:
        for step in range(every, steps + 1, every):
            done, before = math.floor(step * 0.4), math.floor((step - every) * 0.4)
            share = (done - before) / (8 * every)
            log.log(
                step,
                {
                    "utility/loss": 2.0 / step,
                    "safety/loss": 3.0 / step if share else None,
                    "safety/row_share": share,
                    "safety/token_share": 2 * share,
                    "mix/ratio": 0.05,
                    "mix/passes/task": step / 100,
                    "mix/passes/safety": step / 300,
                    "perf/tokens_per_s": 100.0 if step == every else 1000.0,
                    "perf/data_wait_share": 0.25,
                    "train/loss": 2.0,
                },
            )
    return path


@pytest.mark.parametrize("steps", [1, 2, 40, 20_000])
def test_curves_of_any_length(tmp_path, steps):
    metrics, png = write(tmp_path / "metrics.jsonl", steps), tmp_path / "curves.png"
    plot_curves(metrics, png)
    with Image.open(png) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width > 1000
        # A picture with curves has their colours, not only the axes' greys.
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels.max(axis=2) - pixels.min(axis=2) > 60).sum() > 50
    assert [path.name for path in tmp_path.glob("*.png")] == ["curves.png"]
    assert not list(tmp_path.glob(".*"))


def test_curves_of_a_run_without_a_reading_or_without_numbers(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("")
    plot_curves(metrics, tmp_path / "empty.png")
    metrics.write_text('{"step": 1, "utility/loss": null}\n{"step": 2, "utility/loss": null}\n')
    plot_curves(metrics, tmp_path / "null.png")
    assert (tmp_path / "empty.png").stat().st_size > 1000
    assert (tmp_path / "null.png").stat().st_size > 1000


def test_trailing_mean_looks_back_over_what_is_known():
    values = np.array([np.nan, 1.0, 3.0, np.nan, 5.0])
    assert np.array_equal(trailing_mean(values, 2), [np.nan, 1, 2, 3, 5], equal_nan=True)
    assert np.array_equal(trailing_mean(values, 99), [np.nan, 1, 2, 2, 3], equal_nan=True)


def test_a_reading_weighs_as_many_steps_as_it_covers():
    steps, values = np.array([10.0, 20.0, 21.0]), np.array([0.0, 1.0, np.nan])
    assert mean_since_start(steps, values) == pytest.approx([0.0, 0.5, 0.5])


def test_summary_of_a_run(tmp_path):
    summary = summarise(write(tmp_path / "metrics.jsonl", 40))
    assert summary.steps == 40
    assert summary.ratio_asked == pytest.approx(0.05)
    assert summary.ratio_done == pytest.approx(0.05)
    assert summary.token_share == pytest.approx(0.1)
    assert summary.averaged == 5
    assert summary.losses["utility"][0] == pytest.approx(sum(2 / s for s in range(1, 6)) / 5)
    assert set(summary.losses) == {"utility", "safety"}
    assert summary.tokens_per_s == 1000
    assert summary.data_wait == 0.25
    assert summary.passes == {"task": 0.4, "safety": pytest.approx(40 / 300)}
    assert summary.nonfinite == ()


def test_a_summary_does_not_depend_on_how_often_was_logged(tmp_path):
    often = summarise(write(tmp_path / "often.jsonl", 1000))
    rarely = summarise(write(tmp_path / "rarely.jsonl", 1000, every=100))
    assert rarely.ratio_done == pytest.approx(often.ratio_done)


def test_the_table_says_everything_and_cuts_no_path(tmp_path):
    place = Path("/some/rather/long/folder/for/the/results") / ("x" * 40) / "adapter"
    stream = io.StringIO()
    table = render(summarise(write(tmp_path / "metrics.jsonl", 40)), {"adapter": place})
    Console(file=stream, width=80).print(table)
    text = stream.getvalue()
    for words in ("steps", "5.00% (asked: 5.00%)", "utility loss", "safety loss", "1,000"):
        assert words in text
    folded = "".join(line.split("│")[2].strip() for line in text.splitlines() if "│" in line)
    assert str(place) in folded


def test_rates_are_shown_with_what_was_counted(tmp_path):
    name = "safety/asr/builtin/plain"
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        for step, rate in ((0, float("nan")), (2, 0.5), (4, 0.25), (6, float("nan"))):
            log.log(step, {name: rate, "perf/tokens_per_s": 1.0})
    summary = summarise(tmp_path / "metrics.jsonl")
    assert (summary.measured, summary.read_at) == ({name: (0.5, 0.25)}, {name: (2, 4)})
    known = {(name, 2): "50.0 % (2/4, 15.0 to 85.0)"}
    for counted, told in (
        (known, "50.0 % (2/4, 15.0 to 85.0) → 25.0%"),
        ({}, "50.0% → 25.0%"),
    ):
        stream = io.StringIO()
        Console(file=stream, width=120).print(render(summary, counted=counted))
        assert told in stream.getvalue()


def test_a_loss_that_was_not_finite_is_named(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.log(1, {"utility/loss": float("nan"), "perf/tokens_per_s": 1.0})
    summary = summarise(tmp_path / "metrics.jsonl")
    assert summary.nonfinite == ("utility/loss",)
    stream = io.StringIO()
    Console(file=stream, width=80).print(render(summary))
    assert "not finite at some step" in stream.getvalue()


def test_an_empty_run_and_a_tiny_ratio(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert summarise(tmp_path / "metrics.jsonl") == Summary(steps=0)
    stream = io.StringIO()
    Console(file=stream, width=80).print(
        render(Summary(steps=5, ratio_asked=0.0001, ratio_done=0.000099))
    )
    assert "0.00990% (asked: 0.0100%)" in stream.getvalue()
