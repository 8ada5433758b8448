"""The counting loops, compiled with numba (nogil, cached on disk).

An n-gram is known by a 64-bit polynomial rolling hash over mixed symbols. Two different n-grams of a document
of a million characters collide with a probability below 1e-7 (n²/2^65); the tests compare every value with a
plain Counter.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ONE = np.uint64(1)

_kernel: Any = nb.njit


@_kernel("uint64(uint64)", inline="always", cache=True)
def _mix(value: Any) -> Any:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@_kernel("uint64[::1](uint32[::1])", nogil=True, cache=True)
def _mixed(symbols: UInt32s) -> UInt64s:
    out = np.empty(symbols.size, np.uint64)
    for i in range(symbols.size):
        out[i] = _mix(np.uint64(symbols[i]) + _BASE)
    return out


@_kernel("uint64[::1](uint64[::1], int64)", nogil=True, cache=True)
def _rolling(mixed: UInt64s, n: int) -> UInt64s:
    """Polynomial hashes of all windows of n; empty where there are fewer than n symbols."""
    count = mixed.size - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    out = np.empty(count, np.uint64)
    leave = _ONE
    rolling = np.uint64(0)
    for i in range(n):
        leave *= _BASE
        rolling = rolling * _BASE + mixed[i]
    out[0] = rolling
    for i in range(n, mixed.size):
        rolling = rolling * _BASE + mixed[i] - leave * mixed[i - n]
        out[i - n + 1] = rolling
    return out


@_kernel("uint64[::1](uint32[::1], int64)", nogil=True, cache=True)
def ngram_hashes(symbols: UInt32s, n: int) -> UInt64s:
    """The 64-bit hash of every n-gram of `symbols`, in order; empty where there are fewer than n symbols."""
    out = _rolling(_mixed(symbols), n)
    for i in range(out.size):
        out[i] = _mix(out[i])
    return out


@_kernel("int64[:, ::1](uint32[::1], int64, int64)", nogil=True, cache=True)
def ngram_counts(symbols: UInt32s, first_n: int, last_n: int) -> Int64s:  # noqa: C901, PLR0915 (one kernel)
    """Count the n-grams for each n of first_n..last_n.

    Returns an array of shape (last_n - first_n + 1, 5): all n-grams, distinct ones, distinct ones that occur
    twice or more, the count of the most frequent one, and where that one is first seen (of several, the one
    seen first).

    An n-gram can only repeat where its first n - 1 symbols do, so each pass looks at the positions that the
    one before left: `active`, in order, with their hashes, which grow by one symbol. The table is open
    addressing; an entry is of the current n if the upper half of its tally is n (nothing is cleared in
    between), and the lower half is its count.
    """
    out = np.zeros((last_n - first_n + 1, 5), np.int64)
    bits = 4
    while (1 << bits) < 2 * symbols.size:
        bits += 1
    shift = np.uint64(64 - bits)
    mask = np.uint64((1 << bits) - 1)
    keys = np.empty(1 << bits, np.uint64)
    tallies = np.zeros(1 << bits, np.int64)
    firsts = np.empty(1 << bits, np.int32)
    mixed = _mixed(symbols)
    hashes = _rolling(mixed, first_n - 1) if first_n > 1 else np.zeros(symbols.size, np.uint64)
    active = np.arange(hashes.size)
    slots = np.empty(hashes.size, np.uint64)
    remaining = active.size
    for n in range(first_n, last_n + 1):
        total = symbols.size - n + 1
        if total <= 0:
            break
        if remaining and active[remaining - 1] >= total:
            remaining -= 1
        stamp = np.int64(n) << 32
        distinct = total - remaining
        repeated = 0
        most = 1
        leader = 0
        for k in range(remaining):
            i = active[k]
            key = hashes[k] * _BASE + mixed[i + n - 1]
            hashes[k] = key
            slot = (key * _MIX_1) >> shift
            while tallies[slot] >= stamp and keys[slot] != key:
                slot = (slot + _ONE) & mask
            slots[k] = slot
            if tallies[slot] < stamp:
                tallies[slot] = stamp + 1
                keys[slot] = key
                firsts[slot] = i
                distinct += 1
                continue
            tallies[slot] += 1
            count = tallies[slot] - stamp
            repeated += count == 2  # noqa: PLR2004
            if count > most or (count == most and firsts[slot] < leader):
                most = count
                leader = firsts[slot]
        left = 0
        for k in range(remaining):
            if tallies[slots[k]] - stamp > 1:
                active[left] = active[k]
                hashes[left] = hashes[k]
                left += 1
        remaining = left
        row = out[n - first_n]
        row[0] = total
        row[1] = distinct
        row[2] = repeated
        row[3] = most
        row[4] = leader
    return out


@_kernel("int64[::1](uint32[::1], int64[::1], int64, int64)", nogil=True, cache=True)
def repeated_lengths(symbols: UInt32s, lengths: Int64s, first_n: int, last_n: int) -> Int64s:
    """Count the letters in repeated word n-grams as Gopher does; one value for each n.

    The scan goes from the left; an n-gram seen before adds the lengths of its words, and the scan goes on
    behind it (corpus.md §1.4, definition (c)).
    """
    out = np.zeros(last_n - first_n + 1, np.int64)
    size = 16
    while size < 2 * symbols.size:
        size *= 2
    mask = np.uint64(size - 1)
    keys = np.empty(size, np.uint64)
    stamps = np.zeros(size, np.int32)
    for n in range(first_n, last_n + 1):
        hashes = ngram_hashes(symbols, n)
        i = 0
        while i < hashes.size:
            slot = hashes[i] & mask
            while stamps[slot] == n and keys[slot] != hashes[i]:
                slot = (slot + _ONE) & mask
            if stamps[slot] == n:
                out[n - first_n] += lengths[i : i + n].sum()
                i += n
            else:
                stamps[slot] = n
                keys[slot] = hashes[i]
                i += 1
    return out


@_kernel("uint32[::1](uint64[::1], uint32[::1], uint32[::1])", nogil=True, cache=True)
def minimum_hashes(values: UInt64s, multipliers: UInt32s, offsets: UInt32s) -> UInt32s:
    """For each k the minimum of multipliers[k]·x + offsets[k] mod 2^32 over x, the upper halves of `values`.

    Four values at a time: the minima are then loaded and stored a quarter as often, and 32-bit products fill
    the vector registers twice as densely as 64-bit ones (four times the speed of 64-bit multiply-shift).
    """
    out = np.full(multipliers.size, np.uint32(0xFFFFFFFF), np.uint32)
    half = np.uint64(32)
    whole = values.size - values.size % 4
    for i in range(0, whole, 4):
        x0 = np.uint32(values[i] >> half)
        x1 = np.uint32(values[i + 1] >> half)
        x2 = np.uint32(values[i + 2] >> half)
        x3 = np.uint32(values[i + 3] >> half)
        for k in range(multipliers.size):
            a = multipliers[k]
            b = offsets[k]
            left = min(np.uint32(a * x0 + b), np.uint32(a * x1 + b))
            right = min(np.uint32(a * x2 + b), np.uint32(a * x3 + b))
            out[k] = min(out[k], min(left, right))  # noqa: PLW3301 (numba vectorises this form)
    for i in range(whole, values.size):
        x0 = np.uint32(values[i] >> half)
        for k in range(multipliers.size):
            out[k] = min(out[k], np.uint32(multipliers[k] * x0 + offsets[k]))
    return out


@_kernel("uint64[:, ::1](uint32[:, ::1], int64, int64)", nogil=True, cache=True)
def band_keys(signatures: UInt32s, bands: int, rows: int) -> UInt64s:
    """One 64-bit key for each band of `rows` hashes, shape (documents, bands); keys of two bands differ."""
    out = np.empty((signatures.shape[0], bands), np.uint64)
    for document in range(signatures.shape[0]):
        for band in range(bands):
            key = _mix(np.uint64(band) + _ONE)
            for k in range(band * rows, (band + 1) * rows):
                key = _mix(key * _BASE + np.uint64(signatures[document, k]))
            out[document, band] = key
    return out


@_kernel("int64(uint64[::1], uint64[::1])", nogil=True, cache=True)
def intersection_size(left: UInt64s, right: UInt64s) -> int:
    """The size of the intersection of two sorted sets."""
    i = j = common = 0
    while i < left.size and j < right.size:
        if left[i] == right[j]:
            common += 1
            i += 1
            j += 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    return common
