"""`mitigation.logit_adjustment`: the adjustment of a run, from its rows, and its `auto`.

Training on safety rows and look-alikes makes the two easier to tell apart, and moves the line
between refusing and answering somewhere. `auto` holds it where both sides are least bad, against
the answers of the model before training (`adjustment_before.py`), over all dresses
(`evaluate/line.py`). With e = clip(best shift, -1, 1)
of a reading the adjustment is

    d = p e + 1/4 x (the sum of e over all readings so far),    in nats, within [-3, 3],

a proportional-integral controller. What an adjustment does in a step goes with the learning rate,
so p = 5 / (sum over the steps since the last reading of their learning rate / the largest one),
within [1, 4]: late in a run, at a low learning rate, it answers an error harder.

One adjustment for all dresses: with one for each, dresses that were held up to 3 nats apart moved
together all the same in the study.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import ExportableState

from safemix.errors import CheckpointError, DataError
from safemix.evaluate.line import best_shift
from safemix.evaluate.probe_reading import ProbeReading
from safemix.hosts.adjustment import LogitAdjustment, first_trained, refusing_tokens
from safemix.settings import Settings
from safemix.settings_levers import LOOKALIKES, LookalikesKey, adjusts_itself
from safemix.training.checkpoints import TRAINER_STATE, Checkpoint, callback_state
from safemix.training.data import Mixture
from safemix.training.process import shared

__all__ = ["AdjustmentControl", "adjustment_control", "adjustment_line", "adjustment_of"]

INTEGRAL: Final = 0.25
LIMIT: Final = 3.0
# Proportional part: steps at the largest learning rate in which an adjustment shows, and its range.
_RESPONSE: Final = 5.0
_GAINS: Final = (1.0, 4.0)
_SAME_HAND: Final = (
    "logit_adjustment: auto reads the built-in benign prompts, which are by the hand that wrote "
    "the built-in look-alikes: it may leave the model too ready to refuse others; give "
    "evaluation.lookalikes prompts of your own"
)
# Rows of a source that are looked at, from all over it as its parts stand one after the other: a
# token that begins 1 % of them is found.
_ROWS: Final = 4000


def adjustment_of(settings: Settings, mixture: Mixture) -> LogitAdjustment | None:
    """The run's adjustment; the same on every rank, as it follows from the rows alone.

    Raises:
        DataError: if refusals begin as other answers do.
    """
    mitigation, rows = settings.mitigation, mixture.dataset.sources
    meant = [name for name in ("safety", LOOKALIKES) if len(rows.get(name, ()))]
    if not isinstance(mitigation, LookalikesKey) or not mitigation.logit_adjustment:
        return None
    if "safety" not in meant:
        return None
    # Without look-alikes the task's answers are the ones that do not refuse.
    others = rows[LOOKALIKES if LOOKALIKES in meant else "task"]
    found = refusing_tokens(_first_tokens(rows["safety"]), _first_tokens(others))
    if not found:
        raise DataError(
            "mitigation.logit_adjustment: the safety rows' answers begin with the same tokens as "
            "the others, so refusals cannot be told by them: set it to 0"
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
        self._sum = self._moved = self._shift = 0.0
        if state is not None:
            # All of it or an error: what another form kept would be followed by nothing.
            self._before = {name: float(share) for name, share in state["before"].items()}
            self._sum, self._moved = float(state["sum"]), float(state["moved"])
            self._shift, adjustment.amount = float(state["shift"]), float(state["amount"])

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
        low, high = _GAINS
        gain = min(high, max(low, _RESPONSE / max(self._moved, 1e-9)))
        error = max(-1.0, min(1.0, shift))
        self._shift, self._moved = shift, 0.0
        self._sum = _within(self._sum + INTEGRAL * error)
        self._adjustment.amount = _within(gain * error + self._sum)

    @property
    def metrics(self) -> dict[str, float]:
        """What is logged, in nats: the adjustment, and the best shift of the last reading."""
        return {"safety/adjustment": self._adjustment.amount, "safety/best_shift": self._shift}

    def state(self) -> dict[str, Any]:
        """What the Trainer writes into `trainer_state.json`."""
        kept = {"before": self._before, "sum": self._sum, "moved": self._moved}
        kept |= {"shift": self._shift, "amount": self._adjustment.amount}
        return {"args": {}, "attributes": kept}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make room in the Trainer's state: that of a run without `auto` has none."""
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count how much the step may move, before the schedule goes on."""
        rate = kwargs["optimizer"].param_groups[0]["lr"]
        self._moved += rate / args.learning_rate if args.learning_rate else 0.0

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the adjustment to a training log."""
        logs = kwargs.get("logs") or {}
        if "loss" in logs:
            logs.update(self.metrics)


def _within(nats: float) -> float:
    return max(-LIMIT, min(LIMIT, nats))


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
