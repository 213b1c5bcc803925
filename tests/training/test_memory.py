"""The memory estimate, held against real models, PEFT, autograd and DeepSpeed's own formulas."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from safemix.errors import SettingsError
from safemix.settings import LoraSettings
from safemix.training.ds_config import config_names, read_ds_config
from safemix.training.memory import (
    ALWAYS,
    GIB,
    PRESETS,
    Job,
    ModelShape,
    estimate,
    estimate_job,
    find_shape,
)
from safemix.training.memory_advice import cheapest_fit, fits
from safemix.training.shapes import lora_tensors

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 896,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "pad_token_id": 0,
}
FAMILIES = [
    ("Llama", {}),
    ("Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("Llama", {"num_key_value_heads": 8}),
    ("Mistral", {"head_dim": 64}),
    ("Qwen2", {}),
    ("Qwen3", {}),
    ("Gemma", {}),
    ("Gemma2", {"tie_word_embeddings": False}),
    ("Gemma2", {}),
    ("SmolLM3", {}),
]


def build(family: str, changes: dict[str, Any], device: str = "meta") -> Any:
    config = getattr(transformers, f"{family}Config")(**{**SMALL, **changes})
    config.use_cache = False
    with torch.device(device):
        return getattr(transformers, f"{family}ForCausalLM")(config)


@pytest.mark.parametrize(("family", "changes"), FAMILIES)
def test_parameters_are_counted_exactly(family: str, changes: dict[str, Any]) -> None:
    model = build(family, changes)
    shape = ModelShape.from_config(model.config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.largest_tensor == max(p.numel() for p in model.parameters())


def test_gemma3_text_is_counted_exactly() -> None:
    config = transformers.Gemma3TextConfig(**SMALL)
    with torch.device("meta"):
        model = transformers.Gemma3ForCausalLM(config)
    expected = sum(p.numel() for p in model.parameters())
    assert ModelShape.from_config(config).parameters == expected


PUBLISHED = {"llama3-8b": 8_030_261_248, "llama3-70b": 70_553_706_496, "smollm2": 134_515_008}


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_presets_have_the_published_size(name: str, count: int) -> None:
    assert find_shape(name).parameters == count


LORAS = [
    {"target_modules": "all-linear"},
    {"target_modules": "all-linear", "dora": True},
    {"target_modules": ["q_proj", "v_proj"], "r": 4},
    {"target_modules": ["q_proj", "lm_head"]},
    {"target_modules": ["embed_tokens", "down_proj"]},
    {"target_modules": r".*\.layers\.[01]\..*(gate|up)_proj"},
]


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Gemma2"])
@pytest.mark.parametrize("options", LORAS)
def test_lora_parameters_are_counted_exactly(family: str, options: dict[str, Any]) -> None:
    from peft import LoraConfig, get_peft_model

    lora = LoraSettings(**options)
    model = build(family, {"num_hidden_layers": 2}, "cpu")
    shape = ModelShape.from_config(model.config)
    config = LoraConfig(
        r=lora.r,
        target_modules=lora.target_modules,
        use_dora=lora.dora,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    expected = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert sum(tensor.numel for tensor in lora_tensors(shape, lora)) == expected


def test_lora_targets_that_match_nothing_are_refused() -> None:
    lora = LoraSettings(target_modules=["query_key_value"])
    with pytest.raises(SettingsError, match=r"query_key_value.*q_proj, k_proj"):
        estimate(PRESETS["llama3-8b"], None, gpus=1, lora=lora)


def measured_peak(model: Any, rows: int, tokens: int) -> int:
    """The most bytes that forward and backward hold at one time, gradients left out."""
    ids = torch.randint(1, SMALL["vocab_size"], (rows, tokens))
    mask = torch.ones_like(ids)
    mask[:, -5:] = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    activity = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(profile_memory=True, activities=activity) as profile:
        outputs = model(input_ids=ids, attention_mask=mask, labels=ids)
        outputs.loss.backward()
    events = profile.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        held += change
        peak = max(peak, held)
    return peak


# (family, LoRA, gradient checkpointing, attention, precision): within 10 % of what is measured
ACTIVATIONS = [
    ("Llama", False, False, "sdpa", "bf16"),
    ("Llama", True, False, "sdpa", "bf16"),
    ("Llama", False, True, "sdpa", "bf16"),
    ("Llama", True, True, "sdpa", "bf16"),
    ("Llama", False, False, "eager", "bf16"),
    ("Llama", False, False, "sdpa", "fp32"),
    ("Qwen3", False, False, "sdpa", "bf16"),
    ("Gemma2", False, False, "eager", "bf16"),
]


@pytest.mark.parametrize(("family", "lora", "again", "attention", "precision"), ACTIVATIONS)
def test_activations_are_what_a_real_step_allocates(
    family: str, lora: bool, again: bool, attention: str, precision: str
) -> None:
    from peft import LoraConfig, get_peft_model

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = build(family, {"attn_implementation": attention}, "cpu").to(dtype).train()
    shape = ModelShape.from_config(model.config)
    if lora:
        config = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config).to(dtype)
        model.enable_input_require_grads()
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    needed = estimate(
        shape,
        {},
        gpus=1,
        micro_batch_size=2,
        sequence_length=256,
        lora=LoraSettings(r=8) if lora else None,
        precision=precision,
        gradient_checkpointing=again,
        attention=attention,
    )
    names = ("activations", "layer at work", "logits and loss", "logits")
    expected = max(
        sum(p.bytes for p in needed.parts if p.name in names and phase in p.phases)
        for phase in ALWAYS
    )
    assert measured_peak(model, 2, 256) == pytest.approx(expected, rel=0.1)


def states(needed: Any, where: str = "gpu") -> int:
    names = ("weights", "gradients", "optimizer", "float32 gradients")
    return sum(needed.part(name, where) for name in names)


@pytest.mark.parametrize("nodes", [1, 4])
def test_zero2_states_agree_with_deepspeed(nodes: int) -> None:
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    shape = PRESETS["llama3-8b"]
    _, theirs = estimate_zero2_model_states_mem_needs(shape.parameters, 8, nodes, False, 1.0)
    ours = estimate(shape, read_ds_config("zero2"), gpus=8 * nodes)
    assert states(ours) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize("parameters_too", [False, True])
def test_zero3_offloaded_states_agree_with_deepspeed(nodes: int, parameters_too: bool) -> None:
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

    shape = PRESETS["llama3-70b"]
    host, gpu, largest = estimate_zero3_model_states_mem_needs(
        shape.parameters, shape.largest_tensor, 8, nodes, True, parameters_too, True, 1.0
    )
    config = read_ds_config("zero3_offload" if parameters_too else "llama3_70b_full")
    ours = estimate(shape, config, gpus=8 * nodes)
    assert states(ours, "host") == pytest.approx(host, rel=1e-6)
    # DeepSpeed counts one gathered layer where we count what the config lets stay gathered.
    assert states(ours) == pytest.approx(gpu - largest, rel=1e-6)


jobs = st.builds(
    Job,
    shape=st.sampled_from(list(PRESETS.values())),
    ds_config=st.sampled_from([None, *(read_ds_config(name) for name in config_names())]),
    gpus=st.integers(1, 64),
    gpus_per_node=st.integers(1, 8),
    micro_batch_size=st.integers(1, 16),
    sequence_length=st.integers(16, 8192),
    lora=st.sampled_from([None, LoraSettings(), LoraSettings(r=64, dropout=0.1)]),
    precision=st.sampled_from(["bf16", "fp16", "fp32"]),
    gradient_checkpointing=st.booleans(),
    attention=st.sampled_from(["flash", "sdpa", "eager"]),
)


@settings(max_examples=60, deadline=None)
@given(job=jobs, more=st.integers(1, 64))
def test_the_estimate_is_monotone(job: Job, more: int) -> None:
    needed = estimate_job(job).gpu_bytes
    if job.stage:
        assert estimate_job(replace(job, gpus=job.gpus + more)).gpu_bytes <= needed
    for name in ("micro_batch_size", "sequence_length"):
        bigger = replace(job, **{name: getattr(job, name) + more})
        assert estimate_job(bigger).gpu_bytes >= needed  # the optimizer step may be the peak
    if job.ds_config is not None:  # without it, autocast keeps 16-bit copies beside the float32
        assert estimate_job(replace(job, precision="fp32")).gpu_bytes >= needed
    if not job.gradient_checkpointing:
        assert estimate_job(replace(job, gradient_checkpointing=True)).part("activations") < (
            estimate_job(job).part("activations")
        )
    if job.lora is None and job.ds_config is not None:
        assert estimate_job(replace(job, lora=LoraSettings())).gpu_bytes < needed * 1.02


@settings(max_examples=30, deadline=None)
@given(job=jobs)
def test_all_parts_are_sane(job: Job) -> None:
    needed = estimate_job(job)
    assert all(part.bytes >= 0 and part.formula for part in needed.parts)
    assert needed.gpu_bytes == max(needed.at(phase) for phase in ALWAYS)
    assert needed.gpu_bytes <= sum(p.bytes for p in needed.parts if p.where == "gpu")
    assert needed.host_bytes > 0
    assert (needed.trained == needed.parameters) == (job.lora is None)


def test_more_is_split_at_each_zero_stage() -> None:
    job = Job(PRESETS["llama3-8b"], read_ds_config("zero1"), gpus=8, sequence_length=128)
    configs = [{}, *(read_ds_config(f"zero{stage}") for stage in (1, 2, 3))]
    sizes = [states(estimate_job(replace(job, ds_config=config))) for config in configs]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4


def test_four_bit_weights_take_a_quarter() -> None:
    job = Job(PRESETS["llama3-8b"], read_ds_config("zero2"), gpus=1, lora=LoraSettings())
    quantized = replace(job, lora=LoraSettings(quantize="nf4"))
    saved = estimate_job(job).part("weights") - estimate_job(quantized).part("weights")
    linear = job.shape.linear_parameters
    assert saved == pytest.approx(linear * (2 - 4.127 / 8), rel=1e-6)


def test_what_fits_on_real_machines() -> None:
    shape = PRESETS["llama3-8b"]
    rest: dict[str, Any] = {"sequence_length": 1024, "gradient_checkpointing": True}
    lora = estimate(shape, read_ds_config("llama3_8b_lora"), gpus=1, lora=LoraSettings(), **rest)
    assert 16 * GIB < lora.gpu_bytes < 24 * GIB  # weights alone are 15 GiB
    full = estimate(shape, read_ds_config("zero2"), gpus=1, **rest)
    assert full.gpu_bytes > 120 * GIB  # 16 bytes a parameter


@settings(max_examples=40, deadline=None)
@given(job=jobs, gib=st.integers(4, 160))
def test_advice_makes_a_run_fit_and_is_needed(job: Job, gib: int) -> None:
    limit = gib * GIB
    advice = cheapest_fit(job, limit)
    if advice is None:
        return
    assert fits(advice.estimate, limit, None)
    assert advice.changes
    assert advice.job != job
    assert estimate_job(advice.job) == advice.estimate


def test_the_cheapest_change_comes_first() -> None:
    shape = PRESETS["llama3-8b"]
    job = Job(shape, read_ds_config("zero2"), gpus=8, micro_batch_size=8, sequence_length=2048)
    assert job.gradient_checkpointing is False
    advice = cheapest_fit(job, 80 * GIB)
    assert advice is not None
    assert advice.changes == ("gradient_checkpointing: true",)

    whole = replace(job, gradient_checkpointing=True, micro_batch_size=1)
    advice = cheapest_fit(whole, 30 * GIB)
    assert advice is not None
    assert advice.changes == ("ZeRO stage 3 (ds_config: zero3)",)

    # a host that is too small rules the offload out
    big = Job(PRESETS["llama3-70b"], read_ds_config("zero3"), gpus=8, gradient_checkpointing=True)
    advice = cheapest_fit(big, 80 * GIB)
    assert advice is not None
    assert advice.changes == ("zero_optimization.offload_optimizer.device: cpu",)
    advice = cheapest_fit(big, 80 * GIB, 512 * GIB)
    assert advice is not None
    assert advice.changes == ("lora: true",)


def test_nothing_helps_where_the_context_alone_is_too_big() -> None:
    assert cheapest_fit(Job(PRESETS["tiny"], None, gpus=1), GIB) is None


@pytest.mark.parametrize("name", ["gpus", "gpus_per_node", "micro_batch_size", "sequence_length"])
def test_counts_below_one_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} = 0 is below 1"):
        estimate(PRESETS["tiny"], None, **{"gpus": 1, name: 0})


def test_models_that_cannot_be_counted_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"model_type 'gpt2'; known: llama"):
        ModelShape.from_config(transformers.GPT2Config())
    with pytest.raises(SettingsError, match="is no preset"):
        find_shape(str(tmp_path))


def test_a_folder_is_read(tmp_path: Path) -> None:
    model = build("Qwen2", {})
    model.config.save_pretrained(tmp_path)
    assert find_shape(str(tmp_path)).parameters == sum(p.numel() for p in model.parameters())


def test_the_readme_shows_what_the_estimate_says() -> None:
    text = (ROOT / "ds_configs" / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| ([\d.]+) \| (\d+) \|$", text, re.M)
    assert {row[0] for row in rows} == set(config_names())
    for name, machine, gpu, host in rows:
        small, big = "SmolLM2" in machine, "70b" in name
        shape = PRESETS["smollm2" if small else "llama3-70b" if big else "llama3-8b"]
        gpus = 2 if small else int(re.findall(r"(\d+) x", machine)[0])
        needed = estimate(
            shape,
            read_ds_config(name),
            gpus=gpus,
            micro_batch_size=4,
            sequence_length=2048,
            gradient_checkpointing=True,
            lora=LoraSettings() if small or name.endswith("lora") else None,
        )
        assert f"{needed.gpu_bytes / GIB:.1f}" == gpu, name
        assert f"{needed.at('train', 'host') / GIB:.0f}" == host, name
