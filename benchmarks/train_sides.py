"""The two sides of `train_overhead.py`: the stock Trainer and safemix, on the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from safemix import MixedDataset, MixturePlan, SafeMixCollator, SafeMixSampler
from safemix.hosts.hf_trainer import SafeMixTrainer
from safemix.settings import LoraSettings, TrackingSettings
from safemix.tracking.tracker import Tracking
from safemix.training.ds_config import read_ds_config
from safemix.training.tiny import build_tiny_tokenizer
from safemix.training.trainer import TrackingCallback

RATIO = 0.1
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "smollm2-135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
    "llama3-8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
    },
}


@dataclass(frozen=True)
class Task:
    """What both sides train on, and how."""

    shape: str
    layers: int | None
    device: str
    steps: int
    micro_batch: int
    accumulation: int
    length: int
    lora: LoraSettings | None
    ds_config: str | None
    gradient_checkpointing: bool
    seed: int
    folder: Path

    @property
    def global_batch(self) -> int:
        """Rows of one step; there is one process."""
        return self.micro_batch * self.accumulation

    @property
    def config(self) -> LlamaConfig:
        """The model's shape."""
        chosen = dict(SHAPES[self.shape])
        if self.layers is not None:
            chosen["num_hidden_layers"] = self.layers
        return LlamaConfig(**chosen, max_position_embeddings=8192, use_cache=False)

    def plan(self) -> MixturePlan:
        """A plan whose first epoch is at least as long as the run."""
        rows = self.global_batch * self.steps
        sizes = {"task": rows, "safety": max(8, rows // 20)}
        return MixturePlan(sizes, {"safety": RATIO}, self.global_batch, self.seed)


def build_model(task: Task) -> Any:
    """The model with random weights, made on the device; the same for the same seed."""
    torch.manual_seed(task.seed)
    half = task.device == "cuda"
    torch.set_default_dtype(torch.bfloat16 if half else torch.float32)
    try:
        with torch.device(task.device):
            model: Any = LlamaForCausalLM(task.config)
    finally:
        torch.set_default_dtype(torch.float32)
    if task.lora is not None:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=task.lora.r,
            lora_alpha=task.lora.alpha,
            lora_dropout=task.lora.dropout,
            target_modules=task.lora.target_modules,
        )
        model = get_peft_model(model, lora, autocast_adapter_dtype=task.ds_config is None)
    if task.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def build_rows(task: Task) -> MixedDataset:
    """Rows of random tokens, already encoded; the last two fifths of each are trained on."""
    generator = np.random.default_rng(task.seed)
    vocabulary = task.config.vocab_size
    sources: dict[str, list[dict[str, list[int]]]] = {}
    for name, count in task.plan().sizes.items():
        rows = []
        for length in generator.integers(task.length // 2, task.length + 1, count):
            ids = generator.integers(8, vocabulary, length).tolist()
            prompt = int(length) * 3 // 5
            rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
        sources[name] = rows
    return MixedDataset(sources)


def arguments(task: Task, order: str) -> TrainingArguments:
    """The same for both sides but for `order`; both log every step."""
    half = task.device == "cuda"
    return TrainingArguments(
        output_dir=str(task.folder),
        per_device_train_batch_size=task.micro_batch,
        gradient_accumulation_steps=task.accumulation,
        max_steps=task.steps,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        train_sampling_strategy=order,
        bf16=half,
        use_cpu=not half,
        seed=task.seed,
        dataloader_pin_memory=half,
        deepspeed=None if task.ds_config is None else read_ds_config(task.ds_config),
    )


def stock_side(task: Task, rows: MixedDataset) -> Trainer:
    """The stock Trainer over the plan's rows, laid out in the plan's order."""
    sampler = SafeMixSampler(task.plan(), task.micro_batch, 1, 0, view="global")
    order = sampler.indices(0, task.steps).tolist()
    keys = ("input_ids", "labels")
    collator = DataCollatorForSeq2Seq(build_tiny_tokenizer(), pad_to_multiple_of=8)
    trainer = Trainer(
        model=build_model(task),
        args=arguments(task, "sequential"),
        train_dataset=[{key: rows[i][key] for key in keys} for i in order],
        data_collator=collator,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def safemix_side(task: Task, rows: MixedDataset) -> Trainer:
    """SafeMixTrainer with guard, loss per source and `metrics.jsonl`, as in a run."""
    # "random" is the Trainer's default; the plan's sampler takes its place.
    trainer = SafeMixTrainer(
        plan=task.plan(),
        model=build_model(task),
        args=arguments(task, "random"),
        train_dataset=rows,
        data_collator=SafeMixCollator(build_tiny_tokenizer(), max_length=task.length),
    )
    trainer.remove_callback(PrinterCallback)
    tracking = Tracking(TrackingSettings(wandb="disabled"), task.folder, {})
    trainer.add_callback(TrackingCallback(tracking, lambda step, metrics: None))
    return trainer


SIDES = {"stock": stock_side, "safemix": safemix_side}
