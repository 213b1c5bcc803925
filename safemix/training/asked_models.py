"""Whole models that are asked, not trained: told apart, loaded, and freed again."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from safemix.errors import ModelError
from safemix.evaluate.loading_models import ModelPlace, fingerprint
from safemix.evaluate.results import HF
from safemix.evaluate.suite_leader import on_leader
from safemix.training.known_models import resolve_model
from safemix.training.process import say

if TYPE_CHECKING:
    from safemix.evaluate.suite_ask import Complete
    from safemix.settings import Settings

__all__ = ["Loaded", "free", "identify", "load"]

_DTYPES: Final = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass
class Loaded:
    """A model that is ready to be asked.

    Attributes:
        model: the model in this process; None where a server or another library has it.
        tokenizer: of the model.
        complete: makes completions in place of `model`; None if the model does.
        backend: what makes them: "hf", or "vllm" with its version.
        longest: tokens that the model takes, prompt and answer together; None for no end.
    """

    model: Any
    tokenizer: Any
    complete: Complete | None = None
    backend: str = HF
    longest: int | None = None


def identify(place: ModelPlace, device: str) -> str:
    """A hash of the model and the precision it runs in; worked out on rank 0."""

    def work() -> str:
        path = resolve_model(place.model, revision=place.revision)
        found = fingerprint(path, place.adapter, place.revision)
        return f"{found}-{_precision(place, device)}"

    return on_leader(work)


def load(place: ModelPlace, backend: str, device: str) -> Loaded:
    """Load a model to be asked, its adapter on top.

    Args:
        place: of the model.
        backend: hf or vllm.
        device: auto or cpu.

    Raises:
        ModelError: if it cannot be loaded.
    """
    from safemix.evaluate.generate import longest_of
    from safemix.training.models import load_tokenizer

    path = resolve_model(place.model, revision=place.revision)
    # A run saves its tokenizer beside its result.
    own = place.adapter is not None and (place.adapter / "tokenizer_config.json").is_file()
    tokenizer = load_tokenizer(str(place.adapter) if own else path, None if own else place.revision)
    if place.template is None and not tokenizer.chat_template:
        raise ModelError(
            f"model {place.given!r} has no chat template, so it cannot be asked: give a chat model"
        )
    if backend == "vllm":
        return _vllm(place, path, tokenizer, device)
    model = _model(place, path, device)
    return Loaded(model, tokenizer, longest=longest_of(model))


def _model(place: ModelPlace, path: str, device: str) -> Any:
    import torch

    from safemix.training.models import load_model, uses_cuda

    settings = _settings(place, device)
    model = load_model(settings, path)
    if place.adapter is not None:
        model = _with_adapter(model, place.adapter)
    if uses_cuda(settings):
        model = model.to(torch.device("cuda", torch.cuda.current_device()))
    return model.eval()


def _settings(place: ModelPlace, device: str) -> Settings:
    """Settings that make the loader of the training read a whole model to be asked."""
    import torch

    from safemix.settings import parse_settings

    gpu = device != "cpu" and torch.cuda.is_available()
    tree = {
        "model": place.model,
        "model_revision": place.revision,
        "task": {"builtin": "task"},
        "ratio": 0,
        "lora": False,
        # Without DeepSpeed a model is loaded to be trained, in float32; with it as it is used.
        "ds_config": "zero2",
        "precision": "auto" if place.precision == "fp16" and not gpu else place.precision,
        "device": device,
    }
    return parse_settings(tree, place.given)


def _precision(place: ModelPlace, device: str) -> str:
    from safemix.training.models import resolve_precision

    return resolve_precision(_settings(place, device))


def _with_adapter(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    if not (adapter / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"adapter {str(adapter)!r} has no adapter_model.safetensors: save it as safetensors"
        )
    try:
        # Not merged: it answers with the numbers that it was trained with.
        return PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())[:200]
        raise ModelError(f"adapter {str(adapter)!r} does not fit its base: {text}") from None


def _vllm(place: ModelPlace, path: str, tokenizer: Any, device: str) -> Loaded:
    """Completions by vLLM, which loads the model itself, onto all GPUs that can share it."""
    import torch

    from safemix.evaluate.vllm_generate import VllmGenerator, gpus_to_take, vllm_name

    folder = path if place.adapter is None else str(place.adapter)
    name, gpus = vllm_name(), torch.cuda.device_count()
    taken = gpus_to_take(path, gpus, place.revision)
    if taken < gpus:
        say(f"{name} takes {taken} of {gpus} GPUs: attention heads of {place.given} are shared out")
    # A forked process could not use the GPUs: CUDA has been asked for here.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    generator = VllmGenerator(
        folder,
        base=path,
        revision=place.revision,
        template=place.template,
        tensor_parallel_size=taken,
        dtype=_DTYPES[_precision(place, device)],
    )
    return Loaded(None, tokenizer, generator.complete_samples, name, generator.longest)


def free(loaded: Loaded) -> None:
    """Give the memory back before the next model is loaded."""
    import torch

    loaded.model = loaded.complete = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
