"""Reading files that hold texts already: .jsonl (plain, gzip, zstd) and .parquet with a column `text`."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zstandard

from tsugiki.corpus.gzip_members import GZIP_MAGIC
from tsugiki.corpus.items import Limits, Tally, Text
from tsugiki.corpus.parquet_rows import known_text, read_parquet
from tsugiki.corpus.zstd import ZstdFile, is_zstd

__all__ = ["TEXT_SUFFIXES", "Text", "read_texts"]

TEXT_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".parquet")

MAX_VALUES = 4_000_000
"""Of a line of JSON. Each takes some 60 bytes in memory, so a line of nothing but `[],` would take twenty
times its size."""

_READ_BYTES = 1 << 16
_DEFAULT_LIMITS = Limits()


def read_texts(path: Path, tally: Tally, limits: Limits = _DEFAULT_LIMITS) -> Iterator[Text]:
    """The texts of one file, in order.

    A line that is no JSON object with a `text` string is counted in `tally` and passed over; so is the rest
    of a truncated file, and a damaged row group. Raises InputError for a Parquet file without a `text`
    column of strings, OSError where the file can't be opened.
    """
    rows = read_parquet if path.suffix == ".parquet" else _json_rows
    for offset, row in rows(path, tally, limits):
        text = row.get("text")
        if not isinstance(text, str):
            tally.fault(path.name, offset, "broken", 'no "text" string')
            continue
        encoded = text.encode("utf-8", "replace")  # lone surrogates, which JSON can hold and UTF-8 can't
        if len(encoded) > limits.max_text_bytes:
            message = f"a text of {len(encoded)} bytes (limit {limits.max_text_bytes})"
            tally.fault(path.name, offset, "too large", message)
        elif not text.replace("\0", "").strip():
            tally.skip("empty body")
        else:
            tally.page()
            yield _text(path.name, offset, encoded.decode("utf-8"), row)


def _text(file: str, offset: int, text: str, row: Mapping[str, Any]) -> Text:
    """A row's text with its details, which may lie in a `metadata` object instead."""
    details = row.get("metadata")
    details = details if isinstance(details, dict) else {}
    url, date, title = (known_text(row.get(key) or details.get(key)) for key in ("url", "date", "title"))
    return Text(file, offset, text, url or "", date, title)


def _json_rows(path: Path, tally: Tally, limits: Limits) -> Iterator[tuple[int, Mapping[str, Any]]]:
    limit = 2 * limits.max_text_bytes + _READ_BYTES  # "\u3042" is a character of three bytes, in six
    number = -1
    try:
        with _open(path, limits) as file:
            for number, line in enumerate(_lines(file, limit)):
                if line is None:
                    tally.fault(path.name, number, "too large", f"a line of more than {limit} bytes")
                elif len(line) > MAX_VALUES and sum(map(line.count, (b"[", b"{", b'"'))) > MAX_VALUES:
                    tally.fault(path.name, number, "too large", f"a line of more than {MAX_VALUES} values")
                elif line.strip():
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError) as error:
                        tally.fault(path.name, number, "broken", f"not JSON ({error})")
                        continue
                    yield number, row if isinstance(row, dict) else {}
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        message = f"the file is damaged from this line on ({error})"
        tally.fault(path.name, number + 1, "broken", message)


def _lines(file: io.BufferedIOBase, limit: int) -> Iterator[bytes | None]:
    """The lines of a file; None for one that is longer than `limit` bytes, which is never held as a whole."""
    while line := file.readline(limit + 1):
        if len(line) <= limit:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_READ_BYTES)
        yield None


def _open(path: Path, limits: Limits) -> io.BufferedIOBase:
    """The file, decompressed as its first bytes ask for, whatever its name says."""
    file = path.open("rb")
    head = file.peek(4)[:4]
    if is_zstd(head):
        return io.BufferedReader(ZstdFile(file, limits.max_window_bytes))
    if head.startswith(GZIP_MAGIC[:2]):
        file.close()
        return gzip.open(path, "rb")
    return file
