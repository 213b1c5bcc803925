"""One fine-tuning run on this process: settings in, adapter or model and metrics out."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import logging as hf_logging

from safemix.errors import CheckpointError, SafemixError, SettingsError
from safemix.hosts.deepspeed_engine import skip_shared_memory_op
from safemix.loading.collate import SafeMixCollator
from safemix.loading.weights import first_tokens_of
from safemix.mitigation.backdoor import Backdoor
from safemix.mitigation.companions import share_note
from safemix.mitigation.interface import Mitigation
from safemix.mitigation.registry import mitigation_for
from safemix.mitigation.secret import SECRET_FILE, read_secret_file
from safemix.mixture import MixturePlan
from safemix.settings import Settings, accumulation_steps
from safemix.tracking.tracker import Tracking
from safemix.training import elastic, outputs
from safemix.training.adjustment import adjustment_control, adjustment_line, adjustment_of
from safemix.training.adjustment_before import asks_before, steering
from safemix.training.anchor import add_anchor
from safemix.training.arguments import training_arguments
from safemix.training.averaging import AVERAGED, average_decay, averaging
from safemix.training.checkpoints import Checkpoint, clear_after
from safemix.training.controller import ratio_controller
from safemix.training.data import Mixture, open_mixture, quiet_datasets
from safemix.training.ds_config import load_ds_config
from safemix.training.evaluation import Measuring, Observer
from safemix.training.evaluation_prompts import inference_of
from safemix.training.evaluation_setup import add_measuring, measuring_of, with_interval
from safemix.training.models import (
    load_model,
    load_tokenizer,
    resolve_model,
    resolve_precision,
)
from safemix.training.own_rows import with_own_answers
from safemix.training.process import (
    end_distributed,
    lost_peer,
    meet_alone,
    plain_words,
    rank,
    say,
    shared,
    world_size,
)
from safemix.training.progress import Progress
from safemix.training.resuming import (
    agreed_checkpoint,
    fixed_settings,
    is_elastic,
    mark_universal,
    plan_to_follow,
)
from safemix.training.trainer import WRITE_ERRORS, RunTrainer, TrackingCallback


def run(
    settings: Settings,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    observers: Sequence[Observer] = (),
) -> None:
    """Fine-tune; every process of the job calls this.

    Args:
        settings: of the run.
        callbacks: for the Trainer, beside the run's own.
        observers: are told of each reading of the probe or evaluation, on every rank.

    Raises:
        SafemixError: for anything a user can mend, one line each.
    """
    quiet_datasets()
    # What "auto" means here is settled once, so that all that follows, the DeepSpeed config's
    # check and settings.yaml included, speaks of the precision that is used.
    settings = settings.model_copy(update={"precision": resolve_precision(settings)})
    asked, mitigation = settings, mitigation_for(settings)
    settings = mitigation.adjust(settings)
    output_dir = Path(settings.output_dir)
    check_early(settings)
    model_path = resolve_model(settings.model, revision=settings.model_revision)
    tokenizer = load_tokenizer(model_path, settings.model_revision)
    if settings.ds_config is not None:
        meet_alone()
    # From here on the processes can speak to each other.
    arguments = training_arguments(settings, world_size(), max_steps=-1)
    checkpoint = agreed_checkpoint(settings)
    mark_universal(arguments, settings, checkpoint)
    secret = run_secret(mitigation, checkpoint)
    answered = with_own_answers(settings, arguments)
    mixture = open_mixture(answered.settings, tokenizer, secret)
    # Before anything in the folder is touched: a run that is refused must leave it as it was.
    plan = plan_to_follow(mixture.plan, checkpoint)
    controller = ratio_controller(settings, mixture, checkpoint)
    # A controller's run keeps the length that its first ratio gives, also where it is resumed.
    arguments.max_steps = max_steps(settings, plan if controller is None else mixture.plan)
    if checkpoint is not None and checkpoint.step >= arguments.max_steps:
        _nothing_to_train(settings, checkpoint)
        return
    if arguments.use_cpu and settings.ds_config is not None:
        skip_shared_memory_op()
    adjustment = adjustment_of(settings, mixture)
    adjusting = adjustment_control(settings, adjustment, checkpoint)
    first = None if adjusting is None or adjustment is None else adjustment.tokens
    measuring = measuring_of(settings, tokenizer, mitigation, secret, first=first)
    model = load_model(settings, model_path)
    measuring = with_interval(measuring, settings, mixture, model, arguments.max_steps)
    hf_logging.disable_progress_bar()  # it would show each time a checkpoint is written
    notes = [*_mitigation_notes(asked, mitigation), *answered.notes]
    notes += [*adjustment_line(settings, adjustment, tokenizer), *mixture.notes, *measuring.notes]

    def prepare_folder() -> None:
        _prepare_folder(settings, output_dir, checkpoint)
        outputs.write_first(output_dir, asked, mitigation, secret, notes)

    shared(prepare_folder)
    for note in notes:
        say(note)
    trainer = _trainer(settings, arguments, mixture, checkpoint, model=model, tokenizer=tokenizer)
    trainer.adjustment = adjustment
    add_anchor(trainer, settings, mixture.plan, checkpoint)
    for callback in callbacks:
        trainer.add_callback(callback)
    if adjusting is not None:
        trainer.add_callback(adjusting)
        ask = asks_before(settings, tokenizer, inference_of(mitigation, secret))
        measuring = steering(measuring, adjusting, ask)
    if controller is not None:
        controller.follow(trainer)
        observers = [controller.observe, *observers]
    _train(trainer, settings, checkpoint, measuring, observers)


def _mitigation_notes(asked: Settings, mitigation: Mitigation) -> list[str]:
    """What is done about safety, a line each; from the settings as they were given."""
    lines = (*mitigation.lines(), *share_note(asked))
    return [f"mitigation: {mitigation.name}", *(f"{mitigation.name}: {line}" for line in lines)]


def _trainer(
    settings: Settings,
    arguments: TrainingArguments,
    mixture: Mixture,
    checkpoint: Checkpoint | None,
    *,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
) -> RunTrainer:
    """The Trainer of a run."""
    audit = Path(settings.output_dir) / outputs.AUDIT / f"rank{rank()}.jsonl"
    collator = SafeMixCollator(
        tokenizer,
        max_length=settings.max_length,
        pad_to_multiple_of=settings.pad_to_multiple_of,
        template=settings.chat_template,
    )
    return RunTrainer(
        keep=settings.save_total_limit,
        fixed=fixed_settings(settings),
        averaging=averaging(settings, checkpoint.folder if checkpoint else None),
        plan=mixture.plan,
        first_tokens=first_tokens_of(settings),
        audit=audit if settings.audit_rows else None,
        model=model,
        args=arguments,
        train_dataset=mixture.dataset,
        data_collator=collator,
        processing_class=tokenizer,
    )


def _train(
    trainer: RunTrainer,
    settings: Settings,
    checkpoint: Checkpoint | None,
    measuring: Measuring,
    observers: Sequence[Observer],
) -> None:
    """Train, then save and show what came out, and end DeepSpeed's engine."""
    output_dir, first = Path(settings.output_dir), checkpoint.step if checkpoint else 0
    tracking = Tracking(
        settings.tracking,
        output_dir,
        settings.model_dump(mode="json"),
        resume_step=first,
        enabled=rank() == 0,
    )
    trainer.guard.resume(first)
    with Progress(first, trainer.args.max_steps, enabled=_bar(settings)) as progress:
        trainer.remove_callback(PrinterCallback)
        add_measuring(trainer, measuring, tracking, first, observers)
        trainer.add_callback(TrackingCallback(tracking, progress.show))
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    _save_result(trainer, settings)
    tracking.close()
    if rank() == 0:
        outputs.show(settings, output_dir, tracking.wandb_dir)
    end_distributed(trainer.model_wrapped)


def _save_result(trainer: RunTrainer, settings: Settings) -> None:
    """Save adapter or model: whole or not at all."""
    target = outputs.weights_folder(settings)
    partial, step = target.with_name(f".{target.name}.partial"), trainer.state.global_step
    try:
        trainer.save_result(partial)
        shared(lambda: outputs.publish(partial, target, step))
    except WRITE_ERRORS as error:
        if isinstance(error, SafemixError) or lost_peer(error):
            raise
        raise CheckpointError(
            f"{target} cannot be written ({plain_words(error)}): free disk space, then run the "
            "same command again; the last checkpoint is complete"
        ) from error


def _nothing_to_train(settings: Settings, checkpoint: Checkpoint) -> None:
    """Say that the run is complete; first save the result if the last start was cut short."""
    output_dir, target = Path(settings.output_dir), outputs.weights_folder(settings)
    if rank() != 0:
        return
    if outputs.finished_at(output_dir) != checkpoint.step or not target.is_dir():
        partial = target.with_name(f".{target.name}.partial")
        weights = checkpoint.folder
        if average_decay(settings) is not None:
            weights /= AVERAGED
        outputs.copy_weights(weights, partial)
        outputs.publish(partial, target, checkpoint.step)
        say(f"{target} was missing: taken from {weights}")
    say(
        f"the run is complete at step {checkpoint.step}: nothing to do. Raise max_steps, set "
        "resume: never, or choose another output_dir to train again."
    )
    outputs.show(settings, output_dir)


def _bar(settings: Settings) -> bool:
    return rank() == 0 and settings.tracking.progress_bar


def check_early(settings: Settings) -> None:
    """Find what contradicts itself before anything is downloaded or started."""
    accumulation_steps(settings, world_size())
    average_decay(settings)
    if settings.ds_config is not None:
        load_ds_config(settings.ds_config, settings, world_size())
        if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes"):
            raise SettingsError(
                "accelerate launch --cpu leaves DeepSpeed out, but ds_config is "
                f"{settings.ds_config!r}: start without --cpu (device: cpu in the settings keeps "
                "off the GPUs), or set ds_config: null"
            )
    if settings.epochs is None and settings.max_steps is None:
        raise SettingsError("give epochs or max_steps: the run has no length")


def run_secret(mitigation: Mitigation, checkpoint: Checkpoint | None) -> str | None:
    """The run's secret prompt, on all ranks; None for a mitigation without one.

    A run that goes on takes that of its folder. It is handed to other ranks, which may be on
    machines that see another disk, in memory.

    Raises:
        SettingsError: if it is not where it should be.
    """
    if not isinstance(mitigation, Backdoor):
        return None

    def find() -> str:
        if checkpoint is not None and mitigation.kept_in_file:
            return read_secret_file(checkpoint.folder.parent / SECRET_FILE)
        return mitigation.new_secret()

    secret: str = shared(find)
    return secret


def max_steps(settings: Settings, plan: MixturePlan) -> int:
    """Optimizer steps of the run, in whole steps."""
    if settings.max_steps is not None:
        return settings.max_steps
    passes = Fraction(settings.epochs or 1).limit_denominator(1000)
    return max(1, math.ceil(plan.steps_for_passes(passes)))


def _prepare_folder(settings: Settings, output_dir: Path, checkpoint: Checkpoint | None) -> None:
    """Bring the run's folder into order; called on rank 0."""
    own = checkpoint is not None and checkpoint.folder.parent.resolve() == output_dir.resolve()
    if not own:
        aside = outputs.set_aside(output_dir)
        if aside is not None:
            say(f"earlier results in {output_dir} now lie in {aside}")
    clear_after(output_dir, checkpoint.step if checkpoint and own else 0)
    if checkpoint is not None:
        say(f"resuming from {checkpoint.folder} at step {checkpoint.step}")
        outputs.cut_audit(output_dir, checkpoint.step, world_size())
        if is_elastic(settings, checkpoint):
            elastic.convert(checkpoint)
