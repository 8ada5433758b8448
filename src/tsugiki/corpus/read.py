"""Reading WARC files so that damage is noticed, reported and survived.

Each gzip member or zstd frame is a unit of its own: a small one is inflated at once, a large one on demand (a
bomb never lies in memory), and where one is damaged the walk goes on at the next that begins with a WARC
version line. Whatever is left out is counted in a `Tally`, with file and offset.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Generator, Iterator
from pathlib import Path

from tsugiki.corpus.gzip_members import GZIP_MAGIC, GzipMembers
from tsugiki.corpus.http import HttpError, OversizeError, is_html_type, parse_charset, parse_response
from tsugiki.corpus.items import WHOLE, Limits, Page, Span, Tally, Text
from tsugiki.corpus.records import Fault, Record, Window, parse_records
from tsugiki.corpus.wet import text_of_record
from tsugiki.corpus.zstd import ZstdFrames, is_zstd

__all__ = ["Limits", "Page", "Tally", "read_records", "read_warc"]

_NOT_HTTP = ("dns:", "whois:")  # Heritrix keeps look-ups as `response` records (WARC 1.1, annex B)
_DEFAULT_LIMITS = Limits()


def read_warc(path: Path, tally: Tally, limits: Limits = _DEFAULT_LIMITS) -> Iterator[Page]:
    """The HTML pages of one WARC file, in file order: `read_records` without the texts."""
    return (item for item in read_records(path, tally, limits) if isinstance(item, Page))


def read_records(
    path: Path, tally: Tally, limits: Limits = _DEFAULT_LIMITS, span: Span = WHOLE
) -> Iterator[Page | Text]:
    """The HTML pages (HTTP status 200) and WET texts of one WARC file, or of a part of it, in file order.

    A walk knows nothing but its place, so parts hold together what the whole holds if each begins where the
    one before it ended: `tally.begin` and `tally.end` say where that was. The file is plain, or made of gzip
    members or zstd frames, whatever its name says. Never raises for damaged content: it is counted in
    `tally`. Raises OSError where the file can't be opened.
    """
    with path.open("rb") as file:
        if file.seek(0, io.SEEK_END) == 0:
            tally.fault(path.name, 0, "broken", "the file is empty")
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for offset, record in _walk(data, path.name, limits, span, tally):
                tally.passed = offset - tally.begin
                if isinstance(record, Fault):
                    tally.fault(path.name, offset, "broken", record.message)
                    continue
                item = _item(path.name, offset, record, tally, limits)
                if item is not None:
                    yield item


def _item(file: str, offset: int, record: Record, tally: Tally, limits: Limits) -> Page | Text | None:
    """What a record holds, counted in `tally`."""
    kind = record.kind
    if (reason := _no_page(record)) is not None:
        tally.skip(reason)
        return None
    if record.block is None:
        limit = limits.max_text_bytes if kind == b"conversion" else limits.max_body_bytes
        message = f"{record.url}: a body of {record.length} bytes (limit {limit})"
        tally.fault(file, offset, "too large", message)
        return None
    if kind == b"conversion":
        return text_of_record(file, offset, record, tally)
    if kind == b"resource":
        return _resource(file, offset, record, tally)
    return _response(file, offset, record, tally, limits.max_body_bytes)


def _no_page(record: Record) -> str | None:
    """Why a record's kind alone makes it no page and no text; None if it may be one."""
    if record.kind == b"revisit":
        return "revisit"
    if record.kind not in {b"response", b"resource", b"conversion"} or record.url.startswith(_NOT_HTTP):
        return "not a response"
    if record.kind == b"resource" and not is_html_type(record.media):
        return "not HTML"
    return None


def _resource(file: str, offset: int, record: Record, tally: Tally) -> Page | None:
    """A page that was kept without its HTTP header (wget, browsertrix)."""
    body = record.block or b""
    if not body.strip():
        tally.skip("empty body")
        return None
    tally.page()
    charset = parse_charset(record.media)
    return Page(file, offset, record.position, record.url, record.date, body, charset)


def _response(file: str, offset: int, record: Record, tally: Tally, limit: int) -> Page | None:
    try:
        response = parse_response(record.block or b"", limit)
    except HttpError as error:
        reason = "too large" if isinstance(error, OversizeError) else "broken"
        tally.fault(file, offset, reason, f"{record.url}: {error}")
        return None
    if (skip := response.skip_reason) is not None:
        tally.skip(skip)
        return None
    tally.page()
    return Page(
        file,
        offset,
        record.position,
        record.url,
        record.date,
        response.body,
        response.charset,
        response.header(b"content-language") or None,
        response.status,
    )


def _walk(
    data: mmap.mmap, name: str, limits: Limits, span: Span, tally: Tally
) -> Iterator[tuple[int, Record | Fault]]:
    """The records and faults of a file or a part of it, each with its offset there.

    The first bytes say how the file is compressed; where they say nothing, its name does.
    """
    head = data[: len(GZIP_MAGIC) + 1]
    if is_zstd(head) or (not head.startswith((GZIP_MAGIC[:2], b"WARC")) and name.endswith(".zst")):
        frames = ZstdFrames(data, limits.max_window_bytes)
        if frames.fault is not None and not span.start:
            yield 0, Fault(0, frames.fault)
        yield from _walk_members(data, frames, limits, span, tally)
    elif head.startswith(GZIP_MAGIC[:2]) or (not head.startswith(b"WARC") and name.endswith(".gz")):
        yield from _walk_members(data, GzipMembers(data), limits, span, tally)
    else:
        yield from _walk_plain(data, limits, span, tally)


def _walk_plain(
    data: mmap.mmap, limits: Limits, span: Span, tally: Tally
) -> Iterator[tuple[int, Record | Fault]]:
    window = Window(data)
    window.at = span.start
    if not span.exact:
        window.at -= 1  # the line end before the record counts
        window.resynchronize()
    tally.begin = window.at
    stop = len(data) if span.stop is None else span.stop
    if window.at < stop:
        for record in parse_records(window, limits):
            if record.position >= stop:
                tally.end = record.position
                return
            yield record.position, record if isinstance(record, Fault) else record._replace(position=0)
    tally.end = window.at


def _walk_members(
    data: mmap.mmap, members: GzipMembers | ZstdFrames, limits: Limits, span: Span, tally: Tally
) -> Iterator[tuple[int, Record | Fault]]:
    offset = tally.begin = span.start if span.exact else members.next(span.start)
    stop = len(data) if span.stop is None else span.stop
    while offset < stop:
        if not members.begins(offset):
            found = members.next(offset)
            yield offset, Fault(0, f"{found - offset} bytes that are no {members.name}")
            offset = found
            continue
        after = members.pass_over(offset)
        if after is None:
            yield offset, Fault(0, f"the file ends inside of a {members.name}")
            offset = members.next(offset + 1)
        elif after > offset:
            offset = after
        elif whole := members.whole(offset):
            content, after = whole
            for record in parse_records(Window(content), limits):
                yield offset, record
            offset = after
        else:
            offset = yield from _walk_stream(offset, members, limits)
    tally.end = offset


def _walk_stream(
    offset: int, members: GzipMembers | ZstdFrames, limits: Limits
) -> Generator[tuple[int, Record | Fault], None, int]:
    """The records of a member that is large, cut or damaged; returns the offset to go on at."""
    stream = members.stream(offset)
    window = Window(bytearray(), stream)
    for record in parse_records(window, limits):
        yield offset, record
    after = stream.finish()
    if stream.error is None:
        return after
    if not window.reported:
        yield offset, Fault(0, stream.error)
    # A damaged member's end is unknown: bytes of the next ones may have been taken for its own.
    return members.next(offset + 1)
