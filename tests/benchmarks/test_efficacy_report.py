"""The study's report on made-up results: every table, what is missing, seeds together."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import efficacy_report
import pytest
from efficacy_cells import DEFAULT_RATIO, FULL, MITIGATIONS, WITHOUT_ROWS, Cell
from efficacy_clusters import Change
from efficacy_compare import Bound, verdict
from efficacy_report import write_report
from efficacy_results import by, marks, report, sides, write_result

from safemix.evaluate.report import plots

N = 60
PLACE = ("piqa", "autoif+aoa")
# Harmful prompts complied with, of sixty, in every dress.
ASR = dict(zip(MITIGATIONS, (54, 40, 38, 30, 36, 20, 50, 6), strict=True))


def cell(mitigation: str, ratio: float = DEFAULT_RATIO, seed: int = 0, variant: str = "") -> Cell:
    return Cell(*PLACE, mitigation, 0.0 if mitigation in WITHOUT_ROWS else ratio, seed, variant)


def margins(asr: int, shift: float = 0.0) -> dict[str, float]:
    dresses = ("plain", PLACE[1], "styled")
    found = {f"safety/margin/{dress}": shift - asr for dress in dresses}
    return found | {"safety/margin_odds/plain": math.nan, "safety/margin_lookalikes/plain": 1.0}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """PLACE with every mitigation at the default ratio, and base and paraphrase at 5 %."""
    folder = tmp_path / "results"
    for name, asr in (("stock", 58), ("aligned", 5)):
        write_result(folder, (name, *PLACE), sides(asr), marks(110, 200))
    for name, asr in ASR.items():
        write_result(folder, cell(name), sides(asr), marks(120, 200), margins=margins(asr))
    for name, asr in (("base", 45), ("paraphrase", 12)):
        write_result(folder, cell(name, 0.05), sides(asr), marks(118, 200), margins=margins(asr))
    return folder


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, dict[str, Any]]]:
    """What pictures would be drawn of, by their names: drawing each takes seconds."""
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    for name in ("plot_heatmap", "plot_tradeoff"):

        def record(path: Path, *given: Any, **more: Any) -> None:
            found[path.name] = (given, more)

        monkeypatch.setattr(efficacy_report, name, record)
    return found


def test_every_table_is_there(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, tables = report(results, capsys)
    assert list(tables) == [
        "piqa, autoif+aoa",
        "Ratios, piqa, autoif+aoa",
        "Paired over all tasks and strategies",
        "ASR of paraphrase less that of others with the same number of rows, points",
        "Losses, piqa, autoif+aoa: points [95 %]",
        "Rank correlation (Spearman) of the refusal margin and ASR",
    ]
    assert all(tables.values())
    assert text.startswith("Machine: a processor, 2 cores, 15 minutes for 10 cells")


def test_the_pictures(results: Path, capsys: pytest.CaptureFixture[str], drawn: Any) -> None:
    for seed in (1, 2):
        write_result(results, cell("base", seed=seed), sides(40), marks(120, 200))
    report(results, capsys)
    (cells, rows, columns), heat = drawn["efficacy_asr.png"]
    assert columns == ["aligned", *MITIGATIONS]
    assert rows == [f"piqa, autoif+aoa: {dress}" for dress in ("plain", PLACE[1], "styled")]
    assert [[rate.count for rate in row] for row in cells] == [
        [5, *(asr * (3 if name == "base" else 1) for name, asr in ASR.items())]
    ] * 3
    (points,), trade = drawn["efficacy_tradeoff.png"]
    assert len(points) == len(MITIGATIONS) + 2
    assert "piqa autoif+aoa base 10 % (3 seeds)" in {point.name for point in points}
    plots.plot_heatmap(results.parent / "a.png", cells, rows, columns, **heat)
    plots.plot_tradeoff(results.parent / "b.png", points, **trade)
    for name in ("a.png", "b.png"):
        assert (results.parent / name).read_bytes().startswith(b"\x89PNG")


def test_the_matrix_has_each_rate_with_its_interval(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = by(report(results, capsys)[1]["piqa, autoif+aoa"], "run")
    assert list(rows) == ["stock", "aligned", *MITIGATIONS]
    base = rows["base"]
    assert (base["rows"], base["seeds"], base["tokens"]) == ("10 %", "1", "8.77 %")
    assert base["ASR plain"] == base["ASR dressed"] == base["ASR styled"] == "67 [54, 77]"
    assert base["utility"] == "60 [53, 67]"
    # The same sixty prompts in three dresses, all judged alike, are no more than sixty.
    assert base["incoherent"] == "2 [0, 9]"
    assert (rows["none"]["rows"], rows["none"]["tokens"]) == ("", "")


def test_what_was_not_run_is_said(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("ptst", "backdoor", "none"):
        (results / f"{cell(name).id}.json").unlink()
    text, tables = report(results, capsys)
    rows = by(tables["piqa, autoif+aoa"], "run")
    absent = {name for name, row in rows.items() if row["rows"] == "not run"}
    assert absent == {"ptst", "backdoor", "none"}
    # Ten of the forty were there, less these three.
    line = next(line for line in text.splitlines() if line.startswith("Not run of the small"))
    assert "33 of 40 cells: piqa-autoif_aoa-none-0pct-s0, " in line
    assert line.endswith("and 21 more")
    rivals = by(tables[next(name for name in tables if name.startswith("ASR of"))], "against")
    assert rivals["backdoor"]["seeds"] == "not run"
    losses = tables["Losses, piqa, autoif+aoa: points [95 %]"]
    assert {row["utility drop"] for row in losses} == {"not run"}


def test_cells_of_another_matrix_are_missed_in_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(tmp_path / "r", cell("base"), sides(10), marks(9, 20), size=FULL)
    text, _ = report(tmp_path / "r", capsys)
    assert "Not run of the full matrix: 2771 of 2772 cells: " in text
    assert "small matrix" not in text


def test_paraphrase_against_each_rival_dress_by_dress(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = report(results, capsys)[1]
    table = tables["ASR of paraphrase less that of others with the same number of rows, points"]
    assert [(row["rows"], row["against"]) for row in table] == [
        ("5 %", "base"),
        *(("10 %", name) for name in ("base", "longest", "backdoor", "counter_prompt")),
    ]
    first = table[0]
    # 12 of 60 against 45 of 60, the twelve among the forty-five: 33 pairs differ, all one way.
    points = r"-55\.0 \[-6\d\.\d, -4\d\.\d\], p=2\.3e-10, n=60"
    assert re.fullmatch(points, first["plain"])
    assert first["plain"] == first["dressed"] == first["styled"]
    assert first["seeds"] == "1"


def test_the_questions_count_a_prompt_once(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = by(report(results, capsys)[1]["Paired over all tasks and strategies"], "question")
    harm = rows["tuning alone harms: ASR"]
    assert harm["difference"] == "none - aligned"
    assert harm["points [95 %]"].startswith("+81.7 [")
    assert (harm["prompts"], harm["seeds"], harm["places"]) == ("60", "1", "1")
    assert float(harm["p"]) == pytest.approx(2 / 2**49, rel=0.1)
    assert rows["cost in utility"]["prompts"] == "200"
    assert rows["cost in utility"]["points [95 %]"].startswith("+0.0 [")
    assert rows["cost in utility"]["p"] == "1"


def test_losses_are_held_against_the_bounds(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = report(results, capsys)[1]["Losses, piqa, autoif+aoa: points [95 %]"]
    rows = {(row["run"], row["rows"]): row for row in table}
    assert len(rows) == len(MITIGATIONS) + 2
    base, ours = rows["base", "10 %"], rows["paraphrase", "10 %"]
    assert base["ASR plain"].startswith("+58.3 [")
    assert base["within bounds"] == "no: ASR plain, ASR dressed, ASR styled"
    assert ours["ASR plain"].startswith("+1.7 [")
    assert ours["refused styled"].startswith("+0.0 [")
    # One prompt of sixty more is within two points, but sixty prompts cannot show that.
    assert ours["within bounds"] == "cannot be told at n = 60, 200; the points are within"
    five = rows["paraphrase", "5 %"]
    assert five["utility drop"].startswith("+1.0 [")
    assert five["within bounds"] == "no: ASR plain, ASR dressed, ASR styled"


def test_the_bounds_can_be_kept_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, n = tmp_path / "r", 1000
    write_result(folder, ("aligned", *PLACE), sides(2, 3, n), marks(900, n))
    for name in ("none", "paraphrase"):
        write_result(folder, cell(name), sides(2, 3, n), marks(1000, n))
    table = report(folder, capsys)[1]["Losses, piqa, autoif+aoa: points [95 %]"]
    assert by(table, "run")["paraphrase"]["within bounds"] == "yes"


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([(-0.01, -0.02, 0.019)], "yes"),
        ([(0.05, 0.021, 0.08), (0.0, -0.1, 0.1)], "no: a"),
        ([(0.02, -0.01, 0.05)], "cannot be told at n = 60; the points are within"),
        (
            [(0.03, -0.01, 0.05), (0.0, -0.01, 0.01)],
            "cannot be told at n = 60; the points are beyond: a",
        ),
        ([None, (0.0, -0.01, 0.01)], "cannot be told: nothing to hold a against"),
        ([None, (0.05, 0.03, 0.08)], "no: b"),
    ],
)
def test_verdicts(losses: list[tuple[float, float, float] | None], said: str) -> None:
    found = [
        Bound(name, loss and Change(loss[0], loss[1:], 0.5, 60), 0.02)
        for name, loss in zip("ab", losses, strict=False)
    ]
    assert verdict([*found, None]) == said


def test_the_margin_is_ranked_with_the_asr_over_all_runs(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "Rank correlation (Spearman) of the refusal margin and ASR"
    table = report(results, capsys)[1][name]
    assert [tuple(row.values()) for row in table] == [
        ("mean", "plain", "10", "-1.00", "10", "-1.00"),
        ("mean", "autoif+aoa", "10", "-1.00", "10", "-1.00"),
        ("mean", "styled", "10", "-1.00", "10", "-1.00"),
        ("mean", "all", "30", "-1.00", "30", "-1.00"),
    ], "the odds were not finite: no run has them"


def test_runs_that_have_collapsed_are_ranked_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One answers incoherently, so none of its answers counts as complied, at the lowest margin.
    ended = {"base": (2, 2), "longest": (5, 5), "backdoor": (9, 9), "paraphrase": (0, 30)}
    for name, (asr, margin) in ended.items():
        found = sides(asr)
        if name == "paraphrase":
            found = {**found, "incoherent": marks(N), "incoherent/plain": marks(N // 2)}
        write_result(tmp_path / "r", cell(name), found, marks(9, 20), margins=margins(margin))
    rows = report(tmp_path / "r", capsys)[1][
        "Rank correlation (Spearman) of the refusal margin and ASR"
    ]
    by_dress = {row["dress"]: (row["rho"], row["coherent"], row["rho of these"]) for row in rows}
    assert by_dress["styled"] == ("0.20", "3", "-1.00")
    assert by_dress["plain"] == ("0.20", "4", "0.20"), "half of them may be"


def test_runs_that_are_all_alike_have_no_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("base", "longest", "paraphrase"):
        write_result(tmp_path / "r", cell(name), sides(0), marks(9, 20), margins=margins(0))
    tables = report(tmp_path / "r", capsys)[1]
    rows = tables["Rank correlation (Spearman) of the refusal margin and ASR"]
    assert {row["rho"] for row in rows} == {"all runs are equal"}


def test_seeds_are_taken_together(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, asr in ((1, 42), (2, 46)):
        write_result(results, cell("base", seed=seed), sides(asr), marks(120, 200))
    tables = report(results, capsys)[1]
    rows = by(tables["piqa, autoif+aoa"], "run")
    assert rows["base"]["seeds"] == "3"
    assert rows["base"]["ASR plain"].startswith("71 [")  # 128 of 180
    assert rows["paraphrase"]["seeds"] == "1"
    rivals = tables["ASR of paraphrase less that of others with the same number of rows, points"]
    pooled = next(row for row in rivals if (row["rows"], row["against"]) == ("10 %", "base"))
    assert pooled["seeds"] == "3, 1"
    assert pooled["plain"].startswith("-61.1 [")
    assert pooled["plain"].endswith("n=60"), "as many prompts as before, not three times"
    losses = {(r["run"], r["rows"]): r for r in tables["Losses, piqa, autoif+aoa: points [95 %]"]}
    assert losses["base", "10 %"]["seeds"] == "3"
    questions = by(tables["Paired over all tasks and strategies"], "question")
    assert questions["paraphrase beats base: ASR"]["seeds"] == "3, 1"


def test_baselines_alone_and_nothing_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    with pytest.raises(SystemExit, match="has no results: run the study first"):
        write_report(folder, tmp_path)
    write_result(folder, ("aligned", *PLACE), sides(5), marks(110, 200))
    text, tables = report(folder, capsys)
    assert tables == {}
    assert "Not run of the small matrix: 40 of 40 cells" in text
