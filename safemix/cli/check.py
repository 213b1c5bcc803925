"""`safemix check`: is a settings file valid, and what does it come to?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from safemix.settings import EvaluationSettings


def check(
    config: Annotated[Path, typer.Option("--config", "-c", help="Settings file (YAML).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides: key=value or a.b=value.")
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; also works out the gradient accumulation."),
    ] = None,
) -> None:
    """Validate a settings file and its DeepSpeed config, and print the resolved settings."""
    import yaml  # keeps `safemix --help` quick

    from safemix.mitigation.companions import share_note
    from safemix.rows.pools import describe_pool
    from safemix.settings import accumulation_steps, load_settings
    from safemix.training.ds_config import (
        check_against_run,
        find_ds_config,
        read_ds_config,
    )

    settings = load_settings(config, overrides or [])
    if settings.ds_config is not None:
        ds_config = read_ds_config(settings.ds_config)
        check_against_run(ds_config, settings, gpus, str(find_ds_config(settings.ds_config)))
    _check_evaluation(settings.evaluation)
    for spec in (settings.task, settings.safety, *settings.sources.values()):
        if spec is not None and spec.pool is not None:
            # Its licence is to be read before the pool is fetched.
            typer.echo("".join(f"# {line}\n" for line in describe_pool(spec.pool).splitlines()))
    tree = settings.model_dump(mode="json")
    typer.echo(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).rstrip())
    for line in share_note(settings):
        typer.echo(f"# {settings.mitigation.name}: {line}")
    if gpus is not None:
        steps = accumulation_steps(settings, gpus)
        typer.echo(f"# gradient accumulation with {gpus} processes: {steps}")


def _check_evaluation(evaluation: EvaluationSettings) -> None:
    """The prompt sets and the judge that the run would use; nothing is fetched or loaded."""
    from safemix.evaluate.judges import read_judge
    from safemix.evaluate.prompt_sets import check_prompt_set

    if evaluation.probes or evaluation.eval_every:
        for spec in evaluation.harmful:
            check_prompt_set(spec, "safety")
        for spec in evaluation.lookalikes:
            check_prompt_set(spec, "over_refusal")
    if evaluation.eval_every:
        read_judge(evaluation.judge)
