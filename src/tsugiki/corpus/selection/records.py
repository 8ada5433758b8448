"""Is this one whole record of that page? What an index says is checked against what came."""

from __future__ import annotations

import zlib

MAXIMUM_INFLATED_BYTES = 64 << 20
"""Common Crawl cuts pages at 1 MiB, 5 MiB since 2025; a member that inflates further is no page of it."""

_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 1 << 18
_HEAD_BYTES = 1 << 16
_HEAD_END = b"\r\n\r\n"


class RecordError(Exception):
    """The bytes are not the record that the index promised; `reason` is a word for counts."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def check_record(data: bytes, url: str) -> None:
    """Raises RecordError unless `data` is one whole gzip member with one WARC record of the page `url`.

    All of it is inflated, so the member's own checksum is tested, but never more than a piece is kept.
    """
    head, size = _inflate(data)
    fields, end = _fields(head)
    uri = fields.get(b"warc-target-uri", b"").strip(b"<> ").decode("utf-8", "replace")
    if fields.get(b"warc-type", b"").lower() != b"response":
        kind = fields.get(b"warc-type", b"nothing").decode("ascii", "replace")
        raise RecordError("not a response", f'a record of the type "{kind[:40]}"')
    if uri != url:
        raise RecordError("another page", f"the record is of {uri[:200]}")
    declared = fields.get(b"content-length", b"")
    if not declared.isdigit() or size != end + int(declared) + len(_HEAD_END):
        said = declared.decode("ascii", "replace")[:20]
        raise RecordError("wrong length", f"{size - end} bytes after the header, declared: {said}")


def _inflate(data: bytes) -> tuple[bytes, int]:
    """The first bytes of the member's content, and the size of all of it."""
    inflate = zlib.decompressobj(_GZIP)
    head, size, pending = b"", 0, data
    try:
        while not inflate.eof:
            piece = inflate.decompress(pending, _PIECE)
            pending = inflate.unconsumed_tail
            size += len(piece)
            if len(head) < _HEAD_BYTES:
                head += piece[: _HEAD_BYTES - len(head)]
            if size > MAXIMUM_INFLATED_BYTES:
                raise RecordError("too large", f"it inflates to more than {MAXIMUM_INFLATED_BYTES} bytes")
            if not piece and not pending and not inflate.eof:
                raise RecordError("cut short", "the gzip member goes on after the range")
    except zlib.error as error:
        raise RecordError("not a gzip member", f"not a gzip member, or a damaged one ({error})") from error
    if inflate.unused_data:
        message = f"the gzip member ends {len(inflate.unused_data)} bytes before the range does"
        raise RecordError("wrong length", message)
    return head, size


def _fields(head: bytes) -> tuple[dict[bytes, bytes], int]:
    """The WARC header's fields by lower-case name, and where its block begins."""
    end = head.find(_HEAD_END)
    if not head.startswith(b"WARC/1.") or end < 0:
        raise RecordError("not a WARC record", "the content does not begin with a WARC header")
    lines = (line.partition(b":") for line in head[:end].split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in lines}, end + len(_HEAD_END)
