"""`safemix eval`: is a model still safe, is it still good, and may it be released?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from safemix.cli.fields import json_object
from safemix.errors import SettingsError

_SET: Final = "builtin, a public set's name, FILE, FILE:COLUMN or NAME=FILE; may be repeated"


def eval_command(
    *,
    model: Annotated[
        str, typer.Option(help="A run's folder, a model's or adapter's folder, a Hub id.")
    ],
    against: Annotated[
        str | None,
        typer.Option(help="base (what the model was tuned from), a model, or an earlier --out."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML with what is asked; options win.")
    ] = None,
    harmful: Annotated[list[str] | None, typer.Option(help=f"Harmful prompts: {_SET}.")] = None,
    lookalikes: Annotated[
        list[str] | None, typer.Option(help=f"Benign prompts that look harmful: {_SET}.")
    ] = None,
    dress: Annotated[
        list[str] | None,
        typer.Option(help="plain, styled (like --task), aoa, autoif, autoif+aoa; repeatable."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Held-out task rows, for utility and for styled.")
    ] = None,
    task_name: Annotated[
        str | None, typer.Option("--task-name", help="Task of these records, such as piqa.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="How these records are asked: benign, autoif+aoa, ...")
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="AOA answers open by confirming, as in training.")
    ] = False,
    task_limit: Annotated[
        int | None, typer.Option("--task-limit", min=1, help="Task rows measured.")
    ] = None,
    lm_eval: Annotated[
        list[str] | None, typer.Option("--lm-eval", help="A task of lm-eval; may be repeated.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt of the dress plain.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Prompts of each set.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="refusal, harmbench, llama_guard, llm, or JSON with options.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer. [128]")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0, the default, is greedy.")
    ] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Of sampling. [1]")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Answers to a prompt. [1]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of samples and sampling. [0]")] = None,
    max_asr_rise: Annotated[
        float | None, typer.Option("--max-asr-rise", help="Gate: 0.01 is one point.")
    ] = None,
    max_utility_drop: Annotated[
        float | None, typer.Option("--max-utility-drop", help="Gate: of the right answers.")
    ] = None,
    max_over_refusal_rise: Annotated[
        float | None, typer.Option("--max-over-refusal-rise", help="Gate: look-alikes refused.")
    ] = None,
    max_incoherent_rise: Annotated[
        float | None,
        typer.Option("--max-incoherent-rise", help="Gate: part of every one. [0.05]"),
    ] = None,
    max_incoherent: Annotated[
        float | None,
        typer.Option("--max-incoherent", help="Gate: share, whatever the base's is. [0.5]"),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            help="Gate: the interval's upper end must be within the bounds, not the point."
        ),
    ] = None,
    backend: Annotated[str, typer.Option(help="What generates: hf or vllm.")] = "hf",
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Prompts at a time, on each process.")
    ] = 16,
    device: Annotated[str, typer.Option(help="auto or cpu.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder of the results.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start --out anew.")] = False,
    show_harmful: Annotated[
        bool, typer.Option("--show-harmful", help="Write harmful completions into the results.")
    ] = False,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="Log rates and completions to W&B.")
    ] = False,
) -> None:
    """Measure safety, over-refusal, coherence and utility of a model, and compare it.

    Exit code 0: done, and the gate passed if bounds were given. 3: the gate failed. 2: a mistake
    in what was given. 1: anything else, such as answers that no judge could be asked about.
    Started by torchrun or deepspeed all processes generate; the launcher then gives an exit code
    of its own, and eval.json says whether the gate passed.
    """
    from safemix.cli.eval_run import EvalJob, evaluate  # quick `safemix --help`
    from safemix.evaluate.gate import GateRule

    asked: dict[str, Any] = {
        "harmful": harmful,
        "lookalikes": lookalikes,
        "dress": dress,
        "task": _task(task, task_name, strategy, confirm, task_limit),
        "lm_eval": lm_eval,
        "system": system,
        "limit": limit,
        "judge": json_object("--judge", judge) if judge and judge.startswith("{") else judge,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "samples": samples,
        "seed": seed,
    }
    rule = GateRule(
        max_asr_rise=max_asr_rise,
        max_utility_drop=max_utility_drop,
        max_over_refusal_rise=max_over_refusal_rise,
        max_incoherent_rise=max_incoherent_rise,
        max_incoherent=max_incoherent,
        confidence=confidence,
    )
    job = EvalJob(
        model=model,
        against=against,
        settings=_settings(config, {k: v for k, v in asked.items() if v is not None}),
        rule=rule,
        backend=backend,
        batch_size=batch_size,
        device=device,
        out=out,
        overwrite=overwrite,
        show_harmful=show_harmful,
        wandb=wandb,
    )
    code = evaluate(job)
    if code:
        raise typer.Exit(code)


def _task(
    file: str | None, name: str | None, strategy: str | None, confirm: bool, limit: int | None
) -> dict[str, Any] | None:
    given = {"name": name, "strategy": strategy, "confirm": confirm or None, "limit": limit}
    given = {key: value for key, value in given.items() if value is not None}
    if file is None:
        if given:
            option = {"name": "--task-name", "limit": "--task-limit"}
            first = next(iter(given))
            raise SettingsError(f"{option.get(first, f'--{first}')} is for --task: give it too")
        return None
    return {"file": file, **given}


def _settings(config: Path | None, asked: dict[str, Any]) -> Any:
    from safemix.evaluate.plan import parse_evaluation, read_evaluation_file

    tree = read_evaluation_file(config) if config is not None else {}
    return parse_evaluation({**tree, **asked}, str(config or "safemix eval"))
