"""Follows what a training loop really trains on, and stops it where that is not the plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from safemix.errors import CheckpointError, HostError
from safemix.hosts import collective, diagnose
from safemix.loading.collate import Origin, take_origin
from safemix.loading.sampler import SafeMixSampler
from safemix.mixture import MixturePlan


class MixtureGuard:
    """Counts optimizer steps, checks the rows of the first ones on all ranks, writes the audit.

    A host calls `take(batch)` before each forward and `stepped()` after each optimizer step.
    Every call counts micro steps; the rows of the first `check_steps` optimizer steps (after a
    start or a resume) and of the first step of every epoch are gathered from all ranks and
    compared with the plan, so that a sampler that was sharded twice, a wrong accumulation count,
    repeated rows or a forgotten `set_epoch` stop all ranks at once.

    Args:
        sampler: the sampler the loader was built with.
        state: what `state_dict` gave, to go on from there; None for a fresh start.
        check_steps: optimizer steps checked so; 0 checks only the accumulation.
        audit: file that gets one JSON line a micro step with the rows trained on.
        group: the data-parallel ranks; default all.

    Raises:
        HostError: if the sampler was made for another number of ranks.
        PlanError: if `state` belongs to other data, naming what differs.

    Example:
        >>> guard = MixtureGuard(sampler, state=checkpoint.get("safemix"))
        >>> for batch in loader:
        ...     guard.take(batch)                 # takes source and row out of the batch
        ...     model(**batch).loss.backward()
        ...     optimizer.step()
        ...     guard.stepped()
        >>> checkpoint = {"model": model.state_dict(), "safemix": guard.state_dict()}
    """

    def __init__(
        self,
        sampler: SafeMixSampler,
        state: Mapping[str, Any] | None = None,
        *,
        check_steps: int = 1,
        audit: Path | str | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.sampler = sampler
        self.step = sampler.step
        self.num_replicas = collective.size(group)
        if sampler.num_replicas != self.num_replicas:
            raise HostError(diagnose.wrong_ranks(sampler, self.num_replicas))
        self._group = group
        self._check_steps = self._checks_left = check_steps
        self._seen: list[Origin] = []
        self._audit = None if audit is None else Path(audit)
        self._audit_is_open = False
        if state is not None:
            self.load_state_dict(state)

    @property
    def plan(self) -> MixturePlan:
        """The plan that is followed; after a resume the checkpoint's."""
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
        return origin

    def stepped(self) -> None:
        """Count one optimizer step; call it too where a loss scaler skipped the update.

        Raises:
            HostError: on all ranks, if the rows were not the plan's.
        """
        if len(self._seen) != self.sampler.accumulation_steps:
            raise HostError(self._accumulation(f"stepped after {len(self._seen)} micro steps"))
        if self._is_checked():
            self._checks_left -= 1
            self._compare()
        if self._audit is not None:
            self._write_audit(self._audit)
        self._seen.clear()
        self.step += 1

    def resume(self, step: int) -> None:
        """Go on after `step` optimizer steps: moves the sampler, checks the rows there again."""
        self.step = step
        self._seen.clear()
        self._checks_left = self._check_steps
        self._audit_is_open = False
        self.sampler.set_step(step)

    def state_dict(self) -> dict[str, Any]:
        """Plan and optimizer steps done: JSON values, the same on every rank."""
        return {"plan": self.plan.state_dict(), "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore plan and position.

        Raises:
            PlanError: if the state belongs to other data, naming what differs.
            CheckpointError: if it is no state of a guard.
        """
        if not {"plan", "step"} <= set(state):
            raise CheckpointError(
                f"this is no state of a MixtureGuard: it has {', '.join(map(str, state)) or 'no'} "
                "keys, not plan and step: give what guard.state_dict() returned"
            )
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

    def _is_checked(self) -> bool:
        # The begin of every epoch too: that is where a loop without `set_epoch` goes wrong.
        begins = self.step % self.sampler.steps_per_epoch == 0
        return self._checks_left > 0 or (begins and self._check_steps > 0)

    def _compare(self) -> None:
        everyone = _gather(self._seen, self.num_replicas, self._group)
        problem = diagnose.first_problem(self.sampler, self.step, everyone)
        if problem:
            raise HostError(f"step {self.step}: {problem}")

    def _write_audit(self, path: Path) -> None:
        if not self._audit_is_open:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                _cut_audit(path, self.step)
            self._audit_is_open = True
        names = self.plan.sources
        with path.open("a", encoding="utf-8") as file:
            for micro_step, origin in enumerate(self._seen):
                pairs = zip(origin.source.tolist(), origin.row.tolist(), strict=True)
                rows = [[names[source], row] for source, row in pairs]
                line = {"step": self.step, "micro_step": micro_step, "rows": rows}
                file.write(json.dumps(line) + "\n")


def _gather(
    seen: list[Origin], ranks: int, group: dist.ProcessGroup | None
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Every rank's rows: int64[ranks, micro steps, 2, micro batch]; -1 where a batch is short.

    Ranks may hold other shapes than the plan says; all are brought to the largest, so that the
    collective itself cannot fail.
    """
    device = collective.device(group)
    rows = max(len(origin.source) for origin in seen)
    shape = torch.tensor([len(seen), rows], dtype=torch.int64, device=device)
    if ranks > 1:
        dist.all_reduce(shape, op=dist.ReduceOp.MAX, group=group)
    steps, rows = (int(n) for n in shape)
    own = torch.full((steps, 2, rows), -1, dtype=torch.int64, device=device)
    for number, origin in enumerate(seen):
        own[number, 0, : len(origin.source)] = origin.source.to(device)
        own[number, 1, : len(origin.row)] = origin.row.to(device)
    if ranks == 1:
        return own[None].cpu().numpy()
    parts = [torch.empty_like(own) for _ in range(ranks)]
    dist.all_gather(parts, own, group=group)
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
