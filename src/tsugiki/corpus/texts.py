"""Reading files that hold texts already: .jsonl (plain, gzip, zstd) and .parquet with a column `text`."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tsugiki.corpus.read import Tally
from tsugiki.errors import InputError

MAX_LINE_BYTES = 64 << 20
"""Longer lines of a .jsonl file are skipped and counted, and never lie in memory as a whole."""

_ZSTD_BYTES = 1 << 16
_ZSTD_STEP_BYTES = 1 << 9
"""Given to the decompressor at once: four bytes can stand for a block of 128 kB, so at most
16 MB come out."""


TEXT_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


@dataclass(frozen=True)
class Text:
    """One text with what is known of its origin. `offset` is the number of its line or row, from 0."""

    file: str
    offset: int
    text: str
    url: str
    date: str | None
    title: str | None


def read_texts(path: Path, tally: Tally) -> Iterator[Text]:
    """The texts of one file, in order.

    A line that is no JSON object with a `text` string is counted in `tally` and passed over; so is the rest
    of a truncated file. Raises InputError for a Parquet file without a `text` column.
    """
    rows = _parquet_rows(path, tally) if path.suffix == ".parquet" else _json_rows(path, tally)
    for offset, row in rows:
        tally.records += 1
        text = row.get("text")
        if not isinstance(text, str):
            tally.warn(path.name, offset, "broken", 'no "text" string')
        elif not text.replace("\0", "").strip():
            tally.skipped["empty body"] += 1
        else:
            tally.pages += 1
            details = row.get("metadata")
            details = details if isinstance(details, dict) else {}
            found = {key: row.get(key) or details.get(key) for key in ("url", "date", "title")}
            known = {key: _known(value) for key, value in found.items()}
            yield Text(path.name, offset, _clean(text), known["url"] or "", known["date"], known["title"])


def _known(value: object) -> str | None:
    """A detail as text: strings as they are, dates in ISO 8601, anything else counts as absent."""
    if isinstance(value, date):  # datetime is a kind of date
        return value.isoformat()
    return _clean(value) if isinstance(value, str) else None


def _clean(text: str) -> str:
    """The text without lone surrogates, which JSON can hold and UTF-8 can't."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _json_rows(path: Path, tally: Tally) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number = -1
    try:
        with _open(path) as lines:
            for number, line in enumerate(_lines(lines)):
                if line is None:
                    tally.records += 1
                    tally.warn(path.name, number, "too large", f"a line of more than {MAX_LINE_BYTES} bytes")
                    continue
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    tally.records += 1
                    tally.warn(path.name, number, "broken", f"not JSON ({error})")
                    continue
                yield number, row if isinstance(row, dict) else {}
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        tally.warn(path.name, number + 1, "broken", f"the file is damaged from this line on ({error})")


def _lines(file: io.BufferedIOBase) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is longer than MAX_LINE_BYTES."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_ZSTD_BYTES)
        yield None


def _open(path: Path) -> io.BufferedIOBase:
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstdFile(path))
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


class _ZstdFile(io.RawIOBase):
    """A file of zstd frames. Unlike `zstandard.open` it reads all, and raises EOFError at a cut one."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._inside = False
        self._packed = memoryview(b"")
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not self._ready:
            rest = self._frame.unused_data
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
                self._inside = False
            self._packed = self._packed or memoryview(self._file.read(_ZSTD_BYTES))
            packed = rest or self._packed[:_ZSTD_STEP_BYTES]
            if not packed:
                if self._inside:
                    raise EOFError("the file ends inside of a zstd frame")
                return 0
            if not rest:
                self._packed = self._packed[_ZSTD_STEP_BYTES:]
            self._inside = True
            self._ready = memoryview(self._frame.decompress(packed))
        part, self._ready = self._ready[: len(target)], self._ready[len(target) :]
        target[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()


def _parquet_rows(path: Path, tally: Tally) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        tally.warn(path.name, 0, "broken", f"not a Parquet file ({error})")
        return
    with file:
        if "text" not in file.schema_arrow.names:
            raise InputError(
                f'{path} has no column "text" (it has {", ".join(file.schema_arrow.names)})',
                hint="rename the column that holds the documents' text",
            )
        known = ("text", "url", "date", "title", "metadata")
        columns = [name for name in known if name in file.schema_arrow.names]
        number = 0
        batches = file.iter_batches(batch_size=1024, columns=columns)
        while True:
            try:
                rows = _rows(next(batches, None))
            except (pa.ArrowException, OSError, ValueError) as error:
                message = f"the file is damaged from this row on, or in the 1,024 after it ({error})"
                tally.warn(path.name, number, "broken", message)
                return
            if rows is None:
                return
            for row in rows:
                yield number, row
                number += 1


def _rows(batch: pa.RecordBatch | None) -> list[dict[str, Any]] | None:
    """A batch as rows; times to the microsecond, which is what Python's datetime holds."""
    if batch is None:
        return None
    schema = batch.schema
    for place, kind in enumerate(schema.types):
        if pa.types.is_timestamp(kind):
            schema = schema.set(place, schema.field(place).with_type(pa.timestamp("us", kind.tz)))
    rows: list[dict[str, Any]] = batch.cast(schema, safe=False).to_pylist()
    return rows
