"""The stock Trainer and ours on the same rows in the same order; writes what each logged."""

import json
import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

from safemix import MixedDataset, MixturePlan, SafeMixCollator, SafeMixTrainer

MICRO_BATCH, STEPS = 2, 8


class Counter:
    """Counts the calls of `torch.nn.functional.cross_entropy` and of a model's forward."""

    def __init__(self, model):
        self.losses = self.forwards = 0
        self._real = torch.nn.functional.cross_entropy
        model.register_forward_hook(self._forward)

    def _forward(self, *args):
        self.forwards += 1

    def _loss(self, *args, **kwargs):
        self.losses += 1
        return self._real(*args, **kwargs)

    def __enter__(self):
        torch.nn.functional.cross_entropy = self._loss
        return self

    def __exit__(self, *error):
        torch.nn.functional.cross_entropy = self._real


def dealt(dataset, plan, ranks):
    """The rows of the first steps, in the order in which a sequential loader deals them."""
    source, row = plan.all_rows(0, STEPS, ranks, MICRO_BATCH)
    names = plan.sources
    pairs = zip(source.ravel(), row.ravel(), strict=True)
    return [dataset.sources[names[s]][int(r)] for s, r in pairs]


def run(kind, folder, accumulation, dataset, collator, *, plan=None, **more):
    args = TrainingArguments(
        output_dir=folder / "parity",
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=accumulation,
        max_steps=STEPS,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        **more,
    )
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    extra = {} if plan is None else {"plan": plan}
    trainer = kind(model=model, args=args, train_dataset=dataset, data_collator=collator, **extra)
    with Counter(model) as counter:
        trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    weights = torch.cat([parameter.detach().ravel() for parameter in model.parameters()])
    return logs, weights, {"losses": counter.losses, "forwards": counter.forwards}


def compare(folder, ranks, accumulation):
    rows = {
        name: [json.loads(line) for line in (folder / f"{name}.jsonl").open(encoding="utf-8")]
        for name in ("task", "safety")
    }
    dataset = MixedDataset(rows)
    plan = MixturePlan(dataset.sizes, {"safety": 0.125}, ranks * accumulation * MICRO_BATCH)
    collator = SafeMixCollator(AutoTokenizer.from_pretrained(folder / "model"))

    def without_origin(features):
        batch = collator(features)
        del batch["source"], batch["row"]
        return batch

    order, sequential = dealt(dataset, plan, ranks), {"train_sampling_strategy": "sequential"}
    stock, weights, stock_calls = run(
        Trainer, folder, accumulation, order, without_origin, **sequential
    )
    ours, our_weights, calls = run(
        SafeMixTrainer, folder, accumulation, dataset, collator, plan=plan
    )
    return {
        "stock": stock,
        "ours": ours,
        "weights": float((weights - our_weights).abs().max()),
        "stock_calls": stock_calls,
        "calls": calls,
    }


if __name__ == "__main__":
    result = compare(Path.cwd(), ranks=int(os.environ["WORLD_SIZE"]), accumulation=2)
    Path(f"parity{os.environ['RANK']}.json").write_text(json.dumps(result), "utf-8")
