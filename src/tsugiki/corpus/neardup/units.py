"""The index of a work unit: signatures and band keys of its documents, in files beside its Parquet file.

<stem>.signatures   uint32, little-endian, row-major (documents, hashes)
<stem>.bands        uint64, little-endian, band-major (bands, documents): a band is read in one piece

The files have no header: the run's settings, which are part of the unit's name, say what is in them; their
sizes are checked against that. They are opened as read-only memory maps.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tsugiki.artifacts.files import atomic_path
from tsugiki.corpus.neardup import kernels
from tsugiki.errors import InputError, storage_errors

SIGNATURES = ".signatures"
BANDS = ".bands"

_BLOCK_DOCUMENTS = 8192
_READ_DOCUMENTS = 1 << 16


@dataclass(frozen=True)
class UnitIndex:
    """Where a unit's index lies, and which documents it holds: first..first + count - 1 of the corpus."""

    stem: Path
    first: int
    count: int

    def signatures(self, hashes: int) -> npt.NDArray[np.uint32]:
        """The signatures, shape (count, hashes), read-only. Raises InputError where the size is wrong."""
        return open_array(file_of(self.stem, SIGNATURES), "<u4", (self.count, hashes))

    def band(self, bands: int, band: int) -> npt.NDArray[np.uint64]:
        """The keys of one band, shape (count,), read-only. Raises InputError where the size is wrong."""
        path = file_of(self.stem, BANDS)
        if 0 < self.count <= _READ_DOCUMENTS:  # reading a few keys costs less than mapping the file
            return np.frombuffer(
                _read(path, 8 * bands * self.count, 8 * band * self.count, 8 * self.count), "<u8"
            )
        return open_array(path, "<u8", (bands, self.count))[band]


def file_of(stem: Path, suffix: str) -> Path:
    """The file of a stem; the stem may hold dots."""
    return stem.with_name(stem.name + suffix)


def write_unit_index(stem: Path, signatures: npt.NDArray[np.uint32], bands: int, rows: int) -> None:
    """Write both files of a unit, the band keys last; each appears whole or not at all.

    signatures: shape (documents, bands · rows), in the order in which the unit holds the documents that
    passed. Raises StorageError where the disk is full.
    """
    if signatures.ndim != 2 or signatures.shape[1] != bands * rows:  # noqa: PLR2004
        raise InputError(
            f"signatures of the shape {signatures.shape} where (documents, {bands * rows}) was expected",
            hint=f"{bands} bands of {rows} rows need {bands * rows} hashes",
        )
    values = np.ascontiguousarray(signatures, np.uint32)
    keys = kernels.band_major_keys(values, 0, bands, rows)
    # `tofile` would not say why it failed; a full disk must be told from other faults
    with atomic_path(file_of(stem, SIGNATURES)) as partial, partial.open("wb") as file:
        file.write(values.astype("<u4", copy=False).tobytes())
    with atomic_path(file_of(stem, BANDS)) as partial, partial.open("wb") as file:
        file.write(keys.astype("<u8", copy=False).tobytes())


def number_units(stems: Sequence[Path], bands: int, rows: int) -> list[UnitIndex]:
    """The units with the numbers of their documents, in this order, which must be the canonical one.

    The counts come from the sizes of the files. Raises InputError where one is missing or was cut off.
    """
    units = []
    first = 0
    for stem in stems:
        count = _documents_of(stem, bands, rows)
        units.append(UnitIndex(stem, first, count))
        first += count
    return units


def documents_in(units: Sequence[UnitIndex]) -> int:
    """How many documents the units hold together."""
    return units[-1].first + units[-1].count if units else 0


def _documents_of(stem: Path, bands: int, rows: int) -> int:
    row = 4 * bands * rows
    path = file_of(stem, SIGNATURES)
    size = size_of(path)
    if size % row:
        raise InputError(
            f"{path} has {size} bytes, which is no multiple of the {row} bytes of a signature of "
            f"{bands * rows} hashes",
            hint="the file was cut off or made with other settings: delete it and run the command again",
        )
    check_size(file_of(stem, BANDS), 8 * bands * (size // row))
    return size // row


def size_of(path: Path) -> int:
    """The size of a file in bytes; raises InputError where it is missing."""
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="run the command that makes it again") from error


def check_size(path: Path, expected: int) -> None:
    """Raise InputError where a file has not the expected number of bytes."""
    found = size_of(path)
    if found != expected:
        raise InputError(
            f"{path} has {found} bytes where {expected} were expected",
            hint="the file was cut off or made with other settings: delete it and run the command again",
        )


def _read(path: Path, expected: int, start: int, count: int) -> bytes:
    """`count` bytes from `start` on of a file of `expected` bytes; raises InputError as `check_size` does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        check_size(path, expected)
        raise
    try:
        if os.fstat(descriptor).st_size != expected:
            check_size(path, expected)
        return os.pread(descriptor, count, start)
    finally:
        os.close(descriptor)


def open_array(path: Path, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A read-only memory map of a whole file of raw values; raises InputError where its size is wrong."""
    check_size(path, np.dtype(kind).itemsize * int(np.prod(shape)))
    return _mapped(path, kind, shape, "r")


def create_array(path: Path, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A new file of zeros as a writable memory map, for work files: it is not there for good until flushed.

    Its blocks are reserved at once, so that a full disk raises StorageError here instead of ending the
    process by a signal at some later write.
    """
    size = np.dtype(kind).itemsize * int(np.prod(shape))
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(size)  # where macOS has no such call, the file is sparse
    return _mapped(path, kind, shape, "r+")


def _mapped(path: Path, kind: str, shape: tuple[int, ...], mode: Literal["r", "r+"]) -> npt.NDArray[Any]:
    """A plain array over the map (`np.memmap` itself is slow to slice, and can't be empty)."""
    if not np.prod(shape):
        return np.zeros(shape, kind)
    with path.open(f"{mode}b") as file:
        access = mmap.ACCESS_READ if mode == "r" else mmap.ACCESS_WRITE
        buffer = mmap.mmap(file.fileno(), 0, access=access)
    return np.frombuffer(buffer, kind).reshape(shape)


def blocks_of(count: int, size: int = _BLOCK_DOCUMENTS) -> list[slice]:
    """The slices that cut `count` rows into blocks."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
