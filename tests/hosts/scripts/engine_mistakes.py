"""DeepSpeed engine loops that deal rows wrongly, and what each rank is told; a JSON file a rank."""

import json
import time
from pathlib import Path

import deepspeed
import own_data
import torch.distributed as dist
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer

from safemix import EngineGuard, MixedDataset, MixturePlan, SafeMixCollator, SafeMixSampler
from safemix.errors import HostError
from safemix.hosts.deepspeed_engine import skip_shared_memory_op

MICRO_BATCH = 2
DATASET = MixedDataset({n: own_data.read(f"{n}.jsonl") for n in ("task", "safety")})
COLLATE = SafeMixCollator(AutoTokenizer.from_pretrained("model"))


def engine_of(accumulation=2, micro_batch=MICRO_BATCH):
    model = AutoModelForCausalLM.from_pretrained("model")
    config = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": accumulation,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
        "zero_optimization": {"stage": 2},
    }
    return deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)[0]


def train(engine, own_loader=False, view="rank"):
    sampler = SafeMixSampler(
        MixturePlan(DATASET.sizes, {"safety": 0.125}, 8), MICRO_BATCH, view=view
    )
    guard = EngineGuard(engine, sampler)
    if own_loader:
        loader = engine.deepspeed_io(DATASET, collate_fn=COLLATE)
    else:
        loader = DataLoader(DATASET, MICRO_BATCH, sampler=sampler, collate_fn=COLLATE)
    for batch in loader:
        guard.take(batch)
        engine.backward(engine(**batch).loss)
        engine.step()
        guard.stepped()
        if guard.step == 2:
            break


def main():
    skip_shared_memory_op()
    deepspeed.init_distributed()
    right = engine_of()
    loops = {
        "right": lambda: train(right),
        "1 accumulation": lambda: train(engine_of(accumulation=1)),
        "micro batch 1": lambda: train(engine_of(micro_batch=1)),
        "global view": lambda: train(right, view="global"),
        "deepspeed's own loader": lambda: train(right, own_loader=True),
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
    Path(f"told{dist.get_rank()}.json").write_text(json.dumps(told), "utf-8")


if __name__ == "__main__":
    main()
