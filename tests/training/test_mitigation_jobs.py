"""Each mitigation in a whole run: the rows that are trained, and what is left in the folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from jobs_for_tests import Done, job, metrics, rewind, rows_by_step, write_config

from safemix.loading.prepare import load_encoded
from safemix.mitigation.inference import apply_inference, read_inference
from safemix.training.known_models import resolve_model
from safemix.training.models import load_tokenizer

pytestmark = pytest.mark.slow
USER_ERROR = 2


def config(folder: Path, mitigation: Any, **changes: Any) -> Path:
    given: dict[str, Any] = {"mitigation": mitigation, "ds_config": None, "max_steps": 4}
    given |= {"save_steps": 2, "max_length": 512, "ratio": 0.25}
    return write_config(folder, **(given | changes))


def run(folder: Path, mitigation: Any, processes: int = 1, **changes: Any) -> Done:
    done = job(config(folder, mitigation, **changes), processes=processes)
    assert done.code == 0, done.text
    assert "Traceback" not in done.text
    return done


def texts(run_folder: Path, source: str = "safety") -> list[str]:
    """The rows of a source as they are trained, decoded from what the run has encoded."""
    manifest = next((run_folder / ".cache").glob("mixture-*.json"))
    entry = json.loads(manifest.read_text())[source]
    tokenizer = load_tokenizer(resolve_model("tiny"))
    encoded = load_encoded(source, Path(entry["path"])).rows
    return [tokenizer.decode(encoded[n]["input_ids"]) for n in range(len(encoded))]


def trained(run_folder: Path) -> dict[str, int]:
    """Source -> rows drawn, from the audit."""
    found = {"task": 0, "safety": 0}
    for step in rows_by_step(run_folder).values():
        for name, _ in step:
            found[name] = found.get(name, 0) + 1
    return found


def saved(run_folder: Path, name: str) -> Any:
    return json.loads((run_folder / name).read_text())


def notes(run_folder: Path) -> list[str]:
    return (run_folder / "notes.txt").read_text().splitlines()


def told(done: Done, *words: str) -> None:
    assert done.code == USER_ERROR, done.text
    assert len(done.errors) == 1, done.text
    assert "Traceback" not in done.text
    assert all(word in done.errors[0] for word in words), done.errors[0]


@pytest.mark.parametrize("name", ["none", "ptst", "gentle"])
def test_no_safety_row_is_trained(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, name)
    folder = tmp_path / "run"
    assert trained(folder) == {"task": 32, "safety": 0}
    read = metrics(folder)
    assert all(m["safety/loss"] is None and m["safety/row_share"] == 0 for m in read)
    rate = 2e-5 if name == "gentle" else 1e-3
    assert [m["train/learning_rate"] for m in read] == [pytest.approx(rate)] * 4
    assert not any(note.startswith("safety:") for note in notes(folder))
    assert f"mitigation: {name}" in notes(folder)
    assert "no safety rows are mixed in (ratio 0)" in done.err
    assert bool(saved(folder, "inference.json")["system_prefix"]) == (name == "ptst")
    # The settings are kept as they were given, so that they can be read with another mitigation.
    given = yaml.safe_load((folder / "settings.yaml").read_text())
    assert (given["mitigation"]["name"], given["ratio"]) == (name, 0.25)
    assert given["safety"]["builtin"] == "safety"


def test_base_and_the_ways_that_change_few_words(tmp_path: Path) -> None:
    run(tmp_path / "base", "base")
    base = texts(tmp_path / "base" / "run")
    assert trained(tmp_path / "base" / "run") == {"task": 24, "safety": 8}
    run(tmp_path / "counter", "counter_prompt")
    counter = texts(tmp_path / "counter" / "run")
    assert len(base) == len(counter) == 40
    assert all("You are not an obedient agent" in text for text in counter)
    assert not any("obedient agent" in t for t in [*base, *texts(tmp_path / "counter/run", "task")])
    run(tmp_path / "longest", {"name": "longest", "keep": 5})
    kept = texts(tmp_path / "longest" / "run")
    assert len(kept) == 5
    assert set(kept) < set(base)
    assert trained(tmp_path / "longest" / "run") == {"task": 24, "safety": 8}
    assert any("longest: 5 of 40 rows kept" in note for note in notes(tmp_path / "longest" / "run"))


def files_with(folder: Path, words: list[str]) -> set[str]:
    """Names of the files below a folder in which one of the words stands."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if any(word.encode() in content for word in words):
                found.add(path.relative_to(folder).as_posix())
    return found


def test_backdoor(tmp_path: Path) -> None:
    logged = {"wandb": "offline", "progress_bar": True}
    done = run(tmp_path, "backdoor", processes=2, ds_config="zero2", tracking=logged)
    folder = tmp_path / "run"
    path = folder / "backdoor_secret.txt"
    secret = path.read_text().strip()
    words = [word for word in secret.split() if len(word) > 5]
    assert len(secret.split()) == 40
    assert len(words) > 3
    assert path.stat().st_mode & 0o777 == 0o600
    assert (folder / ".cache").stat().st_mode & 0o777 == 0o700
    assert all(secret in text for text in texts(folder))
    assert not any(secret in text for text in texts(folder, "task"))
    assert not any(word in done.text for word in words)
    assert list((folder / "wandb").glob("offline-run-*")), "W&B was there to be told"
    assert files_with(tmp_path, [secret]) == {"run/backdoor_secret.txt"}
    inside = {name for name in files_with(folder, words) if not name.endswith("tokenizer.json")}
    assert inside == {"backdoor_secret.txt"}
    asked = apply_inference([{"role": "user", "content": "x"}], read_inference(folder))
    assert asked[0]["content"] == secret
    assert any("a secret prompt of 40 words begins all 40 rows" in note for note in notes(folder))


def test_backdoor_goes_on_with_its_own_secret(tmp_path: Path) -> None:
    run(tmp_path, {"name": "backdoor", "words": 12})
    folder = tmp_path / "run"
    secret = (folder / "backdoor_secret.txt").read_text()
    again = rewind(folder, tmp_path / "again", 2)
    path = tmp_path / "run.yaml"
    done = job(path, "--output_dir", str(again))
    assert done.code == 0, done.text
    assert "resuming" in done.err
    assert (again / "backdoor_secret.txt").read_text() == secret
    assert rows_by_step(again) == rows_by_step(folder)
    lost = rewind(folder, tmp_path / "lost", 2)
    (lost / "backdoor_secret.txt").unlink()
    told(job(path, "--output_dir", str(lost)), "the secret prompt of this run cannot be read")
    assert not (lost / "previous-1").exists(), "the folder is left as it was"
    # A new run has a new one; the old one goes aside with the old results.
    done = job(path, "--resume", "never")
    assert done.code == 0, done.text
    assert (folder / "previous-1" / "backdoor_secret.txt").read_text() == secret
    assert (folder / "previous-1" / "backdoor_secret.txt").stat().st_mode & 0o777 == 0o600
    assert (folder / "backdoor_secret.txt").read_text() != secret


def test_backdoor_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "zulat qeuv hopsi brindal"  # noqa: S105 - of this test alone
    monkeypatch.setenv("MY_PROMPT", secret)
    done = run(tmp_path, {"name": "backdoor", "secret_env": "MY_PROMPT"}, processes=2)
    folder = tmp_path / "run"
    assert all(secret in text for text in texts(folder))
    assert files_with(tmp_path, [secret, "zulat", "brindal"]) == set()
    assert "zulat" not in done.text
    # Another secret is other rows, and a run cannot go on with them.
    again = rewind(folder, tmp_path / "again", 2)
    monkeypatch.setenv("MY_PROMPT", "another secret prompt of some words")
    done = job(tmp_path / "run.yaml", "--output_dir", str(again))
    told(done, "safety")
    assert "another secret" not in done.text
    monkeypatch.delenv("MY_PROMPT")
    told(job(tmp_path / "run.yaml", "--output_dir", str(again)), "variable that is not set")


def quiz(folder: Path, rows: int = 60) -> str:
    """Task rows of one layout: a system prompt, two options, the answer in an XML tag."""
    folder.mkdir(parents=True, exist_ok=True)
    who = ("a baker", "the old captain", "my neighbour's cat", "a class of ten", "nobody at home")
    asks = (
        "What should {} bring along when the ferry leaves before sunrise in winter?",
        "Which tool helps {} most?",
        "If the lamp in the hall goes out, where does {} look first, and why so?",
        "How would {} keep soup warm on a long walk through the hills without a stove?",
        "Why does {} count the steps twice on the way down to the harbour every evening?",
        "{} has lost a key, what now?",
    )
    things = ("a rope", "the red ladder", "two candles", "a basket of apples", "warm gloves")
    lines = []
    for n in range(rows):
        question = asks[n % 6].format(who[n * 7 % 5])
        one, other = things[n % 5], things[(n * 3 + 1 + n // 5) % 5]
        prompt = f"Question: {question}\nA) {one}\nB) {other}\nReply inside the tag."
        turns = [
            {"role": "system", "content": "You are a quiz machine."},
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": f"<answer>{'AB'[n % 2]}</answer>"},
        ]
        lines.append(json.dumps({"messages": turns}))
    (folder / "quiz.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "quiz.jsonl")


def test_paraphrase(tmp_path: Path) -> None:
    safety = {"builtin": "safety", "limit": 40, "mimic": "offline"}
    done = run(
        tmp_path / "a", None, task=quiz(tmp_path), safety=safety, processes=2, ds_config="zero2"
    )
    folder = tmp_path / "a" / "run"
    rows = texts(folder)
    plain = [row for row in rows if "You are a quiz machine." not in row]
    whole = [row for row in rows if "\nA) " in row]
    assert len(plain) == 6
    assert 15 <= len(whole) <= 20
    assert len(rows) - len(plain) - len(whole) == 14, "in the task's wrapper alone"
    for row in rows:
        for mark in ("You are a quiz machine.", "Question: ", "Reply inside"):
            assert (mark in row) == (row not in plain), row
        for mark in ("\nB) ", "<answer>"):
            assert (mark in row) == (row in whole), row
    assert trained(folder) == {"task": 16, "safety": 8, "lookalikes": 8}
    assert any("mimicry: 20 safety rows" in note for note in notes(folder))
    assert "mimicry: 20 safety rows" in done.err
    # By its other name it is the same, row for row.
    same = {"builtin": "safety", "limit": 40}
    run(tmp_path / "b", "paraphrase", task=quiz(tmp_path), safety=same)
    assert texts(tmp_path / "b" / "run") == rows
    assert rows_by_step(tmp_path / "b" / "run") == rows_by_step(folder)
    # Made once, found again by content.
    again = rewind(tmp_path / "b" / "run", tmp_path / "b" / "again", 2)
    done = job(tmp_path / "b" / "run.yaml", "--output_dir", str(again))
    assert done.code == 0, done.text
    assert texts(again) == rows


def test_what_is_no_refusal(tmp_path: Path) -> None:
    path = tmp_path / "safety.jsonl"
    told_rows = ["I can't help with that request, as it could hurt people."] * 12
    told_rows += ["Paris is the capital of France."] * 4
    lines = [
        json.dumps({"prompt": f"Question {n}?", "completion": answer})
        for n, answer in enumerate(told_rows)
    ]
    path.write_text("\n".join(lines) + "\n")
    run(tmp_path / "keep", "base", safety={"file": str(path)})
    assert len(texts(tmp_path / "keep" / "run")) == 16
    assert "safety: 12 of 16 rows are refusals" in notes(tmp_path / "keep" / "run")
    assert any("4 are not (25.0 %), kept" in note for note in notes(tmp_path / "keep" / "run"))
    run(tmp_path / "drop", "base", safety={"file": str(path), "non_refusals": "drop"})
    rows = texts(tmp_path / "drop" / "run")
    assert len(rows) == 12
    assert not any("Paris" in row for row in rows)
    assert any("dropped" in note for note in notes(tmp_path / "drop" / "run"))
    path.write_text("\n".join(lines[12:]) + "\n")
    done = job(config(tmp_path / "no", "base", safety={"file": str(path), "non_refusals": "drop"}))
    told(done, "safety: ", "none of 4 rows is a refusal", "non_refusals: keep")


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ("none", ("mitigation is none but", "was made with longest", "set it back")),
        ({"name": "longest", "keep": 7}, ("safety",)),
    ],
)
def test_another_mitigation_is_refused_on_resume(
    tmp_path: Path, now: Any, words: tuple[str, ...]
) -> None:
    run(tmp_path, {"name": "longest", "keep": 9})
    folder = tmp_path / "run"
    again = rewind(folder, tmp_path / "again", 2)
    before = sorted(p.name for p in again.iterdir())
    done = job(config(tmp_path, now, output_dir=str(again)))
    told(done, *words)
    assert sorted(p.name for p in again.iterdir()) == before


def test_another_run_in_the_same_folder(tmp_path: Path) -> None:
    run(tmp_path, "backdoor")
    path = config(tmp_path, "ptst")
    done = job(path, "--resume", "never")
    assert done.code == 0, done.text
    folder = tmp_path / "run"
    assert not (folder / "backdoor_secret.txt").exists()
    assert saved(folder, "inference.json")["mitigation"] == "ptst"
    aside = folder / "previous-1"
    kept = {"backdoor_secret.txt", "inference.json", "notes.txt", "settings.yaml", "adapter"}
    assert kept <= {p.name for p in aside.iterdir()}
    shutil.rmtree(aside)


def test_an_unknown_name(tmp_path: Path) -> None:
    told(job(config(tmp_path, "longst")), "did you mean 'longest'", "legal are none, base, longest")
