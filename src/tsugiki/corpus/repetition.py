"""How often the character n-grams of a text repeat, for all n up to 10 at once, exactly and by sorting.

The characters of a text are numbered (a Japanese page has about 300 different ones: 9 bits), so that a 64-bit
key holds the first m characters of a suffix. In the sorted keys equal n-grams lie side by side for every
n <= m: the number of distinct ones, of repeated ones and the most frequent one follow from how many leading
characters neighbours share. Only positions whose first m characters repeat are looked at again, with a number
for these and the next characters in the key. No hash is involved, so no two n-grams are ever mistaken.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import numba as nb
import numpy as np
import numpy.typing as npt

from tsugiki.corpus.character_tables import CODE_POINTS

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

TOTAL, DISTINCT, REPEATED, MOST = range(4)
_KEY_BITS: Final = 64
_ONE = np.uint64(1)
_ODD = np.uint64(0x9E3779B97F4A7C15)

_kernel: Any = nb.njit
_local = threading.local()


def _scratch() -> UInt32s:
    """Zeros for each code point, one array a thread: making it anew would cost more than the whole count."""
    zeros: UInt32s | None = getattr(_local, "zeros", None)
    if zeros is None:
        zeros = _local.zeros = np.zeros(CODE_POINTS, np.uint32)
    return zeros


def character_repetition(symbols: UInt32s, last_n: int, last_most: int) -> Int64s:
    """Counts of the n-grams of `symbols` for n = 1..last_n, shape (last_n, 4).

    The columns are all n-grams, distinct ones, distinct ones that occur twice or more, and, for n up to
    last_most, the count of the most frequent one; all 0 where the text is shorter than n.
    """
    counts = np.zeros((last_n, 4), np.int64)
    if symbols.size == 0:
        return counts
    numbers, keys, bits = _first_keys(symbols, _scratch(), last_n, counts)
    known = 0
    more = min(last_n, _KEY_BITS // bits)
    positions = np.empty(0, np.int64)  # not yet looked at: all of them
    while keys.size:
        ordered = np.sort(keys)
        _count_runs(ordered, known, more, bits, last_most, counts)
        known += more
        positions, keys, more = _next_keys(ordered, keys, positions, numbers, known, last_n, bits)
    return counts


@_kernel(
    "Tuple((uint64[::1], uint64[::1], int64))(uint32[::1], uint32[::1], int64, int64[:, ::1])",
    nogil=True,
    cache=True,
)
def _first_keys(
    symbols: UInt32s, scratch: UInt32s, last_n: int, counts: Int64s
) -> tuple[UInt64s, UInt64s, int]:
    """The symbols numbered from 1 in order of appearance, a key for each position, and the bits of a number.

    A key holds the numbers of as many symbols as fit, up to last_n; 0 stands for "behind the end". scratch:
    zeros, one for each code point; they are zeros again afterwards.
    """
    size = symbols.size
    different = 0
    numbers = np.empty(size, np.uint64)
    for i in range(size):
        number = scratch[symbols[i]]
        if number == 0:
            different += 1
            number = np.uint32(different)
            scratch[symbols[i]] = number
        numbers[i] = number
    for symbol in symbols:
        scratch[symbol] = 0
    bits = 1
    while different >> bits:
        bits += 1
    more = min(last_n, _KEY_BITS // bits)
    shift = np.uint64(bits)
    mask = ~np.uint64(0) >> np.uint64(_KEY_BITS - more * bits)
    keys = np.empty(size, np.uint64)
    key = np.uint64(0)
    for j in range(min(more - 1, size)):
        key = (key << shift) | numbers[j]
    if more - 1 > size:
        key <<= np.uint64(bits * (more - 1 - size))
    for i in range(size):
        j = i + more - 1
        key = ((key << shift) | (numbers[j] if j < size else np.uint64(0))) & mask
        keys[i] = key
    for n in range(1, last_n + 1):
        total = max(0, size - n + 1)
        counts[n - 1, TOTAL] = total
        counts[n - 1, DISTINCT] = total
        counts[n - 1, MOST] = total > 0
    return numbers, keys, bits


@_kernel("void(uint64[::1], int64, int64, int64, int64, int64[:, ::1])", nogil=True, cache=True)
def _count_runs(  # noqa: PLR0917 (numba has no keyword arguments)
    ordered: UInt64s, known: int, more: int, bits: int, last_most: int, counts: Int64s
) -> None:
    """Write the rows n = known + 1 .. known + more of `counts`.

    ordered: sorted keys. Two neighbours share n - known numbers where their difference lies below the bits of
    those. Keys that reach behind the text's end never agree there, as a 0 then meets another number.
    """
    differences = np.empty(ordered.size, np.uint64)
    differences[0] = ~np.uint64(0)
    for i in range(1, ordered.size):
        differences[i] = ordered[i] ^ ordered[i - 1]
    for shared in range(1, more + 1):
        n = known + shared
        limit = _ONE << np.uint64((more - shared) * bits)
        pairs = repeated = np.int64(0)
        for i in range(1, differences.size):  # no branches, so that it is compiled to vector instructions
            same = np.int64(differences[i] < limit)
            pairs += same
            repeated += same & np.int64(differences[i - 1] >= limit)
        counts[n - 1, DISTINCT] -= pairs
        counts[n - 1, REPEATED] = repeated
        if n <= last_most and pairs:
            run = longest = np.int64(0)
            for difference in differences:
                run = (run + 1) & -np.int64(difference < limit)
                longest = max(longest, run)
            counts[n - 1, MOST] = longest + 1


@_kernel(
    "Tuple((int64[::1], uint64[::1], int64))"
    "(uint64[::1], uint64[::1], int64[::1], uint64[::1], int64, int64, int64)",
    nogil=True,
    cache=True,
)
def _next_keys(  # noqa: C901, PLR0917 (one kernel)
    ordered: UInt64s,
    keys: UInt64s,
    positions: Int64s,
    numbers: UInt64s,
    known: int,
    last_n: int,
    bits: int,
) -> tuple[Int64s, UInt64s, int]:
    """The positions whose key occurs more than once, their next keys, and the symbols that those add.

    A next key is the rank of the repeated key and, below it, the numbers of the symbols from position + known
    on. positions: of the keys; empty for 0, 1, 2 ...
    """
    again = np.empty(ordered.size // 2 + 1, np.uint64)
    repeated = np.int64(0)
    before = False
    for i in range(1, ordered.size if known < last_n else 0):
        same = ordered[i] == ordered[i - 1]
        again[repeated] = ordered[i]
        repeated += np.int64(same and not before)
        before = same
    if repeated == 0:
        return np.empty(0, np.int64), np.empty(0, np.uint64), 0
    table_bits = 4
    while (1 << table_bits) < 4 * repeated:
        table_bits += 1
    rank_bits = 1
    while repeated >> rank_bits:
        rank_bits += 1
    more = min(last_n - known, (_KEY_BITS - rank_bits) // bits)
    mask = np.uint64((1 << table_bits) - 1)
    slot_shift = np.uint64(64 - table_bits)
    owners = np.full(1 << table_bits, -1, np.int32)
    for k in range(repeated):
        slot = (again[k] * _ODD) >> slot_shift
        while owners[slot] >= 0:
            slot = (slot + _ONE) & mask
        owners[slot] = k
    found = np.empty(keys.size, np.int64)
    out = np.empty(keys.size, np.uint64)
    count = 0
    for k in range(keys.size):
        slot = (keys[k] * _ODD) >> slot_shift
        while owners[slot] >= 0 and again[owners[slot]] != keys[k]:
            slot = (slot + _ONE) & mask
        if owners[slot] < 0:
            continue
        position = positions[k] if positions.size else k
        key = np.uint64(owners[slot])
        for j in range(position + known, position + known + more):
            key = (key << np.uint64(bits)) | (numbers[j] if j < numbers.size else np.uint64(0))
        found[count] = position
        out[count] = key
        count += 1
    return found[:count], out[:count], more
