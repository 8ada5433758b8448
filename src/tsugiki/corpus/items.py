"""What readers of the corpus stage give out, count and are limited by."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MAX_WARNINGS = 1000
"""Of one tally. A hostile file can hold millions of faults: all are counted, the first ones are described."""


@dataclass(frozen=True)
class Limits:
    """Sizes above which content is counted and left out, so that memory stays bounded."""

    max_body_bytes: int = 10 << 20
    """Of an HTML page, before and after its content coding. Common Crawl itself cuts pages at 1 MiB (5 MiB
    since 2025)."""

    max_text_bytes: int = 64 << 20
    """Of one text in UTF-8. A line of JSON may have twice as many: that is what its escapes cost."""

    max_window_bytes: int = 128 << 20
    """Of a zstd frame: the memory that its decompression takes. The default is that of the zstd program."""


@dataclass(frozen=True)
class Span:
    """A part of a file, as `spans.py` cuts it. What `start` and `stop` count depends on the file's kind.

    WARC: bytes of the file. The part begins at the first record or member that is found from `start` on
    (where it is `exact`, at `start` itself), and ends before the first one that begins at `stop` or later.
    JSON lines: bytes of the lines, unpacked; each part begins at a line. Parquet: row groups.
    """

    start: int = 0
    stop: int | None = None
    """None: to the end, whatever comes."""

    first: int = 0
    """The number of the first line or row."""

    exact: bool = True


WHOLE = Span()


@dataclass(frozen=True)
class Page:
    """One HTML page.

    `offset` is that of its gzip member or zstd frame (or record, where the file is not compressed);
    `position` tells the records of one member apart, and is 0 for the first. `charset`, `http_language`
    (Content-Language) and `http_status` are as the HTTP header says; None where there is none.
    """

    file: str
    offset: int
    position: int
    url: str
    date: str | None
    body: bytes
    charset: str | None
    http_language: str | None = None
    http_status: int | None = None


@dataclass(frozen=True)
class Text:
    """One text with what is known of its origin.

    `offset` is the number of its line or row, from 0; for a WET record, `offset` and `position` are as those
    of a `Page`.
    """

    file: str
    offset: int
    text: str
    url: str
    date: str | None
    title: str | None
    position: int = 0


@dataclass
class Tally:
    """What was read and what was left out, and why.

    Readers keep `records == pages + skipped.total()`, where a record is a WARC record, a line or a row, and
    each stretch of a file that can't be read as any is one broken record.

    passed: bytes of the file that were read, roughly, for a person who waits. begin, end: of a `Span` of a
    WARC file, where reading began, and where what follows it must begin.
    """

    records: int = 0
    pages: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    warnings: list[dict[str, str | int]] = field(default_factory=list)
    passed: int = 0
    begin: int = 0
    end: int = 0

    def page(self) -> None:
        """Count a record that is given out."""
        self.records += 1
        self.pages += 1

    def skip(self, reason: str) -> None:
        """Count a record that is left out, with nothing wrong about it."""
        self.records += 1
        self.skipped[reason] += 1

    def fault(self, file: str, offset: int, reason: str, message: str) -> None:
        """Count a record that is left out because something is wrong with it."""
        self.records += 1
        self.warn(file, offset, reason, message)

    def warn(self, file: str, offset: int, reason: str, message: str) -> None:
        """Count a fault of a record that is counted already, and keep where it was."""
        self.skipped[reason] += 1
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append({"file": file, "offset": offset, "message": message})
        elif len(self.warnings) == MAX_WARNINGS:
            self.warnings.append({"file": file, "offset": offset, "message": "more faults, only counted"})
