"""DeepSpeed configs: found by name, read, validated, and held against the run's settings."""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safemix.errors import SettingsError
from safemix.settings import LoraSettings, Settings, accumulation_steps

AUTO = "auto"

# What DeepSpeed 0.18 and 0.19 read at the top level. It ignores any other key without a word.
_COUNTS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
# fmt: off
_SECTIONS = (
    "zero_optimization", "bf16", "bfloat16", "fp16", "optimizer", "scheduler", "torch_autocast",
    "data_types", "activation_checkpointing", "comms_logger", "tensorboard", "wandb",
    "csv_monitor", "comet", "flops_profiler", "autotuning", "aio", "checkpoint", "writer",
    "data_efficiency", "pipeline", "hybrid_engine", "compile", "timers", "tensor_parallel",
    "expert_parallel", "weight_quantization", "datastates_ckpt", "model_info",
)
_FLAGS = (
    "wall_clock_breakdown", "memory_breakdown", "dump_state", "disable_allgather",
    "disable_python_gc", "prescale_gradients", "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer", "managed_gradient_accumulation", "dataloader_drop_last",
    "use_data_before_expert_parallelism",
)
_OTHERS = (
    "gradient_clipping", "gradient_predivide_factor", "gradient_allreduce_op",
    "steps_per_print", "communication_data_type", "seq_parallel_communication_data_type",
    "sequence_parallel_size", "vocabulary_size", "log_level",
)
# fmt: on
TOP_LEVEL_KEYS = (*_COUNTS, *_SECTIONS, *_FLAGS, *_OTHERS)


def config_folders() -> tuple[Path, ...]:
    """Where a config name is looked for: here, in the checkout, in the installed data."""
    above = Path(__file__).resolve().parents[2]
    share = Path("share", "safemix", "ds_configs")
    schemes = [sysconfig.get_path("data")]
    user = f"{os.name}_user"
    if user in sysconfig.get_scheme_names():
        schemes.append(sysconfig.get_path("data", scheme=user))
    # `pip install --target` puts the data beside the package, hence `above / share`.
    return (
        Path("ds_configs"),
        above / "ds_configs",
        above / share,
        *(Path(data) / share for data in schemes),
    )


def config_names() -> tuple[str, ...]:
    """All names that `load_ds_config` knows."""
    found = {path.stem for folder in config_folders() for path in folder.glob("*.json")}
    return tuple(sorted(found))


def find_ds_config(name_or_path: str) -> Path:
    """The file of a name in ds_configs/, or the path itself.

    Raises:
        SettingsError: if there is no such name or file; lists the names there are.
    """
    path = Path(name_or_path)
    if path.suffix == ".json" or len(path.parts) > 1:
        if not path.is_file():
            raise SettingsError(f"ds_config {name_or_path}: no such file")
        return path
    for folder in config_folders():
        candidate = folder / f"{name_or_path}.json"
        if candidate.is_file():
            return candidate
    names = config_names()
    near = difflib.get_close_matches(name_or_path, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise SettingsError(
        f"ds_config {name_or_path!r} is unknown{hint}: use one of {', '.join(names) or '(none)'} "
        "or the path of a .json file"
    )


def read_ds_config(name_or_path: str) -> dict[str, Any]:
    """Read a config and check its keys and types. Imports neither torch nor deepspeed.

    Raises:
        SettingsError: one line with the file, the key or line, and the mend.
    """
    path = find_ds_config(name_or_path)
    try:
        config = json.loads(path.read_text("utf-8"), object_pairs_hook=_no_duplicates)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path} line {error.lineno}: not valid JSON: {error.msg}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from None
    except _DuplicateKeyError as error:
        raise SettingsError(f"{path}: key {error} is given twice: keep one") from None
    if not isinstance(config, dict):
        raise SettingsError(f"{path}: expected a JSON object, found {type(config).__name__}")
    for key, value in config.items():
        _check_key(path, key, value)
    _check_zero(path, config)
    return config


class _DuplicateKeyError(Exception):
    """A key that stands twice in one JSON object."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise _DuplicateKeyError(repr(key))
        seen[key] = value
    return seen


def _check_key(path: Path, key: str, value: Any) -> None:
    if key not in TOP_LEVEL_KEYS:
        near = difflib.get_close_matches(key, TOP_LEVEL_KEYS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "remove it"
        raise SettingsError(f"{path}: unknown key {key!r}, {hint}")
    if value == AUTO:
        return
    whole = isinstance(value, int) and not isinstance(value, bool)
    if key in _COUNTS and not (whole and value > 0):
        raise SettingsError(f'{path}: {key} = {value!r} is not a whole number above 0 or "auto"')
    if key in _SECTIONS and not isinstance(value, dict):
        raise SettingsError(f"{path}: {key} = {value!r} is not a JSON object of settings")
    if key in _FLAGS and not isinstance(value, bool):
        raise SettingsError(f"{path}: {key} = {value!r} is not true or false")


def _check_zero(path: Path, config: Mapping[str, Any]) -> None:
    zero = _section(config, "zero_optimization")
    stage = zero.get("stage", 0)
    if isinstance(stage, bool) or stage not in (0, 1, 2, 3):
        raise SettingsError(f"{path}: zero_optimization.stage = {stage!r}: use 0, 1, 2 or 3")
    for part, lowest in (("offload_optimizer", 1), ("offload_param", 3)):
        section = zero.get(part)
        if section is not None and not isinstance(section, dict):
            raise SettingsError(f"{path}: zero_optimization.{part} = {section!r} is not an object")
        device = (section or {}).get("device", "none")
        if device not in ("none", "cpu", "nvme"):
            raise SettingsError(
                f"{path}: zero_optimization.{part}.device = {device!r}: use none, cpu or nvme"
            )
        if device != "none" and stage < lowest:
            raise SettingsError(
                f"{path}: zero_optimization.{part} needs stage {lowest} or above, stage is {stage}"
            )


def zero_stage(config: Mapping[str, Any] | None) -> int:
    """The ZeRO stage of a config: 0 to 3."""
    return int(_section(config or {}, "zero_optimization").get("stage", 0))


def offloads(config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What a config keeps off the GPU: any of `optimizer` and `param`."""
    zero = _section(config or {}, "zero_optimization")
    parts = ("optimizer", "param")
    return tuple(p for p in parts if _section(zero, f"offload_{p}").get("device", "none") != "none")


def load_ds_config(
    name_or_path: str, settings: Settings | None = None, world_size: int | None = None
) -> dict[str, Any]:
    """Read a config, validate it, and check that it does not contradict the run.

    Args:
        name_or_path: a name in ds_configs/, or the path of a JSON file.
        settings: the run; if given, DeepSpeed must be installed. A precision of `auto` is not
            checked: pass the settings with the precision that was chosen.
        world_size: data-parallel ranks, for the accumulation steps; unknown if None.

    Raises:
        SettingsError: one line naming the file, the key, the value and the mend.
    """
    config = read_ds_config(name_or_path)
    path = find_ds_config(name_or_path)
    if settings is not None:
        check_against_run(config, settings, world_size, str(path))
        require_deepspeed(f"ds_config {name_or_path}")
    if importlib.util.find_spec("deepspeed") is not None:
        validate_with_deepspeed(config, str(path))
    return config


def require_deepspeed(what: str) -> None:
    """Stop if DeepSpeed is not installed.

    Raises:
        SettingsError: saying what needs it and how to install it.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise SettingsError(
            f"{what} needs DeepSpeed, which is not installed: pip install 'safemix[deepspeed]', "
            "or set ds_config: null"
        )


def validate_with_deepspeed(config: Mapping[str, Any], origin: str) -> None:
    """Let DeepSpeed's own config classes judge a config, with `auto` values left out.

    Raises:
        SettingsError: with DeepSpeed's reason.
    """
    from deepspeed.runtime.config import DeepSpeedConfig  # optional and slow

    judged = _without_auto(config)
    # The batch sizes are checked against the run; DeepSpeed would hold them against a world
    # size that it knows only inside the launched job.
    judged = {key: value for key, value in judged.items() if key not in _COUNTS}
    judged["train_micro_batch_size_per_gpu"] = 1
    try:
        DeepSpeedConfig(judged)
    except Exception as error:  # DeepSpeed raises asserts, ValueErrors and its own errors alike
        raise SettingsError(f"{origin}: DeepSpeed refuses it: {_one_line(error)}") from None


def _without_auto(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_auto(v) for k, v in value.items() if v != AUTO}
    return value


def _one_line(error: Exception) -> str:
    """The key and the reason of a pydantic error, or the first line of any other."""
    if hasattr(error, "errors"):
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        return f"{key} = {first.get('input')!r}: {first['msg']}"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def check_against_run(
    config: Mapping[str, Any], settings: Settings, world_size: int | None, origin: str
) -> None:
    """Stop at the first value of a config that contradicts the run's settings.

    Raises:
        SettingsError: naming the file, the key, both values and the mend.
    """
    for key, theirs, name, ours in _expected(config, settings, world_size):
        if theirs is not None and theirs != AUTO and not _same(theirs, ours):
            raise SettingsError(
                f"{origin}: {key} = {json.dumps(theirs)} contradicts {name} = {json.dumps(ours)}: "
                'write "auto" in the file or change the setting'
            )
    for wrong, reason in _conflicts(config, settings):
        if wrong:
            raise SettingsError(f"{origin}: {reason}")


def _same(theirs: Any, ours: Any) -> bool:
    numbers = (int, float)
    if isinstance(theirs, numbers) and isinstance(ours, numbers):
        return abs(theirs - ours) <= 1e-9 * max(abs(theirs), abs(ours))
    return bool(theirs == ours)


def _section(config: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """A nested object, or an empty one where there is none."""
    for key in keys:
        inner = config.get(key)
        config = inner if isinstance(inner, Mapping) else {}
    return config


def _expected(
    config: Mapping[str, Any], run: Settings, world_size: int | None
) -> Iterator[tuple[str, Any, str, Any]]:
    """Pairs that must agree: (key of the config, its value, name of the setting, its value)."""
    micro = ("train_micro_batch_size_per_gpu", "micro_batch_size", run.micro_batch_size)
    total = ("train_batch_size", "global_batch_size", run.global_batch_size)
    clip = ("gradient_clipping", "max_grad_norm", run.max_grad_norm)
    for key, name, ours in (micro, total, clip):
        yield key, config.get(key), name, ours
    if world_size is not None:
        key = "gradient_accumulation_steps"
        name = f"global_batch_size / (micro_batch_size x {world_size} processes)"
        yield key, config.get(key), name, accumulation_steps(run, world_size)
    if run.precision != AUTO:
        for kind in ("bf16", "fp16"):
            theirs = _section(config, kind).get("enabled")
            if theirs is False and run.precision != kind:
                continue
            if theirs not in (None, AUTO, run.precision == kind):
                yield f"{kind}.enabled", theirs, "precision", run.precision
    optimizer = _section(config, "optimizer", "params")
    yield "optimizer.params.lr", optimizer.get("lr"), "learning_rate", run.learning_rate
    decay = optimizer.get("weight_decay")
    yield "optimizer.params.weight_decay", decay, "weight_decay", run.weight_decay
    scheduler = _section(config, "scheduler", "params")
    peak, warmup = scheduler.get("warmup_max_lr"), scheduler.get("warmup_num_steps")
    yield "scheduler.params.warmup_max_lr", peak, "learning_rate", run.learning_rate
    yield "scheduler.params.warmup_num_steps", warmup, "warmup_steps", run.warmup_steps


def _conflicts(config: Mapping[str, Any], run: Settings) -> Iterator[tuple[bool, str]]:
    """Settings that cannot stand together: (whether they do, what to say)."""
    both = all(_section(config, kind).get("enabled") is True for kind in ("bf16", "fp16"))
    yield both, 'bf16.enabled and fp16.enabled are both true: write "auto" for both'

    stage, zero = zero_stage(config), _section(config, "zero_optimization")
    quantized = isinstance(run.lora, LoraSettings) and run.lora.quantize != "none"
    yield (
        stage == 3 and quantized,
        "zero_optimization.stage = 3 cannot split the 4-bit weights of lora.quantize = nf4: "
        "use ds_config zero2, or lora.quantize: none",
    )
    gathers = zero.get("stage3_gather_16bit_weights_on_model_save") is True
    yield (
        stage == 3 and not gathers,
        "zero_optimization.stage3_gather_16bit_weights_on_model_save is not true: under stage 3 "
        "no model or adapter could be saved; set it to true",
    )
    choosing = _section(config, "data_efficiency")
    yield (
        choosing.get("enabled") is True
        or _section(choosing, "data_sampling").get("enabled") is True,
        "data_efficiency.enabled = true lets DeepSpeed choose the rows, which the plan does: "
        "remove data_efficiency",
    )
    splits = {
        "tensor_parallel.autotp_size": _section(config, "tensor_parallel").get("autotp_size", 1),
        "sequence_parallel_size": config.get("sequence_parallel_size", 1),
    }
    for key, size in splits.items():
        yield (
            size not in (0, 1, AUTO),
            f"{key} = {size}: safemix deals rows to data-parallel ranks only; remove it",
        )
