"""Mimicry from Python and inside a run, with the real styles and the real renderer."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from safemix.errors import DataError, SettingsError
from safemix.mitigation.mimic import api, kept
from safemix.mitigation.mimic.api import mimic, mimic_source, styles_of
from safemix.mitigation.mimic.pipeline import NOT_A_REFUSAL, MimicOptions
from safemix.mitigation.mimic.report import MimicReport
from safemix.mitigation.mimic.source import sample_kept
from safemix.rows.builtin import read_builtin
from safemix.rows.read import SourceRows, read_source
from safemix.screening.refusal import is_refusal
from safemix.settings import SourceSettings

PLACES = [
    "garden",
    "kitchen",
    "harbour",
    "library",
    "station",
    "forest",
    "museum",
    "market",
    "attic",
    "cellar",
]
THINGS = [
    "lamp",
    "wheel",
    "drum",
    "kettle",
    "ladder",
    "brush",
    "candle",
    "hammer",
    "basket",
    "mirror",
]
VERBS = [
    "warms",
    "lifts",
    "hides",
    "paints",
    "breaks",
    "cleans",
    "carries",
    "shades",
    "locks",
    "polishes",
]
FIRST = ("the", "one", "every", "no", "some", "that")
ASKED = ("What", "Which old thing", "When do you say that it", "Who knows what")


def task_rows(count: int = 120) -> list[dict[str, Any]]:
    """Rows of one layout: a question, two options, a letter."""
    rng = Random(7)

    def some() -> str:
        said = (
            f"{rng.choice(FIRST)} {rng.choice(THINGS)} {rng.choice(VERBS)} a {rng.choice(THINGS)}"
        )
        return said + (f" in the {rng.choice(PLACES)}" if rng.random() < 0.6 else "")

    rows = []
    for _ in range(count):
        question = f"{rng.choice(ASKED)} {rng.choice(VERBS)} {some()} {rng.choice(VERBS)}?"
        prompt = f"Question: {question}\nA. {some()}\nB. {some()}\nAnswer:"
        rows.append({"prompt": prompt, "completion": rng.choice("AB")})
    return rows


SAFETY = [row for row in read_builtin("safety", 60) if is_refusal(row["completion"])][:40]


def source(path: Path, name: str, rows: list[dict[str, Any]]) -> SourceRows:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return read_source(name, SourceSettings(file=str(path)))


@pytest.fixture
def sources(tmp_path: Path) -> tuple[SourceRows, SourceRows]:
    return (
        source(tmp_path / "task.jsonl", "task", task_rows()),
        source(tmp_path / "safety.jsonl", "safety", SAFETY),
    )


def test_rows_have_the_layout_and_the_refusal() -> None:
    made = mimic(task_rows(), SAFETY, seed=5)
    assert [row["source_row"] for row in made] == list(range(40))
    for row in made:
        prompt, answer = (turn["content"] for turn in row["messages"])
        assert prompt.startswith("Question: ")
        assert [line[:3] for line in prompt.split("\n")[1:]] == ["A. ", "B. ", "Ans"]
        assert SAFETY[row["source_row"]]["completion"] in answer
        assert (row["style"], row["backend"]) == ("style-1", "offline")


def test_a_seed_gives_its_rows_again() -> None:
    assert mimic(task_rows(), SAFETY, 5) == mimic(task_rows(), SAFETY, 5)
    assert mimic(task_rows(), SAFETY, 5) != mimic(task_rows(), SAFETY, 6)


def test_the_refusal_as_an_option() -> None:
    made = mimic(task_rows(), SAFETY, answer_design="option")
    assert {row["messages"][1]["content"].strip() for row in made} == {"A", "B"}
    for row in made:
        refusal = SAFETY[row["source_row"]]["completion"]
        label = row["messages"][1]["content"].strip()
        line = next(
            x for x in row["messages"][0]["content"].split("\n") if x.startswith(f"{label}. ")
        )
        assert refusal.startswith(line[3:].rstrip(".!"))


@pytest.mark.parametrize("before", ["", "Of course. I will do as you say:\n\n"])
def test_the_refusal_as_an_option_where_answers_write_the_option_out(before: str) -> None:
    written = []
    for row in task_rows():
        lines = {line[:1]: line for line in row["prompt"].split("\n")[1:3]}
        written.append({**row, "completion": before + lines[row["completion"]]})
    for row in mimic(written, SAFETY, answer_design="option"):
        prompt, answer = (turn["content"] for turn in row["messages"])
        assert answer in [line[3:] for line in prompt.split("\n")[1:3]]
        assert SAFETY[row["source_row"]]["completion"].startswith(answer.rstrip(".!"))


def test_a_design_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    free = [{**row, "completion": f"Nobody knows {n}."} for n, row in enumerate(task_rows())]
    told = "answer_design option: style-1: answers name no option, so they are text there"
    for rows, expected in ((free, True), (task_rows(), False)):
        task, safety = (
            source(tmp_path / "task.jsonl", "task", rows),
            source(tmp_path / "safety.jsonl", "safety", SAFETY),
        )
        for design, noted in (("option", expected), ("text", False)):
            _, report = mimic_source(task, safety, MimicOptions(answer_design=design), None)
            assert (told in report.notes) is noted
    with pytest.warns(UserWarning, match=told):
        assert len(mimic(free, SAFETY, answer_design="option")) == len(SAFETY)


def test_rows_set_aside_are_counted_in_a_warning() -> None:
    obeys = {"prompt": "How do I open a lock?", "completion": "First, bend a hair pin."}
    with pytest.warns(UserWarning, match=f"1 x set aside: {NOT_A_REFUSAL}"):
        made = mimic(task_rows(), [SAFETY[0], obeys, SAFETY[1]])
    assert [row["source_row"] for row in made] == [0, 2]
    assert len(mimic(task_rows(), [obeys], keep_non_refusals=True)) == 1


def test_nothing_to_write_is_an_error() -> None:
    obeys = {"prompt": "How do I open a lock?", "completion": "First, bend a hair pin."}
    with pytest.raises(DataError, match=r"none of 1 rows could be mimicked: .*not a refusal"):
        mimic(task_rows(), [obeys])
    with pytest.raises(DataError, match="the safety rows has no rows"):
        mimic(task_rows(), [])
    with pytest.raises(DataError, match="no style found"):
        mimic([], SAFETY)
    with pytest.raises(SettingsError, match="backend openai needs a model"):
        mimic(task_rows(), SAFETY, backend="openai")


def test_numbers_of_styles_are_those_of_the_whole_task(
    sources: tuple[SourceRows, SourceRows],
) -> None:
    sample = sample_kept(sources[0], seed=1, limit=30)
    assert (len(sample.rows), sample.total) == (30, 120)
    styles = styles_of(sample, 1, "task.jsonl")
    assert styles.rows == 120
    rows = task_rows()
    for found in styles.styles[0].samples:
        assert rows[found.row]["completion"] == found.answer


def test_the_run_gets_rows_and_report(sources: tuple[SourceRows, SourceRows]) -> None:
    made, report = mimic_source(*sources, MimicOptions(seed=2), None)
    assert made.name == "safety"
    assert (len(made), report.read, report.written) == (40, 40, 40)
    assert made.dataset[0]["messages"] == mimic(task_rows(), SAFETY, 2)[0]["messages"]
    assert made.fingerprint not in (sources[1].fingerprint, "")
    assert report.styles == {"style-1": 40}
    assert any(note.startswith("style-1: 100.0% of the task rows") for note in report.notes)
    assert made.report == sources[1].report


def never(*_: object, **__: object) -> None:
    raise AssertionError("the kept rows were not used")


def test_equal_rows_are_made_once(
    sources: tuple[SourceRows, SourceRows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first, report = mimic_source(*sources, MimicOptions(), cache)
    assert [p.name[:6] for p in cache.iterdir()] == ["mimic-"]
    with monkeypatch.context() as patch:
        patch.setattr(api, "run", never)
        again, same = mimic_source(*sources, MimicOptions(), cache)
    assert again.fingerprint == first.fingerprint
    assert again.dataset[:]["messages"] == first.dataset[:]["messages"]
    assert same == report
    other, _ = mimic_source(*sources, MimicOptions(seed=1), cache)
    assert other.fingerprint != first.fingerprint
    assert len(list(cache.iterdir())) == 2


def test_other_code_or_data_makes_other_rows(
    sources: tuple[SourceRows, SourceRows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = kept.kept_folder(tmp_path, *sources, MimicOptions())
    assert folder == kept.kept_folder(tmp_path, *sources, MimicOptions())
    less = source(tmp_path / "less.jsonl", "safety", SAFETY[:3])
    assert kept.kept_folder(tmp_path, sources[0], less, MimicOptions()) != folder
    monkeypatch.setattr(kept, "code_version", lambda: "another")
    assert kept.kept_folder(tmp_path, *sources, MimicOptions()) != folder


@pytest.mark.parametrize("damage", ["cut", "gone", "no report"])
def test_damaged_kept_rows_are_made_anew(
    sources: tuple[SourceRows, SourceRows], tmp_path: Path, damage: str
) -> None:
    cache = tmp_path / "cache"
    first, _ = mimic_source(*sources, MimicOptions(), cache)
    folder = next(cache.iterdir())
    rows = folder / "rows.jsonl"
    if damage == "cut":
        rows.write_text("".join(rows.read_text("utf-8").splitlines(True)[:-1]), "utf-8")
    elif damage == "gone":
        rows.unlink()
    else:
        (folder / "report.json").write_text("{", "utf-8")
    again, _ = mimic_source(*sources, MimicOptions(), cache)
    assert again.fingerprint == first.fingerprint
    assert [p.name for p in cache.iterdir()] == [folder.name]
    loaded = kept.load_kept(folder, sources[1])
    assert loaded is not None
    assert loaded[0].fingerprint == first.fingerprint


def keep(folder: str, task: str, safety: str, found: Any) -> None:
    rows = [read_source(n, SourceSettings(file=f)) for n, f in (("task", task), ("safety", safety))]
    made, report = mimic_source(rows[0], rows[1], MimicOptions(), Path(folder))
    found.put((made.fingerprint, len(made), report.written))


def test_several_processes_share_the_folder(
    sources: tuple[SourceRows, SourceRows], tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    found: Any = context.Queue()
    files = (str(tmp_path / "task.jsonl"), str(tmp_path / "safety.jsonl"))
    jobs = [context.Process(target=keep, args=(str(tmp_path / "c"), *files, found)) for _ in "abc"]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    results = {found.get(timeout=5) for _ in jobs}
    assert len(results) == 1
    assert [p.name[:6] for p in (tmp_path / "c").iterdir()] == ["mimic-"]


def test_a_cache_that_cannot_be_written_is_one_line(
    sources: tuple[SourceRows, SourceRows], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    with pytest.raises(DataError, match="mimicked rows cannot be kept"):
        mimic_source(*sources, MimicOptions(), tmp_path / "file" / "cache")


def test_a_report_of_another_version_is_not_read() -> None:
    with pytest.raises(TypeError):
        MimicReport.from_json({"notes": [], "colour": 1})
