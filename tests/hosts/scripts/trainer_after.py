"""Fine-tune with the Hugging Face Trainer, started by torchrun."""

import argparse
from pathlib import Path

import own_data
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from safemix import MixedDataset, MixturePlan, SafeMixCollator, SafeMixTrainer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--deepspeed")
    config = parser.parse_known_args()[0].deepspeed
    if config:
        own_data.use_gloo_on_cpus()
    last = get_last_checkpoint("out") if Path("out").is_dir() else None
    args = TrainingArguments(
        output_dir="out",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=2,
        learning_rate=1e-3,
        logging_steps=1,
        save_steps=13,
        remove_unused_columns=False,
        report_to="none",
        deepspeed=config,
        use_cpu=not torch.cuda.is_available(),
    )
    tokenizer = AutoTokenizer.from_pretrained("model")
    dataset = MixedDataset({n: own_data.read(f"{n}.jsonl") for n in ("task", "safety")})
    trainer = SafeMixTrainer(
        plan=MixturePlan(dataset.sizes, {"safety": 0.125}, global_batch_size=8),
        audit=f"audit/rank{args.process_index}.jsonl",
        model=AutoModelForCausalLM.from_pretrained("model"),
        args=args,
        train_dataset=dataset,
        data_collator=SafeMixCollator(tokenizer),
    )
    trainer.train(resume_from_checkpoint=last)


if __name__ == "__main__":
    main()
