"""Hugging Face Trainer host."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from safemix.errors import CheckpointError, HostError
from safemix.hosts import resume
from safemix.hosts.adjustment import LogitAdjustment
from safemix.hosts.anchor import AnchorTable
from safemix.hosts.guard import MixtureGuard
from safemix.hosts.hf_arguments import check_arguments
from safemix.hosts.loss import (
    IGNORED,
    SourceMeter,
    first_token_extras,
    first_token_sums,
    source_metrics,
    sums_by_source,
    token_losses,
)
from safemix.loading.collate import SafeMixCollator, take_origin
from safemix.loading.dataset import MixedDataset
from safemix.loading.sampler import SafeMixSampler
from safemix.loading.weights import FirstTokens, TokenWeights
from safemix.mixture import MixturePlan

STATE_FILE = "safemix.json"
_EXTRAS = ("inputs", "wait_s", "anchor_kl", "anchor_tokens")


class SafeMixTrainer(Trainer):
    """A `Trainer` that trains on the plan's rows and reports the loss of each source.

    Use it in place of `Trainer`; everything else stays. Rows come from a `MixedDataset`, the
    batches from `SafeMixCollator`. The total loss is the stock Trainer's, unless `first_tokens`
    puts weight on some tokens; the losses per source are never weighted. The position is
    `state.global_step`, so a resume in the middle of any epoch goes on with the right rows and
    reads none that were trained on.

    Args:
        plan: the plan; its global batch size must be what `args` gives on this many ranks.
        audit: file for the rows that this rank trains on; see `MixtureGuard`.
        first_tokens: source -> weight on the first tokens of its answers; see `weighted_loss`.
        **kwargs: as for `Trainer`; `data_collator` defaults to a `SafeMixCollator` over
            `processing_class`.

    Raises:
        HostError: if `args` would deal rows otherwise than the plan says.
        SettingsError: if `first_tokens` names a source that is not in the plan.

    Example:
        >>> trainer = SafeMixTrainer(model=model, args=args, processing_class=tokenizer,
        ...     train_dataset=MixedDataset({"task": task, "safety": safety}), plan=plan)
        >>> trainer.train(resume_from_checkpoint=True)
    """

    def __init__(
        self,
        *,
        plan: MixturePlan,
        audit: Path | str | None = None,
        first_tokens: Mapping[str, FirstTokens] | None = None,
        **kwargs: Any,
    ) -> None:
        args, dataset = kwargs.get("args"), kwargs.get("train_dataset")
        if args is None:
            raise HostError("SafeMixTrainer needs args, a TrainingArguments with the batch sizes")
        if not isinstance(dataset, MixedDataset):
            raise HostError(f"train_dataset is {type(dataset).__name__}; give a MixedDataset")
        if dataset.sizes != plan.sizes:
            raise HostError(f"train_dataset has rows {dataset.sizes}, the plan {plan.sizes}")
        check_arguments(args, plan)
        if kwargs.get("compute_loss_func") is not None:
            raise HostError("compute_loss_func is taken: SafeMixTrainer computes loss per source")
        # The Trainer would drop `source` and `row` before the collator, as the model has no
        # argument of that name.
        args.remove_unused_columns = False
        if kwargs.get("data_collator") is None:
            if kwargs.get("processing_class") is None:
                raise HostError("give data_collator, or the tokenizer as processing_class")
            kwargs["data_collator"] = SafeMixCollator(kwargs["processing_class"])
        kwargs["compute_loss_func"] = self._loss_by_source
        self._weights = TokenWeights(plan.sources, first_tokens or {})
        self.anchor: AnchorTable | None = None
        """Keeps the first tokens of some rows near the model before training; set it any time."""
        self.adjustment: LogitAdjustment | None = None
        """Changes how readily the trained model refuses; set it before training."""
        self._row: torch.Tensor | None = None
        super().__init__(**kwargs)
        self.plan = plan
        self._asked = plan.state_dict()["history"]
        self.sampler = SafeMixSampler(
            plan,
            args.per_device_train_batch_size,
            num_replicas=args.world_size,
            rank=args.process_index,
            view="global",
        )
        self.guard = MixtureGuard(self.sampler, audit=audit)
        self.meter = SourceMeter(plan.sources, _EXTRAS + first_token_extras(self._weights))
        self._source: torch.Tensor | None = None
        self._input_tokens: torch.Tensor | float = 0.0
        self._wait_s = 0.0
        self._read_at = (time.perf_counter(), 0)
        self._resume_rng: str | None = None
        self.add_callback(_Follow(self))

    # ---- rows ------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.sampler

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
        """As `Trainer.train`; restores the plan of the checkpoint first.

        Raises:
            CheckpointError: if the checkpoint holds no plan.
            PlanError: if it belongs to other data, naming what differs.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self._last_checkpoint()
        if resume_from_checkpoint:
            self._restore_plan(Path(resume_from_checkpoint))
            # The sampler begins at the right step by itself; the Trainer would draw and drop
            # every index before it, from a sampler whose epoch it has lost.
            self.args.ignore_data_skip = True
            self._resume_rng = str(resume_from_checkpoint)
        return super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)

    def _last_checkpoint(self) -> str:
        folder = Path(self.args.output_dir)
        last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
        if last is None:
            raise CheckpointError(
                f"resume_from_checkpoint=True but {folder} has no checkpoint: leave it out to "
                "start afresh"
            )
        return str(last)

    def _restore_plan(self, folder: Path) -> None:
        path = folder / STATE_FILE
        try:
            saved = json.loads(path.read_text("utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}): the checkpoint was not written by safemix or is "
                "incomplete"
            ) from None
        self.plan = resume.restored_plan(saved, self.plan, self._asked)
        self.sampler.plan = self.plan
        self.guard.resume(int(saved["step"]))

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.get_batch_samples`; times the wait for data."""
        begin = time.perf_counter()
        samples = super().get_batch_samples(*args, **kwargs)
        self._wait_s += time.perf_counter() - begin
        return samples

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.training_step`; takes the rows' origin out of the batch first."""
        origin = self.guard.take(inputs)
        self._source, self._row = origin.source, origin.row
        self._input_tokens = inputs["attention_mask"].sum()
        return super().training_step(model, inputs, *args, **kwargs)

    # ---- loss ------------------------------------------------------------------------------

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.compute_loss`; evaluation batches may carry an origin too."""
        if "source" in inputs:
            inputs = dict(inputs)
            take_origin(inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _loss_by_source(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        losses = token_losses(outputs["logits"], labels)
        total = losses.sum()
        if self._source is not None and losses.requires_grad:
            added, nats = self._anchored(outputs["logits"], labels, self._source)
            weights = self._measured(losses, labels, self._source, nats)
            if self.adjustment is not None:
                losses = self.adjustment(losses, outputs["logits"], labels, self._source)
            total = (losses * weights).sum() + added
        if num_items_in_batch is None:
            num_items_in_batch = (labels[:, 1:] != IGNORED).sum().clamp(min=1)
        loss = total / torch.as_tensor(num_items_in_batch, device=total.device)
        router_loss = getattr(outputs, "aux_loss", None)
        if router_loss is not None:
            # Mixture-of-experts models add this themselves only when they are given labels.
            weight = getattr(self.model.config, "router_aux_loss_coef", 0.0)
            loss = loss + weight * router_loss.to(loss.device) / self.args.world_size
        return loss

    def _measured(
        self,
        losses: torch.Tensor,
        labels: torch.Tensor,
        source: torch.Tensor,
        more: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """Note the losses of a training batch as they are; returns their weights."""
        weights, factors = self._weights, losses.new_ones(())
        sums = sums_by_source(losses, labels, source, len(self.plan.sources))
        if weights.weighted:
            first = weights.first(labels.to(losses.device), source)
            more = more | first_token_sums(losses, first, source, weights)
            factors = weights.of(first, source)
        self.meter.add(sums, inputs=self._input_tokens, wait_s=self._wait_s, **more)
        self._wait_s = 0.0
        return factors

    def _anchored(
        self, logits: torch.Tensor, labels: torch.Tensor, source: torch.Tensor
    ) -> tuple[torch.Tensor | float, dict[str, torch.Tensor]]:
        """What the anchor adds to the sum of a training batch's losses, and what is noted of it."""
        if self.anchor is None or self._row is None:
            return 0.0, {}
        nats = self.anchor.divergence(logits, labels, source, self._row)[1]
        noted = nats.detach().double()
        sums = {"anchor_kl": noted.sum(), "anchor_tokens": noted.new_tensor(nats.numel())}
        return self.anchor.weight * nats.sum(), sums

    # ---- log and save ----------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As `Trainer.log`; a training log also gets the metrics of each source."""
        # `should_log` stands on all ranks where the Trainer logs a step; a callback that logs a
        # "loss" of its own, on one rank, must not start a collective.
        if "loss" in logs and self.control.should_log:
            logs.update(self._mixture_metrics())
        super().log(logs, start_time)

    def leave_out(self, seconds: float) -> None:
        """Time since the last log that went to something else than training, such as evaluation.

        It does not count in `perf/tokens_per_s` and `perf/data_wait_share`.
        """
        self._read_at = (self._read_at[0] + seconds, self._read_at[1])

    def _mixture_metrics(self) -> dict[str, float]:
        """Metrics since the last reading; one all-reduce."""
        read = self.meter.read()
        now, step = time.perf_counter(), self.state.global_step
        elapsed = max(now - self._read_at[0], 1e-9)
        self._read_at = (now, step)
        consumed = self.plan.consumed(step)
        metrics = source_metrics(read, self.plan.sources)
        for name in self.plan.sources:
            metrics[f"mix/passes/{name}"] = consumed.rows[name] / max(self.plan.sizes[name], 1)
        if read[""]["anchor_tokens"]:
            metrics["safety/anchor_kl"] = read[""]["anchor_kl"] / read[""]["anchor_tokens"]
        if "safety" in self.plan.sizes:
            metrics["mix/ratio"] = float(self.plan.ratio("safety", max(step - 1, 0)))
        metrics["perf/tokens_per_s"] = read[""]["inputs"] / elapsed
        wait = read[""]["wait_s"] / self.args.world_size
        metrics["perf/data_wait_share"] = min(1.0, wait / elapsed)
        return metrics

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            resume.write_state(folder / STATE_FILE, self.guard, self._asked)


class _Follow(TrainerCallback):
    """Keeps sampler and guard in step with `state.global_step`, which no host loses."""

    def __init__(self, trainer: SafeMixTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin where training begins, also in a second `train()`."""
        guard = self._trainer.guard
        if self._trainer._resume_rng and guard.step != state.global_step:
            raise CheckpointError(
                f"{self._trainer._resume_rng} has a plan of step {guard.step} but a trainer state "
                f"of step {state.global_step}: it is damaged, use an older one"
            )
        guard.resume(state.global_step)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the sampler where training is: `set_epoch` does not reach it after a resume."""
        self._trainer.sampler.set_step(state.global_step)
        self._trainer._read_at = (time.perf_counter(), state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore random states once more: starting the loader's iterator has drawn from them."""
        checkpoint, self._trainer._resume_rng = self._trainer._resume_rng, None
        if checkpoint:
            self._trainer._load_rng_state(checkpoint)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step, check its rows, and mend the epoch, which counts from the resume."""
        self._trainer.guard.stepped()
        state.epoch = state.global_step / self._trainer.sampler.steps_per_epoch
        if state.global_step % self._trainer.sampler.steps_per_epoch == 0:
            control.should_epoch_stop = True
