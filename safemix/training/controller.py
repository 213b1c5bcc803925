"""The ratio controller in a run: readings in, another ratio for the coming steps out.

What is measured belongs to others; they call `RatioController.observe` on every rank. Rank 0
decides by `mixture/control.py`, and all ranks make the same change in the plan's history, from
the same step on. The controller's own state stands in `trainer_state.json` of each checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

import torch
import torch.distributed as dist
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from safemix.errors import CheckpointError, HostError, PlanError
from safemix.hosts import collective
from safemix.hosts.hf_trainer import SafeMixTrainer
from safemix.loading.sampler import SafeMixSampler
from safemix.mixture import MixturePlan, control
from safemix.mixture.control import ControlRule, ControlState
from safemix.settings import Settings
from safemix.settings_controller import ASR_SCALE, MARGIN_SCALES, ControllerSettings
from safemix.settings_evaluation import Margin
from safemix.training.checkpoints import TRAINER_STATE, Checkpoint, callback_state
from safemix.training.data import Mixture
from safemix.training.process import say, shared

SOURCE: Final = "safety"
MARGIN: Final = "safety/margin/"
"""`safety/margin/DRESS`: readings of the probe."""
ASR: Final = "safety/asr/"
"""`safety/asr/SET/DRESS`: readings of an evaluation."""
_PLAIN: Final = "plain"

Reading = Mapping[str, float | None]
"""Metric name -> value; None or not finite where the measurement failed."""


class RatioController(TrainerCallback, ExportableState):
    """Moves the share of safety rows so that a reading keeps its bound.

    Make it on every rank, let it `follow` the run's Trainer, and call `observe` after each reading.

    A loader draws ahead of training, and how far depends on the number of ranks, accumulation and
    workers. So that the rows of a step do not, a change holds from `lead` steps after the reading;
    later only if some rank has drawn further.

    Args:
        rule: what is followed, and how.
        settings: which reading is followed.
        lead: steps from a reading to the first step that a change reaches.
        state: where the run goes on from, as JSON; None for a fresh start.

    Raises:
        PlanError: if `state` is damaged.

    Example:
        >>> controller.follow(trainer)
        >>> controller.observe(step, {"safety/margin/plain": 0.8, "safety/margin/styled": -0.1})
    """

    def __init__(
        self,
        rule: ControlRule,
        settings: ControllerSettings,
        lead: int,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        kept = dict(state or {})
        # A shorter lead than before would put this change before the last one.
        self.lead = max(lead, int(kept.pop("lead", 0)))
        self.rule, self._settings = rule, settings
        self._now = ControlState.from_json(kept) if kept else control.first_state(rule)
        self._sampler: SafeMixSampler | None = None

    def follow(self, trainer: SafeMixTrainer) -> None:
        """Say whose plan is changed; call it before the callback that logs is added."""
        self._sampler = trainer.sampler
        trainer.add_callback(self)
        sign = ">=" if self.rule.sense == "at_least" else "<="
        say(
            f"ratio controller: keeps {_name(self._settings)} {sign} {self.rule.bound:g} with "
            f"{float(self.rule.low):.3g} to {float(self.rule.high):.3g} of all rows, from "
            f"{float(self.rule.start):.3g}; epochs are counted at that first ratio"
        )

    def observe(self, step: int, reading: Reading) -> None:
        """Take a reading; all ranks call it, in step. The numbers of rank 0 count.

        A reading without the metric that is followed changes nothing.

        Args:
            step: optimizer steps done.
            reading: metrics by name, see `MARGIN` and `ASR`.

        Raises:
            HostError: if no Trainer is followed.
        """
        sampler = self._sampler
        if sampler is None:
            raise HostError("the ratio controller follows no Trainer: call follow(trainer)")
        open_step = _largest(sampler.drawn)
        decided = shared(lambda: self._decide(sampler.plan, step, reading, open_step).to_json())
        before, self._now = self._now, ControlState.from_json(decided)
        if self._now.moves > before.moves:
            sampler.set_ratio(SOURCE, self._now.ratio, self._now.holds_from)

    @property
    def metrics(self) -> dict[str, float]:
        """What is logged: the multiplier, and how often the ratio was changed."""
        return {
            "mix/controller/pressure": control.pressure(self.rule, self._now),
            "mix/controller/moves": float(self._now.moves),
        }

    def state(self) -> dict[str, Any]:
        """What the Trainer writes into `trainer_state.json`."""
        return {"args": {}, "attributes": {**self._now.to_json(), "lead": self.lead}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make room in the Trainer's state: that of an earlier run without a controller has none.

        The Trainer looks the name up before it writes.
        """
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the controller's metrics to a training log."""
        logs = kwargs.get("logs") or {}
        if "loss" in logs:
            logs.update(self.metrics)

    def _decide(
        self, plan: MixturePlan, step: int, reading: Reading, open_step: int
    ) -> ControlState:
        """The state after a reading; on rank 0."""
        value = followed(reading, self._settings)
        if value is None:
            return self._now
        holds_from = max(step + self.lead, open_step)
        # A person may have set another ratio on resume; it is gone on from.
        in_force = plan.ratio(SOURCE, max(holds_from, self._now.holds_from))
        before = control.seated(self._now, in_force)
        after = control.advance(self.rule, before, step, value, holds_from)
        self._tell(before, after, value)
        return after

    def _tell(self, before: ControlState, after: ControlState, value: float) -> None:
        if after.bad == self.rule.patience and before.bad < after.bad:
            say(
                f"warning: {after.bad} readings in a row are not finite: the ratio controller "
                f"takes its largest ratio, {float(self.rule.high):g}, until one is"
            )
        if after.moves > before.moves:
            say(
                f"step {after.step}: {_name(self._settings)} {value:.3g}, bound "
                f"{self.rule.bound:g}: ratio {float(before.ratio):.3g} -> {float(after.ratio):.3g} "
                f"from step {after.holds_from} on"
            )


def followed(reading: Reading, settings: ControllerSettings) -> float | None:
    """The number that a controller follows.

    Returns:
        The worst of the readings it asks for; NaN if one of them is not finite; None if there is
        none of them.
    """
    prefix = MARGIN if settings.min_margin is not None else ASR
    chosen = []
    for name, value in reading.items():
        plain = name.rpartition("/")[2] == _PLAIN
        if name.startswith(prefix) and settings.of in ("worst", _PLAIN if plain else "dressed"):
            chosen.append(math.nan if value is None else float(value))
    if not chosen:
        return None
    if not all(map(math.isfinite, chosen)):
        return math.nan
    return min(chosen) if prefix == MARGIN else max(chosen)


def ratio_controller(
    settings: Settings, mixture: Mixture, checkpoint: Checkpoint | None
) -> RatioController | None:
    """The run's controller, as its checkpoint left it; None if the ratio is not controlled.

    Raises:
        CheckpointError: if the checkpoint's state cannot be read.
    """
    asked = settings.ratio
    if not isinstance(asked, ControllerSettings) or mixture.bounds is None:
        return None
    margin = settings.evaluation.margin
    rule = rule_of(asked, mixture.plan.ratio(SOURCE, 0), mixture.bounds, margin)
    # Workers hold two micro batches each, accelerate one more; at worst each is a step. One step
    # beyond, as a reading may come while the next batch is being fetched.
    lead = 2 + 2 * settings.num_workers
    try:
        saved = (
            None
            if checkpoint is None
            else callback_state(checkpoint.folder, RatioController.__name__)
        )
        return RatioController(rule, asked, lead, saved)
    except (PlanError, OSError, ValueError, TypeError, AttributeError):
        raise CheckpointError(
            f"{checkpoint and checkpoint.folder / TRAINER_STATE}: the ratio controller's state is "
            "damaged: use an older checkpoint"
        ) from None


def rule_of(
    settings: ControllerSettings,
    start: Fraction,
    bounds: tuple[Fraction, Fraction],
    margin: Margin = "odds",
) -> ControlRule:
    """The rule that the settings ask for.

    Args:
        settings: the controller's keys.
        start: first share of all rows.
        bounds: smallest and largest share of all rows.
        margin: how the run's margin is added up.
    """
    follows_margin = settings.min_margin is not None
    bound = settings.min_margin if settings.min_margin is not None else settings.max_asr
    return ControlRule(
        sense="at_least" if follows_margin else "at_most",
        bound=float(bound or 0.0),
        low=bounds[0],
        start=start,
        high=bounds[1],
        scale=MARGIN_SCALES[margin] if follows_margin else ASR_SCALE,
        gain=settings.gain,
        band=settings.band(margin),
        every=settings.every,
        patience=settings.patience,
    )


def _largest(number: int) -> int:
    """The largest of all ranks' numbers."""
    if collective.size() == 1:
        return number
    numbers = torch.tensor([number], dtype=torch.int64, device=collective.device())
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return int(numbers)


def _name(settings: ControllerSettings) -> str:
    kind = "margin" if settings.min_margin is not None else "ASR"
    return f"{kind} ({settings.of})"
