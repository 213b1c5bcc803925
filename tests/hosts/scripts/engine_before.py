"""Fine-tune with a DeepSpeed engine, started by deepspeed."""

from pathlib import Path

import deepspeed
import own_data
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from transformers import AutoModelForCausalLM, AutoTokenizer

MICRO_BATCH, EPOCHS, SAVE_STEPS = 2, 2, 13
CONFIG = {
    "train_micro_batch_size_per_gpu": MICRO_BATCH,
    "gradient_accumulation_steps": 2,
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
    "zero_optimization": {"stage": 2},
}


def main():
    own_data.use_gloo_on_cpus()
    deepspeed.init_distributed()
    model = AutoModelForCausalLM.from_pretrained("model")
    engine, *_ = deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config=CONFIG
    )
    saved = Path("out", "latest").exists()
    state = engine.load_checkpoint("out")[1] if saved else {}
    tokenizer = AutoTokenizer.from_pretrained("model")
    dataset = own_data.read("task.jsonl")
    collate = own_data.Collate(tokenizer)
    sampler = DistributedSampler(dataset, drop_last=True)
    loader = DataLoader(dataset, MICRO_BATCH, sampler=sampler, collate_fn=collate, drop_last=True)
    step, rank = engine.global_steps, engine.global_rank

    for epoch in range(state.get("epoch", 0), EPOCHS):
        sampler.set_epoch(epoch)
        for batch in loader:
            loss = engine(**{key: value.to(engine.device) for key, value in batch.items()}).loss
            engine.backward(loss)
            engine.step()
            if engine.global_steps == step:
                continue
            step = engine.global_steps
            if rank == 0:
                print(f"step {step} loss {loss.item():.4f}")
            if step % SAVE_STEPS == 0:
                state = {"epoch": epoch}
                engine.save_checkpoint("out", client_state=state)
    engine.destroy()


if __name__ == "__main__":
    main()
