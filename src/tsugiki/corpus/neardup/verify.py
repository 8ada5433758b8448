"""Candidate pairs of documents, each checked once by its real Jaccard similarity.

Candidates are the pairs of `bands.band_edges` with `partners=CANDIDATE_PARTNERS`: within a run of documents
with one key all pairs of up to 17 documents, and for longer runs each document with the run's first 16. So a
cluster of thousands costs 16 comparisons a document and not their square; what is lost is a pair of two late
members of a long run, both unlike all of the first 16.

The order of work: `write_candidates` brings the pairs of all bands into one file, sorted and distinct;
`compare_candidates` takes a fixed number of them and writes those that are alike. The batches know nothing of
each other: any number of processes, in any order, gives the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsugiki.artifacts.files import atomic_path
from tsugiki.corpus.minhash import jaccard
from tsugiki.corpus.neardup.bands import MEMORY_BYTES, PAIR_BYTES, read_pairs
from tsugiki.corpus.neardup.passes import LARGEST, Pass, plan_passes
from tsugiki.corpus.neardup.units import size_of
from tsugiki.errors import InputError, StageError

CANDIDATE_PARTNERS = 16
PAIRS_A_BATCH = 1 << 16
"""Candidates that one task compares: some seconds of work on pages of 2,000 characters."""

Int64s = npt.NDArray[np.int64]
Shingles = npt.NDArray[np.uint64]
ShinglesOf = Callable[[Int64s], Iterable[Shingles]]
"""Gives the sorted n-gram hashes (`minhash.shingles`) of documents by ascending number, one after another."""

_LEAST_PAIRS = 1024


@dataclass(frozen=True)
class Verified:
    """How many distinct pairs were compared, and how many were alike enough to be joined."""

    candidates: int
    confirmed: int


def write_candidates(
    files: Sequence[Path], documents: int, target: Path, *, memory_bytes: int = MEMORY_BYTES
) -> int:
    """Write the distinct pairs of all bands' files, sorted, to `target`; returns how many.

    documents: how many there are; numbers are below that. The bytes are the same for every memory budget.
    Raises InputError where a file was cut off, StorageError where the disk is full.
    """
    written = 0
    with atomic_path(target) as partial, partial.open("wb") as file:
        for pairs in distinct_pairs(files, documents, memory_bytes):
            file.write(pairs.astype("<i8", copy=False).data)
            written += pairs.shape[0]
    return written


def compare_candidates(
    candidates: Path,
    batch: slice,
    target: Path,
    shingles_of: ShinglesOf,
    threshold: float,
    *,
    memory_bytes: int = MEMORY_BYTES,
) -> int:
    """Compare a batch of pairs and write those whose similarity is at least `threshold` to `target`.

    candidates: from `write_candidates`. batch: which of its pairs (`units.blocks_of`). target: as an edge
    file of `bands.band_edges`, in the order of the candidates. `memory_bytes` holds the n-grams of the left
    documents (of one document at least); the right documents stream past, in ascending order. Returns how
    many are alike. Raises InputError where the file holds fewer pairs, StageError where `shingles_of` gives
    too few texts or too many.
    """
    count = batch.stop - batch.start
    pairs = np.fromfile(candidates, "<i8", 2 * count, offset=PAIR_BYTES * batch.start).reshape(-1, 2)
    if pairs.shape[0] != count:
        raise InputError(
            f"{candidates} ends within the pairs {batch.start} to {batch.stop - 1}",
            hint="the file was cut off: delete it and run the command again",
        )
    parts = [np.empty((0, 2), np.int64), *_alike(pairs, shingles_of, threshold, memory_bytes)]
    alike = _sorted_distinct(np.concatenate(parts))
    with atomic_path(target) as partial, partial.open("wb") as file:
        file.write(alike.astype("<i8", copy=False).data)
    return int(alike.shape[0])


def distinct_pairs(files: Sequence[Path], documents: int, memory_bytes: int) -> Iterator[Int64s]:
    """The distinct pairs of all files, sorted by (left, right), in blocks of bounded size.

    documents: how many there are; numbers are below that. A left document's pairs may be spread over blocks.
    """
    capacity = max(memory_bytes // (4 * PAIR_BYTES), _LEAST_PAIRS)  # the pairs, and what sorting them takes
    total = sum(size_of(file) for file in files) // PAIR_BYTES

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
