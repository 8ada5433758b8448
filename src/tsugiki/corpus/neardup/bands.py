"""One band is one task: bring equal keys together and write the pairs of documents that share one.

Every function here is a plain function of paths and numbers that writes its result to a file, so the bands
may run in any number of processes, on any machine that sees the files. Memory is bounded by `memory_bytes`,
whatever the number of documents, and also where half of all documents share a key.

The pairs come in the order of their key, then of the documents, whatever the number of passes: the files are
the same for every memory budget. (Sorted by document they would need a second external sort, and the union of
components does not care.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsugiki.artifacts.files import atomic_path
from tsugiki.corpus.neardup import kernels
from tsugiki.corpus.neardup.passes import Pass, plan_passes
from tsugiki.corpus.neardup.units import UnitIndex, documents_in, size_of
from tsugiki.errors import InputError

MEMORY_BYTES = 256 << 20
"""What a band task may take by default."""

PAIR_BYTES = 16
"""Of a pair in an edge file."""

_DOCUMENT_BYTES = 36  # key and number, unsorted and sorted, and two bytes of bucket starts
_LEAST_CAPACITY = 1024
_PAIRS_A_BLOCK = 1 << 15

UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]


def band_edges(
    units: Sequence[UnitIndex],
    bands: int,
    band: int,
    target: Path,
    *,
    partners: int = 1,
    memory_bytes: int = MEMORY_BYTES,
) -> int:
    """Write the pairs of documents with an equal key of this band to `target`; returns how many.

    target: raw little-endian int64 (smaller document, other document), written atomically. partners: a
    document of a run of equal keys is paired with at most this many of the run's first ones. One is enough to
    connect the run; 16 give the candidates of a verification (`verify.py`): all pairs of a run of up to 17.
    Raises InputError where a unit's file has the wrong size, StorageError where the disk is full.
    """
    run = np.zeros(2, np.int64)
    firsts = np.zeros(partners, np.int64)
    pairs = np.empty((_PAIRS_A_BLOCK + partners, 2), np.int64)
    written = 0
    with atomic_path(target) as partial, partial.open("wb") as file:
        for keys, documents in sorted_band(units, bands, band, memory_bytes):
            start = 0
            while start < keys.size:
                start, filled = kernels.pairs_of_runs(keys, documents, start, run, firsts, pairs)
                file.write(pairs[:filled].astype("<i8", copy=False).data)
                written += filled
    return written


def sorted_band(
    units: Sequence[UnitIndex], bands: int, band: int, memory_bytes: int = MEMORY_BYTES
) -> Iterator[tuple[UInt64s, Int64s]]:
    """The keys of a band over all units, ascending, and their documents, ascending within a key; in chunks.

    A chunk is overwritten by the next one.
    """
    documents = documents_in(units)
    capacity = min(max(memory_bytes // _DOCUMENT_BYTES, _LEAST_CAPACITY), max(documents, 1))
    passes = plan_passes(lambda: (unit.band(bands, band) for unit in units), documents, capacity)
    keys, sorted_keys = np.empty((2, capacity), np.uint64)
    numbers, sorted_numbers = np.empty((2, capacity), np.int64)
    starts = np.empty(max(2, 1 << (capacity // 8).bit_length()) + 1, np.int64)
    for one in passes:
        for filled in _selected(units, bands, band, one, keys=keys, numbers=numbers):
            if one.low == one.high:
                yield keys[:filled], numbers[:filled]
                continue
            shift = max(0, (one.high - one.low).bit_length() - (starts.size - 1).bit_length() + 1)
            kernels.sort_keys(
                keys,
                numbers,
                filled,
                np.uint64(one.low),
                np.uint64(shift),
                starts,
                sorted_keys,
                sorted_numbers,
            )
            yield sorted_keys[:filled], sorted_numbers[:filled]


def _selected(
    units: Sequence[UnitIndex], bands: int, band: int, one: Pass, *, keys: UInt64s, numbers: Int64s
) -> Iterator[int]:
    """Fill the buffers with a pass's documents; yields how much is filled, when they are full and last."""
    filled = 0
    for unit in units:
        values = unit.band(bands, band)
        start = 0
        while start < values.size:
            start, filled = kernels.select_values(
                *(values, start, unit.first, np.uint64(one.low), np.uint64(one.high), keys, numbers, filled)
            )
            if start < values.size:
                yield filled
                filled = 0
    if filled:
        yield filled


def read_pairs(path: Path, pairs_a_block: int = _PAIRS_A_BLOCK) -> Iterator[Int64s]:
    """The pairs of an edge file in blocks of shape (pairs, 2); raises InputError where it was cut off."""
    size = size_of(path)
    if size % PAIR_BYTES:
        raise InputError(
            f"{path} has {size} bytes, which is no multiple of the {PAIR_BYTES} bytes of a pair",
            hint="the file was cut off: delete it and run the command again",
        )
    with path.open("rb") as file:
        while (block := np.fromfile(file, "<i8", 2 * pairs_a_block)).size:
            yield block.reshape(-1, 2)
