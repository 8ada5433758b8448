"""The documents of all units that passed, numbered for deduplication in their canonical order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.files import read_json, write_json
from tsugiki.corpus.minhash import shingles
from tsugiki.corpus.neardup.survivors import DocumentColumns, create_columns
from tsugiki.corpus.neardup.units import UnitIndex
from tsugiki.corpus.segments import Segment

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stored:
    """The segments in canonical order; document `firsts[s] + i` is the i-th of segment s that passed."""

    segments: tuple[Segment, ...]
    firsts: tuple[int, ...]
    count: int

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Stored:
        """Number the documents of these segments."""
        firsts, count = [], 0
        for segment in segments:
            firsts.append(count)
            count += segment.passed
        return cls(tuple(segments), tuple(firsts), count)

    @property
    def units(self) -> list[UnitIndex]:
        """The segments as deduplication sees them; those without a document left out."""
        pairs = zip(self.segments, self.firsts, strict=True)
        return [UnitIndex(Path(one.stem), first, one.passed) for one, first in pairs if one.passed]

    def slice_of(self, number: int) -> slice:
        """The numbers of a segment's documents."""
        first = self.firsts[number]
        return slice(first, first + self.segments[number].passed)

    def columns(self, directory: Path) -> DocumentColumns:
        """What the choice of survivors looks at, in work files under `directory`."""
        columns = create_columns(directory, self.count)
        for number, segment in enumerate(self.segments):
            records, place = segment.records(), self.slice_of(number)
            for name in ("date", "characters", "score"):
                getattr(columns, name)[place] = records[name]
            columns.id[place, 0], columns.id[place, 1] = records["id_high"], records["id_low"]
        return columns

    def texts(self, documents: Int64s) -> Iterator[str]:
        """The texts of documents by ascending number, one row group in memory at a time."""
        for number, chosen in self._by_segment(documents):
            segment = self.segments[number]
            rows = segment.records()["row"][chosen - self.firsts[number]]
            yield from _texts_of(segment.table, rows)

    def shingles(self, documents: Int64s, ngram: int) -> Iterator[npt.NDArray[np.uint64]]:
        """The sorted n-gram hashes of documents by ascending number."""
        for text in self.texts(documents):
            yield shingles(text, ngram)

    def _by_segment(self, documents: Int64s) -> Iterator[tuple[int, Int64s]]:
        start = 0
        while start < documents.size:
            number = bisect_right(self.firsts, int(documents[start])) - 1
            stop = start + int(np.searchsorted(documents[start:], self.slice_of(number).stop))
            yield number, documents[start:stop]
            start = stop

    def save(self, path: Path) -> None:
        """Write the list of segments where tasks find it."""
        write_json(path, [segment.as_dict() for segment in self.segments])


def stored_at(path: str) -> Stored:
    """What `save` wrote; read once a process, unless the file is another one now."""
    return _stored_at(path, Path(path).stat().st_mtime_ns)


@cache
def _stored_at(path: str, _written: int) -> Stored:
    return Stored.of([Segment(**one) for one in read_json(Path(path))])


def _texts_of(table: Path, rows: Int64s) -> Iterator[str]:
    with pq.ParquetFile(table) as file:
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            chosen = rows[(rows >= start) & (rows < stop)] - start
            if chosen.size:
                column: Any = file.read_row_group(group, columns=["text"])["text"]
                yield from column.take(pa.array(chosen)).to_pylist()
            start = stop
