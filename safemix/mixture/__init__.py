"""The plan: numpy and the standard library only, no torch, no I/O."""

from __future__ import annotations

from safemix.mixture.plan import MixturePlan
from safemix.mixture.ratio import Constant, Cosine, Linear, Piecewise, Ratio, ratio_from
from safemix.mixture.views import Consumed, Grid, Step

__all__ = [
    "Constant",
    "Consumed",
    "Cosine",
    "Grid",
    "Linear",
    "MixturePlan",
    "Piecewise",
    "Ratio",
    "Step",
    "ratio_from",
]
