"""Candidate pairs of documents, each checked once by its real Jaccard similarity.

Candidates are the pairs of `bands.band_edges` with `partners=CANDIDATE_PARTNERS`: within a run of documents
with one key all pairs of up to 17 documents, and for longer runs each document with the run's first 16. So a
cluster of thousands costs 16 comparisons a document and not their square; what is lost is a pair of two late
members of a long run, both unlike all of the first 16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsugiki.corpus.minhash import jaccard
from tsugiki.corpus.neardup.bands import MEMORY_BYTES, read_pairs
from tsugiki.corpus.neardup.components import Components
from tsugiki.corpus.neardup.passes import LARGEST, Pass, plan_passes
from tsugiki.corpus.neardup.units import size_of
from tsugiki.errors import StageError

CANDIDATE_PARTNERS = 16

Int64s = npt.NDArray[np.int64]
Shingles = npt.NDArray[np.uint64]
ShinglesOf = Callable[[Int64s], Iterable[Shingles]]
"""Gives the sorted n-gram hashes (`minhash.shingles`) of documents by ascending number, one after another."""

_PAIR_BYTES = 16
_LEAST_PAIRS = 1024


@dataclass(frozen=True)
class Verified:
    """How many distinct pairs were compared, and how many were alike enough to be joined."""

    candidates: int
    confirmed: int


def join_verified(
    candidates: Sequence[Path],
    shingles_of: ShinglesOf,
    threshold: float,
    components: Components,
    *,
    memory_bytes: int = MEMORY_BYTES,
) -> Verified:
    """Join the candidate pairs whose Jaccard similarity is at least `threshold`.

    candidates: pair files of all bands. Half of `memory_bytes` holds pairs and half the n-grams of their left
    documents (of one document at least); the right documents stream past, in ascending order. Raises
    StageError where `shingles_of` gives too few or too many.
    """
    compared = confirmed = 0
    for pairs in distinct_pairs(candidates, components.count, memory_bytes // 2):
        compared += pairs.shape[0]
        for alike in _alike(pairs, shingles_of, threshold, memory_bytes // 2):
            components.union(alike)
            confirmed += alike.shape[0]
    return Verified(compared, confirmed)


def distinct_pairs(files: Sequence[Path], documents: int, memory_bytes: int) -> Iterator[Int64s]:
    """The distinct pairs of all files, sorted by (left, right), in blocks of bounded size.

    documents: how many there are; numbers are below that. A left document's pairs may be spread over blocks.
    """
    capacity = max(memory_bytes // (4 * _PAIR_BYTES), _LEAST_PAIRS)  # the pairs, and what sorting them takes
    total = sum(size_of(file) for file in files) // _PAIR_BYTES

    def lefts() -> Iterator[npt.NDArray[np.uint64]]:
        for file in files:
            for block in read_pairs(file):
                yield np.ascontiguousarray(block[:, 0]).view(np.uint64)

    for one in plan_passes(lefts, total, capacity, 0, max(documents - 1, 0)):
        if one.count <= capacity:
            yield _sorted_distinct(_selected(files, one, Pass(0, LARGEST, 0)))
            continue

        def rights(left: int = one.low) -> Iterator[npt.NDArray[np.uint64]]:
            for file in files:
                for block in read_pairs(file):
                    yield block[block[:, 0] == left, 1].view(np.uint64)

        for part in plan_passes(rights, one.count, capacity, 0, documents - 1):
            yield _sorted_distinct(_selected(files, one, part))


def _selected(files: Sequence[Path], left: Pass, right: Pass) -> Int64s:
    """The pairs of all files whose left and right documents lie in these ranges."""
    parts = [np.empty((0, 2), np.int64)]
    for file in files:
        for block in read_pairs(file):
            a, b = block.view(np.uint64).T
            inside = (a >= left.low) & (a <= left.high) & (b >= right.low) & (b <= right.high)
            parts.append(block[inside])
    return np.concatenate(parts)


def _sorted_distinct(pairs: Int64s) -> Int64s:
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    new = np.ones(pairs.shape[0], np.bool_)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[new]


def _alike(pairs: Int64s, shingles_of: ShinglesOf, threshold: float, memory_bytes: int) -> Iterator[Int64s]:
    """The pairs (sorted by their left document) that are alike, in blocks."""
    start = 0
    while start < pairs.shape[0]:
        known = _load(np.unique(pairs[start:, 0]), shingles_of, memory_bytes)
        end = int(np.searchsorted(pairs[:, 0], max(known), side="right"))
        block = pairs[start:end]
        block = block[np.argsort(block[:, 1], kind="stable")]
        rights, first = np.unique(block[:, 1], return_index=True)
        groups = np.split(block, first[1:])
        for values, group in zip(_exactly(rights, shingles_of(rights)), groups, strict=False):
            alike = [jaccard(known[left], values) >= threshold for left in group[:, 0].tolist()]
            if any(alike):
                yield group[np.array(alike)]
        start = end


def _load(documents: Int64s, shingles_of: ShinglesOf, memory_bytes: int) -> dict[int, Shingles]:
    """The n-grams of as many of these documents as fit, of the first one in any case."""
    known: dict[int, Shingles] = {}
    used = 0
    for values, number in zip(_exactly(documents, shingles_of(documents)), documents.tolist(), strict=False):
        if known and used + values.nbytes > memory_bytes:
            break
        known[number] = values
        used += values.nbytes
    return known


def _exactly(documents: Int64s, sets: Iterable[Shingles]) -> Iterator[Shingles]:
    """The sets, as many as there are documents; raises StageError where there are fewer or more."""
    count = 0
    for count, values in enumerate(sets, start=1):
        if count > documents.size:
            break
        yield values
    if count != documents.size:
        raise StageError(
            f"{count} texts came for {documents.size} documents ({documents[0]} to {documents[-1]})",
            hint="the unit's Parquet file and its index differ: delete both and run the command again",
        )
