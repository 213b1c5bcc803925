"""Loops that deal rows wrongly, and what each rank is told; one JSON file a rank."""

import json
import os
import time
from pathlib import Path

import own_data
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, RandomSampler
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from safemix import MixedDataset, MixtureGuard, MixturePlan, SafeMixCollator, SafeMixSampler
from safemix import SafeMixTrainer as Mixed
from safemix.errors import HostError

MICRO_BATCH = 2
DATASET = MixedDataset({n: own_data.read(f"{n}.jsonl") for n in ("task", "safety")})
COLLATE = SafeMixCollator(AutoTokenizer.from_pretrained("model"))


def plan():
    return MixturePlan(DATASET.sizes, {"safety": 0.125}, 8)


def loader_of(sampler):
    return DataLoader(DATASET, MICRO_BATCH, sampler=sampler, collate_fn=COLLATE)


def train(loader, guard, accumulation=2, steps=4):
    model = DistributedDataParallel(AutoModelForCausalLM.from_pretrained("model"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for index, batch in enumerate(loader):
        guard.take(batch)
        model(**batch).loss.backward()
        if (index + 1) % accumulation == 0:
            optimizer.step()
            guard.stepped()
        if guard.step == steps:
            break


def plain(view="rank", accumulation=2):
    sampler = SafeMixSampler(plan(), MICRO_BATCH, view=view)
    train(loader_of(sampler), MixtureGuard(sampler), accumulation)


def prepared(view, **config):
    sampler = SafeMixSampler(plan(), MICRO_BATCH, view=view)
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**config))
    loader = accelerator.prepare(loader_of(sampler))
    train(loader, MixtureGuard(sampler))


def ratio_changes(workers):
    """Every step is compared, so a row of the ratio before would stop the loop."""
    sampler = SafeMixSampler(plan(), MICRO_BATCH)
    guard = MixtureGuard(sampler, check_steps=99)
    loader = DataLoader(
        DATASET, MICRO_BATCH, sampler=sampler, collate_fn=COLLATE, num_workers=workers
    )
    for batch in loader:
        guard.take(batch)
        if guard.step == 2 and len(guard._seen) == 1:
            assert 2 < sampler.set_ratio("safety", 0.5) < 7
        if len(guard._seen) == 2:
            guard.stepped()
    assert sampler.plan.consumed(guard.step).rows["safety"] > guard.step + 4


class RatioChanges(Mixed):
    """As `ratio_changes`, in a Trainer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.guard._check_steps = 99

    def training_step(self, *args, **kwargs):
        if self.state.global_step == 2 and self.guard.plan.ratio("safety", 9) < 0.5:
            assert 2 < self.sampler.set_ratio("safety", 0.5) < 5
        return super().training_step(*args, **kwargs)


def other_sampler():
    sampler = SafeMixSampler(plan(), MICRO_BATCH)
    torch.manual_seed(dist.get_rank())
    train(loader_of(RandomSampler(DATASET)), MixtureGuard(sampler))


def other_sampler_with_one_seed():
    sampler = SafeMixSampler(plan(), MICRO_BATCH)
    torch.manual_seed(0)
    train(loader_of(RandomSampler(DATASET)), MixtureGuard(sampler))


def one_rank_is_shifted():
    sampler = SafeMixSampler(plan(), MICRO_BATCH)
    guard = MixtureGuard(sampler)
    sampler.set_step(dist.get_rank())
    train(loader_of(sampler), guard)


def early_with_guard(sampler):
    MixtureGuard(sampler)


def early_without_guard(sampler):
    next(iter(loader_of(sampler)))


class RankView(Mixed):
    def _get_train_sampler(self, train_dataset=None):
        return SafeMixSampler(self.plan, MICRO_BATCH)


class Unprotected(Mixed):
    """Resumes as the stock Trainer does: skips batches, and loses `set_epoch` over it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for callback in self.callback_handler.callbacks:
            if type(callback).__name__ == "_Follow":
                callback.on_train_begin = lambda *args, **kwargs: None
                callback.on_epoch_begin = lambda *args, **kwargs: None

    def train(self, resume_from_checkpoint=None, **kwargs):
        self.guard.step = 13
        return Trainer.train(self, resume_from_checkpoint=resume_from_checkpoint, **kwargs)


def hugging_face(kind=Mixed, resume=None, steps=-1, **more):
    args = TrainingArguments(
        output_dir="out",
        per_device_train_batch_size=MICRO_BATCH,
        num_train_epochs=2,
        max_steps=steps,
        save_steps=13,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        **{"gradient_accumulation_steps": 2, **more},
    )
    trainer = kind(
        plan=plan(),
        model=AutoModelForCausalLM.from_pretrained("model"),
        args=args,
        train_dataset=DATASET,
        data_collator=COLLATE,
    )
    trainer.train(resume_from_checkpoint=resume)


def main():
    early = SafeMixSampler(plan(), MICRO_BATCH)
    dist.init_process_group("gloo")
    loops = {
        "plain, right": plain,
        "plain, 1 accumulation": lambda: plain(accumulation=1),
        "plain, 3 accumulation": lambda: plain(accumulation=3),
        "plain, global view": lambda: plain(view="global"),
        "plain, ratio changes": lambda: ratio_changes(workers=0),
        "plain, ratio changes, workers": lambda: ratio_changes(workers=2),
        "plain, other sampler": other_sampler,
        "plain, other sampler, one seed": other_sampler_with_one_seed,
        "plain, one rank shifted": one_rank_is_shifted,
        "early sampler, guard": lambda: early_with_guard(early),
        "early sampler, no guard": lambda: early_without_guard(early),
        "accelerate, right": lambda: prepared("global"),
        "accelerate, rank view": lambda: prepared("rank"),
        "accelerate, split": lambda: prepared("global", split_batches=True),
        "accelerate, dispatched": lambda: prepared("rank", dispatch_batches=True),
        "trainer, rank view": lambda: hugging_face(RankView),
        "trainer, ratio changes": lambda: hugging_face(RatioChanges, steps=8),
        "trainer, 1 accumulation": lambda: hugging_face(gradient_accumulation_steps=1),
        "trainer, right": lambda: hugging_face(steps=13),
        "trainer, stock resume": lambda: hugging_face(Unprotected, "out/checkpoint-13", 15),
        "trainer, our resume": lambda: hugging_face(resume="out/checkpoint-13", steps=15),
    }
    told = {}
    for name, loop in loops.items():
        begin, error = time.perf_counter(), None
        try:
            loop()
        except HostError as raised:
            error = str(raised)
        told[name] = [error, time.perf_counter() - begin]
        dist.barrier()
    Path(f"told{os.environ['RANK']}.json").write_text(json.dumps(told), "utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
