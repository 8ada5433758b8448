"""The loops over band keys, edges, components and clusters, compiled with numba (nogil, cached on disk).

Arrays that are only read may be read-only memory maps; arrays that are written are given by the caller, so
that it decides whether they lie in memory or in a file.
"""

# ruff: noqa: C901, PLR0911, PLR0917 (kernels: numba takes positional arguments, and calls cost)

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

UInt8s = npt.NDArray[np.uint8]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ONE = np.uint64(1)
_LARGE_BUCKET = 48  # from here on insertion sort loses against merge sort

_kernel: Any = nb.njit


def _read(kind: Any, dimensions: int = 1) -> Any:
    """The type of an array that may be read-only."""
    return nb.types.Array(kind, dimensions, "C", readonly=True)


_u8, _u32, _u64, _i64, _f64 = nb.uint8, nb.uint32, nb.uint64, nb.int64, nb.float64


@_kernel(_u64(_u64), inline="always", cache=True)
def _mix(value: Any) -> Any:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@_kernel(_u64[:, ::1](_read(_u32, 2), _i64, _i64, _i64), nogil=True, cache=True)
def band_major_keys(signatures: UInt32s, first: int, last: int, rows: int) -> UInt64s:
    """The 64-bit keys of bands first..last - 1, shape (last - first, documents).

    The values are those of `tsugiki.corpus.kernels.band_keys`, the other way round.
    """
    documents = signatures.shape[0]
    out = np.empty((last - first, documents), np.uint64)
    for document in range(documents):
        for band in range(first, last):
            key = _mix(np.uint64(band) + _ONE)
            for k in range(band * rows, (band + 1) * rows):
                key = _mix(key * _BASE + np.uint64(signatures[document, k]))
            out[band - first, document] = key
    return out


@_kernel(nb.void(_read(_u64), _u64, _u64, _u64, _i64[::1]), nogil=True, cache=True)
def count_values(values: UInt64s, low: int, high: int, shift: int, counts: Int64s) -> None:
    """Add to counts[(value - low) >> shift] for every value in low..high."""
    for i in range(values.size):
        if low <= values[i] <= high:
            counts[(values[i] - low) >> shift] += 1


@_kernel(
    nb.types.UniTuple(_i64, 2)(_read(_u64), _i64, _i64, _u64, _u64, _u64[::1], _i64[::1], _i64),
    nogil=True,
    cache=True,
)
def select_values(
    values: UInt64s,
    start: int,
    first: int,
    low: int,
    high: int,
    keys: UInt64s,
    documents: Int64s,
    filled: int,
) -> tuple[int, int]:
    """Append the values in low..high from index `start` on, with the document number first + index.

    Stops where the output is full; returns the index to go on at, and how much of the output is filled.
    """
    for i in range(start, values.size):
        if low <= values[i] <= high:
            if filled == keys.size:
                return i, filled
            keys[filled] = values[i]
            documents[filled] = first + i
            filled += 1
    return values.size, filled


@_kernel(
    nb.void(_u64[::1], _i64[::1], _i64, _u64, _u64, _i64[::1], _u64[::1], _i64[::1]), nogil=True, cache=True
)
def sort_keys(
    keys: UInt64s,
    documents: Int64s,
    count: int,
    low: int,
    shift: int,
    starts: Int64s,
    sorted_keys: UInt64s,
    sorted_documents: Int64s,
) -> None:
    """Sort the first `count` (key, document) by key, stably.

    Keys are hashes, so one scatter by their upper bits, (key - low) >> shift, leaves a few in each bucket,
    which insertion sort finishes. A bucket of many documents with one key is in order already; a large one of
    several keys falls to merge sort. starts: room for one more number than there are buckets.
    """
    starts[:] = 0
    for i in range(count):
        starts[((keys[i] - low) >> shift) + _ONE] += 1
    for bucket in range(1, starts.size):
        starts[bucket] += starts[bucket - 1]
    for i in range(count):
        bucket = (keys[i] - low) >> shift
        place = starts[bucket]
        starts[bucket] = place + 1
        sorted_keys[place] = keys[i]
        sorted_documents[place] = documents[i]
    begin = 0
    for bucket in range(starts.size - 1):
        end = starts[bucket]
        if end - begin > _LARGE_BUCKET:
            part = sorted_keys[begin:end]
            if (part != part[0]).any():
                order = np.argsort(part, kind="mergesort")
                sorted_keys[begin:end] = part[order]
                sorted_documents[begin:end] = sorted_documents[begin:end][order]
        else:
            for i in range(begin + 1, end):
                key = sorted_keys[i]
                document = sorted_documents[i]
                j = i
                while j > begin and sorted_keys[j - 1] > key:
                    sorted_keys[j] = sorted_keys[j - 1]
                    sorted_documents[j] = sorted_documents[j - 1]
                    j -= 1
                sorted_keys[j] = key
                sorted_documents[j] = document
        begin = end


@_kernel(
    nb.types.UniTuple(_i64, 2)(_read(_u64), _read(_i64), _i64, _i64[::1], _i64[::1], _i64[:, ::1]),
    nogil=True,
    cache=True,
)
def pairs_of_runs(
    keys: UInt64s, documents: Int64s, start: int, run: Int64s, partners: Int64s, pairs: Int64s
) -> tuple[int, int]:
    """Pair each document of a run of equal keys with the first ones of the run.

    run: (key of the run at hand, its length so far), partners: its first documents; both live from call to
    call, so that a run may be longer than memory. pairs: the output, shape (room, 2); room for at least as
    many as there are partners. Returns the index to go on at and the number of pairs written.
    """
    filled = 0
    for i in range(start, keys.size):
        if filled + partners.size > pairs.shape[0]:
            return i, filled
        if run[1] == 0 or run[0] != np.int64(keys[i]):
            run[0] = np.int64(keys[i])
            run[1] = 0
        known = min(run[1], partners.size)
        for k in range(known):
            pairs[filled, 0] = partners[k]
            pairs[filled, 1] = documents[i]
            filled += 1
        if known < partners.size:
            partners[known] = documents[i]
        run[1] += 1
    return keys.size, filled


@_kernel(_i64(_i64[::1], _i64), nogil=True, cache=True)
def _root(parents: Int64s, node: int) -> int:
    """The root of a node, with path halving."""
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


@_kernel(_i64(_i64[::1], _read(_i64, 2)), nogil=True, cache=True)
def union_edges(parents: Int64s, edges: Int64s) -> int:
    """Join the two nodes of every edge, the smaller root above; the index of an edge out of range, or -1."""
    for i in range(edges.shape[0]):
        left = edges[i, 0]
        right = edges[i, 1]
        if not (0 <= left < parents.size and 0 <= right < parents.size):
            return i
        left = _root(parents, left)
        right = _root(parents, right)
        if left < right:
            parents[right] = left
        elif right < left:
            parents[left] = right
    return -1


@_kernel(nb.boolean[::1](_i64[::1], _read(_i64, 2)), nogil=True, cache=True)
def apart(parents: Int64s, pairs: Int64s) -> npt.NDArray[np.bool_]:
    """For each pair whether its nodes lie in different components."""
    out = np.empty(pairs.shape[0], np.bool_)
    for i in range(pairs.shape[0]):
        out[i] = _root(parents, pairs[i, 0]) != _root(parents, pairs[i, 1])
    return out


@_kernel(nb.void(_i64[::1]), nogil=True, cache=True)
def point_to_roots(parents: Int64s) -> None:
    """Let every node point to its root; a parent is never larger than its node, so one sweep does."""
    for node in range(parents.size):
        parents[node] = parents[parents[node]]


@_kernel(nb.boolean(_i64, _i64, _i64, _read(_i64), _read(_i64), _read(_f64), _read(_u64, 2)), cache=True)
def _preferred(
    left: int, right: int, keep: int, date: Int64s, characters: Int64s, score: Float64s, ids: UInt64s
) -> bool:
    """Whether a document goes before another; keep: 0 first, 1 newest, 2 longest, 3 best."""
    if keep == 3:  # noqa: PLR2004
        a, b = score[left], score[right]
        a = -np.inf if np.isnan(a) else a
        b = -np.inf if np.isnan(b) else b
        if a != b:
            return a > b
    if keep == 1 and date[left] != date[right]:
        return date[left] > date[right]
    if keep > 0 and characters[left] != characters[right]:
        return characters[left] > characters[right]
    if keep > 1 and date[left] != date[right]:
        return date[left] > date[right]
    if ids[left, 0] != ids[right, 0]:
        return ids[left, 0] < ids[right, 0]
    if ids[left, 1] != ids[right, 1]:
        return ids[left, 1] < ids[right, 1]
    return left < right


@_kernel(
    nb.void(
        *(_read(_i64), _i64, _read(_i64), _read(_i64), _read(_f64), _read(_u64, 2), _read(_u8), _i64),
        *(_i64[::1], _i64[::1]),
    ),
    nogil=True,
    cache=True,
)
def best_of_roots(
    roots: Int64s,
    documents: int,
    date: Int64s,
    characters: Int64s,
    score: Float64s,
    ids: UInt64s,
    excluded: UInt8s,
    keep: int,
    best: Int64s,
    sizes: Int64s,
) -> None:
    """For each root the preferred document of its cluster (-1: none may survive) and the cluster's size."""
    best[:] = -1
    sizes[:] = 0
    for document in range(documents):
        root = roots[document]
        sizes[root] += 1
        if excluded.size and excluded[document]:
            continue
        if best[root] < 0 or _preferred(document, best[root], keep, date, characters, score, ids):
            best[root] = document


@_kernel(
    nb.void(_read(_i64), _i64, _i64, _read(_i64), _read(_i64), _i64[::1], _i64[::1]), nogil=True, cache=True
)
def old_survivors_win(
    roots: Int64s,
    documents: int,
    first: int,
    survivors: Int64s,
    old_sizes: Int64s,
    best: Int64s,
    sizes: Int64s,
) -> None:
    """A cluster that holds survivors of an older corpus keeps the first of them, and their members count.

    documents: new ones; first: the node of the older corpus's document 0 (>= documents). survivors and
    old_sizes: one a document of that corpus. Only survivors are ever joined to new documents.
    """
    for document in range(survivors.size):
        node = first + document
        if survivors[document] != document or roots[node] == node:
            continue
        root = roots[node]
        sizes[root] += old_sizes[document]
        if best[root] < documents:
            best[root] = node


@_kernel(nb.void(_read(_i64), _i64, _read(_i64), _read(_i64), _i64[::1], _i64[::1]), nogil=True, cache=True)
def spread(
    roots: Int64s, documents: int, best: Int64s, sizes: Int64s, survivor: Int64s, cluster_size: Int64s
) -> None:
    """Give every document its root's survivor and size."""
    for document in range(documents):
        survivor[document] = best[roots[document]]
        cluster_size[document] = sizes[roots[document]]


@_kernel(
    nb.types.UniTuple(_i64, 3)(
        *(_read(_u64), _read(_i64), _read(_u64), _read(_i64), _read(_i64)),
        *(_i64, _i64, _i64[::1], _i64[:, ::1]),
    ),
    nogil=True,
    cache=True,
)
def edges_to_old(
    keys: UInt64s,
    documents: Int64s,
    old_keys: UInt64s,
    old_documents: Int64s,
    survivors: Int64s,
    start: int,
    first: int,
    cursor: Int64s,
    edges: Int64s,
) -> tuple[int, int, int]:
    """Join new documents to an older corpus by equal keys of a band; both sides are sorted by key.

    Each new document goes to the smallest survivor among the old documents with its key. first: the node of
    the older corpus's document 0. cursor: (place in old_keys, smallest survivor there or -1, place behind
    that run), kept from call to call. edges: the output. Returns the index to go on at, the edges written,
    and 1 where an old document number is out of range, else 0.
    """
    filled = 0
    for i in range(start, keys.size):
        if filled == edges.shape[0]:
            return i, filled, 0
        while cursor[0] < old_keys.size and old_keys[cursor[0]] < keys[i]:
            cursor[0] += 1
            cursor[2] = -1
        if cursor[0] == old_keys.size or old_keys[cursor[0]] != keys[i]:
            continue
        if cursor[2] < 0:
            smallest = np.int64(-1)
            j = cursor[0]
            while j < old_keys.size and old_keys[j] == keys[i]:
                if not 0 <= old_documents[j] < survivors.size:
                    return i, filled, 1
                found = survivors[old_documents[j]]
                if found >= survivors.size:
                    return i, filled, 1
                if found >= 0 and (smallest < 0 or found < smallest):
                    smallest = found
                j += 1
            cursor[1] = smallest
            cursor[2] = j
        if cursor[1] >= 0:
            edges[filled, 0] = documents[i]
            edges[filled, 1] = first + cursor[1]
            filled += 1
    return keys.size, filled, 0
