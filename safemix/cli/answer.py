"""`safemix answer`: safety rows or look-alikes with answers of the model's own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from safemix.cli.fields import SOURCE_HELP, source_option
from safemix.errors import SettingsError

if TYPE_CHECKING:
    from safemix.evaluate.own_answers import OwnAnswers, RowKind
    from safemix.rows.schema import Message
    from safemix.settings import SourceSettings

_WORK: Final = ".answers"


@dataclass(frozen=True)
class _Job:
    model: str
    kind: RowKind
    source: SourceSettings
    out: Path
    overwrite: bool
    max_new_tokens: int
    batch_size: int
    backend: str
    device: str


def answer_command(
    *,
    model: Annotated[str, typer.Option(help="The model before fine-tuning: a folder or Hub id.")],
    out: Annotated[Path, typer.Option(help="JSONL file to write.")],
    safety: Annotated[
        str | None, typer.Option(help=f"Rows whose answers refuse: {SOURCE_HELP}.")
    ] = None,
    lookalikes: Annotated[
        str | None, typer.Option(help=f"Or harmless rows that look unsafe: {SOURCE_HELP}.")
    ] = None,
    fields: Annotated[list[str] | None, typer.Option(help="Field map: JSON or key=column.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")
    ] = 128,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Rows answered at a time, on each rank.")
    ] = 16,
    backend: Annotated[str, typer.Option(help="hf or vllm.")] = "hf",
    device: Annotated[str, typer.Option(help="auto or cpu.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
) -> None:
    """Put the model's own refusals, or its own helpful answers, in place of the rows' answers."""
    from safemix.cli.eval_models import check_backend
    from safemix.training.process import guarded, quieten, world_size

    if (safety is None) == (lookalikes is None):
        raise SettingsError("give --safety or --lookalikes, one of them: their answers differ")
    check_backend(backend, device)
    kind: RowKind = "lookalikes" if safety is None else "safety"
    source = source_option(kind, safety or lookalikes or "", fields, "--fields")
    job = _Job(model, kind, source, out, overwrite, max_new_tokens, batch_size, backend, device)
    quieten()
    if world_size() == 1:
        _answer(job)
    else:
        guarded(lambda: _answer(job), debug=False)


def _answer(job: _Job) -> None:
    from safemix.cli.eval_models import start_ranks, within_memory
    from safemix.evaluate.loading_models import find_model
    from safemix.evaluate.suite_leader import on_leader, rank
    from safemix.mitigation.mimic.output import check_out
    from safemix.mitigation.rewrite import each_row
    from safemix.rows.read import read_source
    from safemix.tracking.lines import Lines
    from safemix.training.ask_rows import Asking, answer_rows

    start_ranks(job.device)
    inputs = [Path(job.source.file).expanduser()] if job.source.file else []
    # On rank 0: another machine may not have the folder.
    on_leader(lambda: check_out(job.out, inputs, job.overwrite))
    # Read before a model is loaded: a mistake in it shows at once.
    rows: list[list[Message]] = on_leader(
        lambda: [list(row) for row in each_row(read_source(job.kind, job.source))]
    )
    how = Asking(job.max_new_tokens, job.batch_size, job.backend, job.device)
    tell = Lines(job.model, enabled=rank() == 0)
    with within_memory(job.backend, job.batch_size):
        made = answer_rows(find_model(job.model), {job.kind: rows}, how, _work(job.out), tell)
    found = made[job.kind]
    on_leader(lambda: _write(job, found))
    if rank() == 0:
        for line in [*found.lines(), f"written: {job.out}"]:
            typer.echo(line)


def _write(job: _Job, found: OwnAnswers) -> None:
    from safemix.training.ask_rows import write_rows

    write_rows(job.out, found)
    # What was asked is needed no more, and some of it complied with a harmful request.
    shutil.rmtree(_work(job.out), ignore_errors=True)


def _work(out: Path) -> Path:
    """Where answers are kept until the file is whole, so that the same command goes on."""
    return out.with_name(out.name + _WORK)
