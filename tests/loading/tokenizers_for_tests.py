"""Tiny real tokenizers, built like the ones of the large model families."""

# ruff: noqa: S106 - tokens of a tokenizer are no passwords

from __future__ import annotations

import functools
import json

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

TEXT = [
    "You are a helpful assistant. Answer the question with one letter, A or B.",
    "Tom has three apples and buys four more. How many apples does he have now?",
    "He has seven apples. The answer is 7. I cannot help with that request.",
    "user assistant system model Instruction Response Question Answer: the and of to in",
] * 8

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(normalizer=None, ignore_merges=False) -> Tokenizer:
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer is not None:
        tok.normalizer = normalizer
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(TEXT, trainer)
    return tok


def _sentencepiece_like(specials: list[str]) -> Tokenizer:
    """A BPE with the special tokens first, then 256 byte tokens, then the learned pieces."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    names = [*specials, *(f"<0x{n:02X}>" for n in range(256)), *(piece for piece, _ in learned)]
    vocab = {name: n for n, name in enumerate(dict.fromkeys(names))}
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tok = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return tok


@functools.cache
def _llama3() -> str:
    tok = _byte_level(ignore_merges=True)
    names = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id"]
    tok.add_special_tokens([AddedToken(f"<|{n}|>", special=True, normalized=False) for n in names])
    bos = tok.token_to_id("<|begin_of_text|>")
    tok.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
            ),
        ]
    )
    return tok.to_str()


def llama3_tokenizer(**kwargs) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_llama3()),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        **kwargs,
    )


@functools.cache
def _chatml() -> str:
    tok = _byte_level(normalizers.NFC())
    for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        tok.add_special_tokens([AddedToken(name, special=True, normalized=False)])
    plain = [AddedToken(n, special=False, normalized=False) for n in ("<think>", "</think>")]
    tok.add_tokens(plain)
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    return tok.to_str()


def qwen_tokenizer(**kwargs) -> PreTrainedTokenizerFast:
    """As Qwen and SmolLM2: no BOS."""
    kwargs = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", **kwargs}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_chatml()), **kwargs)


def bare_tokenizer(**kwargs) -> PreTrainedTokenizerFast:
    """As GPT-2: one special token, no template, no padding token."""
    tok = _byte_level()
    tok.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    return PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|endoftext|>", **kwargs)


@functools.cache
def _mistral(legacy: bool) -> str:
    tok = _sentencepiece_like(["<unk>", "<s>", "</s>", "[INST]", "[/INST]"])
    if legacy:
        tok.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tok.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tok.token_to_id("<s>"))]
    )
    return tok.to_str()


def mistral_tokenizer(legacy: bool = False, **kwargs) -> PreTrainedTokenizerFast:
    """As Mistral v0.3; `legacy` puts a space before every piece of text, as LLaMA 2 did."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_mistral(legacy)),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        **kwargs,
    )


@functools.cache
def _gemma() -> str:
    tok = _sentencepiece_like(
        ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    )
    tok.add_tokens([AddedToken("\n\n", special=False, normalized=False)])
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tok.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tok.to_str()


def gemma_tokenizer(**kwargs) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_gemma()),
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        **kwargs,
    )


def unigram_tokenizer(**kwargs) -> PreTrainedTokenizerFast:
    """As T5: the model itself knows `</s>`, so plain text can become it."""
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        initial_alphabet=list("<>/|_abcdefghijklmnopqrstuvwxyz0123456789\n#:▁"),
        show_progress=False,
    )
    tok.train_from_iterator(TEXT, trainer)
    tok.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(
        tokenizer_object=tok, eos_token="</s>", pad_token="<pad>", unk_token="<unk>", **kwargs
    )


NAMED = {
    "llama3": llama3_tokenizer,
    "chatml": qwen_tokenizer,
    "qwen": qwen_tokenizer,
    "mistral": mistral_tokenizer,
    "gemma": gemma_tokenizer,
    "plain": bare_tokenizer,
}
