"""Fine-tune with plain DistributedDataParallel, started by torchrun."""

import own_data
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from transformers import AutoModelForCausalLM, AutoTokenizer

MICRO_BATCH, ACCUMULATION, EPOCHS, SAVE_STEPS = 2, 2, 2, 13


def main():
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    state = own_data.load("checkpoint.pt")
    tokenizer = AutoTokenizer.from_pretrained("model")
    dataset = own_data.read("task.jsonl")
    collate = own_data.Collate(tokenizer)
    sampler = DistributedSampler(dataset, drop_last=True)
    loader = DataLoader(dataset, MICRO_BATCH, sampler=sampler, collate_fn=collate, drop_last=True)
    model = DistributedDataParallel(AutoModelForCausalLM.from_pretrained("model"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if state:
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    step = state.get("step", 0)

    for epoch in range(state.get("epoch", 0), EPOCHS):
        sampler.set_epoch(epoch)
        for index, batch in enumerate(loader):
            loss = model(**batch).loss
            (loss / ACCUMULATION).backward()
            if (index + 1) % ACCUMULATION:
                continue
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step % SAVE_STEPS == 0:
                state = {"step": step, "epoch": epoch}
                state |= {"model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
                if rank == 0:
                    torch.save(state, "checkpoint.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
