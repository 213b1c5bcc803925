"""Shares and differences of answers to the same prompts, asked more than once.

A prompt that is asked after several seeds, in several dresses or for several tasks gives answers
that hang together. They are counted each, but what the intervals and tests rest on is the number
of prompts. Where every prompt is asked once, all of this is Wilson's interval, Newcombe's interval
and McNemar's exact test, as in `safemix.evaluate.statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from safemix.evaluate.results import Rate
from safemix.evaluate.statistics import wilson

# Prompt, and how it was asked: set and dress.
Key = tuple[str, str]
# Counted, and asked.
Tally = tuple[int, int]


@dataclass(frozen=True)
class ClusterRate(Rate):
    """A share of answers, with a 95 % interval that rests on prompts.

    Attributes:
        prompts: that were asked, once or more each.
        design: variance of the share by that of as many independent answers, at least 1.
    """

    prompts: int = 0
    design: float = 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, as for `total / design` independent answers (Dean and Pagano 2015)."""
        return wilson(self.count / self.design, self.total / self.design)


@dataclass(frozen=True)
class Change:
    """Two models on the same prompts.

    Attributes:
        difference: share of the second minus that of the first; nan without a prompt.
        interval: its 95 % interval.
        p_value: two-sided, exact.
        prompts: that both were asked.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    prompts: int

    def __str__(self) -> str:
        low, high = (100 * end for end in self.interval)
        return f"{100 * self.difference:+.1f} [{low:+.1f}, {high:+.1f}]"


def added(parts: Iterable[Mapping[Key, Tally]]) -> dict[Key, Tally]:
    """Tallies of the same prompts, asked the same way, added up."""
    found: dict[Key, Tally] = {}
    for part in parts:
        for key, (counted, asked) in part.items():
            before = found.get(key, (0, 0))
            found[key] = (before[0] + counted, before[1] + asked)
    return found


def by_prompt(tallies: Iterable[tuple[Key, Tally]]) -> dict[str, Tally]:
    """Tallies added up over the ways that a prompt was asked."""
    merged = added({(key[0], ""): tally} for key, tally in tallies)
    return {prompt: tally for (prompt, _), tally in merged.items()}


def cluster_rate(tallies: Mapping[Key, Tally]) -> ClusterRate:
    """All answers as a share, with prompts as clusters."""
    return _rate(list(by_prompt(tallies.items()).values()))


def _rate(prompts: Sequence[Tally], copies: float = 1.0) -> ClusterRate:
    """The share of all answers, and its design effect.

    The variance is that of a ratio of sums over clusters (Cochran 1977, chapter 2). Where all or
    none are counted it says nothing: then the answers to a prompt are taken for copies.

    Args:
        prompts: their tallies.
        copies: as how many answers each was counted, the least design effect.
    """
    count, total = sum(c for c, _ in prompts), sum(n for _, n in prompts)
    if not total:
        return ClusterRate(0, 0)
    share = count / total
    if count in (0, total):
        design = sum(n * n for _, n in prompts) / total
    else:
        spread = sum((c - share * n) ** 2 for c, n in prompts)
        design = spread / (total * share * (1 - share))
    return ClusterRate(count, total, len(prompts), max(copies, design))


def compare(pairs: Iterable[tuple[Mapping[Key, Tally], Mapping[Key, Tally]]]) -> Change:
    """The second of each pair against the first, over what both were asked.

    A prompt counts as much in every place and dress, and on both sides, after however many seeds:
    else a place that one side was run in twice would weigh more on that side alone.

    Args:
        pairs: tallies of two models; one pair for each place where both were asked.
    """
    both = [(key, one[key], two[key]) for one, two in pairs for key in one if key in two]
    both = [(key, one, two) for key, one, two in both if one[1] and two[1]]
    seeds = {asked for _, one, two in both for asked in (one[1], two[1])}
    times = math.lcm(*seeds)
    before = by_prompt((key, _asked(one, times)) for key, one, _ in both)
    after = by_prompt((key, _asked(two, times)) for key, _, two in both)
    if not before:
        return Change(math.nan, (-1.0, 1.0), 1.0, 0)
    old, new = [before[prompt] for prompt in before], [after[prompt] for prompt in before]
    low, high = _difference_interval(old, new, times / min(seeds))
    difference = _rate(new).value - _rate(old).value
    return Change(difference, (low, high), sign_flip(old, new), len(old))


def _asked(tally: Tally, times: int) -> Tally:
    """The same share, of `times` answers; a multiple of those it is of."""
    counted, asked = tally
    return counted * (times // asked), times


def _difference_interval(
    old: Sequence[Tally], new: Sequence[Tally], copies: float
) -> tuple[float, float]:
    """Newcombe's interval of a paired difference, with clusters.

    Source: Newcombe 1998, method 10, as in `statistics.paired_difference`: square-and-add of the
    intervals of both shares, with the correlation of the pairs less his correction. The intervals
    are those of clusters and the pairs the means of the prompts (Zou and Donner 2008).
    """
    one, two = _rate(old, copies), _rate(new, copies)
    (l1, u1), (l2, u2) = one.interval, two.interval
    p1, p2 = one.value, two.value
    phi = _correlation([c / n for c, n in old], [c / n for c, n in new])
    down = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    up = (u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p1 - l1) + (p1 - l1) ** 2
    low = p2 - p1 - math.sqrt(max(down, 0.0))
    high = p2 - p1 + math.sqrt(max(up, 0.0))
    return max(-1.0, low), min(1.0, high)


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    one, two = np.asarray(first), np.asarray(second)
    scale = float(one.std() * two.std())
    if scale < 1e-12:
        return 0.0
    cross = float((one * two).mean() - one.mean() * two.mean())
    if cross > 0:
        cross = max(cross - 1 / (2 * len(one)), 0.0)  # Newcombe's correction
    return cross / scale


def sign_flip(old: Sequence[Tally], new: Sequence[Tally]) -> float:
    """Exact two-sided p of the difference of two shares, under flips of the prompts' signs.

    Source: Fisher 1935, "The design of experiments", section 21. Where every prompt is asked once
    it is McNemar's exact test. A prompt that is asked in more places counts more, as it does in
    the difference.

    Args:
        old: tallies of the prompts.
        new: of the same prompts, each asked as often.

    Raises:
        ValueError: if one was asked more often on one side.
    """
    pairs = list(zip(old, new, strict=True))
    if any(n1 != n2 for (_, n1), (_, n2) in pairs):
        raise ValueError("a prompt was asked more often on one side")
    sizes = [c2 - c1 for (c1, _), (c2, _) in pairs if c2 != c1]
    if not sizes:
        return 1.0
    unit = math.gcd(*sizes)
    sizes = [size // unit for size in sizes]
    chances = np.ones(1)  # of the sums -n, ..., n, in steps of two: the parity of a sum is fixed
    for size in map(abs, sizes):
        longer = np.zeros(len(chances) + size)
        longer[:-size] += chances / 2
        longer[size:] += chances / 2
        chances = longer
    sums = np.arange(len(chances)) * 2 - (len(chances) - 1)
    return min(1.0, float(chances[np.abs(sums) >= abs(sum(sizes))].sum()))
