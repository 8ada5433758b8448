"""MinHash signatures over character n-grams (Broder 1997).

The n-grams are those of the raw text's code points, as a set, as Swallow's doubri takes them.
Each distinct n-gram is hashed once to 64 bits; the K hash functions are then a·x + b mod 2^32 over its upper
half, a odd (permutations of the 32-bit numbers; linear ones are near enough to min-wise independence over
well-mixed input: Broder et al. 1998), instead of K full hashes an n-gram.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from tsugiki.corpus import kernels
from tsugiki.corpus.features import code_points

SIGNATURE_VERSION = 1
"""Goes up whenever the same text gives other signatures or band keys: older indexes are refused then."""

_STREAM = 0x7473756769  # where the constants of the hash functions begin; part of the format
_MASK = (1 << 64) - 1


def shingles(text: str, n: int) -> npt.NDArray[np.uint64]:
    """The hashes of the distinct character n-grams of a text, sorted.

    A text shorter than n is one shingle, itself; so short texts are near-duplicates only if equal.
    """
    symbols = code_points(text)
    values = np.sort(kernels.ngram_hashes(symbols, max(1, min(n, symbols.size))))
    return values[np.concatenate(([True], values[1:] != values[:-1]))] if values.size else values


def signature(values: npt.NDArray[np.uint64], hashes: int) -> npt.NDArray[np.uint32]:
    """The MinHash signature of a set of 64-bit hashes; shape (hashes,)."""
    multipliers, offsets = _constants(hashes)
    return kernels.minimum_hashes(values, multipliers, offsets)


def detection_probability(similarity: float, bands: int, rows: int) -> float:
    """The probability that two sets of this Jaccard similarity share a band: 1 - (1 - s^rows)^bands."""
    return float(1.0 - (1.0 - similarity**rows) ** bands)


def jaccard(left: npt.NDArray[np.uint64], right: npt.NDArray[np.uint64]) -> float:
    """The exact Jaccard similarity of two sorted sets."""
    common = kernels.intersection_size(left, right)
    union = left.size + right.size - common
    return common / union if union else 1.0


@cache
def _constants(hashes: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    stream = [value >> 32 for value in _splitmix64(_STREAM, 2 * hashes)]
    return np.array([a | 1 for a in stream[::2]], np.uint32), np.array(stream[1::2], np.uint32)


def _splitmix64(state: int, count: int) -> list[int]:
    """The first outputs of the splitmix64 generator (Steele, Lea and Flood 2014)."""
    values = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        value = state
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        values.append(value ^ (value >> 31))
    return values
