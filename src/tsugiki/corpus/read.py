"""Reading WARC files so that damage is noticed, reported and survived.

FastWARC parses the records, but it ends silently at a truncated gzip member and gives up on a whole file at
the first damaged one. So the gzip members are walked here: each is inflated on demand (a bomb never lies in
memory), handed to FastWARC alone, and where one is damaged the walk goes on at the next member that begins
with a WARC version line. Whatever is left out is counted in a `Tally`, with file and offset.
"""

from __future__ import annotations

import io
import mmap
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from tsugiki.corpus.http import HttpError, OversizeError, parse_response

MAX_BODY_BYTES = 10 << 20
"""Larger bodies are skipped and counted; Common Crawl itself cuts pages at 1 MiB (5 MiB since 2025)."""

_GZIP_MAGIC = b"\x1f\x8b\x08"
_WARC_MAGIC = b"WARC/"
_WINDOW = 1 << 16
_NOT_HTTP = ("dns:", "whois:")  # Heritrix keeps look-ups as `response` records (WARC 1.1, annex B)
_CUT_SHORT = "the file ends inside of a gzip member"
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class Page:
    """One HTML page.

    `offset` is that of its gzip member (or record, where the file is not compressed); `position` tells the
    records of one member apart, and is 0 for the first.
    """

    file: str
    offset: int
    position: int
    url: str
    date: str | None
    body: bytes
    charset: str | None


@dataclass
class Tally:
    """What was read and what was left out, and why."""

    records: int = 0
    pages: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    warnings: list[dict[str, str | int]] = field(default_factory=list)

    def warn(self, file: str, offset: int, reason: str, message: str) -> None:
        """Count a fault under `reason` and keep where it was."""
        self.skipped[reason] += 1
        self.warnings.append({"file": file, "offset": offset, "message": message})


class _BrokenError(Exception):
    """The stream can't be parsed any further; `position` is the start of the record at fault."""

    def __init__(self, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True)
class _Record:
    position: int
    kind: WarcRecordType
    url: str
    date: str | None
    declared: int
    block: bytes | None


def read_warc(path: Path, tally: Tally, max_body_bytes: int = MAX_BODY_BYTES) -> Iterator[Page]:
    """The HTML pages (HTTP status 200) of one .warc or .warc.gz file, in file order.

    Never raises for damaged content: it is counted in `tally`. Raises OSError where the file can't be opened.
    """
    with path.open("rb") as file:
        if file.seek(0, io.SEEK_END) == 0:
            tally.warn(path.name, 0, "broken", "the file is empty")
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            walk = _walk_gzip if data[:2] == _GZIP_MAGIC[:2] else _walk_plain
            for offset, record in walk(data, path.name, tally, max_body_bytes):
                page = _page(path.name, offset, record, tally, max_body_bytes)
                if page is not None:
                    tally.pages += 1
                    yield page


def _page(file: str, offset: int, record: _Record, tally: Tally, limit: int) -> Page | None:
    tally.records += 1
    if record.kind != WarcRecordType.response or record.url.startswith(_NOT_HTTP):
        tally.skipped["not a response"] += 1
        return None
    if record.block is None:
        message = f"{record.url}: a body of {record.declared} bytes (limit {limit})"
        tally.warn(file, offset, "too large", message)
        return None
    try:
        response = parse_response(record.block, limit)
    except HttpError as error:
        reason = "too large" if isinstance(error, OversizeError) else "broken"
        tally.warn(file, offset, reason, f"{record.url}: {error}")
        return None
    if response.skip_reason is not None:
        tally.skipped[response.skip_reason] += 1
        return None
    return Page(file, offset, record.position, record.url, record.date, response.body, response.charset)


class _Forward(io.RawIOBase):
    """A stream that only goes forward. FastWARC asks it where it is with `seek(0, SEEK_CUR)`."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view = view
        self._position = 0
        self.error: str | None = None

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if (offset, whence) not in ((0, io.SEEK_CUR), (self._position, io.SEEK_SET)):
            raise io.UnsupportedOperation("this stream only goes forward")
        return self._position

    def close(self) -> None:
        self._view.release()
        super().close()


class _Member(_Forward):
    """One gzip member as a file of its inflated bytes. Never raises: `error` says what is wrong."""

    def __init__(self, data: mmap.mmap, start: int) -> None:
        super().__init__(memoryview(data))
        self._inflate = zlib.decompressobj(_GZIP)
        self._next = start
        self._pending: bytes | memoryview = b""

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while self.error is None and not self._inflate.eof:
            if not self._pending:
                self._pending = self._view[self._next : self._next + _WINDOW]
                self._next += len(self._pending)
                if not self._pending:
                    self.error = _CUT_SHORT
                    break
            try:
                out = self._inflate.decompress(self._pending, len(target))
            except zlib.error as error:
                self.error = f"damaged gzip member ({error})"
                break
            self._pending = self._inflate.unconsumed_tail
            if out:
                target[: len(out)] = out
                self._position += len(out)
                return len(out)
        return 0

    def finish(self) -> int:
        """Inflate and discard what is left; the offset after the member (valid if `error` is None)."""
        scratch = bytearray(_WINDOW)
        while self.readinto(scratch):
            pass
        return self._next - len(self._inflate.unused_data)

    def close(self) -> None:
        self._pending = b""
        super().close()


def _walk_gzip(data: mmap.mmap, file: str, tally: Tally, limit: int) -> Iterator[tuple[int, _Record]]:
    offset = 0
    while offset < len(data):
        if data[offset : offset + 3] != _GZIP_MAGIC:
            found = _next_member(data, offset)
            tally.warn(file, offset, "broken", f"{found - offset} bytes that are no gzip member")
            offset = found
            continue
        member = _Member(data, offset)
        fault: str | None = None
        try:
            for record in _parse(member, limit):
                yield offset, record
        except _BrokenError as error:
            fault = str(error)
        after = member.finish()
        damaged = member.error
        member.close()
        if damaged or fault:
            tally.warn(file, offset, "broken", damaged or fault or "")
        # A damaged member's end is unknown: bytes of the next ones may have been taken for its own.
        offset = _next_member(data, offset + 1) if damaged else after


def _next_member(data: mmap.mmap, start: int) -> int:
    """The offset of the first gzip member from `start` on whose content begins like a WARC record."""
    found = data.find(_GZIP_MAGIC, start)
    while found >= 0:
        head = _Member(data, found)
        beginning = bytearray(len(_WARC_MAGIC))
        head.readinto(beginning)
        head.close()
        if bytes(beginning) == _WARC_MAGIC:
            return found
        found = data.find(_GZIP_MAGIC, found + 1)
    return len(data)


def _walk_plain(data: mmap.mmap, file: str, tally: Tally, limit: int) -> Iterator[tuple[int, _Record]]:
    start = 0
    while start < len(data):
        fault = start
        stream = _Plain(data, start)
        try:
            for record in _parse(stream, limit):
                fault = _end_of(data, start + record.position, record)
                yield start + record.position, replace(record, position=0)
            if not data[fault:].strip(b"\r\n"):
                return
            tally.warn(file, fault, "broken", "the file ends inside of a record's header")
        except _BrokenError as error:
            fault = start + error.position
            tally.warn(file, fault, "broken", str(error))
        finally:
            stream.close()
        found = data.find(b"\n" + _WARC_MAGIC, fault + 1)
        start = len(data) if found < 0 else found + 1


def _end_of(data: mmap.mmap, start: int, record: _Record) -> int:
    """Where a record of an uncompressed file ends."""
    return data.find(b"\r\n\r\n", start) + len(b"\r\n\r\n") + record.declared


class _Plain(_Forward):
    """An uncompressed file from an offset on."""

    def __init__(self, data: mmap.mmap, start: int) -> None:
        super().__init__(memoryview(data)[start:])

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        part = self._view[self._position : self._position + len(target)]
        target[: len(part)] = part
        self._position += len(part)
        return len(part)


def _parse(stream: _Forward, limit: int) -> Iterator[_Record]:
    """The records of one stream. A record is only given out when what follows it parses.

    A declared length that is too short makes FastWARC find no header after the record, so a failure there
    condemns the record before it. Raises _BrokenError where the stream can't be parsed further.
    """
    held: _Record | None = None
    records = ArchiveIterator(stream, parse_http=False, stream_detect=False)
    while True:
        try:
            record = next(records, None)
        except (OSError, ValueError, EOFError) as error:
            message = f"no WARC header where one is expected, or a wrong length before it ({error})"
            raise _BrokenError(message, held.position if held else 0) from error
        if held is not None and (record is not None or stream.error in (None, _CUT_SHORT)):
            # Where only the gzip trailer of a complete record is missing, nothing of the page is lost.
            yield held
        if record is None:
            return
        held = _hold(record, limit)


def _hold(record: WarcRecord, limit: int) -> _Record:
    """Take the record's content; raises _BrokenError where it ends before its declared length."""
    declared = record.content_length
    if record.headers.get("Content-Length") is None:
        raise _BrokenError("the record's header is cut short", record.stream_pos)
    block = record.reader.read() if declared <= limit else None
    size = record.reader.consume() if block is None else len(block)
    if size != declared:
        raise _BrokenError(f"the record ends after {size} of {declared} declared bytes", record.stream_pos)
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")  # wget writes <…>, as WARC 1.0 says
    date = record.headers.get("WARC-Date")
    return _Record(record.stream_pos, record.record_type, url, date, declared, block)
