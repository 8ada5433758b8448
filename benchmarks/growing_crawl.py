"""A crawl of any size out of the sample crawl: copies whose texts differ from each other's.

In copy k every kanji of a page is replaced by another one, by a permutation that depends on k: languages,
lengths and layouts stay as they are, and character 5-grams with a kanji do not recur. So Japanese pages of
different copies are no near-duplicates (pages without kanji are).
"""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Iterator
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType

_KANJI = range(0x4E00, 0x9FA0)
_MARKUP = re.compile(r"(<[^>]*>|&\w+;)")


def table_of(copy: int) -> dict[int, int]:
    """The permutation of copy `copy`, for `str.translate`; copy 0 stays as it is."""
    if copy == 0:
        return {}
    numbers = list(_KANJI)
    random.Random(copy).shuffle(numbers)
    return dict(zip(_KANJI, numbers, strict=True))


def write_crawl(sources: list[Path], target: Path, copies: int) -> list[Path]:
    """Write `copies` of every source into `target`; gives the files. Only pages in UTF-8 are taken."""
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for copy in range(copies):
        table = table_of(copy)
        for source in sources:
            path = target / f"copy-{copy:03d}-{source.name}"
            with path.open("wb") as file:
                for record in _records(source, copy, table):
                    file.write(gzip.compress(record, 6, mtime=0))
            written.append(path)
    return written


def _records(source: Path, copy: int, table: dict[int, int]) -> Iterator[bytes]:
    with source.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.response, parse_http=True):
            headers = record.http_headers
            kind = (headers.get("Content-Type") or "") if headers else ""
            if headers is None or headers.status_code != 200 or "html" not in kind:  # noqa: PLR2004
                continue
            if headers.get("Content-Encoding") or headers.get("Transfer-Encoding"):
                continue
            try:
                page = record.reader.read().decode("utf-8")
            except UnicodeDecodeError:
                continue
            yield _record(_varied(page, table), record.headers.get("WARC-Target-URI"), copy)


def _varied(page: str, table: dict[int, int]) -> bytes:
    parts = _MARKUP.split(page)
    parts[::2] = [part.translate(table) for part in parts[::2]]
    return "".join(parts).encode()


def _record(body: bytes, url: str, copy: int) -> bytes:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url.strip('<>')}?copy={copy}\r\n"
        "WARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:{copy:08d}-0000-4000-8000-000000000000>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"
