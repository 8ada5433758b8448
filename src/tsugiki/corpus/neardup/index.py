"""The index of a finished corpus, so that the next crawl's documents can be compared with it.

index.json            format, n-gram length, bands, rows, a probe of the hash functions, documents
ids                   16 bytes a document
survivors, sizes      int64: the number of each document's survivor (-1: none), the size of its cluster
band-0000.keys        uint64, ascending: the keys of band 0
band-0000.documents   int64: the document of each key

A new document that shares a band with an old one is a near-duplicate of the old one's survivor: that corpus
is published, so nothing of it can be taken back. These matches are not verified (the old texts may be gone);
the S-curve of the bands says what they are worth.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tsugiki.artifacts.files import atomic_path, read_json, write_json
from tsugiki.corpus.minhash import SIGNATURE_VERSION, shingles, signature
from tsugiki.corpus.neardup import kernels
from tsugiki.corpus.neardup.bands import MEMORY_BYTES, sorted_band
from tsugiki.corpus.neardup.units import UnitIndex, blocks_of, check_size, documents_in, open_array
from tsugiki.errors import InputError

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

FACTS = "index.json"
"""File of an index, written last: it makes the index whole."""

_EDGES_A_BLOCK = 1 << 15
_PROBE = "次木 tsugiki: 接ぎ木に適した枝を選ぶ。"
_BLOCK_DOCUMENTS = 1 << 16


@dataclass(frozen=True)
class Scheme:
    """What two corpora must share for their band keys to be comparable."""

    ngram: int
    bands: int
    rows: int

    def facts(self) -> dict[str, Any]:
        """The scheme as written into an index; the probe changes with any of the hash functions."""
        probe = signature(shingles(_PROBE, self.ngram), self.bands * self.rows).astype("<u4").tobytes()
        return {
            "format": SIGNATURE_VERSION,
            **vars(self),
            "probe": hashlib.blake2b(probe, digest_size=16).hexdigest(),
        }


@dataclass(frozen=True)
class BandIndex:
    """An opened index; the arrays are read-only maps of its files.

    ids: shape (documents, 2), as `survivors.id_words`. survivors, sizes: one a document.
    """

    directory: Path
    documents: int
    ids: UInt64s
    survivors: Int64s
    sizes: Int64s

    def band(self, band: int) -> tuple[UInt64s, Int64s]:
        """The keys of a band, ascending, and their documents."""
        keys, documents = _band_files(self.directory, band)
        return open_array(keys, "<u8", (self.documents,)), open_array(documents, "<i8", (self.documents,))


def _band_files(directory: Path, band: int) -> tuple[Path, Path]:
    return directory / f"band-{band:04d}.keys", directory / f"band-{band:04d}.documents"


def has_index_band(directory: Path, band: int, documents: int) -> bool:
    """Whether a band of an index of so many documents is there."""
    return all(
        path.exists() and path.stat().st_size == 8 * documents for path in _band_files(directory, band)
    )


def write_index_band(
    units: Sequence[UnitIndex], bands: int, band: int, directory: Path, *, memory_bytes: int = MEMORY_BYTES
) -> None:
    """Write one band of an index: a task of its own, as `bands.band_edges` is."""
    keys_file, documents_file = _band_files(directory, band)
    with (
        atomic_path(keys_file) as partial_keys,
        atomic_path(documents_file) as partial_documents,
        partial_keys.open("wb") as keys_out,
        partial_documents.open("wb") as documents_out,
    ):
        for keys, documents in sorted_band(units, bands, band, memory_bytes):
            keys_out.write(keys.astype("<u8", copy=False).data)
            documents_out.write(documents.astype("<i8", copy=False).data)


def write_index(directory: Path, scheme: Scheme, ids: UInt64s, survivors: Int64s, sizes: Int64s) -> None:
    """Write what an index holds besides its bands, and last the facts that make it whole.

    ids: shape (documents, 2). survivors: numbers of documents; those in an older index (>= the number of
    documents) are written as -1, for that index answers for them. sizes: of the clusters.
    Raises InputError where a band is missing or of the wrong size.
    """
    documents = survivors.size
    for band in range(scheme.bands):
        for path in _band_files(directory, band):
            check_size(path, 8 * documents)
    _write_column(directory / "ids", ids, ">u8")
    blocks = blocks_of(documents, _BLOCK_DOCUMENTS)
    own = (np.where(survivors[block] < documents, survivors[block], -1) for block in blocks)
    with atomic_path(directory / "survivors") as partial, partial.open("wb") as file:
        for values in own:
            file.write(values.astype("<i8", copy=False).data)
    _write_column(directory / "sizes", sizes, "<i8")
    write_json(directory / FACTS, {**scheme.facts(), "documents": documents})


def _write_column(path: Path, values: npt.NDArray[Any], kind: str) -> None:
    with atomic_path(path) as partial, partial.open("wb") as file:
        for block in blocks_of(values.shape[0], _BLOCK_DOCUMENTS):
            file.write(values[block].astype(kind).tobytes())


def open_index(directory: Path, scheme: Scheme) -> BandIndex:
    """Open an index for documents made by `scheme`.

    Raises InputError where it is missing, unfinished or cut off, or where it was made in another way (with
    both values).
    """
    found = read_json(directory / FACTS)
    expected = scheme.facts()
    if not isinstance(found, dict) or type(found.get("documents")) is not int or found["documents"] < 0:
        raise InputError(
            f"{directory / FACTS} is not the description of an index", hint="make the index again"
        )
    for name, value in expected.items():
        if found.get(name) != value:
            raise InputError(
                f"the index {directory} has {name} = {found.get(name)} where this run has {value}",
                hint="use the settings of the corpus that the index belongs to, or make that corpus again",
            )
    documents = found["documents"]
    index = BandIndex(
        directory,
        documents,
        open_array(directory / "ids", ">u8", (documents, 2)),
        open_array(directory / "survivors", "<i8", (documents,)),
        open_array(directory / "sizes", "<i8", (documents,)),
    )
    for band in range(scheme.bands):
        index.band(band)
    return index


def first_nodes(documents: int, older: Sequence[BandIndex]) -> list[int]:
    """The node of each index's document 0: the new documents come first, then each index's in turn."""
    counts = [documents, *(index.documents for index in older)]
    return [sum(counts[: i + 1]) for i in range(len(older))]


def id_of_older(node: int, documents: int, older: Sequence[BandIndex]) -> str:
    """The id of an older survivor, from its node (>= documents, the number of new ones)."""
    place = bisect.bisect_right(first_nodes(documents, older), node) - 1
    words = older[place].ids[node - first_nodes(documents, older)[place]]
    return f"{int(words[0]):016x}{int(words[1]):016x}"


def edges_to_index(
    units: Sequence[UnitIndex],
    bands: int,
    band: int,
    target: Path,
    *,
    directory: Path,
    scheme: Scheme,
    first: int,
    memory_bytes: int = MEMORY_BYTES,
) -> int:
    """Write the edges between new documents and an index's survivors that share a key of this band.

    first: the node of the index's document 0, which is the number of new documents plus those of the indexes
    before it. Each edge is (new document, first + survivor). A task of its own, as `bands.band_edges` is.
    Returns the number of edges. Raises InputError as `open_index`, and where a number is out of range.
    """
    if first < documents_in(units):
        raise InputError(
            f"first is {first}, but there are {documents_in(units)} new documents",
            hint="older documents are numbered behind the new ones",
        )
    index = open_index(directory, scheme)
    old_keys, old_documents = index.band(band)
    cursor = np.array([0, -1, -1], np.int64)
    edges = np.empty((_EDGES_A_BLOCK, 2), np.int64)
    written = 0
    with atomic_path(target) as partial, partial.open("wb") as file:
        for keys, documents in sorted_band(units, bands, band, memory_bytes):
            start = 0
            while start < keys.size:
                start, filled, bad = kernels.edges_to_old(
                    *(keys, documents, old_keys, old_documents, index.survivors, start, first, cursor, edges)
                )
                if bad:
                    raise InputError(
                        f"band {band} of the index {directory} names a document beyond its {index.documents}",
                        hint="the index is damaged: make it again",
                    )
                file.write(edges[:filled].astype("<i8", copy=False).data)
                written += filled
    return written
