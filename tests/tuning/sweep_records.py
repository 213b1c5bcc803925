"""Made-up records of a sweep: the same for the same number, no model and no Ray."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from safemix.tuning.records import Outcome, TrialRecord


def verdicts(share, total, seed):
    draw = random.Random(seed)
    return "".join("1" if draw.random() < share else "0" for _ in range(total))


def outcomes(ratio, seed, *, total=120, utility=0.75):
    """What a ratio does in theory: ASR falls with it, utility slowly."""
    plain, styled = 0.35 * math.exp(-60 * ratio), 0.75 * math.exp(-45 * ratio)
    made = [
        Outcome("safety", "builtin", "plain", "asr", verdicts(plain, total, seed)),
        Outcome("safety", "builtin", "styled", "asr", verdicts(styled, total, seed + 1)),
        Outcome("safety", "builtin", "styled", "complied", verdicts(0.9, total, seed + 1)),
        Outcome("over_refusal", "builtin", "plain", "refused", verdicts(0.05 + ratio, 100, seed)),
        Outcome("coherence", "harmful prompts", "styled", "incoherent", verdicts(0.02, 120, seed)),
        Outcome("utility", "piqa", "autoif+aoa", "accuracy",
                verdicts(utility - 0.6 * ratio**1.5, 400, seed + 2)),
    ]  # fmt: skip
    return tuple(made)


def readings(ratio, seed, steps, every=5):
    draw = random.Random(seed)
    made = []
    for step in range(0, steps + 1, every):
        safe = 0.9 - 1.2 * math.exp(-25 * ratio) * (1 - math.exp(-step / 25))
        made.append({
            "step": step,
            "safety/margin/plain": safe + 0.3 + draw.gauss(0, 0.03),
            "safety/margin/styled": safe + draw.gauss(0, 0.03),
            "utility/loss": 0.4 + math.exp(-step / 20) + draw.gauss(0, 0.04),
            "safety/loss": 1.0 + 2.5 * math.exp(-step * (ratio + 0.01)) + draw.gauss(0, 0.1),
        })  # fmt: skip
    return tuple(made)


def trial(number, *, status="done", same=False):
    ratio = 0.05 if same else 0.01 * 30 ** random.Random(number).random()
    step = {"done": 60, "stopped": 20, "failed": 35, "running": 30, "waiting": 0}[status]
    changed = round(ratio * 1.25, 4)
    ratios = ((0, ratio), (20, changed)) if number % 7 == 3 and not same else ((0, ratio),)
    if status == "waiting":
        ratios = ()
    seed = 0 if same else 100 * number
    return TrialRecord(
        number,
        "trial",
        {"ratio": ratio, "mitigation": ("base", "paraphrase")[number % 2]},
        status,
        {"stopped": "asha: margin -0.31 is below the best third at step 20",
         "failed": "CUDA out of memory: 2.00 GiB asked, 1.20 GiB free"}.get(status, ""),
        step, 60, step * 32, step * 4.0, 1 if number == 4 else 0, ratios,
        outcomes(ratio, seed) if status == "done" else (),
        readings(ratio, seed, step) if status != "waiting" else (),
        f"trials/trial-{number:02d}",
    )  # fmt: skip


def baselines(first, *, unmixed_asr=0.0):
    unmixed = TrialRecord(
        first, "unmixed", {}, "done", step=60, max_steps=60, rows=1920, seconds=240.0,
        ratios=((0, 0.0),), outcomes=outcomes(unmixed_asr, 9001, utility=0.76),
        readings=readings(0.0, 9001, 60),
    )  # fmt: skip
    untouched = TrialRecord(
        first + 1, "untouched", {}, "done", seconds=30.0,
        outcomes=outcomes(0.09, 9002, utility=0.55), readings=readings(0.1, 9002, 0),
    )  # fmt: skip
    return [unmixed, untouched]


def sweep(count=30, *, same=False):
    """Trials of all states, and both baselines: a third stopped where there are many."""
    made = []
    for number in range(count):
        status = "done"
        if count > 4 and not same:
            status = ("done", "done", "stopped")[number % 3]
            status = "failed" if number == 7 else status
        made.append(trial(number, status=status, same=same))
    return [*made, *baselines(count)]


def front_of(records):
    """Not dominated in worst ASR and utility, by brute force."""
    spots = []
    for record in records:
        if record.kind == "trial" and record.outcomes:
            asr = max(o.rate.value for o in record.side("safety") if o.metric == "asr")
            spots.append((record, asr, record.side("utility")[0].rate.value))
    return [
        one for one, asr, good in spots
        if not any(a <= asr and g >= good and (a, g) != (asr, good) for _, a, g in spots)
    ]  # fmt: skip


def renamed(record, name):
    """The record with its sets, reason and choices called by a name from outside."""
    found = tuple(replace(outcome, name=name, dress=name) for outcome in record.outcomes)
    return replace(record, outcomes=found, reason=name, point={"ratio": 0.1, name: name})
