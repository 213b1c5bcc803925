"""How often the probe is read: often enough to see, seldom enough to cost little."""

from __future__ import annotations

import math

from safemix.loading.dataset import MixedDataset
from safemix.settings import Settings
from safemix.settings_evaluation import LEAST_READINGS, PROBE_EVERY, PROBE_SHARE
from safemix.settings_levers import adjusts_itself

_SAMPLE = 64  # rows whose length is looked at


def probe_interval(settings: Settings, probe_tokens: int, row_tokens: float, steps: int) -> int:
    """Optimizer steps between two readings.

    `auto` is counted in tokens and not by a clock, so it is the same in every run of the same
    settings, on any number of ranks, and after a resume. A token of a forward pass costs one
    unit; training costs three (forward, and backward for activations and weights), two where the
    weights are frozen, and one more where activations are computed again. Where readings move
    `logit_adjustment: auto`, a short run has more of them, whatever they cost.

    Args:
        settings: of the run.
        probe_tokens: tokens of one reading, over all ranks.
        row_tokens: mean tokens of a training row.
        steps: optimizer steps of the run.

    Returns:
        0 for never.
    """
    asked = settings.evaluation.probe_every
    if asked != "auto":
        return asked
    units = (3 if settings.lora is False else 2) + settings.gradient_checkpointing
    step = settings.global_batch_size * row_tokens * units
    every = max(PROBE_EVERY, math.ceil(probe_tokens / (PROBE_SHARE * step)))
    if not adjusts_itself(settings.mitigation):
        return every
    return min(every, max(1, steps // LEAST_READINGS))


def mean_row_tokens(dataset: MixedDataset) -> float:
    """Mean length of the task's rows, in tokens, over some of them evenly spread."""
    rows = dataset.sizes["task"]
    step = max(1, rows // _SAMPLE)
    seen = range(0, rows, step)
    return sum(len(dataset.sources["task"][row]["input_ids"]) for row in seen) / len(seen)
