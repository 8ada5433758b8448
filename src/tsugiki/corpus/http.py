"""The HTTP response inside a WARC record: status, media type, charset, and the body, decoded."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)", re.IGNORECASE)
_LOOKS_LIKE_HTML = re.compile(
    rb"^\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|\?xml)", re.IGNORECASE | re.DOTALL
)
_CHUNK_SIZE = re.compile(rb"0*([0-9A-Fa-f]{1,15})(?![0-9A-Fa-f])[^\r\n]*\r?\n")  # fits into 63 bits
_STATUS = re.compile(r"\d{3}", re.ASCII)  # RFC 9110, 15: three digits
_OK = 200
_REDIRECTS = range(300, 400)


class HttpError(Exception):
    """The block is no HTTP response, or its content coding is damaged."""


class OversizeError(HttpError):
    """The body is larger than allowed once its content coding is undone."""


@dataclass(frozen=True)
class Response:
    """One HTTP response; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The media type without parameters, lower case; empty if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str | None:
        """The charset of the Content-Type header as written there."""
        match = _CHARSET.search(self.headers.get("content-type", ""))
        return match[1] if match else None

    @property
    def skip_reason(self) -> str | None:
        """Why the response is not an HTML page to work on; None if it is one."""
        if self.status in _REDIRECTS:
            return "redirect"
        if self.status != _OK:
            return f"status {self.status // 100}xx"
        if not self.body.strip():
            return "empty body"
        if self.media_type in _HTML_TYPES or (
            not self.media_type and _LOOKS_LIKE_HTML.match(self.body[:1024])
        ):
            return None
        return "not HTML"


def parse_response(block: bytes, max_body_bytes: int) -> Response:
    """Parse the block of a WARC `response` record.

    Raises HttpError where it is no HTTP response or its content coding is damaged, OversizeError where the
    decoded body would exceed `max_body_bytes`.
    """
    head, separator, body = block.partition(b"\r\n\r\n")
    if not separator:
        head, separator, body = block.partition(b"\n\n")
    lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")  # splitlines would cut at U+0085 too
    status = lines[0].split(None, 2)
    if len(status) < 2 or not status[0].startswith("HTTP/") or not _STATUS.fullmatch(status[1]):  # noqa: PLR2004
        raise HttpError("the record holds no HTTP status line")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    body = _undo_chunks(body) if "chunked" in headers.get("transfer-encoding", "").lower() else body
    body = _undo_coding(body, headers.get("content-encoding", "").strip().lower(), max_body_bytes)
    return Response(int(status[1]), headers, body)


def _undo_chunks(body: bytes) -> bytes:
    """The body without chunk sizes. Some crawlers undo the chunks and keep the header: then as it is."""
    parts: list[bytes] = []
    position = 0
    while True:
        match = _CHUNK_SIZE.match(body, position)
        if match is None:
            return b"".join(parts) if parts else body
        size = int(match[1], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[match.end() : match.end() + size])
        position = match.end() + size
        while body[position : position + 1] in (b"\r", b"\n") and position < len(body):
            position += 1


def _undo_coding(body: bytes, coding: str, limit: int) -> bytes:
    if coding in ("gzip", "x-gzip", "deflate"):
        # 32 + MAX_WBITS: gzip or zlib, by the header. A crawler that undid the coding left the name behind.
        if coding != "deflate" and body[:2] != b"\x1f\x8b":
            return body
        return _inflate(body, 32 + zlib.MAX_WBITS, limit)
    if coding in ("", "identity"):
        return body
    if coding == "br":
        return _unbrotli(body, limit)
    raise HttpError(f'unknown content coding "{coding}"')


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
    import io

    from fastwarc.stream_io import BrotliReader

    parts = []
    total = 0
    try:
        with BrotliReader(io.BytesIO(body)) as reader:
            while part := reader.read(1 << 16):
                parts.append(part)
                total += len(part)
                if total > limit:
                    raise OversizeError(f"the body inflates to more than {limit} bytes")
    except (OSError, ValueError) as error:
        raise HttpError(f"damaged content coding ({error})") from error
    return b"".join(parts)
