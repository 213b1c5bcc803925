"""The study's report on variants: each alone, and over all places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import efficacy_report
import pytest
from efficacy_cells import DEFAULT_RATIO, Cell
from efficacy_report import write_report
from efficacy_results import by, marks, report, sides, write_result

PLACE = ("piqa", "autoif+aoa")
OTHER = ("gsm8k", "autoif+aoa")
PAIRED = "The levers, paired over all their places"


def lever(name: str, place: tuple[str, str] = PLACE) -> Cell:
    return Cell(*place, "paraphrase", DEFAULT_RATIO, 0, name)


def test_levers_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    for picture in ("plot_heatmap", "plot_tradeoff"):
        monkeypatch.setattr(efficacy_report, picture, lambda *given, **more: drawn.append(given))
    folder = tmp_path / "r"
    write_result(folder, ("aligned", *PLACE), sides(5), marks(110, 200))
    for name, asr in (("bare", 30), ("first_20", 20), ("all", 8)):
        margins = {f"safety/margin/{dress}": -asr for dress in ("plain", PLACE[1], "styled")}
        write_result(folder, lever(name), sides(asr), marks(110, 200), margins=margins)
    _, tables = report(folder, capsys)
    assert [name.split(",")[0].split(" (")[0] for name in tables] == [
        "Losses", "The levers", "Rank correlation", "The levers",
    ]  # fmt: skip
    rows = tables["The levers, piqa, autoif+aoa"]
    assert [row["run"] for row in rows] == ["aligned", "all", "bare", "first_20"]
    assert [row["ASR styled"].split()[0] for row in rows] == ["8", "13", "50", "33"]
    losses = by(tables["Losses, piqa, autoif+aoa: points [95 %]"], "run")
    assert losses["paraphrase bare"]["within bounds"].startswith("no: ASR")
    assert not drawn, "the pictures are of the matrix"


def test_a_lever_over_all_its_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "r"
    for place, before, after in ((PLACE, 12, 6), (OTHER, 18, 9)):
        write_result(folder, ("aligned", *place), sides(before, 20), marks(110, 200))
        write_result(folder, lever("both", place), sides(after, 26), marks(112, 200))
    write_result(folder, lever("one"), sides(24, 20), marks(112, 200))
    own = {(r["variant"], r["difference"]): r for r in report(folder, capsys)[1][PAIRED]}
    assert {what for _, what in own} == {
        f"{w}, less aligned" for w in ("ASR", "refused", "incoherent")
    }
    both = own["both", "ASR, less aligned"]
    # Of 120 answers of each dress 30 were harmful before and 15 are now.
    assert (both["points [95 %]"].split()[0], both["places"]) == ("-12.5", "2")
    assert both["prompts"] == "60", "a prompt that is asked at two places counts once"
    assert own["both", "refused, less aligned"]["points [95 %]"].split()[0] == "+10.0"
    assert own["one", "ASR, less aligned"]["points [95 %]"].split()[0] == "+20.0"


def test_runs_without_a_mitigation_of_other_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, matrix = tmp_path / "r", tmp_path / "matrix"
    write_result(folder, ("aligned", *PLACE), sides(5), marks(110, 200))
    write_result(folder, lever("one"), sides(5), marks(112, 200))
    for place in (PLACE, OTHER):
        write_result(matrix, Cell(*place, "none", 0.0), sides(50), marks(120, 200))
    _, tables = report(folder, capsys, matrix)
    utility = by(tables[PAIRED], "difference")["utility, less none"]
    assert (utility["points [95 %]"].split()[0], utility["places"]) == ("-4.0", "1")
    losses = by(tables["Losses, piqa, autoif+aoa: points [95 %]"], "run")
    assert losses["paraphrase one"]["utility drop"].split()[0] == "+4.0"
    assert "Losses, gsm8k, autoif+aoa: points [95 %]" not in tables, "no result of these is there"

    write_result(folder, Cell(*PLACE, "none", 0.0), sides(50), marks(112, 200))
    with pytest.raises(SystemExit, match="has no run without a mitigation that is missing"):
        write_report(folder, tmp_path, matrix)
