"""`mitigation.answers: own`, in the main job: safety rows and look-alikes that the model answers.

The model is asked before it is loaded to be trained. What comes out is a file in the cache, named
by all that decides what is in it, which stands in for the source from then on: a run that goes on,
and other runs with the same cache, find it there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from filelock import FileLock, Timeout
from transformers import TrainingArguments
from transformers.integrations.deepspeed import (
    set_hf_deepspeed_config,
    unset_hf_deepspeed_config,
)

from safemix.errors import DataError, ModelError
from safemix.evaluate.loading_models import ModelPlace
from safemix.evaluate.own_answers import RULES, RowKind
from safemix.hosts.resume import write_json
from safemix.mitigation.rewrite import each_row
from safemix.prompting.output import write_jsonl
from safemix.prompting.source import converter_of
from safemix.rows.pools import describe_pool
from safemix.rows.read import SourceRows, read_source
from safemix.settings import Settings, SourceSettings
from safemix.settings_levers import LOOKALIKES, AnswersSettings, LookalikesKey
from safemix.tracking.lines import Lines
from safemix.training.arguments import cache_folder
from safemix.training.ask_rows import Asking, Chats, answer_rows, write_rows
from safemix.training.asked_models import identify
from safemix.training.evaluation_prompts import check_labels
from safemix.training.process import node_leader, rank, say, shared

__all__ = ["Answered", "with_own_answers"]

_WORK: Final = ".answers"
_LOCK: Final = ".answers.lock"
_PATIENCE: Final = 5.0  # seconds
_NONE: Final = (0, "0")
# Rows of a source that are asked at most: they pass through memory, and a run draws far fewer.
_MOST: Final = 100_000


@dataclass(frozen=True)
class Answered:
    """What `mitigation.answers` made of a run's sources.

    Attributes:
        settings: whose safety rows and look-alikes are read from the files that were made.
        notes: what was done, a line each.
    """

    settings: Settings
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Stage:
    """What is asked, and where it is kept."""

    settings: Settings
    how: AnswersSettings
    specs: Mapping[RowKind, SourceSettings]
    cache: Path

    @property
    def place(self) -> ModelPlace:
        given = self.settings
        return ModelPlace(
            given.model,
            given.model,
            revision=given.model_revision,
            precision=given.precision,
            template=given.chat_template,
        )

    def read(self, kind: RowKind) -> SourceRows:
        spec, seed = self.specs[kind], self.settings.seed
        return read_source(kind, spec, seed, converter_of(spec, seed))


def with_own_answers(settings: Settings, arguments: TrainingArguments) -> Answered:
    """Do what `mitigation.answers` asks for; all ranks call it.

    Args:
        settings: of the run, as the mitigation has adjusted them.
        arguments: of the Trainer: its ZeRO-3 would cut up the model that is asked.

    Raises:
        SafemixError: if a source cannot be read, or the model cannot be asked.
    """
    how = settings.mitigation.answers if isinstance(settings.mitigation, LookalikesKey) else None
    specs = _sources(settings)
    if how is None or not specs:
        return Answered(settings)
    check_labels(settings)  # before the model is asked for long
    stage = _Stage(settings, how, specs, cache_folder(settings))
    identity = identify(stage.place, settings.device)
    with _alone(stage):
        files = shared(lambda: _files(stage, identity))
        missing = shared(lambda: [k for k in files if not _notes_file(files[k]).exists()])
        if missing:
            with _whole_models(arguments):
                _make(stage, missing, files)
        made = shared(lambda: {kind: _read(Path(file)) for kind, file in files.items()})
    shared(lambda: _write_here(files, made), leader=node_leader())
    notes = [f"{kind}: {line}" for kind, (_, lines) in made.items() for line in lines]
    return Answered(_from_files(settings, files), tuple(notes))


def _sources(settings: Settings) -> dict[RowKind, SourceSettings]:
    """The sources that rows are drawn from, of those whose answers may be the model's own."""
    found: dict[RowKind, SourceSettings] = {}
    if settings.safety is not None and settings.ratio not in _NONE:
        found["safety"] = settings.safety
    companions = settings.sources.get(LOOKALIKES)
    # A user's own source of that name is none of the mitigation's.
    of_mitigation = getattr(settings.mitigation, LOOKALIKES, None) is not None
    if of_mitigation and companions is not None and companions.ratio not in _NONE:
        found["lookalikes"] = companions
    return found


def _files(stage: _Stage, identity: str) -> dict[str, str]:
    """The file of each kind, named by all that decides what is in it."""
    found = {}
    for kind in stage.specs:
        rows = stage.read(kind)
        if len(rows) > _MOST:
            key = "safety.limit" if kind == "safety" else "mitigation.lookalikes.limit"
            raise DataError(
                f"mitigation.answers: own: {kind} has {len(rows)} rows and all would be asked, at "
                f"most {_MOST} are: set {key}, or answers: given"
            )
        parts = {
            "rows": rows.fingerprint,
            "model": identity,
            "template": stage.settings.chat_template,
            "max_new_tokens": stage.how.max_new_tokens,
            "rules": RULES,
        }
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        found[str(kind)] = str(stage.cache / f"own-{kind}-{key}.jsonl")
    return found


def _make(stage: _Stage, kinds: Sequence[RowKind], files: Mapping[str, str]) -> None:
    """Ask the model, and write what it said on rank 0."""

    def read() -> dict[str, Any]:
        found = {}
        for kind in kinds:
            rows, pool = stage.read(kind), stage.specs[kind].pool
            licence = [] if pool is None else describe_pool(pool).splitlines()
            lines = [*licence, *rows.report.lines()]
            found[str(kind)] = {"rows": list(each_row(rows)), "lines": lines}
        return found

    given = shared(read)
    rows: dict[RowKind, Chats] = {kind: given[kind]["rows"] for kind in kinds}
    what = " and ".join(f"{len(some)} rows of {kind}" for kind, some in rows.items())
    say(f"answers: own: {stage.place.given} is asked about {what} before it is trained")
    how = Asking(stage.how.max_new_tokens, stage.how.batch_size, device=stage.settings.device)
    tell = Lines("answers: own", enabled=rank() == 0)
    try:
        found = answer_rows(stage.place, rows, how, stage.cache / _WORK, tell)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"mitigation.answers: {stage.place.given!r} is asked whole on each GPU and does not "
            "fit: lower answers.batch_size, or make files with `safemix answer --backend vllm` "
            "for safety.file and mitigation.lookalikes.file"
        ) from error

    def write() -> None:
        for kind, part in found.items():
            write_rows(Path(files[kind]), part)
            # Last: where this lies, the rows are whole.
            lines = [*given[kind]["lines"], *part.lines()]
            write_json(_notes_file(files[kind]), {"lines": lines})
        # Some of it complied with harmful requests.
        shutil.rmtree(stage.cache / _WORK, ignore_errors=True)

    shared(write)


def _notes_file(file: Path | str) -> Path:
    return Path(file).with_suffix(".notes.json")


def _read(file: Path) -> tuple[str, list[str]]:
    return file.read_text("utf-8"), json.loads(_notes_file(file).read_text("utf-8"))["lines"]


def _write_here(files: Mapping[str, str], made: Mapping[str, tuple[str, list[str]]]) -> None:
    """On a machine that does not share the first one's disk."""
    for kind, (text, _) in made.items():
        path = Path(files[kind])
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            # By line feeds alone: an answer may hold other characters that end a line.
            write_jsonl(path, map(json.loads, text.removesuffix("\n").split("\n")))


def _from_files(settings: Settings, files: Mapping[str, str]) -> Settings:
    """Settings that read the files in place of the sources that they were made from."""
    update: dict[str, Any] = {}
    elsewhere = ("hub", "builtin", "pool", "config", "revision", "fields", "limit", "prompting")
    cleared = {name: None for name in (*elsewhere, "system")}
    if settings.safety is not None and "safety" in files:
        update["safety"] = settings.safety.model_copy(update={**cleared, "file": files["safety"]})
    if LOOKALIKES in files:
        # The mitigation's own key stays: whose answers are known to help is told by it.
        spec = settings.sources[LOOKALIKES]
        spec = spec.model_copy(update={**cleared, "file": files[LOOKALIKES]})
        update["sources"] = {**settings.sources, LOOKALIKES: spec}
    return settings.model_copy(update=update)


@contextmanager
def _alone(stage: _Stage) -> Iterator[None]:
    """Runs that share a cache ask the same once, and not side by side."""
    lock, told = FileLock(stage.cache / _LOCK), False

    def acquire() -> bool:
        stage.cache.mkdir(parents=True, exist_ok=True)
        # A run's own cache needs no lock, which some shared file systems do not have.
        if stage.settings.cache_dir is not None:
            try:
                lock.acquire(timeout=_PATIENCE)
            except Timeout:
                return False
        return True

    # Again and again: the other ranks would not wait for one answer as long as a model may take.
    while not shared(acquire):
        if not told:
            say(f"answers: own: waiting for another run that asks its model in {stage.cache}")
        told = True
    try:
        yield
    finally:
        if lock.is_locked:
            lock.release()


@contextmanager
def _whole_models(arguments: TrainingArguments) -> Iterator[None]:
    """Under ZeRO-3 transformers would load every model in parts."""
    # Set only where DeepSpeed is used.
    config = getattr(arguments, "hf_deepspeed_config", None)
    if config is None:
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(config)
