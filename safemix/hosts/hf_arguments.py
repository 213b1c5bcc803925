"""What a Trainer's arguments must be, so that rows are dealt as the plan says."""

from __future__ import annotations

from typing import Any

from safemix.errors import HostError
from safemix.hosts import collective
from safemix.mixture import MixturePlan

__all__ = ["check_arguments"]


def check_arguments(args: Any, plan: MixturePlan) -> None:
    """Refuse `TrainingArguments` that would deal rows otherwise.

    Args:
        args: of the Trainer.
        plan: whose rows are dealt.

    Raises:
        HostError: naming the argument and what it must be.
    """
    ranks, micro = args.world_size, args.per_device_train_batch_size
    if collective.ready() and collective.size() != ranks:
        raise HostError(
            f"{collective.size()} processes run but TrainingArguments sees {ranks}, so each would "
            "train alone: on CPUs set use_cpu=True"
        )
    given = args.gradient_accumulation_steps
    needed = plan.micro_steps(ranks, micro)
    if given != needed:
        raise HostError(
            f"wrong accumulation count: gradient_accumulation_steps is {given}, but "
            f"global_batch_size {plan.global_batch_size} on {ranks} ranks x micro batch {micro} "
            f"needs {needed}"
        )
    if args.n_gpu > 1:
        raise HostError(
            f"one process with {args.n_gpu} GPUs would use DataParallel: start one process a GPU "
            "with torchrun, accelerate launch or deepspeed"
        )
    config = args.accelerator_config
    for key in ("split_batches", "dispatch_batches"):
        if getattr(config, key, None):
            raise HostError(f"accelerator_config.{key} deals rows otherwise: set it to false")
    if args.auto_find_batch_size:
        raise HostError("auto_find_batch_size changes the micro batch: set it to false")
    if args.train_sampling_strategy != "random":
        raise HostError(
            f"train_sampling_strategy {args.train_sampling_strategy!r} orders rows otherwise than "
            "the plan: leave it at 'random', the plan's sampler takes its place"
        )
    if args.label_smoothing_factor:
        raise HostError("label_smoothing_factor is not supported with loss per source: set it to 0")
