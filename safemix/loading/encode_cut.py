"""Cutting an over-long row: first the middle of its prompts, last the end of its answer."""

from __future__ import annotations

from collections.abc import Sequence

Span = tuple[int, int]


def cut_tokens(
    length: int,
    max_length: int,
    prompts: Sequence[Span],
    clean: Sequence[bool],
    is_trained: Sequence[bool],
) -> list[int] | None:
    """Choose which tokens of an over-long row to keep.

    Args:
        length: tokens of the row.
        max_length: tokens allowed.
        prompts: token spans of prompt texts that may be cut, in the order of the row.
        clean: whether a text may be split before each token; False inside a character.
        is_trained: whether each token is trained.

    Returns:
        Numbers of the kept tokens in order, or None if no trained token can be kept.
    """
    excess = length - max_length
    removed: list[Span] = []
    # The longest goes first, and alone as far as it suffices: the others stay whole.
    for start, end in sorted(prompts, key=lambda s: s[0] - s[1]):
        if excess <= 0:
            break
        gap = _middle(start, end, excess, clean)
        removed.append(gap)
        excess -= gap[1] - gap[0]
    gone = {n for a, b in removed for n in range(a, b)}
    kept = [n for n in range(length) if n not in gone][:max_length]
    if excess > 0:
        # What is left of the row ends with its last trained token: no half of a next turn.
        while kept and not is_trained[kept[-1]]:
            kept.pop()
    # The first token of a row is never predicted.
    return kept if any(is_trained[n] for n in kept[1:]) else None


def _middle(start: int, end: int, excess: int, clean: Sequence[bool]) -> Span:
    """The middle of a span, at least `excess` tokens of it where it has so many."""
    keep = max(end - start - excess, 0)
    left = start + (keep + 1) // 2
    right = end - keep // 2
    # Half a character would decode to a replacement sign: take the whole of it.
    while left > start and not clean[left]:
        left -= 1
    while right < end and not clean[right]:
        right += 1
    return left, right
