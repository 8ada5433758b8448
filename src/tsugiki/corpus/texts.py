"""Reading files that hold texts already: .jsonl (plain, gzip, zstd) and .parquet with a column `text`."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import zstandard

from tsugiki.corpus.gzip_members import GZIP_MAGIC
from tsugiki.corpus.items import WHOLE, Limits, Span, Tally, Text
from tsugiki.corpus.parquet_rows import known_text, read_parquet
from tsugiki.corpus.zstd import ZstdFile, is_zstd

__all__ = ["PACKED_SPANS", "TEXT_SUFFIXES", "Text", "line_spans", "read_texts"]

TEXT_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst", ".parquet")

MAX_VALUES = 4_000_000
"""Of a line of JSON. Each takes some 60 bytes in memory, so a line of nothing but `[],` would take twenty
times its size."""

PACKED_SPANS = 16
"""Parts of one packed file, at most: each has to unpack all that lies before it."""

_READ_BYTES = 1 << 16
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError)
_File = io.BufferedReader | gzip.GzipFile
_DEFAULT_LIMITS = Limits()


def read_texts(
    path: Path, tally: Tally, limits: Limits = _DEFAULT_LIMITS, span: Span = WHOLE
) -> Iterator[Text]:
    """The texts of one file, or of a part of it, in order.

    A line that is no JSON object with a `text` string is counted in `tally` and passed over; so is the rest
    of a truncated file, and a damaged row group. Raises InputError for a Parquet file without a `text`
    column of strings, OSError where the file can't be opened.
    """
    rows = read_parquet if path.suffix.lower() == ".parquet" else _json_rows
    for offset, row in rows(path, tally, limits, span):
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


def _json_rows(
    path: Path, tally: Tally, limits: Limits, span: Span
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    limit = 2 * limits.max_text_bytes + _READ_BYTES  # "\u3042" is a character of three bytes, in six
    number = span.first - 1
    size = None if span.stop is None else span.stop - span.start
    try:
        with _open(path, limits) as file:
            _pass(file, span.start)
            begin = _place(file)
            for number, line in enumerate(_lines(file, limit, size), span.first):
                tally.passed = _place(file) - begin
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
    except _DAMAGE as error:
        message = f"the file is damaged from this line on ({error})"
        tally.fault(path.name, number + 1, "broken", message)


def _lines(file: _File, limit: int, size: int | None) -> Iterator[bytes | None]:
    """The lines of a file that begin in the next `size` bytes (None: all).

    None stands for a line that is longer than `limit` bytes, which is never held as a whole.
    """
    passed = 0
    while (size is None or passed < size) and (line := file.readline(limit + 1)):
        passed += len(line)
        if len(line) <= limit:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(_READ_BYTES)
            passed += len(line)
        yield None


def line_spans(path: Path, unit_bytes: int, limits: Limits = _DEFAULT_LIMITS) -> list[Span]:
    """Parts that begin at a line, one for about `unit_bytes` of the file.

    A packed file has PACKED_SPANS at most. Where it is damaged, the last part begins before that, so that it
    meets the damage as a reader of the whole does.
    """
    spans = [WHOLE]
    position = number = 0
    with _open(path, limits) as file:
        least = 0 if _is_plain(file) else -(-path.stat().st_size // PACKED_SPANS)
        step = due = max(unit_bytes, least)
        with contextlib.suppress(*_DAMAGE):
            for chunk in _chunks(file):
                if _place(file) >= due and (end := chunk.find(b"\n") + 1):
                    spans.append(Span(position + end, None, number + 1))
                    due = (_place(file) // step + 1) * step
                number += chunk.count(b"\n")
                position += len(chunk)
    if len(spans) > 1 and spans[-1].start == position:
        spans.pop()
    stops = [span.start for span in spans[1:]]
    return [replace(span, stop=stop) for span, stop in zip(spans, [*stops, None], strict=True)]


def _chunks(file: _File) -> Iterator[bytes]:
    """What the buffer holds, again and again: the file is read in the same steps as by `readline`.

    So the bytes that are lost before a damaged place are the same.
    """
    while ready := len(file.peek(1)):
        yield file.read1(ready)


def _pass(file: _File, size: int) -> None:
    """Go on to the byte `size` of the unpacked content."""
    if _is_plain(file):
        file.seek(size)
        return
    while size > 0 and (ready := len(file.peek(1))):
        size -= len(file.read1(min(ready, size)))


def _place(file: _File) -> int:
    """How far the file itself, packed or not, was read."""
    return os.lseek(file.fileno(), 0, os.SEEK_CUR)


def _is_plain(file: _File) -> bool:
    return isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO)


def _open(path: Path, limits: Limits) -> _File:
    """The file, decompressed as its first bytes ask for, whatever its name says."""
    file = path.open("rb")
    head = file.peek(4)[:4]
    if is_zstd(head):
        return io.BufferedReader(ZstdFile(file, limits.max_window_bytes))
    if head.startswith(GZIP_MAGIC[:2]):
        file.close()
        return gzip.open(path, "rb")
    return file
