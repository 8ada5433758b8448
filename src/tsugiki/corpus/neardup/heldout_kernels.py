"""The loops of the held-out split, compiled with numba (nogil, cached on disk)."""

# ruff: noqa: PLR0917 (kernels: numba takes positional arguments, and calls cost)

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
Float64s = npt.NDArray[np.float64]

_kernel: Any = nb.njit


def _read(kind: Any, dimensions: int = 1) -> Any:
    """The type of an array that may be read-only."""
    return nb.types.Array(kind, dimensions, "C", readonly=True)


_u8, _i32, _i64, _u32, _u64, _f64 = nb.uint8, nb.int32, nb.int64, nb.uint32, nb.uint64, nb.float64


@_kernel(_i64[::1](_read(_u32, 2), _read(_i64), _read(_i64)), nogil=True, cache=True)
def agreement(signatures: UInt32s, left: Int64s, right: Int64s) -> Int64s:
    """In how many hashes the rows left[i] and right[i] agree."""
    out = np.zeros(left.size, np.int64)
    for i in range(left.size):
        same = 0
        for k in range(signatures.shape[1]):
            same += signatures[left[i], k] == signatures[right[i], k]
        out[i] = same
    return out


@_kernel(nb.void(_read(_i64), _read(_u64, 2), _i64[::1], _i64[::1]), nogil=True, cache=True)
def smallest_ids(roots: Int64s, ids: UInt64s, sizes: Int64s, smallest: Int64s) -> None:
    """For each root the size of its group and the member with the smallest id; sizes of others are 0."""
    sizes[:] = 0
    for document in range(roots.size):
        root = roots[document]
        sizes[root] += 1
        best = smallest[root] if sizes[root] > 1 else document
        if ids[document, 0] < ids[best, 0] or (
            ids[document, 0] == ids[best, 0] and ids[document, 1] < ids[best, 1]
        ):
            best = document
        smallest[root] = best


@_kernel(_i64[::1](_read(_u64), _u64, _i64), nogil=True, cache=True)
def bucket_starts(values: UInt64s, shift: int, buckets: int) -> Int64s:
    """Where in the sorted `values` those with each number of upper bits (value >> shift) begin."""
    out = np.zeros(buckets + 1, np.int64)
    for i in range(values.size):
        out[np.int64(values[i] >> shift) + 1] += 1
    for bucket in range(1, out.size):
        out[bucket] += out[bucket - 1]
    return out


@_kernel(
    _i64(
        *(_read(_u64), _read(_u64), _read(_i64), _read(_i32), _read(_i32), _read(_i64), _u64),
        *(_i64[::1], _u8[::1], _i32[::1]),
    ),
    nogil=True,
    cache=True,
)
def follow_ngrams(
    query: UInt64s,
    values: UInt64s,
    begins: Int64s,
    owners: Int32s,
    common: Int32s,
    starts: Int64s,
    shift: int,
    counts: Int64s,
    asked: UInt8s,
    picked: Int32s,
) -> int:
    """Count a document's rare n-grams for their owners, and mark its common ones; returns how many these are.

    query: sorted set. values: the held-out documents' n-grams, sorted and distinct; starts, shift: their
    `bucket_starts`. common: the number of a common one, -1 for a rare one, whose owners are
    owners[begins[j]:begins[j + 1]]. counts: one a held-out document. asked: one a common n-gram, set to 1;
    picked: their numbers.
    """
    several = 0
    for i in range(query.size):
        value = query[i]
        j = starts[value >> shift]
        while j < values.size and values[j] < value:
            j += 1
        if j == values.size or values[j] != value:
            continue
        if common[j] >= 0:
            asked[common[j]] = 1
            picked[several] = common[j]
            several += 1
        else:
            for place in range(begins[j], begins[j + 1]):
                counts[owners[place]] += 1
    return several


@_kernel(
    _i64(
        *(_i64, _i64, _read(_i64), _read(_i32), _read(_i64), _f64),
        *(_i64[::1], _read(_u8), _f64[::1], _f64[::1], _i64[::1]),
    ),
    nogil=True,
    cache=True,
)
def compare_with_held_out(
    size: int,
    several: int,
    common_begins: Int64s,
    commons: Int32s,
    sizes: Int64s,
    threshold: float,
    counts: Int64s,
    asked: UInt8s,
    similarity: Float64s,
    containment: Float64s,
    alike: Int64s,
) -> int:
    """Compare a training document of `size` n-grams with every held-out one, exactly.

    A few n-grams are in a large part of all documents, and following them to their owners would be nearly all
    of the work. How many of them two documents may share at most bounds their similarity; they are counted
    only where that bound is above what is known already.

    several, counts, asked: of `follow_ngrams`; counts are left as zeros.
    commons[common_begins[o]:common_begins[o + 1]]: the common n-grams of held-out document o. sizes: n-grams
    of each. Raises the entries of similarity (Jaccard) and containment where this document comes closer;
    writes those with at least `threshold` to `alike` and returns how many.
    """
    found = 0
    for owner in range(sizes.size):
        shared = counts[owner]
        counts[owner] = 0
        first, last = common_begins[owner], common_begins[owner + 1]
        most = shared + min(last - first, several)
        bound = most / (sizes[owner] + size - most)
        if bound <= similarity[owner] and most / sizes[owner] <= containment[owner] and bound < threshold:
            continue
        if several:
            for place in range(first, last):
                shared += asked[commons[place]]
        jaccard = shared / (sizes[owner] + size - shared)
        similarity[owner] = max(similarity[owner], jaccard)
        containment[owner] = max(containment[owner], shared / sizes[owner])
        if jaccard >= threshold:
            alike[found] = owner
            found += 1
    return found
