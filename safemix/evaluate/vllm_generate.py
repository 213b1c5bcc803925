"""Completions of chats by vLLM, for a finished model in a folder.

vLLM's own sampling is used: with a temperature its completions are not those of `generate`, and
they depend on its version. The prompts are the same token ids.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safemix.errors import HostError, ModelError, SettingsError
from safemix.evaluate.results import Decoding
from safemix.rows.schema import Message

__all__ = ["VllmGenerator", "complete_with_vllm", "gpus_to_take", "vllm_name"]


def vllm_name() -> str:
    """Name and version of vLLM, on which sampled completions depend.

    Raises:
        HostError: if vLLM is not installed.
    """
    return f"vllm {_imported('vllm').__version__}"


def gpus_to_take(model_path: str, gpus: int, revision: str | None = None) -> int:
    """How many GPUs can share a model: the most that its attention heads can be divided by.

    Args:
        model_path: folder or Hub id of the whole model.
        gpus: that are there; 0 on a machine without one.
        revision: of a Hub id.

    Returns:
        1 or more; `gpus` for a model without attention heads, or whose config cannot be read:
        vLLM then says what is wrong.
    """
    from transformers import AutoConfig

    most = max(1, gpus)
    try:
        whole = AutoConfig.from_pretrained(model_path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError):
        return most
    config = whole.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return most
    # Heads of keys and values are shared out too, or each is copied to equally many GPUs.
    pairs = getattr(config, "num_key_value_heads", None) or heads
    able = [n for n in range(1, most + 1) if not heads % n and (not pairs % n or not n % pairs)]
    return able[-1]


def complete_with_vllm(
    model_path: str,
    chats: Sequence[Sequence[Message]],
    decoding: Decoding,
    *,
    template: str | None = None,
    **engine: Any,
) -> list[str]:
    """One completion for each chat by a model that is loaded for this call alone.

    Args:
        model_path: see `VllmGenerator`.
        chats: each ends with a user turn.
        decoding: how; one sample.
        template: see `VllmGenerator`.
        engine: see `VllmGenerator`.

    Raises:
        HostError, ModelError, DataError, SettingsError: as `VllmGenerator`.
    """
    if decoding.samples != 1:
        raise SettingsError(
            f"complete_with_vllm gives one text for a chat, not {decoding.samples}: use "
            "VllmGenerator"
        )
    generator = VllmGenerator(model_path, template=template, **engine)
    return [texts[0] for texts in generator.complete_samples(chats, decoding)]


class VllmGenerator:
    """A model in a folder, loaded by vLLM in this one process, without a launcher.

    Args:
        model_path: folder or Hub id of a model, or folder of a LoRA adapter.
        base: folder or Hub id of the adapter's base model; None for the one that
            `adapter_config.json` names.
        revision: commit, tag or branch of a model on the Hub; None for the newest.
        template: chat template, as in training; None for the tokenizer's own.
        engine: further arguments of `vllm.LLM`, such as `tensor_parallel_size` and `dtype`.

    Raises:
        HostError: if vLLM is not installed, or cannot load the model.
        ModelError: for an adapter that names no base model, or an unusable tokenizer.
    """

    def __init__(
        self,
        model_path: str,
        *,
        base: str | None = None,
        revision: str | None = None,
        template: str | None = None,
        **engine: Any,
    ) -> None:
        from safemix.evaluate.chat_prompt import ChatEncoder

        self._vllm = _imported("vllm")
        named, self._adapter, lora_rank = _base_and_adapter(model_path)
        base = named if base is None or self._adapter is None else base
        # A folder has no revision.
        revision = None if Path(base).is_dir() else revision
        self._encoder = ChatEncoder(_tokenizer(model_path, base, revision), template)
        self._stops = self._encoder.stop_ids(_model_stops(base, revision))
        settings: dict[str, Any] = {
            "model": base,
            "trust_remote_code": False,
            # What the model's authors recommend would be applied unsaid.
            "generation_config": "vllm",
        }
        if revision is not None:
            settings |= {"revision": revision, "tokenizer_revision": revision}
        if self._adapter is not None:
            # vLLM takes powers of two from 8 on.
            rank = max(8, 1 << (lora_rank - 1).bit_length())
            settings |= {"enable_lora": True, "max_lora_rank": rank}
        self._model = _loaded(self._vllm, base, settings | engine)

    @property
    def longest(self) -> int:
        """Tokens that the model takes, prompt and answer together."""
        return int(self._model.llm_engine.model_config.max_model_len)

    def complete_samples(
        self, chats: Sequence[Sequence[Message]], decoding: Decoding
    ) -> list[list[str]]:
        """For each chat its samples, as `generate.complete_samples` gives them.

        Raises:
            DataError: for a chat that cannot be asked, or is too long for the model.
            SettingsError: for a decoding that is not legal.
        """
        from safemix.evaluate.generate import check_decoding, encode_chats

        check_decoding(decoding)
        if not chats:
            return []
        prompts = encode_chats(self._encoder, chats, decoding, self.longest)
        how = self._vllm.SamplingParams(
            n=decoding.samples,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            max_tokens=decoding.max_new_tokens,
            seed=decoding.seed,
            stop_token_ids=list(self._stops),
        )
        made = self._model.generate(
            [{"prompt_token_ids": ids} for ids in prompts],
            how,
            use_tqdm=False,
            lora_request=self._lora(),
        )
        return [
            [self._encoder.decode(sample.token_ids, self._stops) for sample in request.outputs]
            for request in made
        ]

    def _lora(self) -> Any:
        if self._adapter is None:
            return None
        return _imported("vllm.lora.request").LoRARequest("adapter", 1, str(self._adapter))


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise HostError(
            f"vLLM cannot be imported ({error}): pip install 'safemix[vllm]' on a machine with a "
            "GPU, or use --backend hf"
        ) from None


def _base_and_adapter(model_path: str) -> tuple[str, Path | None, int]:
    """The base model, the adapter's folder if there is one, and the adapter's rank."""
    config = Path(model_path) / "adapter_config.json"
    if not config.is_file():
        return model_path, None, 0
    try:
        tree = json.loads(config.read_text("utf-8"))
        base, rank = tree["base_model_name_or_path"], int(tree["r"])
    except (OSError, ValueError, KeyError, TypeError):
        base, rank = None, 0
    if not isinstance(base, str) or not base or rank < 1:
        raise ModelError(
            f"{config} does not name a LoRA and its base model: it needs r and "
            "base_model_name_or_path"
        )
    return base, Path(model_path), rank


def _tokenizer(model_path: str, base: str, revision: str | None) -> Any:
    """The tokenizer beside the adapter, where it was saved there; else the model's."""
    from transformers import AutoTokenizer

    own = (Path(model_path) / "tokenizer_config.json").is_file()
    path, revision = (model_path, None) if own else (base, revision)
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise ModelError(f"the tokenizer of {path!r} cannot be loaded: {words}") from None


def _model_stops(base: str, revision: str | None) -> int | list[int] | None:
    """The tokens that end an answer by the model's own generation config, if it has one."""
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(base, revision=revision)
    except OSError:
        return None
    stops: int | list[int] | None = found.eos_token_id
    return stops


def _loaded(vllm: Any, base: str, settings: dict[str, Any]) -> Any:
    try:
        return vllm.LLM(**settings)
    except Exception as error:  # vLLM raises many kinds; the cause is kept.
        words = " ".join(str(error).split())[:300]
        raise HostError(
            f"vLLM cannot load {base!r} ({type(error).__name__}: {words}): use --backend hf"
        ) from error
