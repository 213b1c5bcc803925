"""`safemix tune`: search for the mixing ratio with Ray Tune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from safemix.errors import SettingsError

# As the release gate of `safemix eval`: it ran, and the answer is no.
NONE_WITHIN: Final = 3
INTERRUPTED: Final = 130


def tune_command(
    *,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Settings file of the sweep (YAML).")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder of a sweep to go on with; trials that ended are not run again."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", help="A key of the sweep, as KEY=VALUE; may be repeated."),
    ] = None,
) -> None:
    """Find the ratio of highest utility whose safety rate is within the bound.

    Writes trials.csv, front.png, report.html and best.yaml, a run file for the deepspeed launcher,
    into the sweep's output_dir. Exit code 0: a ratio is recommended. 3: none is within the bound.
    2: a mistake in what was given. 130: interrupted; the report holds what is there.
    """
    from rich.console import Console

    from safemix.tuning.report.summary import summary
    from safemix.tuning.settings import load_sweep
    from safemix.tuning.tune import resumed, tune

    overrides = override or []
    if resume is not None:
        settings = resumed(resume, config, overrides)
    elif config is not None:
        settings = load_sweep(config, overrides)
    else:
        raise SettingsError("give --config FILE, or --resume DIR to go on with a sweep")
    made, whole, records = tune(settings, resume=resume is not None)
    console = Console()
    console.print(summary(records, made.record, made.why))
    console.print(f"report: {Path(settings.output_dir) / 'report.html'}", soft_wrap=True)
    if not whole:
        console.print(f"interrupted; go on with: safemix tune --resume {settings.output_dir}")
        raise typer.Exit(INTERRUPTED)
    if made.record is None:
        raise typer.Exit(NONE_WITHIN)
