"""`safemix mimic`: safety rows rewritten so that they look like the task."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from safemix.cli.fields import SOURCE_HELP, source_option
from safemix.errors import SettingsError

if TYPE_CHECKING:
    from safemix.llm.options import LlmOptions
    from safemix.mitigation.mimic.pipeline import AnswerDesign, MimicOptions
    from safemix.mitigation.mimic.report import MimicReport, Outcome, SafetyRow
    from safemix.settings import SourceSettings
    from safemix.styles.style import Styles

DRY_ROWS: Final = 10


def mimic(
    *,
    task: Annotated[str, typer.Option(help=f"Task rows: {SOURCE_HELP}.")],
    safety: Annotated[str, typer.Option(help=f"Safety rows: {SOURCE_HELP}.")],
    out: Annotated[Path | None, typer.Option(help="JSONL file to write.")] = None,
    backend: Annotated[str, typer.Option(help="offline, openai or hf.")] = "offline",
    seed: Annotated[int, typer.Option(help="Equal seeds give equal rows.")] = 0,
    answer_design: Annotated[
        str,
        typer.Option(
            "--answer-design", help="Of tasks with options: text (the refusal), or option."
        ),
    ] = "text",
    on_failed: Annotated[
        str,
        typer.Option("--on-failed", help="A failed LLM text: offline (render it so) or reject."),
    ] = "offline",
    keep_non_refusals: Annotated[
        bool, typer.Option("--keep-non-refusals", help="Mimic answers too that do not refuse.")
    ] = False,
    task_fields: Annotated[
        list[str] | None, typer.Option("--task-fields", help="Field map: JSON or key=column.")
    ] = None,
    safety_fields: Annotated[
        list[str] | None, typer.Option("--safety-fields", help="Field map: JSON or key=column.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help=f"Show {DRY_ROWS} rows and write nothing.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    model: Annotated[str | None, typer.Option(help="Model of openai or hf.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="Server of openai.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option("--api-key-env", help="Variable that holds the server's key.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions at once.")] = 8,
    price_in: Annotated[
        float | None, typer.Option("--price-in", min=0, help="Of a million tokens read.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option("--price-out", min=0, help="Of a million tokens written.")
    ] = None,
    llm_cache: Annotated[
        Path | None, typer.Option("--llm-cache", help="Folder of the answers kept.")
    ] = None,
    similarity_model: Annotated[
        str | None,
        typer.Option("--similarity-model", help="Embedding model: meaning instead of words."),
    ] = None,
    min_similarity: Annotated[
        float, typer.Option("--min-similarity", help="Cosine of the same meaning.")
    ] = 0.8,
) -> None:
    """Rewrite safety rows so that they have the layout and style of the task rows."""
    if out is None and not dry_run:
        raise SettingsError("no --out: name the file to write, or give --dry-run")
    from safemix.mitigation.mimic.output import check_out  # quick `safemix --help`
    from safemix.mitigation.mimic.pipeline import MimicOptions
    from safemix.mitigation.mimic.source import safety_stream
    from safemix.rows.pools import describe_pool

    llm = _llm(
        backend,
        model=model,
        base_url=base_url,
        api_key_env=api_key_env,
        concurrency=concurrency,
        price_in=price_in,
        price_out=price_out,
        cache=llm_cache,
    )
    options = MimicOptions(
        backend=backend,  # type: ignore[arg-type]  # checked there, with the legal ones named
        seed=seed,
        answer_design=answer_design,  # type: ignore[arg-type]
        on_failed=on_failed,  # type: ignore[arg-type]
        keep_non_refusals=keep_non_refusals,
        llm=llm,
        similarity_model=similarity_model,
        min_similarity=min_similarity,
    )
    task_spec = source_option("task", task, task_fields)
    safety_spec = source_option("safety", safety, safety_fields)
    if out is not None and not dry_run:
        inputs = [Path(s.file).expanduser() for s in (task_spec, safety_spec) if s.file]
        check_out(out, inputs, overwrite)
    for spec in (task_spec, safety_spec):
        if spec.pool is not None:
            # Its licence is to be read before the pool is fetched.
            for line in describe_pool(spec.pool).splitlines():
                _tell(line)
    rows = safety_stream(safety_spec, seed)
    first = _first(rows, safety)
    styles = _styles(task_spec, task, seed, options.answer_design)
    if dry_run:
        _show(first, rows, styles, options)
    elif out is not None:
        _write(_chained(first, rows), styles, options, out, safety)


def _llm(backend: str, model: str | None, **how: Any) -> LlmOptions | None:
    """The model to ask. What is missing is said here, in the words of the command line."""
    from safemix.llm.options import LlmOptions

    if backend not in ("openai", "hf"):
        given = [f"--{n.replace('_', '-')}" for n in ("base_url", "api_key_env") if how[n]]
        if model is not None or given:
            name = "--model" if model is not None else given[0]
            raise SettingsError(f"{name} is for --backend openai or hf, not {backend}")
        return None
    if not model:
        raise SettingsError(f"--backend {backend} needs --model: the model to ask")
    key = how.pop("api_key_env") or "OPENAI_API_KEY"
    if backend == "hf" and how["base_url"]:
        raise SettingsError("--base-url is for --backend openai; hf runs the model here")
    if backend == "openai":
        _check_server(how["base_url"], key)
    return LlmOptions(model=model, backend=backend, api_key_env=key, **how)  # type: ignore[arg-type]


def _check_server(base_url: str | None, key: str) -> None:
    import os
    from urllib.parse import urlsplit

    if not (base_url or os.environ.get("OPENAI_BASE_URL") or os.environ.get(key)):
        raise SettingsError(
            f"--backend openai needs a server: give --base-url, or set {key} for OpenAI's own"
        )
    if base_url and urlsplit(base_url).scheme not in ("http", "https"):
        raise SettingsError(f"--base-url {base_url!r}: use a URL such as http://localhost:8000/v1")


def _first(rows: Iterator[SafetyRow], where: str) -> SafetyRow:
    """The first row: so that a file that cannot be read is found before any work."""
    from safemix.errors import DataError

    first = next(rows, None)
    if first is None:
        raise DataError(f"safety: {where} has no rows")
    return first


def _chained(first: SafetyRow, rows: Iterable[SafetyRow]) -> Iterator[SafetyRow]:
    yield first
    yield from rows


def _styles(spec: SourceSettings, where: str, seed: int, design: AnswerDesign = "text") -> Styles:
    from safemix.mitigation.mimic.api import style_notes, styles_of
    from safemix.mitigation.mimic.source import sample_task

    sample = sample_task(spec, seed)
    styles = styles_of(sample, seed, where)
    _tell(f"task: {sample.total} rows, {len(sample.rows)} of them looked at")
    for note in (*sample.notes, *style_notes(styles, design)):
        _tell(f"  {note.strip()}")
    return styles


def _tell(line: str) -> None:
    from safemix.cli.mimic_show import visible

    print(visible(line), file=sys.stderr)


def _write(
    rows: Iterable[SafetyRow], styles: Styles, options: MimicOptions, out: Path, where: str
) -> None:
    from safemix.cli.mimic_show import print_summary
    from safemix.mitigation.mimic.output import rejected_path

    # A stopped job ends as one that was interrupted: nothing half-written is left.
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        report = _written(rows, styles, options, out, where)
    finally:
        signal.signal(signal.SIGTERM, before)
    aside = rejected_path(out) if report.rejected else None
    print_summary(report, out, aside)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _written(
    rows: Iterable[SafetyRow], styles: Styles, options: MimicOptions, out: Path, where: str
) -> MimicReport:
    from safemix.cli.mimic_show import counted
    from safemix.mitigation.mimic.api import mimic_stream, nothing_written
    from safemix.mitigation.mimic.output import OutputFiles
    from safemix.mitigation.mimic.report import Tally

    tally = Tally()
    outcomes: Iterable[Outcome] = mimic_stream(rows, styles, options, progress=True)
    with OutputFiles(out) as files:
        for outcome in outcomes if options.llm is not None else counted(outcomes):
            tally.add(outcome)
            files.add(outcome)
        report = tally.report()
        if not report.written:
            raise nothing_written(report, where)
    return report


def _show(
    first: SafetyRow, rows: Iterable[SafetyRow], styles: Styles, options: MimicOptions
) -> None:
    from itertools import islice

    from safemix.cli.mimic_show import print_side_by_side
    from safemix.mitigation.mimic.api import mimic_stream

    some = islice(_chained(first, rows), DRY_ROWS)
    print_side_by_side(mimic_stream(some, styles, options, progress=True))
