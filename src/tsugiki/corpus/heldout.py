"""The held-out split by page cluster, and the proof that no near-duplicate of a held-out page is trained on.

Documents that are alike (Jaccard similarity of their character n-grams at or above a threshold) form groups;
a group is held out as a whole. Pairs come from a loose banding of the MinHash signatures, and the signatures
estimate their similarity. Then every held-out document is compared exactly, n-gram by n-gram, with *all*
training documents; a pair that the estimate missed joins its groups and the choice is made again, until none
is left.

Signatures and ids are memory maps, groups lie in work files, the held-out documents' n-grams are indexed in
portions, and the training documents stream past in several threads (what is slow runs without Python's lock).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsugiki.corpus.neardup import heldout_kernels, kernels
from tsugiki.corpus.neardup.bands import MEMORY_BYTES, band_edges, read_pairs
from tsugiki.corpus.neardup.components import Components
from tsugiki.corpus.neardup.passes import plan_passes
from tsugiki.corpus.neardup.survivors import id_text
from tsugiki.corpus.neardup.units import (
    BANDS,
    UnitIndex,
    blocks_of,
    create_array,
    documents_in,
    file_of,
    open_array,
)
from tsugiki.corpus.nearest import Shingles, nearest
from tsugiki.errors import StageError, storage_errors

LOOSE_ROWS = 5
"""Hashes a band: with 160 bands a pair of similarity 0.5 is proposed with probability 0.994, 0.3 with 0.32.
"""

_ROUNDS = 20
_BANDS_AT_A_TIME = 40  # loose keys on disk: 320 bytes a document, as many as Swallow's own 40 bands
_BLOCK_DOCUMENTS = 4096
_NGRAM_BYTES = 40  # of an indexed n-gram: hash, owner, order, start, and copies while it is made
_GROUP_BYTES = 48  # of a group that is being sorted: hash, root, order, and copies

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Split:
    """Which documents are held out, and how far they are from the others.

    held_out: ascending indices into the kept documents. similarity, containment: one value a held-out
    document, in that order: the largest Jaccard similarity to any training document, and the largest share of
    its n-grams that one holds.
    """

    held_out: Int64s
    groups: int
    largest_group: int
    rounds: int
    similarity: npt.NDArray[np.float64]
    containment: npt.NDArray[np.float64]


def hold_out(
    units: Sequence[UnitIndex],
    kept: Int64s,
    ids: UInt64s,
    shingles_of: Shingles,
    scratch: Path,
    *,
    hashes: int,
    wanted: int,
    threshold: float,
    seed: int,
    memory_bytes: int = MEMORY_BYTES,
    threads: int = 1,
) -> Split:
    """Hold out about `wanted` of the kept documents, in whole groups.

    units: with their signatures of `hashes` hashes. kept: ascending document numbers
    (`survivors.kept_documents`). ids: of *all* documents, shape (documents, 2), as `survivors.id_words`.
    scratch: a directory for work files, which are removed. memory_bytes: about what is used besides.
    Neither the order of the documents nor the number of units or threads matters. Raises StageError where no
    group is small enough to be held out, or where the proof can't be brought.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with Components(scratch / "groups", kept.size) as components:
        _join_alike(
            *(units, kept, components, scratch), hashes=hashes, threshold=threshold, memory_bytes=memory_bytes
        )
        for rounds in range(1, _ROUNDS + 1):
            groups = _choose(
                *(components.roots(), kept, ids, scratch), wanted=wanted, seed=seed, memory_bytes=memory_bytes
            )
            if not groups.chosen.size:
                raise _no_group(groups, kept.size, wanted, threshold)
            found = nearest(
                *(groups.chosen, kept.size, shingles_of, threshold),
                memory_bytes=memory_bytes,
                threads=threads,
            )
            components.union(found.alike)
            if not found.alike.size:
                return Split(
                    groups.chosen,
                    groups.count,
                    groups.largest,
                    rounds,
                    found.similarity,
                    found.containment,
                )
    raise StageError(
        f"after {_ROUNDS} rounds held-out documents still have training documents with a similarity of "
        f"{threshold:g} or more",
        hint="raise heldout_similarity, or lower heldout",
    )


def _join_alike(
    units: Sequence[UnitIndex],
    kept: Int64s,
    components: Components,
    scratch: Path,
    *,
    hashes: int,
    threshold: float,
    memory_bytes: int,
) -> None:
    """Join documents that share a loose band and agree in at least `threshold` of their hashes."""
    rows = min(LOOSE_ROWS, hashes)
    pairs_at_once = max(64, memory_bytes // (2 * 4 * hashes))
    edges = scratch / "loose.pairs"
    waiting: list[Int64s] = []

    def settle() -> None:
        # most pairs come in many bands; those joined already change nothing
        pairs = np.unique(np.concatenate(waiting), axis=0)
        waiting.clear()
        new = pairs[components.apart(pairs)]
        components.union(new[_agreement(units, kept, new, hashes) / hashes >= threshold])

    for first in range(0, hashes // rows, _BANDS_AT_A_TIME):
        last = min(first + _BANDS_AT_A_TIME, hashes // rows)
        loose = _write_loose_keys(units, kept, scratch, hashes=hashes, rows=rows, bands=(first, last))
        for band in range(last - first):
            band_edges(loose, last - first, band, edges, memory_bytes=memory_bytes)
            for pairs in read_pairs(edges, pairs_at_once):
                if sum(map(len, waiting)) + len(pairs) > pairs_at_once:
                    settle()
                waiting.append(pairs)
        for unit in loose:
            file_of(unit.stem, BANDS).unlink()
    if waiting:
        settle()
    edges.unlink(missing_ok=True)


def _write_loose_keys(
    units: Sequence[UnitIndex],
    kept: Int64s,
    scratch: Path,
    *,
    hashes: int,
    rows: int,
    bands: tuple[int, int],
) -> list[UnitIndex]:
    """The loose keys of all kept documents as one unit index, numbered by place in `kept`."""
    stem = scratch / "loose"
    keys = create_array(file_of(stem, BANDS), "<u8", (bands[1] - bands[0], kept.size))
    for start, numbers, unit in _kept_by_unit(units, kept):
        signatures = unit.signatures(hashes)
        for block in blocks_of(numbers.size, _BLOCK_DOCUMENTS):
            chosen = signatures[numbers[block] - unit.first]
            place = slice(start + block.start, start + block.stop)
            keys[:, place] = kernels.band_major_keys(chosen, *bands, rows)
    return [UnitIndex(stem, 0, kept.size)]


def _kept_by_unit(units: Sequence[UnitIndex], kept: Int64s) -> Iterator[tuple[int, Int64s, UnitIndex]]:
    """For each unit with kept documents: the place of the first in `kept`, their numbers, the unit."""
    bounds = np.searchsorted(kept, [*(unit.first for unit in units), documents_in(units)])
    for index in np.flatnonzero(np.diff(bounds)).tolist():
        start, stop = bounds[index], bounds[index + 1]
        yield int(start), kept[start:stop], units[index]


def _agreement(units: Sequence[UnitIndex], kept: Int64s, pairs: Int64s, hashes: int) -> Int64s:
    """In how many hashes the two documents of each pair agree."""
    indices, rows = np.unique(pairs, return_inverse=True)
    signatures = np.empty((indices.size, hashes), np.uint32)
    for start, numbers, unit in _kept_by_unit(units, kept[indices]):
        signatures[start : start + numbers.size] = unit.signatures(hashes)[numbers - unit.first]
    left, right = np.ascontiguousarray(rows.reshape(-1, 2).T)
    return np.asarray(heldout_kernels.agreement(signatures, left, right))


@dataclass(frozen=True)
class _Groups:
    """The members of the chosen groups, ascending; and the number and sizes of all groups."""

    chosen: Int64s
    count: int
    largest: int
    smallest: int


def _choose(
    roots: Int64s, kept: Int64s, ids: UInt64s, scratch: Path, *, wanted: int, seed: int, memory_bytes: int
) -> _Groups:
    """Whole groups in the order of a hash of (seed, group) as long as they fit into `wanted` documents.

    A group is named by its smallest document id, so neither the order of the documents nor the number of
    workers matters. Groups too large for what is left are passed over: templated manuals chain into a giant
    group, which belongs into training.
    """
    count = roots.size
    names = ("group-sizes", "group-names", "group-members")
    sizes, smallest, members = (
        create_array(scratch / name, kind, (count,))
        for name, kind in zip(names, ("<i8", "<i8", "|u1"), strict=True)
    )
    kept_ids = _ids_of(ids, kept, scratch)
    heldout_kernels.smallest_ids(roots, kept_ids, sizes, smallest)
    digests, named = _write_digests(kept_ids, sizes, smallest, seed, scratch)
    left = min(wanted, count - 1)
    for digest_block, root_block in _ascending(digests, named, memory_bytes // _GROUP_BYTES):
        for root in root_block[np.argsort(digest_block, kind="stable")].tolist():
            if left == 0:
                break
            if sizes[root] <= left:
                left -= int(sizes[root])
                members[root] = 1
        if left == 0:
            break
    chosen = [block.start + np.flatnonzero(members[roots[block]]) for block in blocks_of(count)]
    group_sizes = [sizes[block][sizes[block] > 0] for block in blocks_of(count)]
    result = _Groups(
        chosen=np.concatenate([np.empty(0, np.int64), *chosen]),
        count=int(named.size),
        largest=max((int(block.max()) for block in group_sizes if block.size), default=0),
        smallest=min((int(block.min()) for block in group_sizes if block.size), default=0),
    )
    for name in (*names, "group-ids", "group-digests", "group-roots"):
        (scratch / name).unlink()
    return result


def _ids_of(ids: UInt64s, kept: Int64s, scratch: Path) -> UInt64s:
    """The ids of the kept documents, in a work file."""
    out = create_array(scratch / "group-ids", "<u8", (kept.size, 2))
    for block in blocks_of(kept.size):
        out[block] = ids[kept[block]]
    return out


def _write_digests(
    ids: UInt64s, sizes: Int64s, smallest: Int64s, seed: int, scratch: Path
) -> tuple[UInt64s, Int64s]:
    """For each group, in the order of roots, the hash of (seed, its smallest id), and its root."""
    digests, roots = scratch / "group-digests", scratch / "group-roots"
    groups = 0
    with storage_errors(scratch), digests.open("wb") as digests_out, roots.open("wb") as roots_out:
        for block in blocks_of(sizes.size):
            found = block.start + np.flatnonzero(sizes[block])
            names = ids[smallest[found]]
            texts = [f"{seed}\n{id_text(words)}" for words in names]
            digests_out.write(b"".join(hashlib.blake2b(t.encode(), digest_size=8).digest() for t in texts))
            roots_out.write(found.astype("<i8", copy=False).data)
            groups += found.size
    return open_array(digests, ">u8", (groups,)), open_array(roots, "<i8", (groups,))


def _ascending(digests: UInt64s, roots: Int64s, capacity: int) -> Iterator[tuple[UInt64s, Int64s]]:
    """The groups by ascending digest, in blocks that are not sorted inside."""

    def native() -> Iterator[UInt64s]:
        return (digests[block].astype(np.uint64) for block in blocks_of(digests.size))

    for one in plan_passes(native, digests.size, capacity):
        parts = [
            (values[inside], roots[block][inside])
            for block, values in zip(blocks_of(digests.size), native(), strict=True)
            if (inside := (values >= one.low) & (values <= one.high)).any()
        ]
        yield np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _no_group(groups: _Groups, documents: int, wanted: int, threshold: float) -> StageError:
    return StageError(
        f"no group of similar documents is small enough to hold out {wanted} of {documents} documents: at a "
        f"similarity of {threshold:g} the smallest of {groups.count} groups has {groups.smallest}",
        hint="raise heldout (the share), or heldout_similarity, or add pages",
    )


def histogram(
    values: Sequence[float] | npt.NDArray[np.float64], bins: int = 20
) -> list[dict[str, float | int]]:
    """How many values lie in each of `bins` equal intervals of [0, 1]; the last one is closed."""
    counts, bounds = np.histogram(np.asarray(values, np.float64), bins=bins, range=(0.0, 1.0))
    return [
        {"from": round(float(low), 4), "to": round(float(high), 4), "documents": int(count)}
        for low, high, count in zip(bounds[:-1], bounds[1:], counts, strict=True)
    ]
