"""Reading files that hold texts already: .jsonl (plain, gzip, zstd) and .parquet with a column `text`."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tsugiki.corpus.read import Tally
from tsugiki.errors import InputError

_ZSTD_BYTES = 1 << 16

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
        elif not text.strip():
            tally.skipped["empty body"] += 1
        else:
            tally.pages += 1
            details = row.get("metadata")
            details = details if isinstance(details, dict) else {}
            found = {key: row.get(key) or details.get(key) for key in ("url", "date", "title")}
            known = {key: _clean(value) if isinstance(value, str) else None for key, value in found.items()}
            yield Text(path.name, offset, _clean(text), known["url"] or "", known["date"], known["title"])


def _clean(text: str) -> str:
    """The text without lone surrogates, which JSON can hold and UTF-8 can't."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _json_rows(path: Path, tally: Tally) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number = -1
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    tally.records += 1
                    tally.warn(path.name, number, "broken", f"not JSON ({error})")
                    continue
                yield number, row if isinstance(row, dict) else {}
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        tally.warn(path.name, number + 1, "broken", f"the file is damaged from this line on ({error})")


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
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not self._ready:
            rest = self._frame.unused_data
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
                self._inside = False
            packed = rest or self._file.read(_ZSTD_BYTES)
            if not packed:
                if self._inside:
                    raise EOFError("the file ends inside of a zstd frame")
                return 0
            self._inside = True
            self._ready = self._frame.decompress(packed)
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
        columns = [name for name in ("text", "url", "date", "title") if name in file.schema_arrow.names]
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                yield number, row
                number += 1
