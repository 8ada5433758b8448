"""The loop over the words of a text that is written with spaces, compiled with numba."""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np
import numpy.typing as npt

from tsugiki.corpus.character_tables import ALPHABETIC, ALPHANUMERIC, EDGE, SPACE
from tsugiki.corpus.feature_kernels import ONE, SEED, finish, step

UInt16s = npt.NDArray[np.uint16]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

(
    WORDS,
    SPOKEN_WORDS,
    SPOKEN_LETTERS,
    ALPHABETIC_WORDS,
    STOP_WORDS,
    HASHES,
    ELLIPSES,
    CURLY_BRACKETS,
) = range(8)
WORD_COUNTS: Final = 8

_NEWLINE: Final = 10
_DOT: Final = 46
_HASH: Final = 35
_ELLIPSIS: Final = 0x2026
_CURLY: Final = 123

_kernel: Any = nb.njit


@_kernel(
    "void(uint32[::1], uint16[::1], uint32[::1], int64, int64, uint64[::1], int64, boolean[::1])",
    nogil=True,
    cache=True,
)
def _mark_stop_word(  # noqa: PLR0917 (numba has no keyword arguments)
    symbols: UInt32s,
    table: UInt16s,
    lower: UInt32s,
    first: int,
    end: int,
    stop_hashes: UInt64s,
    longest_stop: int,
    seen: npt.NDArray[np.bool_],
) -> None:
    """Mark which stop word symbols[first:end] is, in small letters and without marks at its ends."""
    while end > first and table[symbols[end - 1]] & EDGE:
        end -= 1
    while first < end and table[symbols[first]] & EDGE:
        first += 1
    if end - first > longest_stop:
        return
    value = SEED
    for i in range(first, end):
        value = step(value, np.uint64(lower[symbols[i]]))
    value = finish(value, end - first)
    for k in range(stop_hashes.size):
        if stop_hashes[k] == value:
            seen[k] = True


@_kernel(
    "Tuple((int64[::1], uint32[::1], int64[::1]))(uint32[::1], uint16[::1], uint32[::1], uint64[::1], int64)",
    nogil=True,
    cache=True,
)
def word_counts(  # noqa: PLR0915 (one kernel)
    symbols: UInt32s, table: UInt16s, lower: UInt32s, stop_hashes: UInt64s, longest_stop: int
) -> tuple[Int64s, UInt32s, Int64s]:
    """The counts of words, and each word's number (equal words have equal ones) and length.

    Shapes: (WORD_COUNTS,), (words,), (words,). Words stand between white space. stop_hashes: `span_hash` of
    the stop words, none of which is longer than longest_stop.
    """
    out = np.zeros(WORD_COUNTS, np.int64)
    number_of_words = symbols.size // 2 + 1  # at most, since a space parts two of them
    numbers = np.empty(number_of_words, np.uint32)
    lengths = np.empty(number_of_words, np.int64)
    bits = 4
    while (1 << bits) < 2 * number_of_words:
        bits += 1
    mask = np.uint64((1 << bits) - 1)
    keys = np.zeros(1 << bits, np.uint64)
    owners = np.empty(1 << bits, np.uint32)
    seen = np.zeros(stop_hashes.size, np.bool_)
    words = distinct = dots = 0
    start = -1
    spoken = alphabetic = False
    value = SEED
    for i in range(symbols.size + 1):
        symbol = symbols[i] if i < symbols.size else np.uint32(_NEWLINE)
        entry = table[symbol]
        dots = dots + 1 if symbol == _DOT else 0
        if symbol == _ELLIPSIS or (dots > 0 and dots % 3 == 0):
            out[ELLIPSES] += 1
        out[HASHES] += symbol == _HASH
        out[CURLY_BRACKETS] += symbol == _CURLY
        if not entry & SPACE:
            if start < 0:
                start = i
            spoken = spoken or (entry & ALPHANUMERIC) != 0
            alphabetic = alphabetic or (entry & ALPHABETIC) != 0
            value = step(value, np.uint64(symbol))
            continue
        if start < 0:
            continue
        length = i - start
        key = finish(value, length) | ONE
        slot = (key >> ONE) & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + ONE) & mask
        if keys[slot] == 0:
            keys[slot] = key
            owners[slot] = distinct
            distinct += 1
            _mark_stop_word(symbols, table, lower, start, i, stop_hashes, longest_stop, seen)
        numbers[words] = owners[slot]
        lengths[words] = length
        words += 1
        out[SPOKEN_WORDS] += spoken
        out[SPOKEN_LETTERS] += length if spoken else 0
        out[ALPHABETIC_WORDS] += alphabetic
        start = -1
        spoken = alphabetic = False
        value = SEED
    out[WORDS] = words
    out[STOP_WORDS] = seen.sum()
    return out, numbers[:words], lengths[:words]
