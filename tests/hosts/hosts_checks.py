"""Checks that several tests of the hosts make."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def check_parity(result: dict[str, Any]) -> None:
    """Losses and gradients are the stock Trainer's at every step; the sources add up to it."""
    stock, ours = result["stock"], result["ours"]
    assert len(stock) == len(ours) == 8
    np.testing.assert_allclose(
        [log["loss"] for log in ours], [log["loss"] for log in stock], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
        [log["grad_norm"] for log in ours], [log["grad_norm"] for log in stock], rtol=1e-6
    )
    assert result["weights"] < 1e-6
    for log in ours:
        parts = [(log[f"{s}/token_share"], log[f"{s}/loss"]) for s in ("utility", "safety")]
        assert math.isclose(sum(share for share, _ in parts), 1.0, abs_tol=1e-12)
        assert math.isclose(sum(s * x for s, x in parts), log["loss"], abs_tol=2e-6)
