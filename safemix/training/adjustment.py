"""`mitigation.logit_adjustment`: the adjustment of a run, from its rows, and its `auto`.

With `auto` the adjustment of each dress follows the probe. Training on safety rows and look-alikes
makes the two easier to tell apart, and moves the line between refusing and answering somewhere:
in the task's layout, often to where most look-alikes are refused. `auto` holds the line where it
was: the gap (`evaluate/probe_reading.py`), averaged over harmful prompts and look-alikes, is to
stay what it was before training. With e = clip(gap now - gap before training, -1, 1) of a dress,
its adjustment after a reading is

    d = e + 1/4 x (the sum of e over all readings so far),    in nats, within [-3, 3],

a proportional-integral controller. The first term answers at once, and lets go as soon as the line
is back: training follows some steps behind, and late in a run, at a low learning rate, hardly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import ExportableState

from safemix.errors import CheckpointError, DataError
from safemix.evaluate.probe_reading import GAPS
from safemix.hosts.adjustment import LogitAdjustment, first_trained, refusing_tokens
from safemix.settings import Settings
from safemix.settings_levers import LOOKALIKES, LookalikesKey
from safemix.training.checkpoints import TRAINER_STATE, Checkpoint, callback_state
from safemix.training.data import DRESSES, Mixture
from safemix.training.process import shared

__all__ = ["AdjustmentControl", "adjustment_control", "adjustment_line", "adjustment_of"]

AUTO: Final = "auto"
PROPORTIONAL: Final = 1.0
INTEGRAL: Final = 0.25
LIMIT: Final = 3.0
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
    numbers = {name: mixture.plan.sources.index(name) for name in meant}
    tokens, sources = torch.tensor(found), torch.tensor(list(numbers.values()))
    if mitigation.logit_adjustment != AUTO:
        return LogitAdjustment(tokens, sources, torch.tensor([float(mitigation.logit_adjustment)]))
    dresses = {number: torch.tensor(mixture.dresses[name]) for name, number in numbers.items()}
    return LogitAdjustment(tokens, sources, torch.zeros(len(DRESSES)), dresses)


def adjustment_line(
    settings: Settings, adjustment: LogitAdjustment | None, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, ...]:
    """What it does, a line for a person, or nothing."""
    if adjustment is None:
        return ()
    words = ", ".join(repr(tokenizer.decode([token])) for token in adjustment.tokens.tolist())
    asked = getattr(settings.mitigation, "logit_adjustment", 0)
    if asked == AUTO:
        end = "as much as keeps the model as ready to refuse as it was (auto)"
    else:
        way = "less" if asked > 0 else "more"
        end = f"{asked:g}, so that the trained model refuses {way} readily"
    return (f"logit_adjustment: {words} at the beginning of an answer are raised by {end}",)


def _first_tokens(rows: Any) -> list[int]:
    labels = (rows[n]["labels"].tolist() for n in range(0, len(rows), -(-len(rows) // _ROWS)))
    return [token for token in map(first_trained, labels) if token is not None]


class AdjustmentControl(TrainerCallback, ExportableState):
    """Moves the adjustment of each dress after each reading of the probe.

    Make it on every rank, add it to the Trainer, and call `observe` after each reading. Its state
    stands in `trainer_state.json` of each checkpoint.

    Args:
        adjustment: of the run; its `amounts` are changed.
        names: for each of `DRESSES`, the dresses of the probe that tell of it, the best first.
        state: where the run goes on from, as JSON; None for a fresh start.
    """

    def __init__(
        self,
        adjustment: LogitAdjustment,
        names: Sequence[Sequence[str]],
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._adjustment, self._names = adjustment, names
        kept = state or {}
        self._before: dict[str, float] = {k: float(v) for k, v in kept.get("before", {}).items()}
        self._sums = [float(part) for part in kept.get("sums", [0.0] * len(names))]
        if "amounts" in kept:
            self._set([float(amount) for amount in kept["amounts"]])

    def observe(self, step: int, reading: Mapping[str, float | None]) -> None:
        """Take a reading; all ranks call it, in step. The numbers of rank 0 count.

        The first one says what is to be kept. A dress whose gap is not finite stays as it is.
        """
        gaps = _mean_gaps(reading)
        if not gaps:
            return
        if not self._before:
            self._before = shared(lambda: gaps)
            return
        errors = shared(lambda: self._errors(gaps))
        amounts = self._adjustment.amounts.tolist()
        for place, error in enumerate(errors):
            if error is not None:
                self._sums[place] = _within(self._sums[place] + INTEGRAL * error)
                amounts[place] = _within(PROPORTIONAL * error + self._sums[place])
        self._set(amounts)

    def _errors(self, gaps: Mapping[str, float]) -> list[float | None]:
        """How much readier to refuse than before, in [-1, 1]; None where it cannot be said."""
        found: list[float | None] = []
        for names in self._names:
            name = next((n for n in names if n in gaps and n in self._before), None)
            error = math.nan if name is None else gaps[name] - self._before[name]
            found.append(max(-1.0, min(1.0, error)) if math.isfinite(error) else None)
        return found

    def _set(self, amounts: Sequence[float]) -> None:
        self._adjustment.amounts = torch.tensor(list(amounts))

    @property
    def metrics(self) -> dict[str, float]:
        """What is logged: the adjustment of each dress, in nats."""
        amounts = self._adjustment.amounts.tolist()
        return {f"safety/adjustment/{n}": a for n, a in zip(DRESSES, amounts, strict=True)}

    def state(self) -> dict[str, Any]:
        """What the Trainer writes into `trainer_state.json`."""
        amounts = self._adjustment.amounts.tolist()
        kept = {"before": self._before, "sums": self._sums, "amounts": amounts}
        return {"args": {}, "attributes": kept}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make room in the Trainer's state: that of a run without `auto` has none."""
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the adjustments to a training log."""
        logs = kwargs.get("logs") or {}
        if "loss" in logs:
            logs.update(self.metrics)


def _within(nats: float) -> float:
    return max(-LIMIT, min(LIMIT, nats))


def _mean_gaps(reading: Mapping[str, float | None]) -> dict[str, float]:
    """Dress of the probe -> the gap, averaged over both sides; nan if one is not finite."""
    found: dict[str, float] = {}
    for name, value in reading.items():
        metric, _, dress = name.rpartition("/")
        other = reading.get(f"{GAPS['lookalikes']}/{dress}")
        if metric == GAPS["harmful"] and f"{GAPS['lookalikes']}/{dress}" in reading:
            both = [math.nan if v is None else float(v) for v in (value, other)]
            found[dress] = sum(both) / 2
    return found


def adjustment_control(
    settings: Settings, adjustment: LogitAdjustment | None, checkpoint: Checkpoint | None
) -> AdjustmentControl | None:
    """What `auto` needs, as its checkpoint left it; None without `auto`.

    Raises:
        CheckpointError: if the checkpoint's state cannot be read.
    """
    if adjustment is None or getattr(settings.mitigation, "logit_adjustment", 0) != AUTO:
        return None
    prompting = settings.task.prompting
    strategy = () if prompting is None else (prompting.strategy,)
    names = (("plain",), (*strategy, "styled"), ("styled", *strategy))
    try:
        if checkpoint is None:
            return AdjustmentControl(adjustment, names)
        saved = callback_state(checkpoint.folder, AdjustmentControl.__name__)
        if saved is None:
            raise CheckpointError(
                f"{checkpoint.folder} is of a run without logit_adjustment: auto, and what the "
                "model was before training cannot be read now: give a number, or resume: never"
            )
        return AdjustmentControl(adjustment, names, saved)
    except (OSError, ValueError, TypeError, AttributeError):
        raise CheckpointError(
            f"{checkpoint and checkpoint.folder / TRAINER_STATE}: the state of "
            "logit_adjustment: auto is damaged: use an older checkpoint"
        ) from None
