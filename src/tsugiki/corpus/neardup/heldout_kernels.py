"""The loops of the held-out split, compiled with numba (nogil, cached on disk)."""

# ruff: noqa: PLR0917 (kernels: numba takes positional arguments, and calls cost)

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]

_kernel: Any = nb.njit


def _read(kind: Any, dimensions: int = 1) -> Any:
    """The type of an array that may be read-only."""
    return nb.types.Array(kind, dimensions, "C", readonly=True)


_i32, _i64, _u32, _u64, _f64 = nb.int32, nb.int64, nb.uint32, nb.uint64, nb.float64


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
        *(_read(_u64), _read(_u64), _read(_i32), _read(_i64), _u64, _read(_i64), _f64),
        *(_i64[::1], _i32[::1], _f64[::1], _f64[::1], _i64[::1]),
    ),
    nogil=True,
    cache=True,
)
def compare_with_held_out(
    query: UInt64s,
    values: UInt64s,
    owners: Int32s,
    starts: Int64s,
    shift: int,
    sizes: Int64s,
    threshold: float,
    counts: Int64s,
    touched: Int32s,
    similarity: Float64s,
    containment: Float64s,
    alike: Int64s,
) -> int:
    """Compare a training document's n-grams with those of every held-out one.

    query: sorted set. values, owners: the held-out documents' n-grams, sorted, and whose they are; starts,
    shift: their `bucket_starts`. sizes: n-grams of each held-out document. Raises the entries of similarity
    (Jaccard) and containment where this document comes closer; writes those with at least `threshold` to
    `alike` and returns how many. counts (zeros, left as zeros) and touched: room for one entry each.
    """
    seen = 0
    for i in range(query.size):
        value = query[i]
        j = starts[value >> shift]
        while j < values.size and values[j] < value:
            j += 1
        while j < values.size and values[j] == value:
            owner = owners[j]
            if counts[owner] == 0:
                touched[seen] = owner
                seen += 1
            counts[owner] += 1
            j += 1
    found = 0
    for i in range(seen):
        owner = touched[i]
        common = counts[owner]
        counts[owner] = 0
        jaccard = common / (sizes[owner] + query.size - common)
        similarity[owner] = max(similarity[owner], jaccard)
        containment[owner] = max(containment[owner], common / sizes[owner])
        if jaccard >= threshold:
            alike[found] = owner
            found += 1
    return found
