"""The model and the tokenizer of a run, loaded as its settings say.

Which precision the weights have, and why:

* bf16 or fp16 under DeepSpeed: everything in that type. The engine casts the module to it anyway
  and keeps a float32 master copy of what is trained, adapters included.
* bf16 or fp16 without DeepSpeed: only frozen weights are in that type. What is trained, adapters
  or the whole model, is float32 under autocast: there is no master copy, and a small update is
  lost in bf16, while fp16 gradients cannot be unscaled.
* fp32: everything in float32.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from safemix.errors import ModelError, SafemixError, SettingsError
from safemix.settings import LoraSettings, Settings
from safemix.training.known_models import resolve_model

__all__ = ["load_model", "load_tokenizer", "resolve_model", "resolve_precision", "weight_dtype"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
# Tokens that model families set aside for padding, best first.
_PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|endoftext|>", "<unk>")


def uses_cuda(settings: Settings) -> bool:
    """Whether the run trains on CUDA GPUs."""
    return settings.device != "cpu" and torch.cuda.is_available()


def resolve_precision(settings: Settings) -> Literal["bf16", "fp16", "fp32"]:
    """The precision that `settings.precision` means on this machine.

    `auto` is bf16 where the hardware computes in it, else fp32. On a CPU without bf16
    instructions bf16 is emulated and about three times slower than fp32.

    Raises:
        SettingsError: for fp16 without a GPU.
    """
    asked = settings.precision
    cuda = uses_cuda(settings)
    if asked == "fp16" and not cuda:
        raise SettingsError("precision 'fp16' needs a CUDA GPU: use auto, bf16 or fp32")
    if asked != "auto":
        return asked
    if cuda:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities()
        native = any(has.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return "bf16" if native else "fp32"


def weight_dtype(settings: Settings) -> torch.dtype:
    """The type that the model's own weights are loaded in (see the module's text)."""
    dtype = _DTYPES[resolve_precision(settings)]
    frozen_or_copied = settings.lora is not False or settings.ds_config is not None
    return dtype if frozen_or_copied else torch.float32


def load_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer that pads on the right and has a pad token.

    Without a pad token of its own it gets one that its vocabulary sets aside, else the end
    token: a new token would change the size of the model's embedding.

    Raises:
        ModelError: if there is no tokenizer at `path`, or it cannot be read.
    """
    with _quiet_loading(), _model_errors(f"tokenizer of {path!r}"):
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=False, padding_side="right"
        )
    if tokenizer.pad_token is None:
        vocabulary = tokenizer.get_vocab()
        spare = next((token for token in _PAD_TOKENS if token in vocabulary), tokenizer.eos_token)
        if spare is None:
            raise ModelError(
                f"tokenizer of {path!r} has neither a pad token nor an end token: set pad_token "
                "in its tokenizer_config.json"
            )
        tokenizer.pad_token = spare
    return tokenizer


def load_model(settings: Settings, path: str, gradient_checkpointing: bool | None = None) -> Any:
    """Load the model of a run, with adapters if the settings ask for them.

    Under ZeRO-3 the caller must have made its `TrainingArguments` (or `HfDeepSpeedConfig`)
    before, so that the weights are partitioned while they are read. The adapters start from
    `settings.seed` alone, so they are the same on every rank and in every run.

    Args:
        settings: the run's settings.
        path: folder or Hub id, from `resolve_model`.
        gradient_checkpointing: overrides the setting of that name.

    Returns:
        A `PreTrainedModel`, or a `PeftModel` around one; on the CPU unless ZeRO-3 or nf4
        placed it.

    Raises:
        ModelError: if the weights are missing, incomplete, corrupted or of an unknown kind.
        SettingsError: if the settings ask for what this machine or model cannot do.
    """
    lora = settings.lora
    keywords: dict[str, Any] = {}
    if settings.attn_implementation is not None:
        keywords["attn_implementation"] = settings.attn_implementation
    if lora is not False and lora.quantize == "nf4":
        keywords |= _nf4_keywords(settings)
    with _quiet_loading(), _model_errors(f"model {path!r}", settings):
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            revision=settings.model_revision,
            dtype=weight_dtype(settings),
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # so that they are reported, and refused below
            output_loading_info=True,
            **keywords,
        )
    _refuse_incomplete(path, report)
    if lora is not False:
        model = _add_adapters(model, lora, settings)
    checkpoint = settings.gradient_checkpointing
    if checkpoint if gradient_checkpointing is None else gradient_checkpointing:
        _checkpoint_gradients(model, adapters=lora is not False)
    return model


def _refuse_incomplete(path: str, report: Mapping[str, Any]) -> None:
    """Refuse weights that transformers would have replaced by random ones."""
    wrong = {
        "missing": sorted(report["missing_keys"]),
        "of another shape": sorted(
            key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]
        ),
    }
    for kind, names in wrong.items():
        if names:
            raise ModelError(
                f"model {path!r}: {len(names)} weights are {kind}, {names[0]} among them: the "
                "folder is incomplete or its config.json belongs to another model"
            )


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """No load report (what is wrong is raised) and no progress bar beside rank 0's terminal."""
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    if os.environ.get("RANK", "0") != "0" or not sys.stderr.isatty():
        hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()


def _nf4_keywords(settings: Settings) -> dict[str, Any]:
    """Arguments that load the frozen weights in 4 bits."""
    if not uses_cuda(settings):
        raise SettingsError("lora.quantize 'nf4' needs a CUDA GPU, none is used: set it to 'none'")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SettingsError(
            "lora.quantize 'nf4' needs the bitsandbytes package: pip install bitsandbytes, or set "
            "it to 'none'"
        )
    from transformers import BitsAndBytesConfig

    dtype = _DTYPES[resolve_precision(settings)]
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # ZeRO-3 and FSDP cut up only floating-point storage of one type.
        bnb_4bit_quant_storage=dtype,
    )
    return {"quantization_config": four_bits, "device_map": {"": torch.cuda.current_device()}}


def _add_adapters(model: Any, lora: LoraSettings, settings: Settings) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_dora=lora.dora,
    )
    # Without DeepSpeed the adapters are float32; with it they have the type of the engine.
    cast = settings.ds_config is None
    gpus = [torch.cuda.current_device()] if uses_cuda(settings) else []
    with torch.random.fork_rng(devices=gpus), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses names that transformers renames
        torch.manual_seed(settings.seed)
        try:
            return get_peft_model(model, config, autocast_adapter_dtype=cast)
        except ValueError as error:
            raise SettingsError(
                f"lora.target_modules {lora.target_modules!r}: {_one_line(error)}"
            ) from None


def _checkpoint_gradients(model: Any, adapters: bool) -> None:
    # The re-entrant kind loses gradients where no input needs one, as with frozen embeddings.
    options = {"use_reentrant": False}
    enable = getattr(model, "activation_checkpointing_enable", None)
    if enable is not None:
        enable(activation_checkpointing_kwargs=options)
    else:  # transformers before 5.2x has only the older name
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    if adapters:
        model.enable_input_require_grads()


@contextmanager
def _model_errors(what: str, settings: Settings | None = None) -> Iterator[None]:
    """Turn what a loader raises about a user's files into one line."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise ModelError(
            f"{what}: a weight file is corrupted ({_one_line(error)}): fetch it again"
        ) from None
    except (SafemixError, torch.OutOfMemoryError):
        raise
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, TypeError) as error:
        text = _one_line(error)
        attention = settings.attn_implementation if settings else None
        if attention and ("attn" in text or "attention" in text.lower() or attention in text):
            raise SettingsError(f"attn_implementation {attention!r}: {text}") from None
        raise ModelError(f"{what} cannot be loaded: {text}") from None


def _one_line(error: BaseException, limit: int = 300) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip() or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
