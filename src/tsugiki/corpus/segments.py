"""The files of a unit: its documents in segments of a bounded size, each with what deduplication needs.

<stem>-00000.parquet      documents with features and reasons, in the order of the input
<stem>-00000.passed.npy   one record for each that passed: row, id, date, characters, score
<stem>-00000.signatures   their MinHash signatures (neardup.index)
<stem>-00000.bands        their band keys
<stem>.json               statistics and the list of segments; written last: a unit with it is whole
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.files import atomic_path
from tsugiki.corpus.neardup.survivors import epoch_seconds
from tsugiki.corpus.neardup.units import write_unit_index

ROWS = 16_384
"""Documents of a segment: with 800 hashes each its signatures take 52 MB at most."""

_GROUP_ROWS = 512
_GROUP_BYTES = 16 << 20

PASSED = np.dtype(
    [
        ("row", "<i8"),
        ("id_high", "<u8"),
        ("id_low", "<u8"),
        ("date", "<i8"),
        ("characters", "<i8"),
        ("score", "<f8"),
    ]
)


@dataclass(frozen=True)
class Segment:
    """One segment of a unit; `stem` is the path of its files without their suffixes."""

    stem: str
    documents: int
    passed: int

    @property
    def table(self) -> Path:
        """The documents."""
        return Path(f"{self.stem}.parquet")

    def records(self) -> npt.NDArray[Any]:
        """The records of the documents that passed, memory-mapped; dtype PASSED."""
        return np.load(f"{self.stem}.passed.npy", mmap_mode="r" if self.passed else None, allow_pickle=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        return asdict(self)


class SegmentWriter:
    """Writes documents one after another into segments; use as a context, then read `segments`."""

    def __init__(self, stem: Path, schema: pa.Schema, bands: int, rows: int) -> None:
        self.segments: list[Segment] = []
        self._stem, self._schema = stem, schema
        self._bands, self._rows = bands, rows
        self._stack: contextlib.ExitStack | None = None
        self._waiting: list[Mapping[str, Any]] = []
        self._waiting_bytes = 0
        self._count = 0
        self._passed: list[tuple[Any, ...]] = []
        self._signatures: list[npt.NDArray[np.uint32]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if error is None:
                self._end()
        except BaseException as failure:
            self._abandon(failure)
            raise
        if error is not None:
            self._abandon(error)

    def _abandon(self, error: BaseException) -> None:
        """Remove what is half-written; raises StorageError where the error says that the disk is full."""
        if self._stack is not None:
            self._stack.__exit__(type(error), error, error.__traceback__)

    def add(self, row: Mapping[str, Any], signature: npt.NDArray[np.uint32] | None, score: float) -> None:
        """Add a document; `signature` only if it passed."""
        if signature is not None:
            name = row["id"]
            known = (
                int(name[:16], 16),
                int(name[16:], 16),
                int(epoch_seconds([row["date"]])[0]),
                len(row["text"]),
            )
            self._passed.append((self._count, *known, score))
            self._signatures.append(signature)
        self._waiting.append(row)
        self._waiting_bytes += 4 * len(row["text"])
        self._count += 1
        if len(self._waiting) >= _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
            self._flush()
        if self._count == ROWS:
            self._end()

    def _flush(self) -> None:
        if self._stack is None:
            self._stack = contextlib.ExitStack()
            partial = self._stack.enter_context(atomic_path(self._path(".parquet")))
            self._writer = self._stack.enter_context(
                pq.ParquetWriter(partial, self._schema, compression="zstd")
            )
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting, self._waiting_bytes = [], 0

    def _end(self) -> None:
        if not self._count:
            return
        self._flush()
        if self._stack is not None:
            self._stack.close()
        stem = self._path("")
        records = np.array(self._passed, PASSED)
        with atomic_path(self._path(".passed.npy")) as partial, partial.open("wb") as file:
            np.save(file, records, allow_pickle=False)
        hashes = self._bands * self._rows
        signatures = np.stack(self._signatures) if self._signatures else np.empty((0, hashes), np.uint32)
        write_unit_index(stem, signatures, self._bands, self._rows)
        self.segments.append(Segment(str(stem), self._count, len(records)))
        self._stack, self._count, self._passed, self._signatures = None, 0, [], []

    def _path(self, suffix: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}-{len(self.segments):05d}{suffix}")
