"""Rows that a model answers itself: asked on all ranks, and written as a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from safemix.evaluate.loading_models import ModelPlace
from safemix.evaluate.own_answers import OwnAnswers, RowKind, own_answers
from safemix.evaluate.results import Decoding
from safemix.evaluate.suite_ask import ELSEWHERE, Asker, Keeper, Telling, completer, open_store
from safemix.evaluate.suite_leader import ranks
from safemix.prompting.output import write_jsonl
from safemix.rows.schema import Message
from safemix.training.asked_models import free, identify, load

__all__ = ["Asking", "Chats", "answer_rows", "write_rows"]

Chats = Sequence[Sequence[Message]]


@dataclass(frozen=True)
class Asking:
    """How a model is asked.

    Attributes:
        max_new_tokens: tokens of the longest answer.
        batch_size: rows that each rank asks at a time.
        backend: "hf" or "vllm".
        device: "auto" or "cpu".
    """

    max_new_tokens: int = 128
    batch_size: int = 16
    backend: str = "hf"
    device: str = "auto"


def answer_rows(
    place: ModelPlace, rows: Mapping[RowKind, Chats], how: Asking, work: Path, tell: Telling
) -> dict[RowKind, OwnAnswers]:
    """Ask a model for its own answers; all ranks call it, and all get all.

    Args:
        place: of the model.
        rows: by kind, see `own_answers`.
        how: it is asked.
        work: folder where answers are kept until they are written, so that a second start goes
            on. Some comply with harmful requests: remove it when it is needed no more.
        tell: is told of what is done.

    Raises:
        ModelError: if the model cannot be loaded or has no chat template.
        DataError: for rows that are no answered questions.
    """
    identity = identify(place, how.device)
    loaded = load(place, how.backend, how.device)
    complete = loaded.complete or completer(
        loaded.model, loaded.tokenizer, how.batch_size, place.template
    )
    decoding = Decoding(max_new_tokens=how.max_new_tokens)
    here = loaded.complete is None
    try:
        with open_store(work) as store:
            asker = Asker(
                complete=complete,
                keeper=Keeper(store, kept=True),
                identity=identity,
                template=place.template,
                at_once=how.batch_size * ranks() if here else ELSEWHERE,
                tell=tell,
                backend=loaded.backend,
            )

            def ask(kind: RowKind, chats: Chats) -> list[str]:
                told = replace(asker, tell=lambda what, *counts: tell(f"{kind}: {what}", *counts))
                return [made[0] for made in told.ask(chats, decoding)]

            return {
                kind: own_answers(some, kind, partial(ask, kind)) for kind, some in rows.items()
            }
    finally:
        free(loaded)


def write_rows(path: Path, found: OwnAnswers) -> None:
    """Write rows as JSONL of `messages`, whole or not at all.

    Raises:
        DataError: if the file cannot be written.
    """
    write_jsonl(path, ({"messages": [dict(turn) for turn in row]} for row in found.rows))
