"""DeepSpeed engine host: a loop of its own around `deepspeed.initialize`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safemix.errors import HostError
from safemix.hosts.guard import MixtureGuard
from safemix.loading.sampler import SafeMixSampler


def skip_shared_memory_op() -> None:
    """Do not compile DeepSpeed's shared-memory all-reduce; call it before `initialize` on CPUs.

    Every rank would wait a minute for the compiler at the first start, and for ever if an
    earlier start was killed while compiling and left its lock. Gloo does the same work. It
    changes nothing on GPUs.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


class EngineGuard(MixtureGuard):
    """A `MixtureGuard` that reads batch sizes and steps from a DeepSpeed engine.

    `stepped()` is called after every `engine.step()`; it counts an optimizer step only where
    the engine took one. Put `state_dict()` into the checkpoint's `client_state`.

    Args:
        engine: what `deepspeed.initialize` returned.
        sampler: the sampler the loader was built with.
        state: see `MixtureGuard`; load the engine's checkpoint before.
        check_steps: see `MixtureGuard`.
        audit: see `MixtureGuard`.

    Raises:
        HostError: if the engine's micro batch, accumulation or ranks are not the plan's.
        PlanError: if `state` belongs to other data, naming what differs.

    Example:
        >>> _, client = engine.load_checkpoint(folder)
        >>> guard = EngineGuard(engine, sampler, state=(client or {}).get("safemix"))
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
        state: Mapping[str, Any] | None = None,
        *,
        check_steps: int = 1,
        audit: Path | str | None = None,
    ) -> None:
        self._engine = engine
        self._engine_steps = int(engine.global_steps)
        group = getattr(engine, "data_parallel_group", None)
        super().__init__(sampler, state, check_steps=check_steps, audit=audit, group=group)
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
        ):
            if given != needed:
                raise HostError(
                    f"wrong accumulation count or batch size: DeepSpeed has {key} {given}, the "
                    f"plan needs {needed} for global_batch_size {plan.global_batch_size} on "
                    f"{sampler.num_replicas} ranks: set it in the DeepSpeed config"
                )

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
