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

from tsugiki.dataset.kernels import permute

ROUNDS = 6

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
        keys = [derive_key(key, number) for number in range(ROUNDS)]
        self._round_keys = np.asarray(keys, dtype=np.uint64)

    def __call__(self, indices: Indices) -> Indices:
        if indices.size and not (indices.min() >= 0 and indices.max() < self.size):
            raise IndexError(f"indices must lie in 0..{self.size - 1}")
        values = indices.astype(np.uint64).reshape(-1)
        permute(values, np.uint64(self.size), np.uint64(self._half_bits), self._round_keys)
        return values.astype(np.int64).reshape(indices.shape)

    def at(self, index: int) -> int:
        """Where one index goes."""
        return int(self(np.asarray([index], dtype=np.int64))[0])

    def all(self) -> Indices:
        """The whole permutation as an int64 array of shape (size,)."""
        return self(np.arange(self.size, dtype=np.int64))
