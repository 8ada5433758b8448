"""zstd frames (RFC 8878): the frames of a WARC file, and files of frames as streams.

The IIPC convention "WARC files with zstd" 1.0: one frame a record; a file may begin with a skippable frame of
the magic number 0x184D2A5D that holds a dictionary, itself possibly a zstd frame.
"""

from __future__ import annotations

import io
import mmap
from typing import BinaryIO

import zstandard

from tsugiki.corpus.records import WARC_MAGIC

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
DICTIONARY_MAGIC = b"\x5d\x2a\x4d\x18"
MAX_DICTIONARY_BYTES = 16 << 20
"""Trained dictionaries have 0.1 to 1 MB (the zstd program makes 110 kB)."""

_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte of 0x50 to 0x5f; then the size in four bytes
_SKIPPABLE_NIBBLE = 5
_SKIPPABLE_HEADER_BYTES = 8
_HEADER_BYTES = 18  # of a frame, at most
_BLOCK_BYTES = 128 << 10  # that one block can stand for
_MAX_BLOCKS = 32
"""Of a frame that is decompressed at once: 4 MiB."""

_READ_BYTES = 1 << 16
_STEP_BYTES = 1 << 9
"""Given to the decompressor at once. Four bytes can stand for a block of 128 kB: at most 16 MB come out."""


def is_zstd(head: bytes) -> bool:
    """Whether a file that begins so is one of zstd frames."""
    return head.startswith(ZSTD_MAGIC) or _is_skippable(head)


def _is_skippable(head: bytes) -> bool:
    return head[1:4] == _SKIPPABLE and head[0] >> 4 == _SKIPPABLE_NIBBLE


class ZstdStream:
    """One frame as a stream of its content. Never raises: `error` says what is wrong."""

    def __init__(self, data: mmap.mmap | bytes, start: int, unpacker: zstandard.ZstdDecompressor) -> None:
        self._data = data
        self._next = start
        self._frame = unpacker.decompressobj()
        self._ready = memoryview(b"")
        self.error: str | None = None
        self.cut = False

    def read(self, size: int) -> memoryview:
        """At most `size` bytes; none at the end."""
        while not self._ready and self.error is None and not self._frame.eof:
            packed = self._data[self._next : self._next + _STEP_BYTES]
            if not packed:
                self.error = "the file ends inside of a zstd frame"
                self.cut = True
                break
            self._next += len(packed)
            try:
                self._ready = memoryview(self._frame.decompress(packed))
            except zstandard.ZstdError as error:
                self.error = f"damaged zstd frame ({error})"
        part, self._ready = self._ready[:size], self._ready[size:]
        return part

    def finish(self) -> int:
        """Pass what is left; the offset after the frame (valid if `error` is None)."""
        while self.read(_READ_BYTES):
            pass
        return self._next - len(self._frame.unused_data)


class ZstdFrames:
    """A file as zstd frames; those that hold no data are passed over."""

    name = "zstd frame"

    def __init__(self, data: mmap.mmap, max_window_bytes: int) -> None:
        self._data = data
        self._limit = max_window_bytes
        self._unpacker = zstandard.ZstdDecompressor(max_window_size=max_window_bytes)
        self.fault: str | None = None
        if data[: len(DICTIONARY_MAGIC)] == DICTIONARY_MAGIC:
            self._load_dictionary()

    def _load_dictionary(self) -> None:
        """Use the dictionary in the first frame; `fault` says why that was not possible."""
        size = int.from_bytes(self._data[4:8], "little")
        content = self._data[8 : 8 + min(size, MAX_DICTIONARY_BYTES)]
        if content.startswith(ZSTD_MAGIC):
            stream = ZstdStream(content, 0, self._unpacker)
            packed, content = content, b""
            while len(content) <= MAX_DICTIONARY_BYTES and (part := stream.read(_READ_BYTES)):
                content += part
            if stream.error is not None or not packed:
                self.fault = f"the dictionary can't be decompressed: {stream.error}"
                return
        if size > MAX_DICTIONARY_BYTES or len(content) > MAX_DICTIONARY_BYTES:
            self.fault = f"the dictionary has more than {MAX_DICTIONARY_BYTES} bytes"
            return
        try:
            dictionary = zstandard.ZstdCompressionDict(content)
            unpacker = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=self._limit)
            unpacker.decompressobj()
        except zstandard.ZstdError as error:
            self.fault = f"the dictionary is damaged ({error})"
            return
        self._unpacker = unpacker

    def begins(self, offset: int) -> bool:
        """Whether a frame begins there, skippable ones included."""
        return is_zstd(self._data[offset : offset + len(ZSTD_MAGIC)])

    def pass_over(self, offset: int) -> int | None:
        """The offset after the skippable frame that begins there, or itself; None if the file ends in it."""
        if not _is_skippable(self._data[offset : offset + len(ZSTD_MAGIC)]):
            return offset
        size = int.from_bytes(self._data[offset + 4 : offset + 8], "little")
        end = offset + _SKIPPABLE_HEADER_BYTES + size
        return None if end > len(self._data) else end

    def whole(self, offset: int) -> tuple[bytes, int] | None:
        """The frame's content and the offset after it; None if it is large, cut or damaged."""
        try:
            end, bound = self._extent(offset)
            if not bound:
                return None
            return self._unpacker.decompress(self._data[offset:end], max_output_size=bound), end
        except zstandard.ZstdError:
            return None

    def _extent(self, offset: int) -> tuple[int, int]:
        """Where a frame ends, and how much it holds at most; zeros if it has too many blocks or is cut.

        RFC 8878 §3.1.1: a block's header has three bytes: whether it is the last, its type (0 raw, 1 one byte
        repeated, 2 compressed, 3 reserved), its size. The content's size, where declared, is checked too:
        memory for it is taken in advance.
        """
        head = self._data[offset : offset + _HEADER_BYTES]
        frame = zstandard.get_frame_parameters(head)
        most = _MAX_BLOCKS * _BLOCK_BYTES
        if frame.content_size not in range(most + 1) and frame.content_size != zstandard.CONTENTSIZE_UNKNOWN:
            return 0, 0
        place = offset + zstandard.frame_header_size(head)
        for count in range(1, _MAX_BLOCKS + 1):
            header = int.from_bytes(self._data[place : place + 3], "little")
            kind = header >> 1 & 3
            place += 3 + (1 if kind == 1 else header >> 3)
            if place > len(self._data) or kind == 3:  # noqa: PLR2004 - reserved
                return 0, 0
            if header & 1:
                return place + 4 * frame.has_checksum, count * _BLOCK_BYTES
        return 0, 0

    def stream(self, offset: int) -> ZstdStream:
        """The frame that begins there."""
        return ZstdStream(self._data, offset, self._unpacker)

    def next(self, start: int) -> int:
        """The offset of the first frame from `start` on whose content begins like a WARC record."""
        found = self._data.find(ZSTD_MAGIC, start)
        while found >= 0:
            if self.stream(found).read(len(WARC_MAGIC)) == WARC_MAGIC:
                return found
            found = self._data.find(ZSTD_MAGIC, found + 1)
        return len(self._data)


class ZstdFile(io.RawIOBase):
    """A file of zstd frames. Unlike `zstandard.open` it reads all, and raises EOFError at a cut one."""

    def __init__(self, file: BinaryIO, max_window_bytes: int) -> None:
        super().__init__()
        self._file = file
        self._unpacker = zstandard.ZstdDecompressor(max_window_size=max_window_bytes)
        self._frame = self._unpacker.decompressobj()
        self._inside = False
        self._packed = memoryview(b"")
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not self._ready:
            rest = self._frame.unused_data
            if self._frame.eof:
                self._frame = self._unpacker.decompressobj()
                self._inside = False
            self._packed = self._packed or memoryview(self._file.read(_READ_BYTES))
            packed = rest or self._packed[:_STEP_BYTES]
            if not packed:
                if self._inside:
                    raise EOFError("the file ends inside of a zstd frame")
                return 0
            if not rest:
                self._packed = self._packed[_STEP_BYTES:]
            self._inside = True
            self._ready = memoryview(self._frame.decompress(packed))
        part, self._ready = self._ready[: len(target)], self._ready[len(target) :]
        target[: len(part)] = part
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()
