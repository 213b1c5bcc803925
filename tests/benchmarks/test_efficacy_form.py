"""Whether the runs of the study have learned the form of the task's answers."""

from __future__ import annotations

import json
from pathlib import Path

import efficacy_form
import pytest

from safemix.prompting.strategy import render_one

ROW = {"question": "Two hens lay 3 eggs each. How many is that?", "answer": "2 * 3 = 6\n#### 6"}


def test_the_rows_a_run_is_tuned_on_have_the_form() -> None:
    confirmed = render_one("gsm8k", "autoif+aoa", ROW, 0, confirm=True)["messages"][-1]["content"]
    benign = render_one("gsm8k", "benign", ROW, 0)["messages"][-1]["content"]
    opened, final = efficacy_form.form_of([confirmed, benign, "Six.", "The sum is #### 6", ""])
    assert (opened.count, opened.total) == (1, 5)
    assert (final.count, final.total) == (2, 5), "of the last ones none has it in a line"


def test_evaluations_are_found_and_those_by_likelihood_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def keep(folder: str, metric: str, *answers: str) -> None:
        items = [{"completion": answer, "error": None} for answer in answers]
        items.append({"completion": "", "error": "no answer"})
        measures = [
            {"side": "utility", "metric": metric, "items": items},
            {"side": "safety", "metric": "asr", "items": items},
        ]
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "eval.json").write_text(json.dumps({"measures": measures}), "utf-8")

    keep("cells/piqa-run/eval", "accuracy", "")
    keep("cells/gsm8k-run/eval", "number_match", "so\n#### 4", "Four.")
    keep("baselines/aligned", "number_match", "I cannot.")
    found = dict(efficacy_form.generated(tmp_path))
    assert found == {"gsm8k-run": ["so\n#### 4", "Four."], "aligned": ["I cannot."]}
    monkeypatch.setattr("sys.argv", ["efficacy_form.py", "--work", str(tmp_path)])
    efficacy_form.main()
    assert "| gsm8k-run | 0.0 % (0/2, " in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["efficacy_form.py", "--work", str(tmp_path / "cells")])
    with pytest.raises(SystemExit, match="2"):
        efficacy_form.main()
    assert "holds no evaluation" in capsys.readouterr().err
