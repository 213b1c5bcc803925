"""One fine-tuning run on this process: settings in, adapter or model and metrics out."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, PrinterCallback, TrainingArguments

from safemix.errors import CheckpointError, SettingsError
from safemix.loading.collate import SafeMixCollator
from safemix.loading.encode import Encoder
from safemix.mixture import MixturePlan
from safemix.settings import Settings, accumulation_steps
from safemix.tracking.tracker import Tracking
from safemix.training import elastic, outputs
from safemix.training.arguments import cache_folder, training_arguments
from safemix.training.checkpoints import (
    Checkpoint,
    clear_after,
    find_checkpoint,
    read_checkpoint,
)
from safemix.training.data import (
    Mixture,
    load_mixture,
    manifest_path,
    prepare_sources,
    quiet_datasets,
)
from safemix.training.ds_config import load_ds_config, zero_stage
from safemix.training.models import (
    load_model,
    load_tokenizer,
    resolve_model,
    resolve_precision,
)
from safemix.training.process import (
    end_distributed,
    rank,
    say,
    skip_shared_memory_op,
    world_size,
)
from safemix.training.progress import Progress
from safemix.training.trainer import RunTrainer, TrackingCallback


def run(settings: Settings) -> None:
    """Fine-tune; every process of the job calls this.

    Raises:
        SafemixError: for anything a user can mend, one line each.
    """
    quiet_datasets()
    # What "auto" means here is settled once, so that all that follows, the DeepSpeed config's
    # check and settings.yaml included, speaks of the precision that is used.
    settings = settings.model_copy(update={"precision": resolve_precision(settings)})
    output_dir = Path(settings.output_dir)
    _check_early(settings)
    checkpoint = choose_checkpoint(settings)
    model_path = resolve_model(settings.model)
    tokenizer = load_tokenizer(model_path, settings.model_revision)
    arguments = training_arguments(settings, world_size(), max_steps=-1)
    mark_universal(arguments, settings, checkpoint)
    mixture = _mixture(settings, tokenizer, arguments)
    arguments.max_steps = max_steps(settings, mixture.plan)
    if checkpoint is not None and checkpoint.step >= arguments.max_steps:
        say(f"the run is complete at step {checkpoint.step}: nothing to do. Raise max_steps, set")
        say("resume: never, or choose another output_dir to train again.")
        if rank() == 0:
            outputs.show(settings, output_dir)
        return
    if rank() == 0:
        _prepare_folder(settings, output_dir, checkpoint)
        for note in mixture.notes:
            say(note)
    if arguments.use_cpu and settings.ds_config is not None:
        skip_shared_memory_op()
    with arguments.main_process_first(local=False):
        if rank() == 0 and checkpoint is not None and _is_elastic(settings, checkpoint):
            elastic.convert(checkpoint)
    model = load_model(settings, model_path)
    collator = SafeMixCollator(
        tokenizer,
        max_length=settings.max_length,
        pad_to_multiple_of=settings.pad_to_multiple_of,
        template=settings.chat_template,
    )
    audit = output_dir / "audit" / f"rank{rank()}.jsonl" if settings.audit_rows else None
    trainer = RunTrainer(
        plan=mixture.plan,
        audit=audit,
        model=model,
        args=arguments,
        train_dataset=mixture.dataset,
        data_collator=collator,
        processing_class=tokenizer,
    )
    _train(trainer, settings, checkpoint)


def _train(trainer: RunTrainer, settings: Settings, checkpoint: Checkpoint | None) -> None:
    """Train, then save and show what came out; the engine is destroyed whatever happens."""
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
        trainer.add_callback(TrackingCallback(tracking, progress.show))
        trainer.train(resume_from_checkpoint=str(checkpoint.folder) if checkpoint else None)
    target = output_dir / ("model" if settings.lora is False else "adapter")
    try:
        trainer.save_model(str(target))
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{target} cannot be written: {' '.join(str(error).split())}"
        ) from None
    tracking.close()
    if rank() == 0:
        outputs.show(settings, output_dir, tracking.wandb_dir)
    end_distributed(trainer.model_wrapped)


def _bar(settings: Settings) -> bool:
    return rank() == 0 and settings.tracking.progress_bar


def _check_early(settings: Settings) -> None:
    """Find what contradicts itself before anything is downloaded or started."""
    accumulation_steps(settings, world_size())
    if settings.ds_config is not None:
        load_ds_config(settings.ds_config, settings, world_size())
    if settings.epochs is None and settings.max_steps is None:
        raise SettingsError("give epochs or max_steps: the run has no length")


def choose_checkpoint(settings: Settings) -> Checkpoint | None:
    """The checkpoint to go on from, as `resume` says.

    Raises:
        CheckpointError: if the one named is incomplete or damaged, or all found are damaged.
    """
    if settings.resume == "never":
        return None
    if settings.resume == "auto":
        return find_checkpoint(Path(settings.output_dir), say)
    folder = Path(settings.resume)
    if not folder.is_dir():
        raise CheckpointError(
            f"resume = {settings.resume!r}: no such folder; use auto, never, or a checkpoint's path"
        )
    return read_checkpoint(folder)


def _stage(settings: Settings) -> int:
    if settings.ds_config is None:
        return 0
    return zero_stage(load_ds_config(settings.ds_config, settings, world_size()))


def _is_elastic(settings: Settings, checkpoint: Checkpoint | None) -> bool:
    return elastic.needs_conversion(checkpoint, world_size(), _stage(settings))


def mark_universal(
    arguments: TrainingArguments, settings: Settings, checkpoint: Checkpoint | None
) -> None:
    """Tell DeepSpeed to load the universal form where the number of processes has changed."""
    if _is_elastic(settings, checkpoint):
        config: dict[str, Any] = arguments.hf_deepspeed_config.config
        config["checkpoint"] = {**config.get("checkpoint", {}), "load_universal": True}


def _mixture(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, arguments: TrainingArguments
) -> Mixture:
    """Prepare the data on one process of a machine, and open it on all."""
    cache = cache_folder(settings)
    encoder = Encoder(
        tokenizer,
        template=settings.chat_template,
        max_length=settings.max_length,
        overlong=settings.overlong,
    )
    with arguments.main_process_first(local=True):
        if arguments.local_process_index == 0:
            cache.mkdir(parents=True, exist_ok=True)
            prepare_sources(settings, encoder, cache)
    return load_mixture(settings, manifest_path(settings, cache))


def max_steps(settings: Settings, plan: MixturePlan) -> int:
    """Optimizer steps of the run, in whole steps."""
    if settings.max_steps is not None:
        return settings.max_steps
    passes = Fraction(settings.epochs or 1).limit_denominator(1000)
    return max(1, math.ceil(plan.steps_for_passes(passes)))


def _prepare_folder(settings: Settings, output_dir: Path, checkpoint: Checkpoint | None) -> None:
    """Bring the run's folder into order; called on rank 0."""
    if checkpoint is None:
        outputs.set_aside(output_dir)
        clear_after(output_dir, 0)
    else:
        say(f"resuming from {checkpoint.folder} at step {checkpoint.step}")
        if checkpoint.folder.parent.resolve() == output_dir.resolve():
            clear_after(output_dir, checkpoint.step)
    settings.save(output_dir / "settings.yaml")
