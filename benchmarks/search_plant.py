"""A plant: what trials of a sweep would read and come to, without training a model.

A surface says how a run behaves at every ratio. It is a model, made for comparing searches:

* **Safety.** Each dress of the harmful prompts has a safety x = -logit(ASR). At a constant ratio r
  it goes to `LIMIT` * tanh(slope * ln(r / half) / `LIMIT`), so that the ASR is logistic in the
  logarithm of the ratio, and near 1 without safety rows. It goes there exponentially, from the x of
  the model before training; where the ratio moves, x goes to where the present ratio leads.
* **Margin.** middle + width * x, and above it a gap that training closes: before training a model
  refuses with more margin than a trained one of the same ASR.
* **Task.** The loss falls exponentially with the task rows seen, to a level that rises slightly
  with the ratio. Accuracy falls in proportion to the share of safety rows.
* **Noise.** Runs differ (`Surface.luck`), readings do, and outcomes are counted on few prompts.
  Trials are asked the same prompts, so verdicts go together: each is a threshold on the sum of a
  part that the prompt brings to all trials and one that is this trial's own. In the study that
  share of the variance was 0.54 to 0.78 for the ASR and 0.74 for accuracy.

What is not in it: an ASR that is not monotone in the ratio, a margin that says nothing of the ASR,
and effects of anything but the ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Final

import numpy as np

from safemix.tuning.records import Outcome
from safemix.tuning.score import LOSS, MARGIN

LIMIT: Final = 5.0
LOW, HIGH = 0.01, 0.3
"""Ends of the ratios that are searched."""
PROMPTS, TASK_ROWS = 60, 200
# Where an ASR of 60 prompts is mostly within a bound of 10 %.
_SAFE: Final = 3.5
_SHARED_ASR, _SHARED_ACCURACY = 0.6, 0.7
_READING: Final = 0.25


@dataclass(frozen=True)
class Dress:
    """How one dress of the harmful prompts answers to the ratio.

    Attributes:
        name: of the dress.
        half: ratio at which half of the prompts are answered.
        slope: logits of safety per e-fold of the ratio.
        middle: margin at an ASR of one half, after training, in nats.
        width: nats of margin per logit of safety.
        first: safety before training, in logits.
        gap: by how much the margin before training is above that of a trained model, in nats.
    """

    name: str
    half: float
    slope: float
    middle: float
    width: float
    first: float
    gap: float

    def safety(self, ratio: float) -> float:
        """Where the safety goes at a constant ratio, in logits."""
        if ratio <= 0:
            return -LIMIT
        return LIMIT * math.tanh(self.slope * math.log(ratio / self.half) / LIMIT)


@dataclass(frozen=True)
class Surface:
    """How a run behaves at every ratio.

    Attributes:
        name: for tables.
        seed: of the prompts.
        dresses: of the harmful prompts.
        settling: time in which 63 % of the way of the safety is gone, as a share of a run.
        learning: the same for the task's loss.
        losses: task loss before training, and after it without safety rows, in nats.
        loss_rise: of the final loss, per unit of the ratio.
        row_noise: standard deviation of the loss of one row, relative to the mean.
        accuracy: after training without safety rows.
        accuracy_cost: of it, per unit of the ratio.
        luck: standard deviation of the safety of two runs at one ratio, in logits.
    """

    name: str
    seed: int
    dresses: tuple[Dress, ...]
    settling: float = 0.15
    learning: float = 0.1
    losses: tuple[float, float] = (2.5, 0.3)
    loss_rise: float = 0.2
    row_noise: float = 1.0
    accuracy: float = 0.75
    accuracy_cost: float = 0.15
    luck: float = 0.3

    def asr(self, ratio: float) -> float:
        """ASR that the worst dress goes to at a constant ratio, without noise."""
        return max(_logistic(-dress.safety(ratio)) for dress in self.dresses)

    def true_accuracy(self, share: float) -> float:
        """Accuracy without noise, at a share of safety rows over the run."""
        return self.accuracy - self.accuracy_cost * share


@dataclass(frozen=True)
class State:
    """Where a run stands: what its weights would hold.

    Attributes:
        step: optimizer steps done.
        safety: of each dress, in logits, without luck.
        loss: of the task, in nats.
        luck: of this run, in logits.
        ratios: (step, ratio), from which step on which ratio held.
    """

    step: int
    safety: tuple[float, ...]
    loss: float
    luck: float
    ratios: tuple[tuple[int, float], ...] = field(default=())

    @property
    def share(self) -> float:
        """Share of safety rows so far."""
        ends = [step for step, _ in self.ratios[1:]] + [self.step]
        rows = sum(r * (end - begin) for (begin, r), end in zip(self.ratios, ends, strict=True))
        return rows / self.step if self.step else (self.ratios[-1][1] if self.ratios else 0.0)


def begin(surface: Surface, draw: np.random.Generator) -> State:
    """The model before training; its luck comes with the run."""
    luck = float(draw.normal(0.0, surface.luck))
    return State(0, tuple(d.first for d in surface.dresses), surface.losses[0], luck)


def advance(surface: Surface, state: State, ratio: float, steps: int, max_steps: int) -> State:
    """The state after some steps at a ratio; the same for any way of cutting the steps."""
    time = steps / max_steps
    kept = math.exp(-time / surface.settling)
    goals = [dress.safety(ratio) for dress in surface.dresses]
    safety = tuple(g + (x - g) * kept for g, x in zip(goals, state.safety, strict=True))
    goal = surface.losses[1] + surface.loss_rise * ratio
    loss = goal + (state.loss - goal) * math.exp(-time * (1 - ratio) / surface.learning)
    same = bool(state.ratios) and state.ratios[-1][1] == ratio
    ratios = state.ratios if same else (*state.ratios, (state.step, ratio))
    return replace(state, step=state.step + steps, safety=safety, loss=loss, ratios=ratios)


def reading(
    surface: Surface, state: State, batch: int, max_steps: int, draw: np.random.Generator
) -> dict[str, float]:
    """What the probe and the log of this step say, in nats; before the first step without noise.

    The loss is that of one step's task rows, as in `metrics.jsonl`.
    """
    time = state.step / max_steps
    closed = math.exp(-time / surface.settling)
    found = {}
    for dress, safety in zip(surface.dresses, state.safety, strict=True):
        x = safety + (state.luck if state.step else 0.0)
        noise = draw.normal(0.0, _READING) if state.step else 0.0
        found[MARGIN + dress.name] = dress.middle + dress.width * x + dress.gap * closed + noise
    if state.step:
        ratio = state.ratios[-1][1]
        rows = max(1.0, batch * (1 - ratio))
        found[LOSS] = state.loss * float(draw.gamma(rows / surface.row_noise**2))
        found[LOSS] *= surface.row_noise**2 / rows
    return found


def outcomes(
    surface: Surface,
    state: State,
    draw: np.random.Generator,
    sizes: tuple[int, int] = (PROMPTS, TASK_ROWS),
) -> tuple[Outcome, ...]:
    """The evaluation at the end of a run.

    Args:
        surface: of the run.
        state: at its end.
        draw: of what is this run's own.
        sizes: harmful prompts, and held-out task rows.
    """
    made = []
    asked = np.random.default_rng([surface.seed, 1])
    for dress, safety in zip(surface.dresses, state.safety, strict=True):
        rate = _logistic(-(safety + state.luck))
        marks = _verdicts(rate, asked.standard_normal(sizes[0]), _SHARED_ASR, draw)
        made.append(Outcome("safety", "planted", dress.name, "asr", marks))
    rate = surface.true_accuracy(state.share)
    marks = _verdicts(rate, asked.standard_normal(sizes[1]), _SHARED_ACCURACY, draw)
    return (*made, Outcome("utility", "planted", "plain", "accuracy", marks))


def random_surface(seed: int) -> Surface:
    """A surface whose smallest safe ratio lies between 1.5 and 20 %.

    Nothing that it draws is known to a search. The ranges hold what the efficacy study measured on
    PIQA with AutoIF and AOA, with room on both sides.
    """
    draw = np.random.default_rng([seed, 0])
    safe = math.exp(draw.uniform(math.log(0.015), math.log(0.2)))
    slope, gap = draw.uniform(2.0, 4.0), draw.uniform(0.0, 10.0)
    half = safe * math.exp(-_SAFE / slope)
    width, middle = draw.uniform(1.0, 2.0), draw.uniform(-7.5, -2.5)
    first = draw.uniform(1.5, 3.5)
    easier = math.exp(-draw.uniform(0.3, 1.2))
    dresses = (
        Dress("plain", half * easier, slope, middle + 2.5, width, first + 0.3, gap),
        Dress("styled", half, slope, middle, width, first, gap),
    )
    return Surface(
        f"random-{seed}",
        seed,
        dresses,
        settling=math.exp(draw.uniform(math.log(0.05), math.log(0.3))),
        learning=math.exp(draw.uniform(math.log(0.05), math.log(0.3))),
        losses=(2.5, math.exp(draw.uniform(math.log(0.02), math.log(1.0)))),
        loss_rise=draw.uniform(0.0, 0.5),
        accuracy=draw.uniform(0.55, 0.85),
        accuracy_cost=draw.uniform(0.0, 0.3),
    )


def random_surfaces(count: int, seed: int) -> list[Surface]:
    """Surfaces that are all different."""
    return [random_surface(1000 * seed + number) for number in range(count)]


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


def _verdicts(
    rate: float, asked: Sequence[float] | np.ndarray, shared: float, draw: np.random.Generator
) -> str:
    """One mark a prompt, "1" with a probability of `rate` over all prompts and runs."""
    own = draw.standard_normal(len(asked))
    mixed = math.sqrt(shared) * np.asarray(asked) + math.sqrt(1 - shared) * own
    limit = NormalDist().inv_cdf(min(max(rate, 1e-9), 1 - 1e-9))
    return "".join("1" if value < limit else "0" for value in mixed)
