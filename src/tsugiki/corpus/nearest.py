"""How near each held-out document is to any training document: exactly, n-gram by n-gram.

The held-out documents' n-grams are indexed in portions, and the training documents stream past in several
threads (what is slow runs without Python's lock).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt

from tsugiki.corpus.neardup import heldout_kernels
from tsugiki.corpus.neardup.units import blocks_of
from tsugiki.errors import StageError

_BLOCK_DOCUMENTS = 4096
_LEAST_DOCUMENTS = 256
_NGRAM_BYTES = 64  # of an indexed n-gram: 58 were measured while an index is made, 28 of one that is
_PART_OF_MEMORY = 4  # texts of the units in hand and what other steps left need the rest
_MOST_COMMON = 8192
"""So many n-grams count as common at most."""
_FEW = 32
"""Following so few owners costs no more than anything else would."""

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]
Shingles = Callable[[Int64s], Iterable[UInt64s]]
"""Gives the sorted n-gram hashes (`minhash.shingles`) of the kept documents with these ascending indices, one
after another; called from several threads.
"""


@dataclass(frozen=True)
class Nearest:
    """One value a held-out document; and the pairs (held out, training) that are alike, shape (pairs, 2)."""

    similarity: npt.NDArray[np.float64]
    containment: npt.NDArray[np.float64]
    alike: Int64s


def nearest(
    held_out: Int64s,
    documents: int,
    shingles_of: Shingles,
    threshold: float,
    *,
    memory_bytes: int,
    threads: int,
) -> Nearest:
    """Compare exactly: an inverted index of the held-out documents' n-grams, every other one as a query.

    Where the index would not fit into a quarter of `memory_bytes`, one index after another, and the queries
    anew for each. Raises StageError where the texts are not as many as the documents.
    """
    held = np.zeros(documents, np.bool_)
    held[held_out] = True
    parts = [
        _nearest_of(
            index,
            held_out=held_out[place],
            held=held,
            shingles_of=shingles_of,
            threshold=threshold,
            threads=threads,
        )
        for place, index in _indexes(held_out, shingles_of, memory_bytes // _PART_OF_MEMORY)
    ]
    return Nearest(*(np.concatenate(fields) for fields in zip(*map(astuple, parts), strict=True)))


def _indexes(held_out: Int64s, shingles_of: Shingles, memory_bytes: int) -> Iterator[tuple[slice, Index]]:
    waiting: list[UInt64s] = []
    start = size = 0
    for place, one in enumerate(sets_of(shingles_of, held_out)):
        if waiting and (size + one.size) * _NGRAM_BYTES > memory_bytes:
            yield slice(start, place), Index.of(waiting)
            waiting, start, size = [], place, 0
        waiting.append(one)
        size += one.size
    yield slice(start, held_out.size), Index.of(waiting)


def _nearest_of(
    index: Index,
    *,
    held_out: Int64s,
    held: npt.NDArray[np.bool_],
    shingles_of: Shingles,
    threshold: float,
    threads: int,
) -> Nearest:
    def compare(block: slice) -> Nearest:
        training = block.start + np.flatnonzero(~held[block])
        return index.compare(held_out, training, shingles_of, threshold)

    similarity, containment = np.zeros((2, held_out.size))
    alike = [np.empty((0, 2), np.int64)]
    even = -(-held.size // (8 * threads))  # small enough that all threads end at about one time
    blocks = blocks_of(held.size, min(_BLOCK_DOCUMENTS, max(_LEAST_DOCUMENTS, even)))
    with ThreadPoolExecutor(threads) as pool:
        for part in map(compare, blocks) if threads == 1 else pool.map(compare, blocks):
            np.maximum(similarity, part.similarity, out=similarity)
            np.maximum(containment, part.containment, out=containment)
            alike.append(part.alike)
    return Nearest(similarity, containment, np.concatenate(alike))


def sets_of(shingles_of: Shingles, indices: Int64s) -> Iterator[UInt64s]:
    """The n-grams of each of these documents; raises StageError where they are not as many."""
    seen = 0
    for one in shingles_of(indices):
        seen += 1
        if seen <= indices.size:
            yield one
    if seen != indices.size:
        raise _wrong_number(seen, indices.size)


@dataclass(frozen=True)
class Index:
    """The held-out documents' n-grams, and whose they are; see `compare_with_held_out` for the arrays."""

    values: UInt64s
    begins: Int64s
    owners: Int32s
    common: Int32s
    starts: Int64s
    shift: np.uint64
    common_begins: Int64s
    commons: Int32s
    sizes: Int64s

    @classmethod
    def of(cls, sets: Sequence[UInt64s], *, most_common: int = _MOST_COMMON, few: int = _FEW) -> Index:
        """Index the sorted sets of n-grams of some documents.

        At most `most_common` n-grams are common, and only those that more than `few` documents hold.
        """
        sizes = np.array([one.size for one in sets], np.int64)
        everything = np.concatenate(sets)
        order = np.argsort(everything, kind="stable")
        everything = everything[order]
        owners = np.repeat(np.arange(len(sets), dtype=np.int32), sizes)[order]
        del order
        firsts = np.flatnonzero(np.append(True, everything[1:] != everything[:-1]))
        values = everything[firsts]
        del everything
        holders = np.diff(firsts, append=owners.size).astype(np.int32)
        del firsts
        common = _numbers_of_common(holders, most_common, few)
        is_common = np.repeat(common >= 0, holders)
        theirs = owners[is_common]
        by_owner = np.argsort(theirs, kind="stable")
        bits = max(1, values.size.bit_length() - 1)
        shift = np.uint64(64 - bits)
        return cls(
            values,
            _sums_from_zero(np.where(common >= 0, np.int32(0), holders)),
            owners[~is_common],
            common,
            heldout_kernels.bucket_starts(values, shift, 1 << bits),
            shift,
            _sums_from_zero(np.bincount(theirs, minlength=len(sets))),
            np.repeat(common, holders)[is_common][by_owner],
            sizes,
        )

    def compare(self, held_out: Int64s, training: Int64s, shingles_of: Shingles, threshold: float) -> Nearest:
        """The nearest of these training documents to each held-out one."""
        counts, alike = np.zeros((2, self.sizes.size), np.int64)
        asked = np.zeros(int(self.common.max(initial=-1)) + 1, np.uint8)
        picked = np.zeros(asked.size, np.int32)
        similarity, containment = np.zeros((2, self.sizes.size))
        pairs = [np.empty((0, 2), np.int64)]
        for document, query in zip(training.tolist(), sets_of(shingles_of, training), strict=True):
            several = heldout_kernels.follow_ngrams(
                *(query, self.values, self.begins, self.owners, self.common, self.starts, self.shift),
                *(counts, asked, picked),
            )
            found = heldout_kernels.compare_with_held_out(
                *(query.size, several, self.common_begins, self.commons, self.sizes, threshold),
                *(counts, asked, similarity, containment, alike),
            )
            asked[picked[:several]] = 0
            if found:
                pairs.append(np.stack([held_out[alike[:found]], np.full(found, document)], axis=1))
        return Nearest(similarity, containment, np.concatenate(pairs))


def _numbers_of_common(holders: Int32s, most: int, few: int) -> Int32s:
    """0, 1, … for the n-grams that the most documents hold, -1 for the others."""
    common = np.full(holders.size, -1, np.int32)
    found = np.flatnonzero(holders > few)
    if found.size > most:
        found = found[np.argpartition(holders[found], -most)[-most:]] if most else found[:0]
    common[found] = np.arange(found.size, dtype=np.int32)
    return common


def _sums_from_zero(counts: npt.NDArray[np.integer]) -> Int64s:
    sums = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=sums[1:])
    return sums


def _wrong_number(seen: int, expected: int) -> StageError:
    return StageError(
        f"{seen} texts came for {expected} kept documents",
        hint="a unit's Parquet file and its index differ: delete both and run the command again",
    )
