"""The records of a WARC, parsed from bytes in memory or from a stream, with every fault in its place.

ISO 28500 (WARC 1.1) §4: a record is a version line, named fields, an empty line, a block of Content-Length
bytes and two line ends. Only what can be checked is trusted: a record counts as whole when its block is
followed by the next record or by the end. (FastWARC, the oracle of the tests, ends silently at a truncated
member and gives up on a whole file at the first damage.)
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tsugiki.corpus.header_fields import Fields
from tsugiki.corpus.items import Limits

WARC_MAGIC = b"WARC/"
MAX_HEADER_BYTES = 1 << 16
"""Of a record's named fields; those of real crawls have some hundred bytes."""

_STEP_BYTES = 1 << 16
_MAX_LINE_ENDS = 1 << 12  # after a block; two are due
_MAX_VERSION_BYTES = 64
_WANTED = frozenset({b"response", b"resource", b"conversion"})
_DIGITS = re.compile(rb"[0-9]{1,18}")
_FOLDED = re.compile(rb"\r?\n[ \t]+")
_NO_HEADER = "no WARC header where one is expected"


class Stream(Protocol):
    """Bytes that only go forward. Never raises: at the end, `error` says what is wrong.

    `cut` tells that nothing but the end is missing; what came before it is sound.
    """

    error: str | None
    cut: bool

    def read(self, size: int) -> bytes | memoryview:
        """At most `size` bytes; none at the end."""


class Record(NamedTuple):
    """One whole record. `block` is None where its kind is not asked for, or `length` is over the limit."""

    position: int
    kind: bytes
    url: str
    date: str | None
    media: str
    length: int
    block: bytes | None


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that is damaged; `position` is where it begins."""

    position: int
    message: str


class _BrokenError(Exception):
    """The bytes at the window's front are no whole record."""


class Window:
    """Bytes from front to back: all of them at once, or what a stream has given so far.

    `data[at:]` is there to be looked at; `base + at` is its position in the whole.
    """

    def __init__(self, data: bytes | mmap.mmap | bytearray, stream: Stream | None = None) -> None:
        self.data = data
        self.at = 0
        self.base = 0
        self.reported = False
        self._stream = stream
        self._ended = stream is None

    @property
    def complete(self) -> bool:
        """Whether all of it is in memory."""
        return self._stream is None

    @property
    def position(self) -> int:
        """Of the front, in the whole."""
        return self.base + self.at

    @property
    def error(self) -> str | None:
        """What is wrong with the stream, as far as it was read."""
        return self._stream.error if self._stream else None

    @property
    def damaged(self) -> bool:
        """Whether the stream ended at something worse than a cut."""
        return self._stream is not None and self._stream.error is not None and not self._stream.cut

    def has(self, size: int) -> bool:
        """Whether `size` more bytes are there, reading on if need be."""
        while len(self.data) - self.at < size:
            if not self._fill():
                return False
        return True

    def _fill(self) -> bool:
        if self._ended or self._stream is None or not isinstance(self.data, bytearray):
            return False
        part = self._stream.read(_STEP_BYTES)
        if self.at >= _STEP_BYTES:
            del self.data[: self.at]
            self.base += self.at
            self.at = 0
        self.data += part
        self._ended = not part
        return not self._ended

    def find(self, what: bytes, size: int) -> int:
        """Where `what` begins within the next `size` bytes, from the front; -1 if nowhere."""
        while True:
            found = self.data.find(what, self.at, self.at + size)
            if found >= 0:
                return found - self.at
            if len(self.data) - self.at >= size or not self._fill():
                return -1

    def peek(self, start: int, size: int) -> bytes:
        """The bytes from `start` (counted from the front) on; fewer than `size` at the end."""
        self.has(start + size)
        return bytes(self.data[self.at + start : self.at + start + size])

    def skip(self, size: int) -> int:
        """Pass `size` bytes without keeping them; how many there were."""
        left = size
        while True:
            step = min(left, len(self.data) - self.at)
            self.at += step
            left -= step
            if not left or not self._fill():
                return size - left

    def resynchronize(self) -> None:
        """Pass everything before the next line that begins like a record; all, if there is none."""
        mark = b"\n" + WARC_MAGIC
        while True:
            found = self.data.find(mark, self.at)
            if found >= 0:
                self.at = found + 1
                return
            self.at = max(self.at, len(self.data) - len(mark) + 1)
            if not self._fill():
                self.at = len(self.data)
                return


def parse_records(window: Window, limits: Limits) -> Iterator[Record | Fault]:
    """The records from the window's front to its end; after a fault it goes on at the next header.

    Where a stream's error is the cause of a fault, it is part of the message, and `window.reported` is set.
    """
    while window.has(1):
        if window.data[window.at] in b"\r\n":
            window.at += 1
            continue
        position = window.position
        try:
            record = _record(window, limits)
        except _BrokenError as error:
            message = str(error)
            if window.error is not None:
                message = f"{window.error}: {message}"
                window.reported = True
            yield Fault(position, message)
            window.resynchronize()
            continue
        yield record


def _record(window: Window, limits: Limits) -> Record:
    position = window.position
    fields, head_size = _header(window)
    declared = fields.get(b"content-length")
    if not _DIGITS.fullmatch(declared):
        raise _BrokenError("the record's header has no valid Content-Length")
    length = int(declared)
    kind = fields.get(b"warc-type").lower()
    limit = limits.max_text_bytes if kind == b"conversion" else limits.max_body_bytes
    block = None
    if length <= limit or window.complete:
        size = head_size + length
        if not window.has(size):
            _short(len(window.data) - window.at - head_size, length)
        _check_after(window, size)
        if kind in _WANTED and length <= limit:
            block = bytes(window.data[window.at + head_size : window.at + size])
        window.at += size
    else:
        window.at += head_size
        if (skipped := window.skip(length)) < length:
            _short(skipped, length)
        _check_after(window, 0)
    url = fields.get(b"warc-target-uri").decode("utf-8", "replace").strip("<> ")  # wget writes <URL>
    date = fields.get(b"warc-date").decode("utf-8", "replace")
    media = fields.get(b"content-type").decode("latin-1")
    return Record(position, kind, url, date or None, media, length, block)


def _short(size: int, declared: int) -> None:
    raise _BrokenError(f"the record ends after {size} of {declared} declared bytes")


def _header(window: Window) -> tuple[Fields, int]:
    """The named fields, and the size of all up to the block."""
    if not WARC_MAGIC.startswith(window.peek(0, len(WARC_MAGIC))):
        raise _BrokenError(_NO_HEADER)
    line_end = window.find(b"\n", _MAX_VERSION_BYTES)
    crlf = line_end < 1 or window.data[window.at + line_end - 1] == ord("\r")
    empty_line = b"\r\n\r\n" if crlf else b"\n\n"  # some tools write bare newlines
    end = window.find(empty_line, MAX_HEADER_BYTES)
    if end < 0:
        raise _BrokenError("the record's header is cut short, or longer than 64 KiB")
    head = bytes(window.data[window.at : window.at + end])
    if b"\n " in head or b"\n\t" in head:
        head = _FOLDED.sub(b" ", head)
    return Fields(head), end + len(empty_line)


def _check_after(window: Window, size: int) -> None:
    """Raise _BrokenError unless the record of `size` bytes is followed by another, or by the end.

    A declared length that is wrong shows only here, so a failure condemns the record before it.
    """
    end = window.at + size
    after = window.data[end : end + 9]
    if after == b"\r\n\r\nWARC/" or (after == b"\r\n\r\n" and window.complete):
        return
    rest = window.peek(size, 16)
    if rest.strip(b"\r\n") == b"" and len(rest) == 16:  # noqa: PLR2004 - no end in sight yet
        rest = window.peek(size, _MAX_LINE_ENDS)
    rest = rest.lstrip(b"\r\n")[: len(WARC_MAGIC)]
    if not WARC_MAGIC.startswith(rest):
        raise _BrokenError(f"{_NO_HEADER}, or a wrong length before it")
    if not rest and window.damaged:
        raise _BrokenError("the record's end can't be trusted")
