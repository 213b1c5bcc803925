"""Log-probabilities of openers: one forward pass for a batch of prompts, nothing generated.

Two layouts give the same numbers:

* packed: a prompt is written once, its openers one after another behind it, and a mask lets each
  opener see the prompt and itself alone. About a quarter of the tokens.
* rows: a row for each opener, with its prompt before it; for models and attention kernels that
  take no mask of this kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor

from safemix.evaluate.probe_encode import ProbeItem, Shape

__all__ = ["Layout", "bare", "quiet", "score", "takes_masks"]

Layout = Literal["packed", "rows"]
# Added to an attention score it leaves nothing of it, and no half-precision type overflows.
_HIDDEN: Final = -3e4
_MASKABLE: Final = ("sdpa", "eager")


@dataclass(frozen=True)
class _Batch:
    """Tensors of one forward pass, and where each opener token's prediction stands.

    Attributes:
        inputs: arguments of the model.
        keep: logits at the last so many positions are needed.
        at: int64[T], row of the batch.
        place: int64[T], position among the kept ones whose logits predict the token.
        token: int64[T].
        slot: int64[T, 3]: item of the batch, opener, token of the opener.
    """

    inputs: dict[str, Tensor]
    keep: int
    at: Tensor
    place: Tensor
    token: Tensor
    slot: Tensor


def bare(model: Any) -> Any:
    """The transformers model within DDP, DeepSpeed's engine or PEFT."""
    while isinstance(getattr(model, "module", None), torch.nn.Module):
        model = model.module
    base = getattr(model, "get_base_model", None)
    return model if base is None else base()


def takes_masks(model: Any, longest: int) -> bool:
    """Whether the packed layout may be tried: what attends must take a mask of ours.

    Args:
        model: any wrapping.
        longest: tokens of the longest prompt; a sliding window that is shorter needs its own mask.
    """
    config = bare(model).config
    window = getattr(config, "sliding_window", None)
    kind = getattr(config, "_attn_implementation", None)
    return kind in _MASKABLE and (not window or window > longest)


@contextmanager
def quiet(model: Any) -> Iterator[None]:
    """No gradients and no dropout; every module is in its mode again afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def score(
    model: Any,
    items: Sequence[ProbeItem],
    shape: Shape,
    layout: Layout,
    pad: int,
    *,
    first: Tensor | None = None,
) -> Tensor:
    """Log-probability of each token of each opener, and the gap of each prompt.

    Args:
        model: in eval mode, see `quiet`; under ZeRO-3 all ranks call it alike.
        items: prompts of one batch.
        shape: widths of the result.
        layout: how they are laid out.
        pad: token id to pad with.
        first: tokens that begin refusals, int64[K], for the gap; None for no gap.

    Returns:
        float32[len(items), shape.openers, shape.tokens], on the CPU; 0 where there is no token.
        With `first` one opener more, which has the gap alone: the largest logit of `first` less
        the largest of all others, where the answer begins.
    """
    device = _device(model)
    batch = _packed(items, pad) if layout == "packed" else _rows(items, pad)
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    inner = bare(model)
    if "attention_mask" in inputs and inputs["attention_mask"].is_floating_point():
        inputs["attention_mask"] = inputs["attention_mask"].to(_dtype(inner))
    if "logits_to_keep" in inspect.signature(inner.forward).parameters:
        logits = model(**inputs, logits_to_keep=batch.keep, use_cache=False).logits
    else:
        logits = model(**inputs, use_cache=False).logits[:, -batch.keep :]
    chosen = logits[batch.at.to(device), batch.place.to(device)].float()
    token = batch.token.to(device)[:, None]
    found = chosen.gather(1, token)[:, 0] - chosen.logsumexp(1)
    result = torch.zeros(len(items), shape.openers + (first is not None), shape.tokens)
    result[batch.slot.unbind(1)] = found.cpu()
    if first is not None:
        begins = (batch.slot[:, 1] == 0) & (batch.slot[:, 2] == 0)
        result[batch.slot[begins, 0], -1, 0] = _gaps(chosen[begins.to(device)], first.to(device))
    return result


def _gaps(logits: Tensor, first: Tensor) -> Tensor:
    """Largest logit of some tokens less the largest of the others, float32[N], on the CPU."""
    others = logits.index_fill(1, first, -torch.inf)
    return (logits[:, first].amax(1) - others.amax(1)).cpu()


def _device(model: Any) -> torch.device:
    """Where inputs belong. Under ZeRO-3 too, the parameters know it."""
    device = getattr(model, "device", None)
    return device if isinstance(device, torch.device) else next(model.parameters()).device


def _dtype(model: Any) -> torch.dtype:
    """What the model computes in."""
    found: torch.dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    return found


def _packed(items: Sequence[ProbeItem], pad: int) -> _Batch:
    """Prompts padded on the left, so that all openers begin at the same position."""
    width = max(len(item.prompt) for item in items)
    tail = max(item.packed - len(item.prompt) for item in items)
    size = (len(items), width + tail)
    ids, positions = torch.full(size, pad), torch.zeros(size, dtype=torch.int64)
    # 0 for padding, 1 for the prompt, from 2 on one number for each opener.
    part = torch.zeros(size, dtype=torch.int64)
    places: list[tuple[int, int, int]] = []
    slots: list[tuple[int, int, int]] = []
    for row, item in enumerate(items):
        first, end = width - len(item.prompt), width
        ids[row, first:width] = torch.tensor(item.prompt)
        positions[row, first:width] = torch.arange(len(item.prompt))
        part[row, first:width] = 1
        for number, opener in enumerate(item.openers):
            here = slice(end, end + len(opener))
            ids[row, here] = torch.tensor(opener)
            positions[row, here] = torch.arange(len(opener)) + len(item.prompt)
            part[row, here] = 2 + number
            for index, token in enumerate(opener):
                # Kept positions begin at the last one of the prompt.
                place = 0 if index == 0 else end + index - width
                places.append((row, place, token))
                slots.append((row, number, index))
            end += len(opener)
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": _mask(part)}
    at, where, tokens = torch.tensor(places).unbind(1)
    return _Batch(inputs, tail + 1, at, where, tokens, torch.tensor(slots))


def _mask(part: Tensor) -> Tensor:
    """What each position may see, float32[B, 1, L, L]: itself, its own part, the prompt before."""
    length = part.shape[1]
    before = torch.ones(length, length, dtype=torch.bool).tril()
    query, key = part[:, :, None], part[:, None, :]
    real = (query > 0) & (key > 0)
    seen = (before & real & ((key == 1) | (key == query))) | torch.eye(length, dtype=torch.bool)
    return torch.where(seen, 0.0, _HIDDEN)[:, None]


def _rows(items: Sequence[ProbeItem], pad: int) -> _Batch:
    """A row for each opener, prompts padded on the left, openers on the right."""
    width = max(len(item.prompt) for item in items)
    tail = max(len(opener) for item in items for opener in item.openers)
    count = sum(len(item.openers) for item in items)
    ids = torch.full((count, width + tail), pad)
    seen = torch.zeros_like(ids)
    places: list[tuple[int, int, int]] = []
    slots: list[tuple[int, int, int]] = []
    at = 0
    for asked, item in enumerate(items):
        for number, opener in enumerate(item.openers):
            first, end = width - len(item.prompt), width + len(opener)
            ids[at, first:end] = torch.tensor(item.prompt + opener)
            seen[at, first:end] = 1
            places += [(at, index, token) for index, token in enumerate(opener)]
            slots += [(asked, number, index) for index in range(len(opener))]
            at += 1
    positions = (seen.cumsum(1) - 1).clamp(min=0)
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": seen}
    rows, where, tokens = torch.tensor(places).unbind(1)
    return _Batch(inputs, tail + 1, rows, where, tokens, torch.tensor(slots))
