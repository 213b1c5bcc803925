"""Settings -> the Hugging Face Trainer's arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from safemix.errors import SettingsError
from safemix.settings import Settings, accumulation_steps
from safemix.training.ds_config import load_ds_config
from safemix.training.models import resolve_precision, uses_cuda

# Ranks wait in a collective while one writes the model: longer than the usual half hour for a
# large one on a slow disk.
_PATIENCE_S = 3600
# A checkpoint at the last step alone: the Trainer adds that one to those at multiples of this.
_ONLY_AT_THE_END = 2**40


def training_arguments(settings: Settings, world_size: int, *, max_steps: int) -> TrainingArguments:
    """Arguments of a run on `world_size` processes.

    Args:
        settings: the run's settings.
        world_size: data-parallel processes.
        max_steps: optimizer steps of the run; negative if not known yet.

    Raises:
        SettingsError: if batch sizes, precision or the DeepSpeed config contradict the run.
    """
    on_cpu = not uses_cuda(settings)
    precision = resolve_precision(settings)
    kwargs: dict[str, Any] = {
        "output_dir": settings.output_dir,
        "per_device_train_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": accumulation_steps(settings, world_size),
        "max_steps": max_steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed % 2**32,
        "logging_steps": settings.logging_steps,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": settings.save_steps or _ONLY_AT_THE_END,
        "save_total_limit": None,  # RunTrainer deletes old ones, once the new one is complete
        "dataloader_num_workers": settings.num_workers,
        "dataloader_pin_memory": not on_cpu,
        "gradient_checkpointing": False,  # models.load_model turns it on, PEFT's way included
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": on_cpu,
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
        "log_level_replica": "error",
        "ddp_timeout": _PATIENCE_S,
        "remove_unused_columns": False,
    }
    if on_cpu and world_size > 1:
        kwargs["ddp_backend"] = "gloo"
    if settings.lora is False and settings.ds_config is None:
        kwargs["ddp_find_unused_parameters"] = False
    if settings.ds_config is not None:
        kwargs["deepspeed"] = load_ds_config(settings.ds_config, settings, world_size)
    try:
        return TrainingArguments(**kwargs)
    except ValueError as error:
        raise SettingsError(f"the Trainer refuses these settings: {_one_line(error)}") from None


def cache_folder(settings: Settings) -> Path:
    """Folder of prepared data, by default beside the run's results; safe to delete."""
    return Path(settings.cache_dir or Path(settings.output_dir) / ".cache")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
