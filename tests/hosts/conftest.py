from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny LLaMA of random weights and its tokenizer."""
    from safemix.training.tiny import build_tiny

    folder = tmp_path_factory.mktemp("tiny")
    build_tiny(folder)
    return folder
