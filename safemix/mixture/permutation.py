"""A seeded permutation of range(n) that is computed, not stored.

A Feistel network over the bits of n - 1 is a bijection on a power of two below 2 n; values that
fall outside range(n) are sent through again until they fall inside ("cycle walking", Black and
Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). Any position costs the same at n = 10
and at n = 10**9, and no array of length n is ever made. It orders rows; it hides nothing.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

ROUNDS = 12
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)  # multipliers of splitmix64 (Steele et al., 2014)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROUND_KEYS = tuple(np.uint64((n + 1) * int(_GOLDEN) % 2**64) for n in range(ROUNDS))
_U27, _U30, _U31, _U32 = (np.uint64(n) for n in (27, 30, 31, 32))


def key_from(seed: int, *names: str) -> int:
    """64-bit key of a seed and names, the same on every machine and Python version."""
    text = "|".join([str(seed), *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser: every input bit moves every output bit. Any shape, kept."""
    values = values + _GOLDEN
    values = (values ^ (values >> _U30)) * _MIX_1
    values = (values ^ (values >> _U27)) * _MIX_2
    return values ^ (values >> _U31)


def permute(
    position: NDArray[np.int64], size: int, key: int, pass_index: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rows at some positions of a source's passes.

    Args:
        position: int64, any shape, each in [0, size).
        size: number of rows of the source, at least 1.
        key: 64-bit key of the source, see `key_from`.
        pass_index: int64, broadcastable to `position`: the pass each position is in. Every
            pass has an order of its own.

    Returns:
        int64 in [0, size), the shape of `position`; a bijection for each pass.
    """
    if size == 1:
        return np.zeros_like(position)
    bits = (size - 1).bit_length()
    low_bits = np.uint64(bits - bits // 2)
    low_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    high_mask = np.uint64((1 << (bits // 2)) - 1)
    keys = mix(pass_index.astype(np.uint64) + np.uint64(key))

    value = position.astype(np.uint64).ravel()
    # One key where all rows are in the same pass, the common case, else a key a row.
    same_pass = keys.size == 1
    row_key = keys.ravel() if same_pass else np.broadcast_to(keys, position.shape).ravel()
    value = _feistel(value, row_key, low_bits, low_mask, high_mask)
    outside = np.flatnonzero(value >= size)
    while outside.size:
        inner_key = row_key if same_pass else row_key[outside]
        walked = _feistel(value[outside], inner_key, low_bits, low_mask, high_mask)
        value[outside] = walked
        outside = outside[walked >= size]
    return value.astype(np.int64).reshape(position.shape)


def _feistel(
    value: NDArray[np.uint64],
    key: NDArray[np.uint64],
    low_bits: np.uint64,
    low_mask: np.uint64,
    high_mask: np.uint64,
) -> NDArray[np.uint64]:
    """Unbalanced Feistel network: each round stirs one half with a hash of the other."""
    low, high = value & low_mask, value >> low_bits
    for index in range(ROUNDS):
        round_key = key + _ROUND_KEYS[index]
        if index % 2:
            high = high ^ (_scramble(low, round_key) & high_mask)
        else:
            low = low ^ (_scramble(high, round_key) & low_mask)
    return (high << low_bits) | low


def _scramble(half: NDArray[np.uint64], key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    product = (half ^ key) * _MIX_1
    product = (product ^ (product >> _U32)) * _MIX_2
    return product >> _U32
