"""The shape of a decoder-only language model, and its parameter counts, without loading it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from safemix.errors import SettingsError
from safemix.settings import LoraSettings

# model_type of a transformers config -> what differs from LLaMA
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "smollm3": {},
    "mistral": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "gemma": {},
    "gemma2": {"norms_per_layer": 4, "softcapped": True},
    "gemma3_text": {"norms_per_layer": 4, "qk_norm": True},
}


@dataclass(frozen=True)
class Tensor:
    """One parameter: its name, its number of elements, and whether it is a matrix of a layer."""

    name: str
    numel: int
    in_features: int = 0
    out_features: int = 0

    @property
    def module(self) -> str:
        """The name of the module that owns the parameter."""
        return self.name.rsplit(".", 1)[0]


@dataclass(frozen=True)
class ModelShape:
    """What the memory estimate has to know about a model of the LLaMA family.

    `qkv_bias`, `o_bias` and `mlp_bias` say which linear modules have a bias; `qk_norm` is a norm
    over the head dimension of queries and keys; `softcapped` squashes the logits with tanh.
    """

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    tied_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norms_per_layer: int = 2
    softcapped: bool = False

    @classmethod
    def from_config(cls, config: Any, name: str = "") -> ModelShape:
        """Read the shape from a transformers config object.

        Raises:
            SettingsError: if the architecture is none that can be counted exactly.
        """
        kind = getattr(config, "model_type", "")
        if kind not in FAMILIES:
            raise SettingsError(
                f"model {name or kind!r}: no memory formula for model_type {kind!r}; "
                f"known: {', '.join(FAMILIES)}"
            )
        heads = config.num_attention_heads
        biased = bool(getattr(config, "attention_bias", False))
        shape = cls(
            name=name or kind,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_layers=config.num_hidden_layers,
            num_heads=heads,
            num_kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            vocab_size=config.vocab_size,
            tied_embeddings=bool(config.tie_word_embeddings),
            qkv_bias=biased,
            o_bias=biased,
            mlp_bias=bool(getattr(config, "mlp_bias", False)),
        )
        return replace(shape, **FAMILIES[kind])

    def linears(self) -> tuple[tuple[str, int, int, bool], ...]:
        """The linear modules of one layer: (name in the layer, inputs, outputs, has a bias)."""
        h, f = self.hidden_size, self.intermediate_size
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return (
            ("self_attn.q_proj", h, q, self.qkv_bias),
            ("self_attn.k_proj", h, kv, self.qkv_bias),
            ("self_attn.v_proj", h, kv, self.qkv_bias),
            ("self_attn.o_proj", q, h, self.o_bias),
            ("mlp.gate_proj", h, f, self.mlp_bias),
            ("mlp.up_proj", h, f, self.mlp_bias),
            ("mlp.down_proj", f, h, self.mlp_bias),
        )

    def layer_tensors(self) -> Iterator[Tensor]:
        """The parameters of one layer."""
        for name, inputs, outputs, biased in self.linears():
            yield Tensor(f"{name}.weight", inputs * outputs, inputs, outputs)
            if biased:
                yield Tensor(f"{name}.bias", outputs)
        for i in range(self.norms_per_layer):
            yield Tensor(f"norm{i}.weight", self.hidden_size)
        if self.qk_norm:
            yield Tensor("self_attn.q_norm.weight", self.head_dim)
            yield Tensor("self_attn.k_norm.weight", self.head_dim)

    def tensors(self) -> tuple[Tensor, ...]:
        """All parameters of the model; a tied output matrix is counted once."""
        return _tensors(self)

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(tensor.numel for tensor in self.tensors())

    @property
    def linear_parameters(self) -> int:
        """The weights of the linear modules in the layers: what 4-bit quantisation replaces."""
        return self.num_layers * sum(inputs * outputs for _, inputs, outputs, _ in self.linears())

    @property
    def largest_tensor(self) -> int:
        """Elements of the largest single parameter: as a rule the embedding."""
        return max(tensor.numel for tensor in self.tensors())


@lru_cache(maxsize=16)
def _tensors(shape: ModelShape) -> tuple[Tensor, ...]:
    table = shape.vocab_size * shape.hidden_size
    layer = tuple(shape.layer_tensors())
    found = [Tensor("model.embed_tokens.weight", table, shape.vocab_size, shape.hidden_size)]
    for i in range(shape.num_layers):
        found.extend(replace(tensor, name=f"model.layers.{i}.{tensor.name}") for tensor in layer)
    found.append(Tensor("model.norm.weight", shape.hidden_size))
    if not shape.tied_embeddings:
        found.append(Tensor("lm_head.weight", table, shape.hidden_size, shape.vocab_size))
    return tuple(found)


def lora_tensors(shape: ModelShape, lora: LoraSettings) -> tuple[Tensor, ...]:
    """The adapter parameters that PEFT adds.

    A module of n inputs and m outputs gets A of r x n and B of m x r; DoRA adds m magnitudes.
    `all-linear` means every linear module but the output matrix, a list matches a module by the
    end of its name, any other string is a regular expression for the whole name: PEFT's rules.

    Raises:
        SettingsError: if no module of the model matches.
    """
    modules = {t.module: t for t in shape.tensors() if t.in_features}
    if shape.tied_embeddings:
        size = (shape.hidden_size, shape.vocab_size)
        modules["lm_head"] = Tensor("lm_head.weight", 0, *size)
    found: list[Tensor] = []
    for name, weight in modules.items():
        if not _targeted(name, lora.target_modules):
            continue
        found.append(Tensor(f"{name}.lora_A.weight", lora.r * weight.in_features))
        found.append(Tensor(f"{name}.lora_B.weight", lora.r * weight.out_features))
        if lora.dora:
            found.append(Tensor(f"{name}.lora_magnitude_vector.weight", weight.out_features))
    if not found:
        known = [name.split(".")[-1] for name, *_ in shape.linears()]
        raise SettingsError(
            f"lora.target_modules = {lora.target_modules!r} matches no module of {shape.name}: "
            f"use all-linear or some of {', '.join(known)}"
        )
    return tuple(found)


def _targeted(module: str, targets: list[str] | str) -> bool:
    if isinstance(targets, str):
        if targets.lower() == "all-linear":
            return module.startswith("model.layers.")
        return re.fullmatch(targets, module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


PRESETS: Mapping[str, ModelShape] = {
    "llama3-8b": ModelShape("llama3-8b", 4096, 14336, 32, 32, 8, 128, 128256),
    "llama3-70b": ModelShape("llama3-70b", 8192, 28672, 80, 64, 8, 128, 128256),
    "smollm2": ModelShape("smollm2", 576, 1536, 30, 9, 3, 64, 49152, tied_embeddings=True),
    "tiny": ModelShape("tiny", 64, 128, 2, 4, 2, 16, 512),
}


def find_shape(model: str) -> ModelShape:
    """The shape of a preset, of a folder with a config.json, or of a model on the Hub.

    Raises:
        SettingsError: if the model is none of these, or its architecture is not known.
    """
    if model in PRESETS:
        return PRESETS[model]
    from transformers import AutoConfig  # slow, and not needed for a preset

    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SettingsError(
            f"model {model!r} is no preset ({', '.join(PRESETS)}), no folder with a config.json "
            f"and cannot be read from the Hub: {reason}"
        ) from None
    return ModelShape.from_config(config, model)
