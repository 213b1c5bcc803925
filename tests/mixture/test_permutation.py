"""The computed permutation is a bijection, and a well stirred one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safemix.mixture.permutation import key_from, permute


def one_pass(size, seed, index=0):
    return permute(np.arange(size), size, key_from(seed, "task"), np.array([index]))


@settings(max_examples=120, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 10**6))
def test_every_row_once_a_pass(size, seed, index):
    assert sorted(one_pass(size, seed, index).tolist()) == list(range(size))


def test_rows_of_several_passes_at_once_are_those_of_each_pass():
    size, key = 37, key_from(3, "safety")
    ordinal = np.arange(5 * size)
    passes, position = np.divmod(ordinal, size)
    together = permute(position, size, key, passes)
    alone = [permute(np.arange(size), size, key, np.array([p])) for p in range(5)]
    assert (together == np.concatenate(alone)).all()
    assert len({tuple(order) for order in alone}) == 5


@pytest.mark.parametrize("size", [5, 12, 100, 500, 7473])
def test_places_are_uniform(size):
    """Chi-square over seeds: each row is equally likely to stand first, last and in between."""
    draws = 4000
    places = np.array([0, size // 2, size - 1])
    rows = np.stack(
        [permute(places, size, key_from(s, "task"), np.array([0])) for s in range(draws)]
    )
    bins = min(size, 20)
    for column in rows.T:
        counts = np.bincount(column * bins // size, minlength=bins)
        edges = np.bincount(np.arange(size) * bins // size, minlength=bins)
        expected = draws * edges / size
        chi = ((counts - expected) ** 2 / expected).sum()
        # 99.99 % quantile of chi-square, by Wilson and Hilferty's approximation.
        k = bins - 1
        assert chi < k * (1 - 2 / (9 * k) + 3.72 * np.sqrt(2 / (9 * k))) ** 3


@pytest.mark.parametrize("size", [100, 500, 10**6])
def test_neighbours_are_torn_apart(size):
    sample = np.arange(min(size, 50_000))
    gaps, lags = [], []
    for seed in range(20):
        rows = permute(sample, size, key_from(seed, "task"), np.array([0])).astype(float)
        gaps.append(np.mean(np.abs(np.diff(rows)) <= 1))
        lags.append(np.corrcoef(rows[:-1], rows[1:])[0, 1])
    # A random order has neighbours side by side with probability 2 / size.
    assert np.mean(gaps) < 2 / size + 0.01
    assert abs(np.mean(lags)) < 0.05


def test_a_far_position_needs_no_array_of_the_size():
    size = 10**9
    rows = permute(np.array([0, 1, size - 1]), size, key_from(0, "task"), np.array([7]))
    assert len(set(rows.tolist())) == 3
    assert ((rows >= 0) & (rows < size)).all()
