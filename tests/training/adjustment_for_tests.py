"""Rows, settings and mixtures for the tests of logit adjustment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from safemix.loading.dataset import MixedDataset
from safemix.settings import parse_settings

NO = -100


def rows(*first: int) -> list[dict[str, np.ndarray]]:
    return [
        {"input_ids": np.array([1, token, 2]), "labels": np.array([NO, token, 2])}
        for token in first
    ]


def settings(**mitigation: Any) -> Any:
    tree = {"task": {"builtin": "task"}, "safety": {"builtin": "safety"}, "epochs": 1}
    return parse_settings(tree | {"mitigation": {"name": "paraphrase", **mitigation}}, "test")


def mixture(**sources: Any) -> Any:
    plan = SimpleNamespace(sources=tuple(sources))
    return SimpleNamespace(dataset=MixedDataset(sources), plan=plan)
