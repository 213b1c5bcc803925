"""Follows what a training loop really trains on, and stops it where that is not the plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from safemix.errors import HostError
from safemix.hosts import diagnose
from safemix.loading.collate import Origin, take_origin
from safemix.loading.sampler import SafeMixSampler
from safemix.mixture import MixturePlan


class MixtureGuard:
    """Counts optimizer steps, checks the rows of the first ones on all ranks, writes the audit.

    A host calls `take(batch)` before each forward and `stepped()` after each optimizer step.
    Every call counts micro steps; the rows of the first `check_steps` optimizer steps (after a
    start or a resume) are gathered from all ranks and compared with the plan, so that a sampler
    that was sharded twice, a wrong accumulation count or repeated rows stop all ranks at once.

    Args:
        sampler: the sampler the loader was built with.
        num_replicas: data-parallel ranks; default the sampler's.
        rank: this rank; default the sampler's.
        check_steps: optimizer steps checked by gathering; 0 checks only the accumulation.
        audit: file that gets one JSON line a micro step with the rows trained on.
        device: where collectives run; default the batch's device.

    Example:
        >>> guard = MixtureGuard(sampler)
        >>> for batch in loader:
        ...     guard.take(batch)                 # takes source and row out of the batch
        ...     model(**batch).loss.backward()
        ...     optimizer.step()
        ...     guard.stepped()
    """

    def __init__(
        self,
        sampler: SafeMixSampler,
        *,
        num_replicas: int | None = None,
        rank: int | None = None,
        check_steps: int = 1,
        audit: Path | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.sampler = sampler
        self.num_replicas = sampler.num_replicas if num_replicas is None else num_replicas
        self.rank = sampler.rank if rank is None else rank
        self.step = sampler.step
        self._check_steps = check_steps
        self._device = device
        self._seen: list[Origin] = []
        self._audit = audit
        if audit is not None:
            audit.parent.mkdir(parents=True, exist_ok=True)

    @property
    def plan(self) -> MixturePlan:
        """The plan that is followed."""
        return self.sampler.plan

    def take(self, batch: MutableMapping[str, Any]) -> Origin:
        """Take the rows' origin out of a batch, before forward.

        Returns:
            Source int64[B] and row int64[B].

        Raises:
            HostError: if the batch carries no origin, or more micro steps were taken than the
                plan has in a step.
        """
        if "source" not in batch or "row" not in batch:
            raise HostError(
                "the batch has no 'source' and 'row': use MixedDataset and SafeMixCollator, and in "
                "a Hugging Face Trainer remove_unused_columns=False"
            )
        origin = take_origin(batch)
        self._seen.append(origin)
        if len(self._seen) > self.sampler.accumulation_steps:
            raise HostError(self._accumulation(f"has taken {len(self._seen)} micro steps so far"))
        self._device = self._device or origin.source.device
        return origin

    def stepped(self) -> None:
        """Count one optimizer step.

        Raises:
            HostError: on all ranks, if the rows were not the plan's.
        """
        if len(self._seen) != self.sampler.accumulation_steps:
            raise HostError(self._accumulation(f"stepped after {len(self._seen)} micro steps"))
        if self._check_steps > 0:
            self._check_steps -= 1
            self._compare()
        if self._audit is not None:
            self._write_audit(self._audit)
        self._seen.clear()
        self.step += 1

    def resume(self, step: int) -> None:
        """Go on after `step` optimizer steps."""
        self.step = step
        self._seen.clear()
        self.sampler.set_step(step)
        if self._audit is not None and self._audit.exists():
            _cut_audit(self._audit, step)

    def state_dict(self) -> dict[str, Any]:
        """Plan and optimizer steps done: JSON, the same on every rank."""
        return {"plan": self.plan.state_dict(), "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore plan and position.

        Raises:
            PlanError: if the state belongs to other data, naming what differs.
        """
        self.sampler.load_state_dict(state)
        self.resume(int(state["step"]))

    def _accumulation(self, what: str) -> str:
        needed, plan = self.sampler.accumulation_steps, self.plan
        return (
            f"wrong accumulation count: the loop {what}, but global_batch_size "
            f"{plan.global_batch_size} = micro batch {self.sampler.micro_batch_size} x "
            f"{self.num_replicas} ranks x {needed} accumulation steps: set gradient accumulation "
            f"to {needed}"
        )

    def _compare(self) -> None:
        seen = np.stack(
            [np.stack([o.source.cpu().numpy(), o.row.cpu().numpy()]) for o in self._seen]
        )
        everyone = _gather(seen, self.num_replicas, self._device)
        problem = diagnose.first_problem(self.sampler, self.step, everyone, self.num_replicas)
        if problem:
            raise HostError(f"step {self.step}: {problem}")

    def _write_audit(self, path: Path) -> None:
        names = self.plan.sources
        with path.open("a", encoding="utf-8") as file:
            for micro_step, origin in enumerate(self._seen):
                pairs = zip(origin.source.tolist(), origin.row.tolist(), strict=True)
                rows = [[names[source], row] for source, row in pairs]
                line = {"step": self.step, "micro_step": micro_step, "rows": rows}
                file.write(json.dumps(line, separators=(", ", ": ")) + "\n")


def _gather(
    seen: np.ndarray[Any, np.dtype[np.int64]], ranks: int, device: torch.device | None
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Every rank's rows: int64[ranks, micro steps, 2, micro batch]; -1 where a batch is short.

    Ranks may hold other shapes than the plan says; all are brought to the largest, so that the
    collective itself cannot fail.
    """
    if ranks == 1 or not (dist.is_available() and dist.is_initialized()):
        return seen[None]
    shape = torch.tensor([seen.shape[0], seen.shape[2]], dtype=torch.int64, device=device)
    dist.all_reduce(shape, op=dist.ReduceOp.MAX)
    steps, rows = (int(n) for n in shape)
    padded = torch.full((steps, 2, rows), -1, dtype=torch.int64, device=device)
    padded[: seen.shape[0], :, : seen.shape[2]] = torch.from_numpy(seen).to(padded.device)
    parts = [torch.empty_like(padded) for _ in range(ranks)]
    dist.all_gather(parts, padded)
    return torch.stack(parts).cpu().numpy()


def _cut_audit(path: Path, step: int) -> None:
    """Remove the lines of steps that were undone by a resume, and a torn last line."""
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            if json.loads(line)["step"] < step:
                kept.append(line)
        except json.JSONDecodeError:
            continue
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(f"{line}\n" for line in kept), "utf-8")
    fresh.replace(path)
