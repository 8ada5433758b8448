"""The HTTP response inside a WARC record: status, media type, charset, and the body, decoded."""

from __future__ import annotations

import io
import re
import zlib
from typing import NamedTuple, Protocol

import zstandard

from tsugiki.corpus.header_fields import Fields
from tsugiki.corpus.zstd import ZSTD_MAGIC, ZstdFile

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
_LOOKS_LIKE_HTML = re.compile(
    rb"^\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|\?xml)", re.IGNORECASE | re.DOTALL
)
_CHUNK_SIZE = re.compile(rb"0*([0-9A-Fa-f]{1,15})(?![0-9A-Fa-f])[^\r\n]*\r?\n")  # fits into 63 bits
_STATUS_LINE = re.compile(rb"HTTP/[^\s]*[ \t]+([0-9]{3})(?![^\s])")  # RFC 9112 §4: three digits
_OK = 200
_MAX_CODINGS = 4
"""Of one body. Servers apply one, seldom two; more only serve to hide a bomb."""

_MAX_WINDOW_BYTES = 8 << 20
"""Of a zstd content coding, RFC 9659."""

_NO_CODINGS = frozenset({"", "identity", "none", "binary", "8bit", "utf-8", "utf8"})
"""Only the first two mean anything; servers send the others too, and the body is as it is."""

_REDIRECTS = range(300, 400)


class HttpError(Exception):
    """The block is no HTTP response, or its content coding is damaged."""


class OversizeError(HttpError):
    """The body is larger than allowed once its content coding is undone."""


class Response(NamedTuple):
    """One HTTP response."""

    status: int
    fields: Fields
    body: bytes

    def header(self, name: bytes) -> str:
        """A header field by its name in lower case; empty if there is none."""
        return self.fields.get(name).decode("latin-1")

    @property
    def charset(self) -> str | None:
        """The charset of the Content-Type header as written there."""
        return parse_charset(self.header(b"content-type"))

    @property
    def skip_reason(self) -> str | None:
        """Why the response is not an HTML page to work on; None if it is one."""
        if self.status in _REDIRECTS:
            return "redirect"
        if self.status != _OK:
            return f"status {self.status // 100}xx"
        if not self.body or self.body.isspace():
            return "empty body"
        kind = media_type(self.header(b"content-type"))
        if kind in _HTML_TYPES or (not kind and _LOOKS_LIKE_HTML.match(self.body[:1024])):
            return None
        return "not HTML"


def media_type(content_type: str) -> str:
    """The media type of a Content-Type, without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_html_type(content_type: str) -> bool:
    """Whether a Content-Type is that of HTML."""
    return media_type(content_type) in _HTML_TYPES


def parse_charset(content_type: str) -> str | None:
    """The charset of a Content-Type as written there."""
    match = _CHARSET.search(content_type)
    return match[1] if match else None


def parse_response(block: bytes, max_body_bytes: int) -> Response:
    """Parse the block of a WARC `response` record.

    Raises HttpError where it is no HTTP response or its content coding is damaged, OversizeError where the
    decoded body would exceed `max_body_bytes`.
    """
    head, separator, body = block.partition(b"\r\n\r\n")
    if not separator:
        head, separator, body = block.partition(b"\n\n")
    status = _STATUS_LINE.match(head)
    if status is None:
        raise HttpError("the record holds no HTTP status line")
    fields = Fields(head)
    if b"chunked" in fields.get(b"transfer-encoding").lower():
        body = _undo_chunks(body)
    if codings := fields.get(b"content-encoding"):
        body = _undo_codings(body, codings.decode("latin-1"), max_body_bytes)
    return Response(int(status[1]), fields, body)


def _undo_chunks(body: bytes) -> bytes:
    """The body without chunk sizes. Some crawlers undo the chunks and keep the header: then as it is."""
    whole = bytearray()
    position = 0
    while (match := _CHUNK_SIZE.match(body, position)) is not None:
        size = int(match[1], 16)
        if size == 0:
            return bytes(whole)
        whole += body[match.end() : match.end() + size]
        position = match.end() + size
        while body[position : position + 1] in (b"\r", b"\n") and position < len(body):
            position += 1
    return bytes(whole) if position else body


def _undo_codings(body: bytes, codings: str, limit: int) -> bytes:
    """The body without its content codings, of which the last was applied last (RFC 9110 §8.4)."""
    names = [name.strip() for name in codings.lower().split(",")]
    if len(names) > _MAX_CODINGS:
        raise HttpError(f"{len(names)} content codings")
    for name in reversed(names):
        body = _undo_coding(body, name, limit)
    return body


def _undo_coding(body: bytes, coding: str, limit: int) -> bytes:
    if coding in _NO_CODINGS:
        return body
    if coding not in ("gzip", "x-gzip", "deflate", "br", "zstd"):
        raise HttpError(f'unknown content coding "{coding[:40]}"')
    # A crawler that undid the coding may have left its name behind.
    if _LOOKS_LIKE_HTML.match(body[:1024]):
        return body
    if coding == "br":
        return _unbrotli(body, limit)
    if coding == "zstd":
        return _unzstd(body, limit) if body.startswith(ZSTD_MAGIC) else body
    if coding != "deflate" and not body.startswith(b"\x1f\x8b"):
        return body
    # 32 + MAX_WBITS: gzip or zlib, by the header.
    return _inflate(body, 32 + zlib.MAX_WBITS, limit)


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    inflate = zlib.decompressobj(window)
    try:
        out = inflate.decompress(body, limit + 1)
    except zlib.error:
        if window == -zlib.MAX_WBITS:
            raise HttpError("damaged content coding") from None
        # Some servers send a raw deflate stream under the name of deflate.
        return _inflate(body, -zlib.MAX_WBITS, limit)
    if len(out) > limit:
        raise OversizeError(f"the body inflates to more than {limit} bytes")
    if not inflate.eof:
        raise HttpError(f"the content coding ends early, after {len(out)} bytes")
    return out


def _unbrotli(body: bytes, limit: int) -> bytes:
    from fastwarc.stream_io import BrotliReader

    try:
        with BrotliReader(io.BytesIO(body)) as reader:
            return _read_up_to(reader, limit)
    except (OSError, ValueError) as error:
        raise HttpError(f"damaged content coding ({error})") from error


def _unzstd(body: bytes, limit: int) -> bytes:
    """The content of all frames; a body that ends inside of one is an error."""
    stream = ZstdFile(io.BytesIO(body), _MAX_WINDOW_BYTES)
    try:
        return _read_up_to(stream, limit)
    except (EOFError, zstandard.ZstdError) as error:
        raise HttpError(f"damaged content coding ({error})") from error


class _Reader(Protocol):
    def read(self, size: int) -> bytes | None: ...


def _read_up_to(reader: _Reader, limit: int) -> bytes:
    """All of it. Raises OversizeError where that is more than `limit` bytes."""
    whole = bytearray()
    while part := reader.read(1 << 16):
        whole += part
        if len(whole) > limit:
            raise OversizeError(f"the body inflates to more than {limit} bytes")
    return bytes(whole)
