"""DeepSpeed configs: those in ds_configs/, and what is refused."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from safemix.errors import SettingsError
from safemix.settings import Settings, parse_settings
from safemix.training import ds_config as module
from safemix.training.ds_config import (
    check_against_run,
    config_names,
    find_ds_config,
    load_ds_config,
    offloads,
    read_ds_config,
    zero_stage,
)

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    "zero1": (1, ()),
    "zero2": (2, ()),
    "zero3": (3, ()),
    "zero3_offload": (3, ("optimizer", "param")),
    "llama3_8b_full": (2, ()),
    "llama3_8b_lora": (2, ()),
    "llama3_70b_full": (3, ("optimizer",)),
    "llama3_70b_lora": (3, ()),
}
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"
)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_settings(**changes: object) -> Settings:
    tree = {"task": "builtin:task", "ratio": 0, "global_batch_size": 16, "micro_batch_size": 2}
    return parse_settings({**tree, **changes})


def write(tree: object, name: str = "mine.json") -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree), "utf-8")
    return str(path)


def changed(key: str, value: object, base: str = "zero2") -> dict[str, object]:
    config = copy.deepcopy(read_ds_config(base))
    inner = config
    *outer, last = key.split(".")
    for name in outer:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return config


def test_the_folder_holds_exactly_the_named_configs() -> None:
    assert {path.stem for path in (ROOT / "ds_configs").glob("*.json")} == set(CONFIGS)
    assert set(CONFIGS) <= set(config_names())


@needs_deepspeed
@pytest.mark.parametrize("name", CONFIGS)
def test_each_config_is_valid_and_leaves_the_run_to_the_settings(name: str) -> None:
    config = load_ds_config(name, run_settings(), world_size=2)
    assert (zero_stage(config), offloads(config)) == CONFIGS[name]
    for key in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        assert config[key] == "auto"
    assert config["gradient_clipping"] == config["bf16"]["enabled"] == "auto"
    assert config["fp16"]["enabled"] == "auto"
    assert not {"train_batch_size", "optimizer", "scheduler"} & set(config)


@needs_deepspeed
@pytest.mark.parametrize("name", CONFIGS)
def test_the_trainer_fills_every_auto(name: str, tmp_path: Path) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig
    from transformers import LlamaConfig, TrainingArguments
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    class Model:
        config = LlamaConfig(hidden_size=64, num_attention_heads=4)

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, bf16=True)
    filled = HfTrainerDeepSpeedConfig(copy.deepcopy(read_ds_config(name)))
    filled.trainer_config_process(arguments)
    filled.trainer_config_finalize(arguments, Model(), 10)
    assert '"auto"' not in json.dumps(filled.config)
    assert DeepSpeedConfig(filled.config).zero_optimization_stage == CONFIGS[name][0]


CONTRADICTIONS = [
    ("train_micro_batch_size_per_gpu", 4, {}, "micro_batch_size = 2"),
    ("gradient_accumulation_steps", 8, {}, "= 4"),
    ("train_batch_size", 32, {}, "global_batch_size = 16"),
    ("gradient_clipping", 0.5, {}, "max_grad_norm = 1.0"),
    ("fp16.enabled", True, {"precision": "bf16"}, 'precision = "bf16"'),
    ("bf16.enabled", True, {"precision": "fp32"}, 'precision = "fp32"'),
    ("bf16.enabled", False, {"precision": "bf16"}, 'precision = "bf16"'),
    ("optimizer.params.lr", 1e-3, {}, "learning_rate = 0.0002"),
    ("optimizer.params.weight_decay", 0.1, {}, "weight_decay = 0.0"),
    ("scheduler.params.warmup_max_lr", 1e-3, {}, "learning_rate = 0.0002"),
    ("scheduler.params.warmup_num_steps", 5, {}, "warmup_steps = 0"),
]


@pytest.mark.parametrize(("key", "value", "run", "ours"), CONTRADICTIONS)
def test_a_contradiction_names_file_key_both_values_and_the_mend(
    key: str, value: object, run: dict[str, object], ours: str
) -> None:
    path = write(changed(key, value))
    with pytest.raises(SettingsError) as caught:
        load_ds_config(path, run_settings(**run), world_size=2)
    message = str(caught.value)
    assert message.startswith(f"{path}: {key} = {json.dumps(value)} contradicts ")
    assert ours in message
    assert 'write "auto"' in message
    assert "\n" not in message


AGREEING = [
    ("train_micro_batch_size_per_gpu", 2),
    ("gradient_accumulation_steps", 4),
    ("train_batch_size", 16),
    ("train_batch_size", "auto"),
    ("gradient_clipping", 1),
    ("fp16.enabled", False),
    ("optimizer.params.lr", 2e-4),
    ("optimizer.params.lr", "auto"),
]


@pytest.mark.parametrize(("key", "value"), AGREEING)
def test_explicit_values_that_agree_are_taken(key: str, value: object) -> None:
    config = changed(key, value)
    check_against_run(config, run_settings(precision="bf16"), 2, "mine.json")


@pytest.mark.parametrize("key", ["bf16.enabled", "fp16.enabled"])
def test_an_open_precision_contradicts_nothing(key: str) -> None:
    check_against_run(changed(key, True), run_settings(), None, "mine.json")


CONFLICTS = [
    (
        {**changed("bf16.enabled", True), "fp16": {"enabled": True}},
        {},
        "bf16.enabled and fp16.enabled are both true",
    ),
    (read_ds_config("zero3"), {"lora": {"quantize": "nf4"}}, "lora.quantize"),
    (
        changed("zero_optimization.stage3_gather_16bit_weights_on_model_save", False, "zero3"),
        {},
        "stage3_gather_16bit_weights_on_model_save",
    ),
    (changed("data_efficiency.enabled", True), {}, "remove data_efficiency"),
    (changed("data_efficiency.data_sampling.enabled", True), {}, "remove data_efficiency"),
    (changed("tensor_parallel.autotp_size", 2), {}, "tensor_parallel.autotp_size = 2"),
    (changed("sequence_parallel_size", 4), {}, "sequence_parallel_size = 4"),
]


@pytest.mark.parametrize(("config", "run", "part"), CONFLICTS)
def test_settings_that_cannot_stand_together(
    config: dict[str, object], run: dict[str, object], part: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        check_against_run(config, run_settings(**run), 2, "mine.json")
    assert str(caught.value).startswith("mine.json: ")
    assert part in str(caught.value)


@pytest.mark.parametrize("run", [{"lora": {"quantize": "nf4"}}, {"lora": False}])
def test_zero2_takes_qlora_and_full_fine_tuning(run: dict[str, object]) -> None:
    check_against_run(read_ds_config("zero2"), run_settings(**run), 2, "mine.json")


BROKEN = [
    ('{\n  "bf16": {"enabled": "auto"},\n  oops\n}', "line 3: not valid JSON"),
    ('{"bf16": {}, "bf16": {}}', "key 'bf16' is given twice"),
    ("[1]", "expected a JSON object, found list"),
    ({"zero_optimisation": {}}, "unknown key 'zero_optimisation', did you mean 'zero_opt"),
    ({"xyz": 1}, "unknown key 'xyz', remove it"),
    ({"train_batch_size": "32"}, "train_batch_size = '32' is not a whole number"),
    ({"train_batch_size": True}, "train_batch_size = True is not a whole number"),
    ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps = 0"),
    ({"bf16": True}, "bf16 = True is not a JSON object"),
    ({"wall_clock_breakdown": "yes"}, "wall_clock_breakdown = 'yes' is not true or false"),
    ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage = 4: use 0, 1, 2 or 3"),
    ({"zero_optimization": {"stage": 3, "offload_param": True}}, "offload_param = True"),
    (
        {"zero_optimization": {"stage": 3, "offload_param": {"device": "gpu"}}},
        "offload_param.device = 'gpu': use none, cpu or nvme",
    ),
    (
        {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}},
        "offload_param needs stage 3 or above, stage is 2",
    ),
]


@pytest.mark.parametrize(("content", "part"), BROKEN)
def test_a_broken_file_is_named(content: object, part: str) -> None:
    path = write(content)
    with pytest.raises(SettingsError) as caught:
        read_ds_config(path)
    assert str(caught.value).startswith(path)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_deepspeed
@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("zero_optimization.reduce_bucket_sise", 5, "reduce_bucket_sise"),
        ("zero_optimization.overlap_comm", "maybe", "overlap_comm = 'maybe'"),
        ("zero_optimization.reduce_bucket_size", -1, "reduce_bucket_size = -1"),
    ],
)
def test_deepspeed_judges_the_inner_keys(key: str, value: object, part: str) -> None:
    path = write(changed(key, value))
    with pytest.raises(SettingsError) as caught:
        load_ds_config(path)
    assert str(caught.value).startswith(f"{path}: DeepSpeed refuses it: ")
    assert part in str(caught.value)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"did you mean 'zero2'.*llama3_70b_full.*zero3_off"):
        find_ds_config("zero_2")
    with pytest.raises(SettingsError, match=r"absent\.json: no such file"):
        find_ds_config("absent.json")


def test_without_deepspeed_only_a_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda n, *a: None if n == "deepspeed" else real(n, *a)
    )
    assert zero_stage(load_ds_config("zero2")) == 2
    with pytest.raises(SettingsError, match=r"pip install 'safemix\[deepspeed\]'"):
        load_ds_config("zero2", run_settings())


@pytest.mark.parametrize("place", ["data", "target", "here"])
def test_configs_are_found_without_a_checkout(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, data = tmp_path / "site", tmp_path / "prefix"
    monkeypatch.setattr(module, "__file__", str(site / "safemix" / "training" / "ds_config.py"))
    monkeypatch.setattr(module.sysconfig, "get_path", lambda *_, **__: str(data))
    assert config_names() == ()
    share = Path("share", "safemix", "ds_configs")
    folder = {"data": data / share, "target": site / share, "here": Path("ds_configs")}[place]
    write({"zero_optimization": {"stage": 1}}, str(folder / "own.json"))
    assert config_names() == ("own",)
    assert zero_stage(read_ds_config("own")) == 1


def test_reading_a_config_imports_neither_torch_nor_deepspeed() -> None:
    code = (
        "import sys; from safemix.training.ds_config import read_ds_config as r; r('zero3');"
        "sys.exit(bool({'torch', 'deepspeed', 'transformers'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
