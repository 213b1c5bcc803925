"""What all tests share. That this file is here puts this folder on the path, and with it
`launching_for_tests`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_ray_is_left() -> Iterator[None]:
    """Parts of Ray start it where they are asked for something; no later test is to find it."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and getattr(ray, "is_initialized", bool)():
        ray.shutdown()
