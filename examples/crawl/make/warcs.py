"""Read what wget wrote, regroup the records into files, and break two of them on purpose."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WANTED = {b"response", b"resource"}


@dataclass(frozen=True)
class Record:
    """One WARC record, headers and all, as wget wrote it."""

    raw: bytes

    def header(self, name: bytes) -> bytes:
        """A WARC header's value, or nothing."""
        head = self.raw.split(b"\r\n\r\n", 1)[0]
        found = re.search(rb"^" + name + rb": *(.*?)\r?$", head, re.MULTILINE | re.IGNORECASE)
        return found.group(1).strip(b"<>") if found else b""

    @property
    def kind(self) -> bytes:
        """WARC-Type."""
        return self.header(b"WARC-Type")

    @property
    def url(self) -> str:
        """WARC-Target-URI."""
        return self.header(b"WARC-Target-URI").decode()

    def packed(self) -> bytes:
        """The record as one gzip member."""
        packer = zlib.compressobj(9, zlib.DEFLATED, 31, 9)
        return packer.compress(self.raw) + packer.flush()


def members(data: bytes) -> Iterator[bytes]:
    """The contents of the gzip members of a file, one after the other."""
    while data:
        unpacker = zlib.decompressobj(31)
        yield unpacker.decompress(data)
        if not unpacker.eof:
            return
        data = unpacker.unused_data


def records(path: Path) -> Iterator[Record]:
    """All records of a file of wget's."""
    for content in members(path.read_bytes()):
        if content.startswith(b"WARC/"):
            yield Record(content)


def broken(record: Record, number: int) -> Record:
    """The record with its HTTP part damaged in one of three ways; the WARC part stays sound."""
    head, http = record.raw.split(b"\r\n\r\n", 1)
    if number == 0:  # no status line
        http = http.replace(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 two hundred\r\n", 1)
    elif number == 1:  # the server promised more than it sent
        http = re.sub(
            rb"Content-Length: (\d+)", lambda m: b"Content-Length: %d" % (int(m.group(1)) * 3), http, count=1
        )
    else:  # headers without colons, one with bytes that are no text
        http = http.replace(
            b"Server: Apache\r\n", b"Server Apache\r\nX-\xff\xfe\x81: \x00\r\nnonsense\r\n", 1
        )
    head = re.sub(rb"\r\nWARC-(Block|Payload)-Digest: [^\r]*", b"", head)
    length = len(http) - 4  # the two empty lines that end a record
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % length, head, count=1)
    return Record(head + b"\r\n\r\n" + http)


def truncated(data: bytes) -> bytes:
    """The file cut in the middle of its last gzip member."""
    rest, start = data, 0
    while True:
        unpacker = zlib.decompressobj(31)
        unpacker.decompress(rest)
        if not unpacker.unused_data:
            return data[: start + len(rest) // 2]
        start += len(rest) - len(unpacker.unused_data)
        rest = unpacker.unused_data


def regroup(found: list[Record], files: int) -> list[list[Record]]:
    """Fill the files one after the other, each to an equal share of the packed bytes."""
    sized = [(record, len(record.packed())) for record in found]
    share = sum(size for _, size in sized) / files
    groups: list[list[Record]] = [[] for _ in range(files)]
    filled = 0.0
    for record, size in sized:
        groups[min(files - 1, int(filled / share))].append(record)
        filled += size
    return groups
