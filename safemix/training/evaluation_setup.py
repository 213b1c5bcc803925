"""From settings to what a run measures, and its place in the Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Final

from torch import Tensor

from safemix.evaluate.probe import RefusalProbe
from safemix.evaluate.results import Evaluation
from safemix.mitigation.interface import Mitigation
from safemix.settings import Settings
from safemix.tracking.tracker import Tracking
from safemix.training.data import Mixture
from safemix.training.evaluation import EvaluationCallback, Measuring, Observer
from safemix.training.evaluation_interval import mean_row_tokens, probe_interval
from safemix.training.evaluation_prompts import check_labels, inference_of, prompts_of
from safemix.training.process import say
from safemix.training.trainer import RunTrainer

# Tokens of one forward pass of the probe: not so few that a GPU is idle, and no more than
# training has shown to fit.
_TOKENS: Final = (512, 4096)


def measuring_of(
    settings: Settings,
    tokenizer: Any,
    mitigation: Mitigation,
    secret: str | None,
    *,
    first: Tensor | None = None,
) -> Measuring:
    """What the settings ask to measure; all ranks call it. `with_interval` says how often.

    Args:
        settings: of the run, as the mitigation has adjusted them.
        tokenizer: of the model.
        mitigation: says what goes before the system prompt.
        secret: its secret prompt.
        first: tokens that begin refusals, int64[K], for the gaps; None reads none.

    Raises:
        SafemixError: for a prompt set, dress or judge that cannot be used.
    """
    wanted = settings.evaluation
    check_labels(settings)
    inference = inference_of(mitigation, secret)
    probe, notes = None, tuple[str, ...]()
    if wanted.probes:
        prompts = prompts_of(settings, inference)
        low, high = _TOKENS
        probe = RefusalProbe(
            prompts.groups,
            tokenizer,
            template=settings.chat_template,
            max_length=settings.max_length,
            aggregate=wanted.margin,
            every_way=wanted.every_margin,
            first=first,
            max_tokens=min(high, max(low, settings.micro_batch_size * settings.max_length)),
        )
        notes = prompts.notes
    evaluate = None
    if wanted.eval_every:
        # Late: it brings judges and generation, which most runs do without.
        from safemix.training.evaluation_suite import evaluator

        evaluate, note = evaluator(settings, tokenizer, inference)
        notes += (note,)
    return Measuring(probe, 0, evaluate, wanted.eval_every, wanted.eval_at_start, notes)


def with_interval(
    measuring: Measuring, settings: Settings, mixture: Mixture, model: Any, steps: int
) -> Measuring:
    """How often the probe is read: it takes more tokens where a model heeds no mask of ours.

    Args:
        measuring: of `measuring_of`.
        settings: of the run.
        mixture: tells how long the rows are.
        model: that will be read.
        steps: optimizer steps of the run.
    """
    probe = measuring.probe
    if probe is None:
        return measuring
    probe.lay_out_for(model)
    every = probe_interval(settings, probe.tokens, mean_row_tokens(mixture.dataset), steps)
    dresses = ", ".join(dict.fromkeys(group.dress for group in probe.groups))
    note = f"refusal margin: read every {every} steps, prompts {dresses}"
    return replace(measuring, probe_every=every, notes=(*measuring.notes, note))


def add_measuring(
    trainer: RunTrainer,
    measuring: Measuring,
    tracking: Tracking,
    first: int,
    observers: Sequence[Observer] = (),
) -> None:
    """Let a Trainer measure; call it before the callback that writes the logs is added.

    Args:
        trainer: of the run.
        measuring: what, and how often.
        tracking: writes what is read at step 0, and shows completions where it has W&B.
        first: optimizer steps done before.
        observers: are told of each reading, on every rank.
    """
    averaging = trainer._averaging

    def weights() -> AbstractContextManager[Any]:
        """The weights that the run will give out: their average, where one is kept."""
        average = averaging.average if averaging is not None else None
        return nullcontext() if average is None else average.in_place()

    def settle() -> None:
        """Under ZeRO-3 a forward pass begins to fetch weights for a backward pass.

        After the probe's there is none, and generation, or a save, would find them neither whole
        nor apart.
        """
        release = getattr(trainer.model_wrapped, "empty_partition_cache", None)
        if release is not None:
            release()

    def tables(step: int, found: Evaluation) -> None:
        """A W&B table of completions, on the rank that logs; harmful ones are left out."""
        if tracking.wandb_run is not None:
            from safemix.evaluate.report.wandb_table import log_evaluations

            log_evaluations(tracking.wandb_run, found, step=step)

    trainer.add_callback(
        EvaluationCallback(
            measuring,
            tracking.log,
            say,
            first=first,
            weights=weights,
            settle=settle,
            spent=trainer.leave_out,
            observers=observers,
            tables=tables,
        )
    )
