"""`safemix estimate`: what memory a run needs, whether it fits, and what would make it fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safemix.errors import SettingsError

if TYPE_CHECKING:
    from safemix.training.memory import Job, MemoryEstimate
    from safemix.training.memory_advice import Advice

DOES_NOT_FIT = 3
GIB = 2**30


def _count(name: str, text: str = "") -> Any:
    return typer.Option(f"--{name}", min=1, help=text)


def estimate(
    *,
    model: Annotated[
        str, typer.Option(help="llama3-8b, llama3-70b, smollm2, tiny, a folder or a Hub id.")
    ],
    ds_config: Annotated[
        str, typer.Option("--ds_config", help="Name in ds_configs/, a path, or none.")
    ] = "zero2",
    gpus: Annotated[int, _count("gpus")] = 1,
    gpus_per_node: Annotated[int, _count("gpus_per_node")] = 8,
    gpu_memory: Annotated[
        float, typer.Option("--gpu_memory", min=0, help="GiB of one GPU.")
    ] = 80.0,
    host_memory: Annotated[
        float | None,
        typer.Option("--host_memory", min=0, help="GiB of a host; unset: any."),
    ] = None,
    micro_batch_size: Annotated[int, _count("micro_batch_size")] = 4,
    sequence_length: Annotated[int, _count("sequence_length", "Tokens of a row.")] = 1024,
    lora: Annotated[
        bool | None,
        typer.Option("--lora/--no-lora", help="Unset: on, but off if ds_config ends in _full."),
    ] = None,
    lora_r: Annotated[int, _count("lora_r")] = 16,
    quantize: Annotated[str, typer.Option(help="none, or nf4 for QLoRA.")] = "none",
    precision: Annotated[str, typer.Option(help="bf16, fp16 or fp32.")] = "bf16",
    attention: Annotated[str, typer.Option(help="flash, sdpa or eager.")] = "sdpa",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient_checkpointing/--no_gradient_checkpointing")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Estimate the memory of a GPU and of a host; exit code 3 if the run cannot fit."""
    from safemix.training.memory import estimate_job  # quick `safemix --help`
    from safemix.training.memory_advice import cheapest_fit, fits

    adapters = not ds_config.removesuffix(".json").endswith("_full") if lora is None else lora
    job = _job(
        model,
        ds_config,
        lora={"r": lora_r, "quantize": quantize} if adapters else None,
        gpus=gpus,
        gpus_per_node=gpus_per_node,
        micro_batch_size=micro_batch_size,
        sequence_length=sequence_length,
        precision=precision,
        attention=attention,
        gradient_checkpointing=gradient_checkpointing,
    )
    if quantize == "nf4" and (job.stage == 3 or not adapters):
        raise SettingsError("--quantize nf4 needs --lora and a ds_config below ZeRO stage 3")
    needed = estimate_job(job)
    gpu_limit = int(gpu_memory * GIB)
    host_limit = None if host_memory is None else int(host_memory * GIB)
    fit = fits(needed, gpu_limit, host_limit)
    advice = None if fit else cheapest_fit(job, gpu_limit, host_limit)
    if as_json:
        typer.echo(
            json.dumps(_as_dict(job, needed, (gpu_limit, host_limit), fit, advice), indent=2)
        )
    else:
        _print_table(job, needed, ds_config)
        typer.echo(_verdict(needed, fit, gpu_limit, host_limit, advice))
    if not fit:
        raise typer.Exit(DOES_NOT_FIT)


def _job(model: str, ds_config: str, lora: dict[str, Any] | None, **options: Any) -> Job:
    from safemix.settings import LoraSettings
    from safemix.training.ds_config import read_ds_config
    from safemix.training.memory import Job, find_shape

    _one_of("quantize", (lora or {}).get("quantize", "none"), ("none", "nf4"))
    _one_of("precision", options["precision"], ("bf16", "fp16", "fp32"))
    _one_of("attention", options["attention"], ("flash", "sdpa", "eager"))
    config = None if ds_config in ("none", "null") else read_ds_config(ds_config)
    adapters = LoraSettings(**lora) if lora is not None else None
    return Job(find_shape(model), config, lora=adapters, **options)


def _one_of(option: str, value: str, legal: tuple[str, ...]) -> None:
    if value not in legal:
        raise SettingsError(f"--{option} {value!r}: use one of {', '.join(legal)}")


def _gib(count: int) -> str:
    """GiB in three significant digits or so: small parts must not read as nothing."""
    size = count / GIB
    return f"{size:.1f}" if size >= 10 else f"{size:.2f}" if size >= 0.01 else f"{size:.4f}"


def _print_table(job: Job, needed: MemoryEstimate, ds_config: str) -> None:
    from rich.console import Console
    from rich.table import Table

    how = f"LoRA r={job.lora.r}" if job.lora else "full fine-tuning"
    table = Table(
        title=f"{job.shape.name}, {how}, {ds_config}, {job.gpus} GPUs, "
        f"{job.micro_batch_size} x {job.sequence_length} tokens, {job.precision}"
        + (", gradient checkpointing" if job.gradient_checkpointing else ""),
        caption=f"{needed.parameters:,} parameters, {needed.trained:,} trained. A GPU's total is "
        f"its need at the {needed.peak_phase} of a step; a part in brackets is not held then.",
    )
    table.add_column("where")
    table.add_column("part")
    table.add_column("GiB", justify="right")
    table.add_column("formula")
    peak = needed.peak_phase
    host = "load" if needed.at("load", "host") > needed.at("train", "host") else "train"
    for where, phase, total in (
        ("gpu", peak, needed.gpu_bytes),
        ("host", host, needed.host_bytes),
    ):
        for part in needed.parts:
            if part.where == where:
                size = _gib(part.bytes)
                held = phase in part.phases
                table.add_row(where, part.name, size if held else f"({size})", part.formula)
        name = "total" if where == "gpu" else f"total while {host}ing"
        table.add_row(where, f"[bold]{name}[/]", f"[bold]{_gib(total)}[/]", "", end_section=True)
    Console().print(table)


def _verdict(
    needed: MemoryEstimate, fit: bool, gpu: int, host: int | None, advice: Advice | None
) -> str:
    size = f"{gpu / GIB:g} GiB"
    if fit:
        return f"fits in {size}: a GPU needs {_gib(needed.gpu_bytes)} GiB"
    if needed.gpu_bytes > gpu:
        text = f"does not fit in {size}: a GPU needs {_gib(needed.gpu_bytes)} GiB"
    else:
        limit = f"{(host or 0) / GIB:g} GiB"
        text = f"does not fit: a host needs {_gib(needed.host_bytes)} GiB and has {limit}"
    if advice is None:
        return f"{text}. No change that was tried makes it fit"
    changes = " and ".join(advice.changes)
    there = f"{_gib(advice.estimate.gpu_bytes)} GiB a GPU"
    if advice.estimate.host_bytes > needed.host_bytes:
        there += f", {_gib(advice.estimate.host_bytes)} GiB a host"
    return f"{text}. Cheapest change that fits: {changes} ({there})"


def _as_dict(
    job: Job,
    needed: MemoryEstimate,
    limits: tuple[int, int | None],
    fit: bool,
    advice: Advice | None,
) -> dict[str, Any]:
    return {
        "model": job.shape.name,
        "gpus": job.gpus,
        "zero_stage": job.stage,
        "lora": job.lora is not None,
        "micro_batch_size": job.micro_batch_size,
        "sequence_length": job.sequence_length,
        "gradient_checkpointing": job.gradient_checkpointing,
        "parameters": needed.parameters,
        "trained": needed.trained,
        "fits": fit,
        "gpu_bytes": needed.gpu_bytes,
        "gpu_memory_bytes": limits[0],
        "host_bytes": needed.host_bytes,
        "host_memory_bytes": limits[1],
        "peak_phase": needed.peak_phase,
        "cheapest_change": None if advice is None else list(advice.changes),
        "gpu_bytes_with_change": None if advice is None else advice.estimate.gpu_bytes,
        "parts": [
            {
                "where": part.where,
                "name": part.name,
                "bytes": part.bytes,
                "phases": list(part.phases),
                "formula": part.formula,
            }
            for part in needed.parts
        ],
    }
