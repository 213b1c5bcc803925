"""vLLM, by a stand-in module of its documented interface: vLLM itself needs a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from safemix.errors import DataError, HostError, ModelError, SettingsError
from safemix.evaluate.chat_prompt import ChatEncoder
from safemix.evaluate.results import Decoding
from safemix.evaluate.vllm_generate import VllmGenerator, complete_with_vllm, gpus_to_take

CHATS = [[{"role": "user", "content": text}] for text in ("One?", "And <|im_end|> two?")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safemix.training.tiny import build_tiny

    path = tmp_path_factory.mktemp("tiny")
    build_tiny(path)
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, object]:
    """Puts a stand-in in vLLM's place; what it was asked comes here."""
    from safemix.training.tiny import build_tiny_tokenizer

    seen: dict[str, object] = {"loads": 0}
    tokenizer = build_tiny_tokenizer()

    class LLM:
        def __init__(self, **settings: object) -> None:
            if settings["model"] == "broken":
                raise RuntimeError("no GPU\nat all")
            seen["settings"] = settings
            seen["loads"] += 1
            self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=64))

        def generate(self, prompts, sampling_params, *, use_tqdm, lora_request):
            seen.update(prompts=prompts, params=sampling_params, lora=lora_request)
            end = tokenizer.eos_token_id
            answers = [
                [*tokenizer.encode(f" sample {n}"), end, 7]
                for n in range(sampling_params.settings["n"])
            ]
            return [
                SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids) for ids in answers])
                for _ in prompts
            ]

    class SamplingParams:
        def __init__(self, **settings: object) -> None:
            self.settings = settings

    vllm, lora = ModuleType("vllm"), ModuleType("vllm.lora")
    request = ModuleType("vllm.lora.request")
    vllm.LLM, vllm.SamplingParams, vllm.__version__ = LLM, SamplingParams, "0.11.0"
    request.LoRARequest = lambda name, number, path: (name, number, path)
    for name, module in (("vllm", vllm), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def adapter(tmp_path: Path, **tree: object) -> str:
    (tmp_path / "adapter_config.json").write_text(json.dumps(tree), "utf-8")
    return str(tmp_path)


def test_prompts_are_the_same_token_ids(asked, folder: Path) -> None:
    from transformers import AutoTokenizer

    decoding = Decoding(temperature=0.7, top_p=0.9, max_new_tokens=5, samples=2, seed=4)
    model = VllmGenerator(str(folder), tensor_parallel_size=2)
    assert model.complete_samples(CHATS, decoding) == [["sample 0", "sample 1"]] * 2
    assert model.complete_samples(CHATS[:1], decoding) == [["sample 0", "sample 1"]]
    assert asked["loads"] == 1
    model.complete_samples(CHATS, decoding)
    encoder = ChatEncoder(AutoTokenizer.from_pretrained(folder))
    assert asked["prompts"] == [{"prompt_token_ids": encoder.encode(chat)} for chat in CHATS]
    assert asked["params"].settings == {
        "n": 2,
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 5,
        "seed": 4,
        "stop_token_ids": list(encoder.stop_ids()),
    }
    assert asked["settings"] == {
        "model": str(folder),
        "trust_remote_code": False,
        "generation_config": "vllm",
        "tensor_parallel_size": 2,
    }
    assert asked["lora"] is None


def test_one_text_a_chat(asked, folder: Path) -> None:
    assert complete_with_vllm(str(folder), CHATS, Decoding(max_new_tokens=5)) == ["sample 0"] * 2
    with pytest.raises(SettingsError, match="VllmGenerator"):
        complete_with_vllm(str(folder), CHATS, Decoding(1.0, samples=2))


def test_an_adapter_is_asked_over_its_base_model(asked, folder: Path, tmp_path: Path) -> None:
    path = adapter(tmp_path, base_model_name_or_path=str(folder), r=12)
    assert complete_with_vllm(path, CHATS, Decoding(max_new_tokens=5)) == ["sample 0"] * 2
    assert asked["lora"] == ("adapter", 1, path)
    assert asked["settings"]["model"] == str(folder)
    assert asked["settings"]["enable_lora"] is True
    assert asked["settings"]["max_lora_rank"] == 16


def test_a_base_is_asked_at_its_revision(
    asked, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    read: list[tuple[str, str, str | None]] = []

    def instead(what: str, found: object):
        def from_pretrained(path: str, *, revision: str | None = None, **_: object) -> object:
            read.append((what, path, revision))
            return found

        return from_pretrained

    tokenizer = AutoTokenizer.from_pretrained(folder)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", instead("tokenizer", tokenizer))
    monkeypatch.setattr(GenerationConfig, "from_pretrained", instead("stops", GenerationConfig()))
    path = adapter(tmp_path, base_model_name_or_path="org/moved", r=8)
    VllmGenerator(path, base="org/model", revision="abc123", dtype="bfloat16")
    assert read == [("tokenizer", "org/model", "abc123"), ("stops", "org/model", "abc123")]
    settings = asked["settings"]
    assert (settings["model"], settings["dtype"]) == ("org/model", "bfloat16")
    assert settings["revision"] == settings["tokenizer_revision"] == "abc123"
    VllmGenerator(str(folder), revision="abc123")
    assert "revision" not in asked["settings"], "a folder has none"


def test_what_cannot_be_is_one_line(asked, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"chat 1 of 2 has .* more than the model's 64"):
        complete_with_vllm(str(folder), CHATS, Decoding(max_new_tokens=60))
    with pytest.raises(ModelError, match="does not name a LoRA and its base model"):
        complete_with_vllm(adapter(tmp_path, r=8), CHATS, Decoding())
    with pytest.raises(ModelError, match=r"tokenizer of '.*' cannot be loaded"):
        complete_with_vllm(str(tmp_path / "none"), CHATS, Decoding())


def test_a_model_that_vllm_cannot_load(asked, folder: Path, tmp_path: Path, monkeypatch) -> None:
    from safemix.evaluate import vllm_generate

    with pytest.raises(HostError, match=r"cannot load 'broken' \(RuntimeError: no GPU at all\)"):
        vllm_generate._loaded(sys.modules["vllm"], "broken", {"model": "broken"})


def test_without_vllm_one_line_says_so(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(
        HostError, match=r"vLLM cannot be imported .* pip install 'safemix\[vllm\]'"
    ):
        complete_with_vllm(str(folder), CHATS, Decoding())


@pytest.mark.parametrize(
    ("heads", "pairs", "gpus", "taken"),
    [
        (64, 8, 8, 8),
        (64, 8, 16, 16),  # each head of keys and values is on two GPUs
        (64, 8, 6, 4),
        (40, 8, 5, 4),  # 40 heads would divide by 5, the 8 of keys and values do not
        (9, 3, 2, 1),
        (9, 3, 4, 3),
        (64, 8, 0, 1),
    ],
)
def test_as_many_gpus_are_taken_as_can_share_the_heads(
    tmp_path: Path, heads: int, pairs: int, gpus: int, taken: int
) -> None:
    from transformers import LlamaConfig

    sizes = {"hidden_size": heads * 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = LlamaConfig(num_attention_heads=heads, num_key_value_heads=pairs, **sizes)
    config.save_pretrained(tmp_path)
    assert gpus_to_take(str(tmp_path), gpus) == taken


def test_a_model_whose_heads_are_not_known_gets_all_gpus(tmp_path: Path) -> None:
    assert gpus_to_take(str(tmp_path / "none"), 4) == 4
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}', "utf-8")
    assert gpus_to_take(str(tmp_path), 4) == 4


def test_a_loaded_model_says_its_version_and_is_on_all_gpus(
    asked, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from safemix.evaluate.loading_models import find_model
    from safemix.training.asked_models import load

    # So that it is put back afterwards.
    monkeypatch.setenv("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    for gpus, taken in ((0, 1), (2, 2), (3, 2)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        loaded = load(find_model(str(folder)), "vllm", "auto")
        assert loaded.backend == "vllm 0.11.0"
        assert asked["settings"]["tensor_parallel_size"] == taken
        assert asked["settings"]["dtype"] in ("bfloat16", "float32"), "that its identity names"
    said = capsys.readouterr().err
    assert said.count("safemix: vllm 0.11.0 takes 2 of 3 GPUs") == said.count("GPUs") == 1
