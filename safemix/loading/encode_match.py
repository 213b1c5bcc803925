"""Matching a rendered chat against the text that its template writes around the messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def match_literals(literals: Sequence[str], contents: Sequence[str], text: str) -> list[int] | None:
    """Where each literal begins, such that literals and gaps make up the whole text.

    A search with a stack: each gap is tried with its whole content, its trimmed forms, and then
    with any part of the content that leads up to the next literal.

    Args:
        literals: n + 1 texts.
        contents: n texts, of which the gaps between the literals hold the whole or a part.
        text: the text to explain.

    Returns:
        n + 1 starts, or None if the text cannot be explained so.
    """
    if not text.startswith(literals[0]):
        return None
    starts = [0]
    # Places that lead nowhere are not tried twice: a hostile text cannot make this exponential.
    dead: set[tuple[int, int]] = set()
    stack = [_next_starts(literals, contents, text, 0, 0)]
    while stack:
        at = None
        if len(starts) <= len(contents):
            at = next(stack[-1], None)
        elif starts[-1] + len(literals[-1]) == len(text):
            return starts
        if at is None:
            stack.pop()
            dead.add((len(starts) - 1, starts.pop()))
        elif (len(starts), at) not in dead:
            stack.append(_next_starts(literals, contents, text, len(starts), at))
            starts.append(at)
    return None


def _next_starts(
    literals: Sequence[str], contents: Sequence[str], text: str, k: int, start: int
) -> Iterator[int]:
    """Places where literal `k + 1` can begin, if literal `k` begins at `start`."""
    content, following = contents[k], literals[k + 1]
    begin = start + len(literals[k])
    for form in dict.fromkeys((content, content.strip(), content.rstrip(), content.lstrip())):
        if text.startswith(form, begin) and text.startswith(following, begin + len(form)):
            yield begin + len(form)
    if k + 1 == len(contents):
        last = len(text) - len(following)
        if last >= begin and text.endswith(following) and text[begin:last] in content:
            yield last
        return
    at = text.find(following, begin) if following else -1
    while 0 <= at <= begin + len(content):
        if text[begin:at] in content:
            yield at
        at = text.find(following, at + 1)
