"""Asking a model: what was answered before is taken from the store, the rest is generated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from safemix.evaluate.results import HF
from safemix.evaluate.store import Store, key_of
from safemix.evaluate.suite_leader import on_leader, rank

if TYPE_CHECKING:
    from safemix.evaluate.results import Decoding
    from safemix.rows.schema import Message

__all__ = [
    "ELSEWHERE",
    "Asker",
    "Chats",
    "Complete",
    "Keeper",
    "Telling",
    "completer",
    "open_store",
]

Chats = Sequence[Sequence["Message"]]
# Chats and decoding -> the samples of each chat, in the order of the chats.
Complete = Callable[[Chats, "Decoding"], list[list[str]]]
# What is done, how many, of how many.
Telling = Callable[[str, int, int], None]
# Batches between two writes: what a killed process loses at most.
_BATCHES: Final = 4
ELSEWHERE: Final = 256
"""Chats at a time for what batches by itself, such as vLLM."""


@dataclass(frozen=True)
class Keeper:
    """Where answers are kept. The same calls on every rank; rank 0 alone has the store.

    Attributes:
        store: on rank 0; None elsewhere.
        kept: whether anything is kept; the same on every rank.
    """

    store: Store | None
    kept: bool

    def get(self, keys: Sequence[str]) -> list[Any]:
        """What is kept under keys, None where nothing is; on every rank."""
        if not self.kept:
            return [None] * len(keys)
        return on_leader(lambda: [self.store.get(key) if self.store else None for key in keys])

    def put(self, found: Mapping[str, Any]) -> None:
        """Keep values; if they cannot be written, every rank is told."""

        def write() -> None:
            if self.store is not None:
                self.store.put(found)

        if self.kept:
            on_leader(write)


@dataclass(frozen=True)
class Asker:
    """Asks one model; all ranks call it, and all get all.

    Attributes:
        complete: generates.
        keeper: of what was answered before.
        identity: of the model.
        template: chat template; None for the tokenizer's own.
        at_once: chats that all ranks together generate at a time.
        tell: is told of what is done.
        backend: what `complete` generates by: "hf", or "vllm" with its version.
    """

    complete: Complete
    keeper: Keeper
    identity: str | None
    template: str | None
    at_once: int
    tell: Telling
    backend: str = HF

    def ask(self, chats: Chats, decoding: Decoding) -> list[list[str]]:
        """The samples of each chat.

        Args:
            chats: as they are to be asked.
            decoding: how.
        """
        how: dict[str, Any] = {
            "identity": self.identity,
            "template": self.template,
            "decoding": asdict(decoding),
        }
        # Not for hf: what was kept before backends were told apart is found again.
        if self.backend != HF:
            how["backend"] = self.backend
        keys = [key_of(kind="answer", chat=[dict(turn) for turn in chat], **how) for chat in chats]
        # Two strategies may give a request the same wrapper: the same chat is asked once.
        by_key = dict(zip(keys, chats, strict=True))
        unique = list(by_key)
        found = dict(zip(unique, self.keeper.get(unique), strict=True))
        missing = [key for key in unique if found[key] is None]
        # Without a store all is asked in one call, which sorts and batches best.
        size = self.at_once * _BATCHES if self.keeper.kept else max(1, len(missing))
        done = len(unique) - len(missing)
        self.tell("answers", done, len(unique))
        for begin in range(0, len(missing), size):
            part = missing[begin : begin + size]
            texts = self.complete([by_key[key] for key in part], decoding)
            made = dict(zip(part, texts, strict=True))
            self.keeper.put(made)
            found |= made
            done += len(part)
            self.tell("answers", done, len(unique))
        return [found[key] for key in keys]


def completer(model: Any, tokenizer: Any, batch_size: int, template: str | None) -> Complete:
    """Completions by the model in this process, or by all ranks of the job together."""
    from safemix.evaluate.generate import complete_samples

    def make(chats: Chats, decoding: Decoding) -> list[list[str]]:
        return complete_samples(
            model, tokenizer, chats, decoding, batch_size=batch_size, template=template
        )

    return make


def open_store(out: Path | None) -> AbstractContextManager[Store | None]:
    """The store, on rank 0; if it cannot be opened, every rank is told."""
    store = Store(out) if out is not None and rank() == 0 else None
    on_leader(lambda: store.open() if store is not None else None)
    return nullcontext() if store is None else store
