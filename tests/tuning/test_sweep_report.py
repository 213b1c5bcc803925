"""The page of a sweep: whole in one file, and no text gets out of its box."""

from __future__ import annotations

import base64

import pytest
from html_for_tests import Reader
from sweep_records import front_of, renamed, sweep, trial

from safemix.tuning.records import TrialRecord
from safemix.tuning.report.html import sentence, write_html
from safemix.tuning.report.sides import sides_grid

HOSTILE = "</pre></td><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[2J\u202e\"' onx='"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def written(folder, records, recommended=None, *, why="", settings=None, heading="Front"):
    picture = folder / "front.png"
    picture.write_bytes(PNG)
    path = folder / "report.html"
    write_html(path, settings or {}, records, front_of(records), recommended=recommended, why=why,
               pictures={heading: picture})  # fmt: skip
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def test_hostile_text_stays_text(tmp_path):
    folder = tmp_path / "<b>&'x"
    folder.mkdir()
    records = [renamed(one, HOSTILE) for one in sweep(8)]
    page = written(folder, records, records[0], why=HOSTILE, settings={HOSTILE: HOSTILE},
                   heading=HOSTILE)  # fmt: skip
    assert not page.tags & {"script", "iframe", "object", "embed", "form", "a", "base", "link"}
    assert not [found for found in page.attributes if found[1].startswith("on")]
    for tag, name, value in page.attributes:
        assert not name.endswith("href"), tag
        if name == "src":
            assert value.startswith("data:image/png;base64,")
    text = "".join(page.text)
    assert "<script>alert(1)</script>" in text
    assert "\x1b" not in text
    assert "default-src 'none'" in (folder / "report.html").read_text("utf-8")


def test_the_page_says_what_to_use_and_how(tmp_path):
    records = sweep(9)
    folder = tmp_path / "my sweep"
    folder.mkdir()
    settings = {"searcher": "optuna", "tracking": {"api_key": "sk-123"}}
    text = "".join(
        written(folder, records, records[0], why="Six meet the bound.", settings=settings).text
    )
    assert "Use a ratio of 17.7 % with mitigation base (trial-00). Six meet the bound." in text
    assert f"deepspeed launchers/train.py --config '{folder}/best.yaml'" in text
    assert "9 trials (5 done, 1 failed, 3 stopped)" in text
    assert "asha: margin -0.31 is below the best third at step 20" in text
    assert "failed at step 35 of 60: CUDA out of memory" in text
    assert '"searcher": "optuna"' in text
    assert "sk-123" not in text
    for words in ("safety: builtin, styled, ASR", "over-refusal: ", "coherence: ", "utility: piqa"):
        assert words in text, words


def test_none_recommended_is_said_and_nothing_is_to_be_run(tmp_path):
    page = written(tmp_path, sweep(2), why="No trial meets the bound of 5 %.")
    text = "".join(page.text)
    assert "No trial is recommended. No trial meets the bound of 5 %." in text
    assert "best.yaml" not in text
    assert ("p", "class", "warning") in page.attributes


def test_a_sweep_that_was_cut_short_has_a_page(tmp_path):
    text = "".join(written(tmp_path, []).text)
    assert "0 trials" in text
    assert "No trial has been evaluated." in text
    cut = [trial(0, status="running"), trial(1, status="waiting"), trial(2, status="failed")]
    text = "".join(written(tmp_path, cut).text)
    assert "trial-00 (ratio 17.7 %, mitigation base): running at step 30 of 60" in text
    assert "trial-01 (ratio 1.58 %, mitigation paraphrase): waiting" in text
    assert "3 trials (1 failed, 1 running, 1 waiting)" in text


def test_the_table_has_every_measure_of_every_evaluated_trial():
    records = sweep(8)
    front = front_of(records)
    grid = sides_grid(records, front, front[0])
    evaluated = [one for one in records if one.outcomes]
    assert len(grid.rows) == len(evaluated)
    assert len(grid.headings) == 2 + 6
    names = [row.cells[0] for row in grid.rows]
    assert [cell.first for cell in names[:2]] == ["untouched", "unmixed"]
    assert [cell.second for cell in names].count("recommended") == 1
    assert [cell.second for cell in names].count("on the front") == len(front) - 1
    assert [row.begins for row in grid.rows].index(True) == 2
    assert [row.cells[1].first for row in grid.rows[:2]] == ["none", "0 %"]
    untouched = grid.rows[0].cells[2:]
    rates = [outcome.rate for outcome in evaluated[-1].outcomes]
    assert [cell.first.split("(")[1] for cell in untouched] == [
        f"{rate.count}/{rate.total})" for rate in rates
    ]


def test_a_side_that_no_trial_has_is_a_column_that_says_so():
    only = TrialRecord(0, "trial", status="done", outcomes=trial(0).outcomes[:1])
    grid = sides_grid([only], [], None)
    assert grid.headings[3:] == ("over-refusal", "coherence", "utility")
    assert [cell.first for cell in grid.rows[0].cells[3:]] == ["not measured"] * 3


def test_restarts_are_said_once_or_more(tmp_path):
    again = [trial(4), TrialRecord(5, "trial", status="done", restarts=3)]
    text = "".join(written(tmp_path, again).text)
    assert "trial-04: went on from a checkpoint once after a lost worker" in text
    assert "trial-05: went on from a checkpoint 3 times after a lost worker" in text


def test_the_sentence_of_a_trial_with_the_ratio_alone():
    found = TrialRecord(3, "trial", {"ratio": 0.0525}, ratios=((0, 0.0525),))
    assert sentence(found) == "Use a ratio of 5.25 % (trial-03)."
    moved = TrialRecord(3, "trial", {"ratio": 0.05}, ratios=((0, 0.05), (20, 0.1), (40, 0.08)))
    assert sentence(moved) == "Use a ratio that begins at 5 % and ends at 8 % (trial-03)."


def test_a_picture_of_another_kind_is_refused_and_the_old_page_stays(tmp_path):
    path, picture = tmp_path / "report.html", tmp_path / "x.png"
    path.write_text("old")
    picture.write_text("<svg onload=alert(1)>")
    with pytest.raises(ValueError, match="is no PNG"):
        write_html(path, {}, [], [], recommended=None, why="", pictures={"x": picture})
    assert path.read_text() == "old"
