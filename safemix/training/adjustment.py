"""`mitigation.logit_adjustment`: the adjustment of a run, from its rows, and its `auto`.

Training on safety rows and look-alikes makes the two easier to tell apart, and moves the line
between refusing and answering somewhere. `auto` holds it where both sides are least bad, against
the answers of the model before training (`adjustment_before.py`), over all dresses
(`evaluate/line.py`). After each reading the adjustment becomes the one that, kept from then on, is
expected to bring the best shift to 0 at the end of training (at most 200 steps ahead), within
[-3, 3] nats. `adjustment_model.py` expects it: from all readings, from the adjustments that are
still on their way, and from the learning rates to come.

One adjustment for all dresses: with one for each, dresses that were held up to 3 nats apart moved
together all the same in the study.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import ExportableState

from safemix.errors import CheckpointError, DataError
from safemix.evaluate.line import best_shift
from safemix.evaluate.probe_reading import ProbeReading
from safemix.hosts.adjustment import LogitAdjustment, first_trained, refusing_tokens, share_alike
from safemix.settings import Settings
from safemix.settings_levers import LOOKALIKES, LookalikesKey, adjusts_itself
from safemix.training.adjustment_model import LineModel
from safemix.training.checkpoints import TRAINER_STATE, Checkpoint, callback_state
from safemix.training.data import Mixture
from safemix.training.process import shared

__all__ = ["AdjustmentControl", "adjustment_control", "adjustment_line", "adjustment_of"]

_SAME_HAND: Final = (
    "logit_adjustment: auto reads the built-in benign prompts, which are by the hand that wrote "
    "the built-in look-alikes: it may leave the model too ready to refuse others; give "
    "evaluation.lookalikes prompts of your own"
)
# Rows of a source that are looked at, from all over it as its parts stand one after the other: a
# token that begins 1 % of them is found.
_ROWS: Final = 4000
# Share of both kinds that begins with one token, above which first tokens do not tell them apart.
_ALIKE: Final = 0.1


def adjustment_of(settings: Settings, mixture: Mixture) -> LogitAdjustment | None:
    """The run's adjustment; the same on every rank, as it follows from the rows alone.

    Raises:
        DataError: if refusals begin as other answers do, or many of both begin alike.
    """
    mitigation, rows = settings.mitigation, mixture.dataset.sources
    meant = [name for name in ("safety", LOOKALIKES) if len(rows.get(name, ()))]
    if not isinstance(mitigation, LookalikesKey) or not mitigation.logit_adjustment:
        return None
    if "safety" not in meant:
        return None
    # Without look-alikes the task's answers are the ones that do not refuse.
    others = rows[LOOKALIKES if LOOKALIKES in meant else "task"]
    begins = _first_tokens(rows["safety"]), _first_tokens(others)
    found = refusing_tokens(*begins)
    if not found:
        raise DataError(
            "mitigation.logit_adjustment: the safety rows' answers begin with the same tokens as "
            "the others, so refusals cannot be told by them: set it to 0"
        )
    if (alike := share_alike(*begins)) >= _ALIKE:
        raise DataError(
            f"mitigation.logit_adjustment: {100 * alike:.0f} % of refusals and of other answers "
            "begin with the same token, as where every answer of the task has a label before it: "
            "which of them refuse cannot be told by it, so set it to 0, or leave the label out of "
            "the task's answers"
        )
    tokens = torch.tensor(found)
    sources = torch.tensor([mixture.plan.sources.index(name) for name in meant])
    asked = 0.0 if adjusts_itself(mitigation) else float(mitigation.logit_adjustment)
    return LogitAdjustment(asked, tokens, sources)


def adjustment_line(
    settings: Settings, adjustment: LogitAdjustment | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, ...]:
    """What it does, a line for a person, or nothing."""
    if adjustment is None:
        return ()
    words = ", ".join(repr(tokenizer.decode([token])) for token in adjustment.tokens.tolist())
    auto = adjusts_itself(settings.mitigation)
    if auto:
        end = "as much as keeps both sides closest to the model before training (auto)"
    else:
        way = "less" if adjustment.amount > 0 else "more"
        end = f"{adjustment.amount:g}, so that the trained model refuses {way} readily"
    line = f"logit_adjustment: {words} at the beginning of an answer are raised by {end}"
    mixed = getattr(settings.mitigation, LOOKALIKES, None)
    if auto and mixed is not None and mixed.builtin and "builtin" in settings.evaluation.lookalikes:
        return (line, _SAME_HAND)
    return (line,)


def _first_tokens(rows: Any) -> list[int]:
    labels = (rows[n]["labels"].tolist() for n in range(0, len(rows), -(-len(rows) // _ROWS)))
    return [token for token in map(first_trained, labels) if token is not None]


class AdjustmentControl(TrainerCallback, ExportableState):
    """Moves the adjustment after each reading of the probe.

    Make it on every rank, add it to the Trainer, call `keep` before the first step, and `read` with
    each reading. Its state stands in `trainer_state.json` of each checkpoint.

    Args:
        adjustment: of the run; its `amount` is changed.
        state: where the run goes on from, as JSON; None for a fresh start.
    """

    def __init__(self, adjustment: LogitAdjustment, state: Mapping[str, Any] | None = None) -> None:
        self._adjustment = adjustment
        self._before: dict[str, float] = {}
        self._shift, self._rate, self._last_step = 0.0, 1.0, 0
        self._schedule: Any = None
        # All of a state or an error: what another form kept would be followed by nothing.
        self._line = LineModel(None if state is None else state["line"])
        if state is not None:
            self._before = {name: float(share) for name, share in state["before"].items()}
            self._shift, self._rate = float(state["shift"]), float(state["rate"])
            adjustment.amount = float(state["amount"])

    def keep(self, before: Mapping[str, float]) -> None:
        """What is to be kept, as `asks_before` finds it; the same on every rank."""
        self._before = dict(before)

    def read(self, step: int, reading: ProbeReading) -> None:
        """Take a reading; all ranks call it, in step. The numbers of rank 0 count.

        One that is not finite, or from before `keep`, changes nothing.
        """
        shift = shared(lambda: best_shift(reading, self._before))
        if shift is None:
            return
        self._shift = shift
        self._line.observe(shift)
        # Ranks on unlike processors may round in other ways.
        amount = shared(lambda: self._line.best_amount(self._rates_ahead(step)))
        if amount is not None:
            self._adjustment.amount = amount

    def _rates_ahead(self, step: int) -> Iterator[float]:
        """Learning rate of each step to come, over the largest one.

        A schedule that cannot be asked (DeepSpeed's own) is taken to stay where it is.
        """
        schedule = self._schedule
        while hasattr(schedule, "scheduler"):  # as accelerate wraps it
            schedule = schedule.scheduler
        left = range(max(0, self._last_step - step))
        if isinstance(schedule, LambdaLR):
            factor, done = schedule.lr_lambdas[0], schedule.last_epoch
            return (float(factor(done + ahead)) for ahead in left)
        return (self._rate for _ in left)

    @property
    def metrics(self) -> dict[str, float]:
        """What is logged, in nats: the adjustment, and the best shift of the last reading."""
        return {"safety/adjustment": self._adjustment.amount, "safety/best_shift": self._shift}

    def state(self) -> dict[str, Any]:
        """What the Trainer writes into `trainer_state.json`."""
        kept: dict[str, Any] = {"before": self._before, "line": self._line.state()}
        kept |= {"shift": self._shift, "rate": self._rate, "amount": self._adjustment.amount}
        return {"args": {}, "attributes": kept}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make room in the Trainer's state: that of a run without `auto` has none."""
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        self._schedule, self._last_step = kwargs["lr_scheduler"], state.max_steps

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Follow the step, before the schedule goes on."""
        rate = kwargs["optimizer"].param_groups[0]["lr"]
        self._rate = rate / args.learning_rate if args.learning_rate else 0.0
        self._line.step(self._rate, self._adjustment.amount)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the adjustment to a training log."""
        logs = kwargs.get("logs") or {}
        if "loss" in logs:
            logs.update(self.metrics)


def adjustment_control(
    settings: Settings, adjustment: LogitAdjustment | None, checkpoint: Checkpoint | None
) -> AdjustmentControl | None:
    """What `auto` needs, as its checkpoint left it; None without `auto`.

    Raises:
        CheckpointError: if the checkpoint's state cannot be read.
    """
    if adjustment is None or not adjusts_itself(settings.mitigation):
        return None
    try:
        if checkpoint is None:
            return AdjustmentControl(adjustment)
        saved = callback_state(checkpoint.folder, AdjustmentControl.__name__)
        if saved is None:
            raise CheckpointError(
                f"{checkpoint.folder} is of a run without logit_adjustment: auto, and what the "
                "model was before training cannot be read now: give a number, or resume: never"
            )
        return AdjustmentControl(adjustment, saved)
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        raise CheckpointError(
            f"{checkpoint and checkpoint.folder / TRAINER_STATE}: the state of "
            "logit_adjustment: auto is damaged: use an older checkpoint"
        ) from None
