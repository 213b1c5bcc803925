"""DeepSpeed engine host: a loop of its own around `deepspeed.initialize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safemix.errors import HostError
from safemix.hosts.guard import MixtureGuard
from safemix.loading.sampler import SafeMixSampler


class EngineGuard(MixtureGuard):
    """A `MixtureGuard` that reads batch sizes and steps from a DeepSpeed engine.

    `stepped()` is called after every `engine.step()`; it counts an optimizer step only where
    the engine took one. Put `state_dict()` into the checkpoint's `client_state`.

    Args:
        engine: what `deepspeed.initialize` returned.
        sampler: the sampler the loader was built with.
        check_steps: see `MixtureGuard`.
        audit: see `MixtureGuard`.

    Raises:
        HostError: if the engine's micro batch, accumulation or ranks are not the plan's.

    Example:
        >>> guard = EngineGuard(engine, sampler)
        >>> for batch in loader:
        ...     guard.take(batch)
        ...     engine.backward(engine(**batch).loss)
        ...     engine.step()
        ...     guard.stepped()
        >>> engine.save_checkpoint(folder, client_state={"safemix": guard.state_dict()})
    """

    def __init__(
        self,
        engine: Any,
        sampler: SafeMixSampler,
        *,
        check_steps: int = 1,
        audit: Path | None = None,
    ) -> None:
        super().__init__(sampler, check_steps=check_steps, audit=audit, device=engine.device)
        plan = sampler.plan
        for key, given, needed in (
            (
                "train_micro_batch_size_per_gpu",
                engine.train_micro_batch_size_per_gpu(),
                sampler.micro_batch_size,
            ),
            (
                "gradient_accumulation_steps",
                engine.gradient_accumulation_steps(),
                sampler.accumulation_steps,
            ),
            ("data-parallel ranks", engine.dp_world_size, sampler.num_replicas),
        ):
            if given != needed:
                raise HostError(
                    f"DeepSpeed has {key} {given}, the plan needs {needed} for global_batch_size "
                    f"{plan.global_batch_size}: wrong accumulation count or batch size in the "
                    "DeepSpeed config"
                )
        self._engine = engine
        self._engine_steps = int(engine.global_steps)

    def stepped(self) -> None:
        """Count an optimizer step if the engine took one; call it after `engine.step()`."""
        if self._engine.global_steps == self._engine_steps:
            return
        self._engine_steps = int(self._engine.global_steps)
        super().stepped()

    def resume(self, step: int) -> None:
        """Go on after `step` optimizer steps."""
        super().resume(step)
        self._engine_steps = int(self._engine.global_steps)
