"""Shuffling without a list: a keyed permutation of 0..n-1 that is computed one index at a time.

A balanced Feistel network over the smallest even number of bits that holds n, with cycle walking: a
value that falls outside of 0..n-1 is sent through again until it falls inside (Black and Rogaway, "Ciphers
with Arbitrary Finite Domains", CT-RSA 2002). Four rounds of a good round function are a pseudo-random
permutation (Luby and Rackoff, 1988); six are used because halves of a few bits are weak. marin found that
the cheaper linear congruential shuffle leaves the loss with phase shifts, and moved to a Feistel network.

It is written out here rather than taken from `numpy.random`, whose streams may change between versions
(NEP 19): the order of the data is part of a run's identity.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6

# np.uint64 scalars keep numpy from promoting to float64. The constants are those of SplitMix64's finaliser
# (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT = np.uint64(31)

Indices: TypeAlias = NDArray[np.int64]
"""Whole numbers, usually of shape (count,)."""


def derive_key(*parts: int | str) -> int:
    """A 64-bit key from names and numbers: `derive_key(seed, "documents", epoch)`.

    The same parts give the same key on every machine; different parts give unrelated keys (BLAKE2b).
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


class Permutation:
    """A bijection of 0..size-1 chosen by `key`; `permutation(indices)` maps an int64 array of any shape.

    Raises ValueError for size < 1 and IndexError for an index outside of 0..size-1.
    """

    def __init__(self, size: int, key: int) -> None:
        if size < 1:
            raise ValueError(f"a permutation needs at least one element, not {size}")
        self.size = size
        self._half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
        self._round_keys = [np.uint64(derive_key(key, number)) for number in range(ROUNDS)]

    def __call__(self, indices: Indices) -> Indices:
        if indices.size and not (indices.min() >= 0 and indices.max() < self.size):
            raise IndexError(f"indices must lie in 0..{self.size - 1}")
        values = self._encrypt(indices.astype(np.uint64).reshape(-1))
        outside = np.flatnonzero(values >= self.size)
        while outside.size:
            values[outside] = self._encrypt(values[outside])
            outside = outside[values[outside] >= self.size]
        return values.astype(np.int64).reshape(indices.shape)

    def all(self) -> Indices:
        """The whole permutation as an int64 array of shape (size,)."""
        return self(np.arange(self.size, dtype=np.int64))

    def _encrypt(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        bits = np.uint64(self._half_bits)
        mask = np.uint64((1 << self._half_bits) - 1)
        left, right = values >> bits, values & mask
        for round_key in self._round_keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        return (left << bits) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for shift, factor in _MIX:
        values = (values ^ (values >> shift)) * factor
    return values ^ (values >> _LAST_SHIFT)
