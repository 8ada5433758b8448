"""The loops of decontamination, compiled with numba (nogil, cached on disk)."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

UInt8s = npt.NDArray[np.uint8]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

DROPPED = np.uint32(0xFFFFFFFF)
"""In a table of characters: white space, punctuation, symbols."""
DIFFICULT = np.uint32(0xFFFFFFFE)
"""In a table of characters: one that must be normalised together with its neighbours."""

_BLOOM = np.uint64(0xD6E8FEB86659FD93)  # odd, so that a hash's high bits choose another bit than its low ones
_ONE = np.uint64(1)
_BYTE = np.uint64(7)
_EIGHT = np.uint64(3)

_kernel: Any = nb.njit


@_kernel("Tuple((uint32[::1], boolean))(uint32[::1], uint32[::1])", nogil=True, cache=True)
def simplified(symbols: UInt32s, table: UInt32s) -> tuple[UInt32s, bool]:
    """What `table` makes of each symbol, and whether none was difficult (the array is of no use else)."""
    out = np.empty(symbols.size, np.uint32)
    count = 0
    for i in range(symbols.size):
        symbol = symbols[i]
        value = table[symbol] if symbol < table.size else DIFFICULT
        if value == DIFFICULT:
            return out[:0], False
        if value != DROPPED:
            out[count] = value
            count += 1
    return out[:count], True


@_kernel("Tuple((uint8[::1], uint64[::1], int32[::1]))(uint64[::1], int64)", nogil=True, cache=True)
def build_table(keys: UInt64s, bits_per_key: int) -> tuple[UInt8s, UInt64s, Int32s]:
    """A filter of bits, and an open-addressing table of distinct keys with their places (-1: empty)."""
    size = 16
    while size < 2 * keys.size:
        size *= 2
    filter_size = 64
    while filter_size * 8 < bits_per_key * keys.size:
        filter_size *= 2
    filtered = np.zeros(filter_size, np.uint8)
    slots = np.zeros(size, np.uint64)
    places = np.full(size, np.int32(-1), np.int32)
    mask = np.uint64(size - 1)
    filter_mask = np.uint64(filter_size * 8 - 1)
    for place in range(keys.size):
        key = keys[place]
        bit = ((key * _BLOOM) >> np.uint64(20)) & filter_mask
        filtered[bit >> _EIGHT] |= np.uint8(_ONE << (bit & _BYTE))
        slot = key & mask
        while places[slot] >= 0:
            slot = (slot + _ONE) & mask
        slots[slot] = key
        places[slot] = place
    return filtered, slots, places


@_kernel("int32[::1](uint64[::1], uint8[::1], uint64[::1], int32[::1])", nogil=True, cache=True)
def look_up(hashes: UInt64s, filtered: UInt8s, slots: UInt64s, places: Int32s) -> Int32s:
    """The place of each hash among the keys of a table, -1 where it is none of them."""
    out = np.empty(hashes.size, np.int32)
    mask = np.uint64(slots.size - 1)
    filter_mask = np.uint64(filtered.size * 8 - 1)
    for i in range(hashes.size):
        key = hashes[i]
        out[i] = -1
        bit = ((key * _BLOOM) >> np.uint64(20)) & filter_mask
        if not (filtered[bit >> _EIGHT] >> np.uint8(bit & _BYTE)) & np.uint8(1):
            continue
        slot = key & mask
        while places[slot] >= 0:
            if slots[slot] == key:
                out[i] = places[slot]
                break
            slot = (slot + _ONE) & mask
    return out


@_kernel("boolean(uint32[::1], int64, uint32[::1])", nogil=True, cache=True)
def stands_at(text: UInt32s, start: int, part: UInt32s) -> bool:
    """Whether `part` stands in `text` at `start`."""
    if start + part.size > text.size:
        return False
    for i in range(part.size):  # noqa: SIM110 (numba has no all())
        if text[start + i] != part[i]:
            return False
    return True


@_kernel("int64[::1](int64[::1], int64[::1], int64)", nogil=True, cache=True)
def covered(positions: Int64s, starts: Int64s, n: int) -> Int64s:
    """How many characters of each part the n-grams at `positions` cover.

    positions: sorted, of n-grams that lie inside of one part each; starts: of the parts, with the end of the
    last one behind them. Shape of the result: (parts,).
    """
    out = np.zeros(starts.size - 1, np.int64)
    part = 0
    last = np.int64(0)
    for i in range(positions.size):
        while starts[part + 1] <= positions[i]:
            part += 1
        end = positions[i] + n
        out[part] += end - max(positions[i], last)
        last = end
    return out
