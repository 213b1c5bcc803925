"""Completions of chats by a model: one process, or all ranks of a job, ZeRO-3 too."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safemix.errors import DataError, ModelError, SettingsError
from safemix.evaluate.chat_prompt import ChatEncoder
from safemix.evaluate.results import Decoding
from safemix.evaluate.sharding import gather as gather_results
from safemix.evaluate.sharding import place, shard, together
from safemix.evaluate.unwrapping import Ready, bare_model, holder, ready
from safemix.rows.schema import Message

__all__ = [
    "Progress",
    "check_decoding",
    "complete",
    "complete_samples",
    "encode_chats",
    "longest_of",
]

Progress = Callable[[int, int], None]
"""Takes how many completions are done, over all ranks, and how many there are to be."""


@dataclass(frozen=True)
class _Item:
    """One completion to make: its prompt's ids, and its own random numbers in [0, 1)."""

    ids: list[int]
    draws: tuple[float, ...]


def complete(
    model: Any,
    tokenizer: Any,
    chats: Sequence[Sequence[Message]],
    decoding: Decoding,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
    template: str | None = None,
) -> list[str]:
    """One completion for each chat; see `complete_samples`.

    Raises:
        SettingsError: for a decoding with more than one sample.
    """
    if decoding.samples != 1:
        raise SettingsError(
            f"complete gives one text for a chat, not {decoding.samples}: use complete_samples"
        )
    made = complete_samples(
        model,
        tokenizer,
        chats,
        decoding,
        batch_size=batch_size,
        progress=progress,
        template=template,
    )
    return [texts[0] for texts in made]


def complete_samples(
    model: Any,
    tokenizer: Any,
    chats: Sequence[Sequence[Message]],
    decoding: Decoding,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
    template: str | None = None,
    gather: bool | None = None,
) -> list[list[str]]:
    """Completions of chats. In a job all ranks call it with the same chats, and all get all.

    Each rank generates its part; what the model's own generation config asks for is not applied.
    Sampling draws from numbers that depend on the seed, the prompt and the sample alone: batch
    size and number of ranks change a completion, greedy or sampled, by rounding only. Random
    states, training modes and the model's settings are afterwards as before.

    Args:
        model: a `PreTrainedModel` or `PeftModel`, or a DeepSpeed engine or DDP around one. Under
            ZeRO-3 the bare model will do too.
        tokenizer: of the model.
        chats: each ends with a user turn.
        decoding: how.
        batch_size: chats generated at a time, on each rank.
        progress: told after every batch, on every rank.
        template: chat template, as in training; None for the tokenizer's own.
        gather: under ZeRO-3, gather all weights once (True), or fetch them for every token
            (False); None gathers where they fit into memory.

    Returns:
        For each chat its samples: text without control tokens and outer space; "" where the
        model ends its answer at once.

    Raises:
        DataError: for a chat that cannot be asked, or is too long for the model.
        ModelError: for a model that cannot generate or gives scores that are no numbers.
        SettingsError: for a decoding or batch size that is not legal.
        HostError: if another rank failed; with its reason.
    """
    check_decoding(decoding)
    if batch_size < 1:
        raise SettingsError(f"batch_size {batch_size} is too small: use 1 or more")
    if not chats:
        return []
    encoder = ChatEncoder(tokenizer, template)
    prompts = encode_chats(encoder, chats, decoding, longest_of(model))
    items = [item for ids in _numbered(prompts) for item in _items(*ids, decoding)]
    rank, ranks = place()
    mine = shard([len(item.ids) for item in items], rank, ranks)
    done: list[tuple[int, str]] = []
    with ready(model, gather) as at, _own_config(at, encoder, decoding) as stops:
        for begin in range(0, len(mine), batch_size):
            numbers = mine[begin : begin + batch_size]
            batch = [items[number] for number in numbers]
            if at.in_step:
                # Others may wait in a collective of the model: an error must end this process.
                made = _generated(at, batch, decoding)
            else:
                with together():
                    made = _generated(at, batch, decoding)
            done += [(n, encoder.decode(ids, stops)) for n, ids in zip(numbers, made, strict=True)]
            if progress is not None:
                progress(min(len(done) * ranks, len(items)), len(items))
    texts = gather_results(done)
    flat = [texts[number] for number in range(len(items))]
    return [flat[i : i + decoding.samples] for i in range(0, len(flat), decoding.samples)]


def longest_of(model: Any) -> int | None:
    """Tokens that a model takes, prompt and answer together; None for no end."""
    config = holder(bare_model(model)).config.get_text_config()
    found: int | None = getattr(config, "max_position_embeddings", None)
    return found


def check_decoding(decoding: Decoding) -> None:
    """Refuse a decoding that makes no sense.

    Raises:
        SettingsError: naming the value and what is legal.
    """
    for name, legal, good in (
        ("temperature", "0 (greedy) or more", decoding.temperature >= 0),
        ("top_p", "above 0, at most 1", 0 < decoding.top_p <= 1),
        ("max_new_tokens", "1 or more", decoding.max_new_tokens >= 1),
        ("samples", "1 or more", decoding.samples >= 1),
    ):
        if not good:
            raise SettingsError(f"{name} {getattr(decoding, name)} is not legal: use {legal}")
    if decoding.samples > 1 and decoding.temperature == 0:
        raise SettingsError(
            f"{decoding.samples} greedy samples would be the same: set a temperature"
        )


def encode_chats(
    encoder: ChatEncoder,
    chats: Sequence[Sequence[Message]],
    decoding: Decoding,
    longest: int | None,
    names: Sequence[str] | None = None,
) -> list[list[int]]:
    """Token ids of chats, all of which leave room for an answer.

    Args:
        encoder: of the model's tokenizer.
        chats: each ends with a user turn.
        decoding: how long an answer may be.
        longest: tokens that the model takes, prompt and answer together; None for no end.
        names: what each chat is called; None numbers them.

    Raises:
        DataError: naming the first chat that cannot be asked, and why.
    """
    prompts = []
    for number, chat in enumerate(chats, 1):
        name = f"chat {number} of {len(chats)}" if names is None else names[number - 1]
        try:
            ids = encoder.encode(chat)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        if longest is not None and len(ids) + decoding.max_new_tokens > longest:
            raise DataError(
                f"{name} has {len(ids)} tokens, which with "
                f"{decoding.max_new_tokens} new ones is more than the model's {longest}: shorten "
                "or leave out its prompt, or lower max_new_tokens"
            )
        prompts.append(ids)
    return prompts


def _numbered(prompts: Sequence[list[int]]) -> Iterator[tuple[list[int], int]]:
    """Prompts with how often the same one came before: it must not be answered by one draw."""
    seen: Counter[tuple[int, ...]] = Counter()
    for ids in prompts:
        key = tuple(ids)
        yield ids, seen[key]
        seen[key] += 1


def _items(ids: list[int], repeat: int, decoding: Decoding) -> Iterator[_Item]:
    for sample in range(decoding.samples):
        if decoding.temperature == 0:
            yield _Item(ids, ())
            continue
        key = f"safemix:{decoding.seed}:{sample}:{repeat}:{','.join(map(str, ids))}"
        digest = hashlib.sha256(key.encode()).digest()
        numbers = random.Random(int.from_bytes(digest, "big"))
        yield _Item(ids, tuple(numbers.random() for _ in range(decoding.max_new_tokens)))


@contextmanager
def _own_config(at: Ready, encoder: ChatEncoder, decoding: Decoding) -> Iterator[tuple[int, ...]]:
    """Put our generation config in the model's place for a while; gives the tokens that stop.

    transformers fills what a config leaves open from the model's own: a penalty or a temperature
    that its authors recommend would be applied unsaid.
    """
    from transformers import GenerationConfig

    owner = holder(at.model)
    before = owner.generation_config
    stops = encoder.stop_ids(getattr(before, "eos_token_id", None))
    pad = encoder.tokenizer.pad_token_id
    owner.generation_config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        eos_token_id=list(stops),
        pad_token_id=stops[0] if pad is None else pad,
    )
    try:
        yield stops
    finally:
        owner.generation_config = before


def _generated(at: Ready, batch: Sequence[_Item], decoding: Decoding) -> list[list[int]]:
    """New token ids of a batch, left-padded, end and padding included."""
    config = holder(at.model).generation_config
    width = max(len(item.ids) for item in batch)
    ids = [[config.pad_token_id] * (width - len(item.ids)) + item.ids for item in batch]
    mask = [[0] * (width - len(item.ids)) + [1] * len(item.ids) for item in batch]
    chooser = _Chooser(decoding, torch.tensor([item.draws for item in batch]), width)
    output = at.model.generate(
        input_ids=torch.tensor(ids, device=at.device),
        attention_mask=torch.tensor(mask, device=at.device),
        generation_config=config,
        logits_processor=[chooser],
        synced_gpus=at.in_step,
    )
    if chooser.broken:
        raise ModelError(
            "the model gives scores that are no numbers (NaN), so it has nothing to say: its "
            "weights are damaged, or the training has diverged"
        )
    made: list[list[int]] = output[:, width:].tolist()
    return made


class _Chooser:
    """Chooses the next token as greedy decoding's only candidate.

    Greedy decoding is left alone. Otherwise the token is drawn by inverting the distribution
    function over the most probable tokens (nucleus sampling, Holtzman et al. 2020) at a number
    that belongs to the prompt, not to the batch.

    Args:
        decoding: temperature and top_p.
        draws: float[B, steps], numbers in [0, 1); empty for greedy decoding.
        width: tokens of the padded prompts.
    """

    def __init__(self, decoding: Decoding, draws: Tensor, width: int) -> None:
        self._decoding = decoding
        self._draws = draws.double()
        self._width = width
        self._nan: Tensor | None = None

    @property
    def broken(self) -> bool:
        """Whether a score was NaN; asked once, at the end, so that no step waits for it."""
        return self._nan is not None and bool(self._nan.item())

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores of the next token, [B, V]."""
        nan = scores.isnan().any()
        self._nan = nan if self._nan is None else self._nan | nan
        if self._decoding.temperature == 0:
            return scores
        step = input_ids.shape[1] - self._width
        draw = self._draws[:, step : step + 1].to(scores.device)
        ranked, tokens = (scores.double() / self._decoding.temperature).sort(-1, descending=True)
        upto = ranked.softmax(-1).cumsum(-1)
        # The nucleus: the fewest most probable tokens that together have top_p.
        size = (upto < self._decoding.top_p).sum(-1, keepdim=True).clamp(max=upto.shape[-1] - 1)
        place_ = torch.searchsorted(upto, draw * upto.gather(-1, size), right=True)
        chosen = tokens.gather(-1, torch.minimum(place_, size))
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)
