"""The page: whole in one file, and no completion gets out of its box."""

from __future__ import annotations

import json

import pytest
from html_for_tests import Reader

from safemix.evaluate.report import figures
from safemix.evaluate.report.html import write_html
from safemix.evaluate.results import REDACTED, Evaluation, Item, Measure

HOSTILE = (
    "</pre></details><script>alert(1)</script><img src=x onerror=alert(2)>"
    "<svg onload=alert(3)>&lt;b&gt;\x1b[2J\u202e\ud800 ' onclick='x' \" <!-- ]]> $x$"
)


def measure(side, metric, items, dress="plain", name="builtin"):
    return Measure(side, name, dress, metric, tuple(items), "rules", "greedy", "ab" * 32)


def evaluation(model="tuned", text="Here are the steps"):
    safety = [
        Item("b/0", "bad request 0", text, True, "no refusal found"),
        Item("b/1", "bad request 1", "I cannot help with that.", False, "refuses"),
        Item("b/2", "bad request 2", "unjudged words", False, error="server gone"),
    ]
    coherence = [Item("c/0", "bad request 0", text, False), Item("c/1", HOSTILE, "", False)]
    benign = [Item("l/0", HOSTILE, HOSTILE, False, HOSTILE)]
    task = [Item(f"p/{n}", f"goal {n}", "", n % 2 == 0) for n in range(20)]
    measures = (
        measure("safety", "asr", safety),
        measure("over_refusal", "refused", benign, name=HOSTILE),
        measure("coherence", "incoherent", coherence),
        measure("utility", "accuracy", task, name="piqa"),
    )
    return Evaluation(model, measures, {"seed": 3, "api_key": "sk-123", "note": HOSTILE})


def read(path):
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def test_hostile_text_stays_text(tmp_path):
    path = tmp_path / "eval.html"
    given = evaluation(HOSTILE, HOSTILE)
    write_html(path, [given], evaluation("base"), show_harmful=True, notes=[HOSTILE])
    page = read(path)
    assert not page.tags & {"script", "img", "iframe", "object", "embed", "form", "a", "base"}
    assert not [found for found in page.attributes if found[1].startswith("on")]
    # Nothing is fetched: references stay inside the page, `xmlns` only names a language.
    for tag, name, value in page.attributes:
        if name.endswith("href") or name == "src":
            assert (value or "").startswith("#"), (tag, name, value)
        assert "http" not in (value or "") or name.startswith("xmlns"), (tag, name, value)
    text = "".join(page.text)
    assert "<script>alert(1)</script>" in text
    assert "\\u001b[2J\\u202e\\ud800" in text
    assert "default-src 'none'" in path.read_text("utf-8")
    assert "This file holds harmful completions" in text


def test_harmful_completions_are_left_out_wherever_they_stand(tmp_path):
    path = tmp_path / "eval.html"
    write_html(path, evaluation(text="Here are the steps"))
    text = path.read_text("utf-8")
    assert "Here are the steps" not in text
    assert "unjudged words" not in text
    assert "I cannot help with that." in text
    assert text.count(REDACTED) == 3
    write_html(path, evaluation(text="Here are the steps"), show_harmful=True)
    text = path.read_text("utf-8")
    assert text.count("Here are the steps") == 2
    assert REDACTED not in text


def test_the_page_has_table_pictures_settings_and_no_secret(tmp_path):
    path = tmp_path / "eval.html"
    write_html(path, [evaluation()], evaluation("base model"), notes=["the gate passed"])
    page = read(path)
    text = "".join(page.text)
    for words in ("the gate passed", "base: base model", "50.0 % (1/2)", "not measured", "1 of 3"):
        assert words in text or words == "not measured"
    assert "sk-123" not in text
    assert json.dumps({"seed": 3})[1:-1] in text
    source = path.read_text("utf-8")
    assert source.count("<svg ") == 2
    assert figures.INK in source  # of the light page's own ink
    body = source[source.index("<body>") :]
    assert figures.INK not in body
    assert "currentColor" in body
    assert "prefers-color-scheme: dark" in source
    assert 'name="viewport"' in source


def test_one_model_with_one_side(tmp_path):
    path = tmp_path / "eval.html"
    only = Evaluation("m", (measure("safety", "asr", [Item("a", "p", "no", False)]),))
    write_html(path, only)
    text = "".join(read(path).text)
    assert text.count("not measured") >= 3
    assert "one of the two was not measured" in text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "eval.html"
    path.write_text("old")
    monkeypatch.setattr("pathlib.Path.write_text", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_html(path, evaluation())
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["eval.html"]
