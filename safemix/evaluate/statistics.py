"""Intervals and tests for counts: Wilson's interval and McNemar's test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["Paired", "mcnemar", "paired_difference", "spearman", "wilson"]


def wilson(count: float, total: float, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a binomial share.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Args:
        count: successes, 0 to `total`.
        total: trials; with none the interval is all of [0, 1].
        confidence: two-sided, between 0 and 1.

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: for counts that cannot be.

    Example:
        >>> low, high = wilson(0, 60)
        >>> round(low, 3), round(high, 3)
        (0.0, 0.06)
    """
    if not 0 <= count <= total or not 0 < confidence < 1:
        raise ValueError(f"count {count} of {total} at confidence {confidence} cannot be")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, spread = count / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    # At the ends the formula is exact up to rounding; 0 and 1 are meant.
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == total else min(1.0, middle + half)
    return low, high


@dataclass(frozen=True)
class Paired:
    """Two models on the same items.

    Attributes:
        both: items counted for both.
        only_first: counted for the first model alone.
        only_second: counted for the second alone.
        neither: counted for none.
    """

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def total(self) -> int:
        """All pairs."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Share of the second minus share of the first; nan without a pair."""
        return (self.only_second - self.only_first) / self.total if self.total else math.nan

    @property
    def p_value(self) -> float:
        """Two-sided exact p of McNemar's test."""
        return mcnemar(self.only_first, self.only_second)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of `difference`."""
        return paired_difference(self)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test (binomial on the pairs that differ).

    Source: McNemar 1947; exact form as in Fagerland, Lydersen and Laake 2013. Both tails doubled,
    at most 1.

    Raises:
        ValueError: for a negative count.

    Example:
        >>> mcnemar(0, 6)
        0.03125
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts {only_first} and {only_second} cannot be negative")
    pairs = only_first + only_second
    if pairs == 0:
        return 1.0
    least = min(only_first, only_second)
    if pairs >= 1000:
        return _normal_tail(least, pairs)
    # Integers of any size: no rounding before the last division.
    tail = sum(math.comb(pairs, k) for k in range(least + 1))
    return min(1.0, float(2 * tail / 2**pairs))


def _normal_tail(least: int, pairs: int) -> float:
    """Two-sided p with continuity correction, for counts where it equals the exact one."""
    z = (abs(2 * least - pairs) - 1) / math.sqrt(pairs)
    return 1.0 if z <= 0 else math.erfc(z / math.sqrt(2))


def paired_difference(pairs: Paired, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the difference of two shares on the same items.

    Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial
    proportions based on paired data", method 10 (square-and-add of Wilson's intervals with the
    correlation of the pairs).

    Returns:
        Lower and upper end of second minus first, in [-1, 1].
    """
    n = pairs.total
    if n == 0:
        return -1.0, 1.0
    first, second = pairs.both + pairs.only_first, pairs.both + pairs.only_second
    p1, p2 = first / n, second / n
    l1, u1 = wilson(first, n, confidence)
    l2, u2 = wilson(second, n, confidence)
    margins = first * (n - first) * second * (n - second)
    phi = 0.0
    if margins > 0:
        cross: float = pairs.both * pairs.neither - pairs.only_first * pairs.only_second
        if cross > 0:
            cross = max(cross - n / 2, 0.0)  # Newcombe's correction, for a positive product only
        phi = cross / math.sqrt(margins)
    down = (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2
    up = (u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p1 - l1) + (p1 - l1) ** 2
    difference = p2 - p1
    return (
        max(-1.0, difference - math.sqrt(max(down, 0.0))),
        min(1.0, difference + math.sqrt(max(up, 0.0))),
    )


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; ties share their mean rank.

    Returns:
        -1 to 1; nan for fewer than two pairs, or if one side is all ties.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values cannot be paired")
    if len(first) < 2:
        return math.nan
    one, two = _ranks(first), _ranks(second)
    mean = (len(first) + 1) / 2
    cross = sum((a - mean) * (b - mean) for a, b in zip(one, two, strict=True))
    squares = [sum((a - mean) ** 2 for a in ranks) for ranks in (one, two)]
    return cross / math.sqrt(squares[0] * squares[1]) if all(squares) else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(range(len(values)), key=lambda i: values[i])
    ranks = [0.0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end + 1 < len(order) and values[order[end + 1]] == values[order[begin]]:
            end += 1
        for place in range(begin, end + 1):
            ranks[order[place]] = (begin + end) / 2 + 1
        begin = end + 1
    return ranks
