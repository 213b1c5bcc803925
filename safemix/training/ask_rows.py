"""Rows that a model answers itself: asked on all ranks, and written as a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from safemix.errors import DataError
from safemix.evaluate.chat_prompt import ChatEncoder
from safemix.evaluate.generate import encode_chats
from safemix.evaluate.loading_models import ModelPlace
from safemix.evaluate.own_answers import OwnAnswers, Reply, RowKind, own_answers
from safemix.evaluate.results import Decoding
from safemix.evaluate.suite_ask import ELSEWHERE, Asker, Keeper, Telling, completer, open_store
from safemix.evaluate.suite_leader import ranks
from safemix.prompting.output import write_jsonl
from safemix.rows.schema import Message
from safemix.training.asked_models import free, identify, load

__all__ = ["Asking", "Chats", "answer_rows", "write_rows"]

Chats = Sequence[Sequence[Message]]
_SPARE: Final = 4


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
    encoder = ChatEncoder(loaded.tokenizer, place.template)
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

            asking = _Asking(asker, encoder, decoding, loaded.longest)
            return {
                kind: own_answers(some, kind, replace(asking, kind=kind))
                for kind, some in rows.items()
            }
    finally:
        free(loaded)


@dataclass(frozen=True)
class _Asking:
    """Asks for the answers of one kind of rows; the same on every rank.

    Attributes:
        asker: asks the model.
        encoder: of its tokenizer.
        decoding: how it answers.
        longest: tokens that it takes, prompt and answer together; None if that is not known.
        kind: of the rows.
    """

    asker: Asker
    encoder: ChatEncoder
    decoding: Decoding
    longest: int | None
    kind: RowKind = "safety"

    def __call__(self, chats: Chats) -> list[Reply]:
        errors = [self._error(chat) for chat in chats]
        asked = [chat for chat, error in zip(chats, errors, strict=True) if error is None]
        tell = self.asker.tell
        told = replace(self.asker, tell=lambda what, *n: tell(f"{self.kind}: {what}", *n))
        texts = iter(made[0] for made in told.ask(asked, self.decoding))
        return [Reply(error=why) if why else self._reply(next(texts)) for why in errors]

    def _error(self, chat: Sequence[Message]) -> str | None:
        """Why a row cannot be asked; training cuts or drops such a row, and says so."""
        try:
            encode_chats(self.encoder, [chat], self.decoding, self.longest)
        except DataError:
            return "it cannot be asked: too long with its answer, or refused by the chat template"
        return None

    def _reply(self, text: str) -> Reply:
        ids = self.encoder.tokenizer.encode(text, add_special_tokens=False)
        # A little less than the limit: spaces around an answer are gone, and its text may be made
        # of fewer tokens than the model took.
        return Reply(text, ended=len(ids) + _SPARE < self.decoding.max_new_tokens)


def write_rows(path: Path, found: OwnAnswers) -> None:
    """Write rows as JSONL of `messages`, whole or not at all.

    Raises:
        DataError: if the file cannot be written.
    """
    write_jsonl(path, ({"messages": [dict(turn) for turn in row]} for row in found.rows))
