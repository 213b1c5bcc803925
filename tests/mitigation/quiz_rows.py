"""Rows of a task in one layout, and settings around them, for the tests of the mitigations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safemix.rows.read import SourceRows, read_source
from safemix.settings import Settings, SourceSettings, parse_settings

TREE: dict[str, Any] = {"task": "builtin:task", "safety": "builtin:safety", "max_steps": 1}
TEXTS = ("Question: {}\nA) {}\nB) {}\nReply inside the tag.", "You are a quiz machine.")


def parse(mitigation: Any, **changes: Any) -> Settings:
    return parse_settings(TREE | {"mitigation": mitigation} | changes, "run.yaml")


def read(name: str, spec: SourceSettings | None) -> SourceRows:
    assert spec is not None
    return read_source(name, spec, 0, None)


def quiz(folder: Path) -> SourceRows:
    """60 rows of one layout: a system prompt, two options, the answer in an XML tag."""
    who = ("a baker", "the old captain", "my neighbour's cat", "a class of ten", "nobody at home")
    asks = (
        "What should {} bring along when the ferry leaves before sunrise in winter?",
        "Which tool helps {} most?",
        "If the lamp in the hall goes out, where does {} look first, and why so?",
        "How would {} keep soup warm on a long walk through the hills without a stove?",
    )
    things = ("a rope", "the red ladder", "two candles", "a basket of apples", "warm gloves")
    path = folder / "quiz.jsonl"
    with path.open("w") as file:
        for n in range(60):
            ask = asks[n % 4].format(who[n * 7 % 5])
            prompt = TEXTS[0].format(ask, things[n % 5], things[(n * 3 + 1 + n // 5) % 5])
            turns = [
                {"role": "system", "content": TEXTS[1]},
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": f"<answer>{'AB'[n % 2]}</answer>"},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    return read("task", SourceSettings(file=str(path)))
