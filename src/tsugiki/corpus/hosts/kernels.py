"""Hashing of host names and look-up in sorted arrays, compiled with numba (nogil, cached on disk).

A name is known by 64 bits: FNV-1a (Fowler, Noll, Vo) and the finaliser of splitmix64 after it. Of N listed
names a foreign one is taken for listed with a probability of N/2^64: 2.4e-13 for UT1's 4.5 million, or one
chance in 4,000 that among 10^9 different hosts even one is.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from tsugiki.corpus.kernels import _mix

UInt8s = npt.NDArray[np.uint8]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
_NEWLINE, _SPACE, _HASH, _DOT, _DASH, _LOW_LINE = 10, 32, 35, 46, 45, 95
_ZERO, _NINE, _UPPER_A, _UPPER_Z, _LOWER_A, _LOWER_Z = 48, 57, 65, 90, 97, 122
_SEPARATORS = (47, 63, 35, 38, 59)  # / ? # & ;

_kernel: Any = nb.njit


@_kernel("uint64(uint8[::1], int64, int64)", nogil=True, cache=True)
def name_key(data: UInt8s, start: int, stop: int) -> Any:
    """The key of the name data[start:stop]."""
    state = _FNV_OFFSET
    for i in range(start, stop):
        state = (state ^ np.uint64(data[i])) * _FNV_PRIME
    return _mix(state)


@_kernel("int64(uint64[::1], uint64)", nogil=True, cache=True)
def position(keys: UInt64s, key: Any) -> int:
    """Where `key` stands in the sorted `keys`, or -1."""
    low = 0
    high = keys.size
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < keys.size and keys[low] == key else -1


@_kernel("int64(uint8[::1], int64, uint64[::1])", nogil=True, cache=True)
def find_host(host: UInt8s, last_start: int, keys: UInt64s) -> int:
    """The place in `keys` of a host or of its nearest listed parent, or -1.

    last_start: where the shortest parent that may match begins (the registered domain); below 0: none may.
    """
    for start in range(last_start + 1):
        if start == 0 or host[start - 1] == _DOT:
            found = position(keys, name_key(host, start, host.size))
            if found >= 0:
                return found
    return -1


@_kernel("int64(uint8[::1], int64, uint64[::1])", nogil=True, cache=True)
def find_prefix(target: UInt8s, host_length: int, keys: UInt64s) -> int:
    """The place in `keys` of a prefix of host + path that ends where a part of the path ends, or -1."""
    state = _FNV_OFFSET
    for i in range(target.size):
        if i > host_length and target[i] in _SEPARATORS:
            found = position(keys, _mix(state))
            if found >= 0:
                return found
        state = (state ^ np.uint64(target[i])) * _FNV_PRIME
    return position(keys, _mix(state))


@_kernel("Tuple((uint64[::1], int64[:, ::1]))(uint8[::1])", nogil=True, cache=True)
def line_keys(data: UInt8s) -> tuple[UInt64s, Int64s]:  # noqa: C901 (one pass)
    """The keys of the plain host names among the lines, and the (start, stop) of all other lines.

    Plain: letters, digits, `-`, `_` and single inner dots, of any case, white space around it dropped. Empty
    lines and those that begin with `#` are neither.
    """
    lines = 1
    for i in range(data.size):
        lines += data[i] == _NEWLINE
    keys = np.empty(lines, np.uint64)
    others = np.empty((lines, 2), np.int64)
    plain = odd = begin = 0
    while begin < data.size:
        end = begin
        while end < data.size and data[end] != _NEWLINE:
            end += 1
        start, stop = begin, end
        begin = end + 1
        while start < stop and data[start] <= _SPACE:
            start += 1
        while start < stop and data[stop - 1] <= _SPACE:
            stop -= 1
        if start == stop or data[start] == _HASH:
            continue
        state = _FNV_OFFSET
        before = _DOT
        simple = True
        for i in range(start, stop):
            byte = data[i]
            if _UPPER_A <= byte <= _UPPER_Z:
                byte += np.uint8(32)
            letter = _LOWER_A <= byte <= _LOWER_Z or _ZERO <= byte <= _NINE
            letter = letter or byte == _DASH or byte == _LOW_LINE  # noqa: PLR1714 (numba)
            if not letter and not (byte == _DOT and before != _DOT):
                simple = False
                break
            before = byte
            state = (state ^ np.uint64(byte)) * _FNV_PRIME
        if simple and before != _DOT:
            keys[plain] = _mix(state)
            plain += 1
        else:
            others[odd, 0] = start
            others[odd, 1] = stop
            odd += 1
    return keys[:plain].copy(), others[:odd].copy()
