"""The gzip members of a file in memory (RFC 1952): one by one, in one piece where small, else as a stream."""

from __future__ import annotations

import importlib
import mmap
import zlib
from importlib.util import find_spec
from typing import Any

from tsugiki.corpus.records import WARC_MAGIC

GZIP_MAGIC = b"\x1f\x8b\x08"
WHOLE_BYTES = 4 << 20
"""A member that inflates to no more is inflated at once (pages of Common Crawl have 1 MiB, 5 since 2025)."""

_WINDOW_BYTES = 1 << 15
_GZIP = 16 + zlib.MAX_WBITS

# ISA-L inflates the members of a crawl almost twice as fast as zlib. Only whole, sound members come from it,
# so the results are the same without it.
_FAST: Any = importlib.import_module("isal.isal_zlib") if find_spec("isal") else zlib


class GzipStream:
    """One member as a stream of its inflated bytes. Never raises: `error` says what is wrong."""

    def __init__(self, data: mmap.mmap | bytes, start: int) -> None:
        self._data = data
        self._inflate = zlib.decompressobj(_GZIP)
        self._next = start
        self._pending = b""
        self.error: str | None = None
        self.cut = False

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        while self.error is None and not self._inflate.eof:
            if not self._pending:
                self._pending = self._data[self._next : self._next + _WINDOW_BYTES]
                self._next += len(self._pending)
                if not self._pending:
                    self.error = "the file ends inside of a gzip member"
                    self.cut = True
                    break
            try:
                out = self._inflate.decompress(self._pending, size)
            except zlib.error as error:
                self.error = f"damaged gzip member ({error})"
                break
            self._pending = self._inflate.unconsumed_tail
            if out:
                return out
        return b""

    def finish(self) -> int:
        """Pass what is left; the offset after the member (valid if `error` is None)."""
        while self.read(_WINDOW_BYTES):
            pass
        return self._next - len(self._inflate.unused_data)


class GzipMembers:
    """A file as gzip members."""

    name = "gzip member"

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data

    def begins(self, offset: int) -> bool:
        """Whether a member begins there."""
        return self._data[offset : offset + len(GZIP_MAGIC)] == GZIP_MAGIC

    def pass_over(self, offset: int) -> int | None:
        """The offset itself: every member holds records."""
        return offset

    def whole(self, offset: int) -> tuple[bytes, int] | None:
        """The member's content and the offset after it; None if it is large, cut or damaged."""
        inflate = _FAST.decompressobj(_GZIP)
        parts: list[bytes] = []
        room = WHOLE_BYTES
        while not inflate.eof:
            packed = self._data[offset : offset + _WINDOW_BYTES]
            if not packed or room <= 0 or inflate.unconsumed_tail:
                return None
            offset += len(packed)
            try:
                parts.append(inflate.decompress(packed, room))
            except (zlib.error, _FAST.error):
                return None
            room -= len(parts[-1])
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        return content, offset - len(inflate.unused_data)

    def stream(self, offset: int) -> GzipStream:
        """The member that begins there."""
        return GzipStream(self._data, offset)

    def next(self, start: int) -> int:
        """The offset of the first member from `start` on whose content begins like a WARC record."""
        found = self._data.find(GZIP_MAGIC, start)
        while found >= 0:
            if GzipStream(self._data, found).read(len(WARC_MAGIC)) == WARC_MAGIC:
                return found
            found = self._data.find(GZIP_MAGIC, found + 1)
        return len(self._data)
