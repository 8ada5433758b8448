"""Whom each cluster keeps, how large clusters are, and how often to repeat their survivors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from tsugiki.artifacts.files import atomic_path
from tsugiki.corpus.neardup import kernels
from tsugiki.corpus.neardup.index import BandIndex
from tsugiki.corpus.neardup.units import blocks_of, create_array, open_array
from tsugiki.errors import InputError

Keep = Literal["first", "newest", "longest", "best"]
"""first: the smallest id; newest: the latest date, then the longest; longest: the longest, then the latest;
best: the highest score, then the longest, then the latest. Equal ones: the smallest id.
"""

UNKNOWN_DATE = int(np.iinfo(np.int64).min)
NO_SURVIVOR = -1

FINEWEB2_WEIGHTS = ((1, 1), (2, 2), (3, 3), (5, 5), (100, 8), (1000, 1))
"""How often FineWeb-2 repeats a survivor, by the size of its cluster: (from this size on, times).

{1: 1, 2: 2, 3-4: 3, 5-99: 5, 100-999: 8, >= 1000: 1} (FineWeb-2 repository, README; arXiv 2506.20920;
reference corpus.md §3.2): what was copied a few times is good, what was copied thousands of times a template.
"""

Int64s = npt.NDArray[np.int64]
_KINDS = {"date": ("<i8", ()), "characters": ("<i8", ()), "score": ("<f8", ()), "id": ("<u8", (2,))}
_BLOCK_DOCUMENTS = 1 << 16


@dataclass(frozen=True)
class DocumentColumns:
    """What the choice within a cluster looks at: one entry a document, in memory or mapped from files.

    date: seconds since 1970 (`epoch_seconds`), UNKNOWN_DATE for none. characters: of the text. score: of the
    quality classifier; NaN goes last. id: the 16 bytes of the id as two big-endian numbers (`id_words`), so
    that comparing them is comparing the ids.
    """

    date: Int64s
    characters: Int64s
    score: npt.NDArray[np.float64]
    id: npt.NDArray[np.uint64]

    @property
    def count(self) -> int:
        """How many documents there are."""
        return int(self.date.size)


def create_columns(directory: Path, count: int) -> DocumentColumns:
    """Columns of `count` documents in work files under `directory`, to be filled slice by slice."""
    return DocumentColumns(
        **{
            name: create_array(directory / f"column-{name}", kind, (count, *shape))
            for name, (kind, shape) in _KINDS.items()
        }
    )


def id_words(ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Ids of 32 hexadecimal digits as pairs of numbers, shape (ids, 2)."""
    return np.frombuffer(bytes.fromhex("".join(ids)), ">u8").astype(np.uint64).reshape(-1, 2)


def id_text(words: npt.NDArray[np.uint64]) -> str:
    """The id of one row of `id_words`."""
    return f"{int(words[0]):016x}{int(words[1]):016x}"


def epoch_seconds(dates: Sequence[str | None]) -> Int64s:
    """ISO 8601 dates as seconds since 1970, UTC where no zone is given; UNKNOWN_DATE for others."""
    return np.fromiter(map(_seconds, dates), np.int64, len(dates))


def _seconds(date: str | None) -> int:
    try:
        moment = datetime.fromisoformat(date or "")
    except ValueError:
        return UNKNOWN_DATE
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() // 1)


@dataclass(frozen=True)
class Clusters:
    """For each document its cluster's survivor and the cluster's size, mapped from work files.

    survivor: the number of the surviving document; NO_SURVIVOR where every member is excluded; a node of an
    older index (>= the number of documents, `index.node_of`) where the cluster holds one of its survivors.
    size: documents in the cluster, those of older indexes included.
    """

    survivor: Int64s
    size: Int64s


def choose_survivors(
    roots: Int64s,
    columns: DocumentColumns,
    keep: Keep,
    directory: Path,
    *,
    excluded: npt.NDArray[np.bool_] | None = None,
    older: Sequence[BandIndex] = (),
) -> Clusters:
    """The survivor and the size of every document's cluster, in work files under `directory`.

    roots: from `Components.roots`; one for each document, then one for each document of the older indexes, in
    their order. excluded: documents that may not survive (those of blocked hosts): their clusters keep the
    next one. A cluster that reaches into an older index keeps that index's survivor whatever the policy, for
    it is published already; of several the first. Raises InputError where the lengths do not match.
    """
    if keep not in get_args(Keep):
        raise InputError(f'keep is "{keep}"', hint="known: " + ", ".join(get_args(Keep)))
    expected = columns.count + sum(index.documents for index in older)
    if roots.size != expected or (excluded is not None and excluded.size != columns.count):
        raise InputError(
            f"{roots.size} roots and {'no' if excluded is None else excluded.size} exclusions for "
            f"{columns.count} documents and {expected - columns.count} older ones",
            hint="give one root for each document, then for each document of the older indexes",
        )
    best, sizes, survivor, size = (
        create_array(directory / name, "<i8", (columns.count,))
        for name in ("cluster-best", "cluster-sizes", "survivor", "cluster-size")
    )
    kernels.best_of_roots(
        *(roots, columns.count, columns.date, columns.characters, columns.score, columns.id),
        np.zeros(0, np.uint8) if excluded is None else excluded.view(np.uint8),
        *(get_args(Keep).index(keep), best, sizes),
    )
    first = columns.count
    for index in older:
        kernels.old_survivors_win(roots, columns.count, first, index.survivors, index.sizes, best, sizes)
        first += index.documents
    kernels.spread(roots, columns.count, best, sizes, survivor, size)
    for name in ("cluster-best", "cluster-sizes"):
        (directory / name).unlink()
    return Clusters(survivor, size)


def kept_documents(survivor: Int64s, target: Path) -> Int64s:
    """The numbers of the documents that survive, ascending, as a file and its read-only map."""
    with atomic_path(target) as partial, partial.open("wb") as file:
        for block in blocks_of(survivor.size, _BLOCK_DOCUMENTS):
            numbers = np.arange(block.start, block.stop)
            file.write(numbers[survivor[block] == numbers].astype("<i8", copy=False).data)
    return open_array(target, "<i8", (target.stat().st_size // 8,))


@dataclass(frozen=True)
class ClusterSummary:
    """Figures for the report.

    documents, kept: all, and those that survive. clusters: those of more than one document that keep one of
    this corpus. largest: the size of the largest cluster. with_older: documents whose survivor is in an older
    index. without_survivor: documents of clusters in which every member is excluded.
    """

    documents: int
    kept: int
    clusters: int
    largest: int
    with_older: int
    without_survivor: int


def summarise(clusters: Clusters) -> ClusterSummary:
    """Count the clusters, block by block."""
    count = clusters.survivor.size
    kept = found = largest = older = lost = 0
    for numbers, survivor, size in _blocks(clusters):
        alive = survivor == numbers
        kept += int(alive.sum())
        found += int((alive & (size > 1)).sum())
        largest = max(largest, int(size.max()))
        older += int((survivor >= count).sum())
        lost += int((survivor == NO_SURVIVOR).sum())
    return ClusterSummary(count, kept, found, largest, older, lost)


def _blocks(clusters: Clusters) -> Iterator[tuple[Int64s, Int64s, Int64s]]:
    for block in blocks_of(clusters.survivor.size, _BLOCK_DOCUMENTS):
        yield np.arange(block.start, block.stop), clusters.survivor[block], clusters.size[block]


def weight_of(sizes: npt.ArrayLike, table: Sequence[tuple[int, int]] = FINEWEB2_WEIGHTS) -> Int64s:
    """How often to repeat a survivor, from the size of its cluster; the shape of `sizes`.

    table: (from this size on, times), the sizes ascending from 1. Raises InputError for another table, or for
    a size below 1.
    """
    check_weights(table)
    values = np.asarray(sizes, np.int64)
    if values.size and values.min() < 1:
        raise InputError(
            f"a cluster of {values.min()} documents", hint="sizes count the document itself: 1 or more"
        )
    bounds, weights = np.array(table, np.int64).T
    return np.asarray(weights[np.searchsorted(bounds, values, side="right") - 1])


def check_weights(table: Sequence[tuple[int, int]]) -> None:
    """Raise InputError unless the sizes ascend from 1 and all weights are whole and not negative."""
    hint = "give pairs (from this cluster size on, times), e.g. [[1, 1], [2, 2], [5, 3]]"
    for entry in table:
        if len(entry) != 2 or not all(type(value) is int for value in entry):  # noqa: PLR2004
            raise InputError(f"weights: {list(entry)} is no pair of whole numbers", hint=hint)
    bounds = [bound for bound, _ in table]
    if not bounds or bounds[0] != 1 or bounds != sorted(set(bounds)):
        raise InputError(f"weights: the sizes are {bounds}; they must ascend from 1", hint=hint)
    if min(weight for _, weight in table) < 0:
        raise InputError(f"weights: {min(weight for _, weight in table)} is negative", hint=hint)
