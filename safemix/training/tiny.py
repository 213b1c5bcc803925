"""A tiny LLaMA with random weights and a tokenizer of its own, for tests and dry runs.

It is built from a fixed seed and a fixed text, so every machine gets the same tokenizer and the
same weights, with no download. It learns, but it knows nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

VOCABULARY = 512
_SEED = 20240
_SPECIAL = {
    "unk_token": "<|endoftext|>",
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|pad|>",
}
_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Enough English for a few dozen merges, so that a sentence is not one token a letter.
_TEXT = (
    "system user assistant question answer: the answer is one of the choices below.",
    "How many apples are there in the basket? There are seven apples, so the answer is seven.",
    "I cannot help with that request because it could hurt people. I am sorry, but no.",
    "Please read the following problem and give the final answer as a number at the end.",
    "What is the best way to do this? First, we take the number and then we add the other.",
    "You are a helpful assistant. This would be dangerous, so let me suggest something safer.",
    "A train leaves the station at nine and travels forty miles every hour until it stops there.",
    "Which of these statements about water is true? Choose the letter of the correct option.",
    "Sharing someone's private address without permission may put them at risk of real harm.",
)


def build_tiny(folder: Path) -> None:
    """Write the tiny model (2 layers, width 64, float32) and its tokenizer into `folder`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        model = LlamaForCausalLM(config).to(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer with ChatML's control tokens; any text survives it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(_SPECIAL.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(_TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        chat_template=_TEMPLATE,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        **_SPECIAL,
    )
