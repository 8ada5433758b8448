"""HTTP responses: headers, transfer and content codings, whole and damaged."""

import gzip
import zlib

import pytest
import zstandard
from fastwarc.stream_io import BrotliWriter

from tsugiki.corpus.http import HttpError, OversizeError, parse_response

BODY = "<html>日本語</html>".encode()


def block(body, *headers, status="HTTP/1.1 200 OK", newline="\r\n"):
    return newline.join([status, *headers, "", ""]).encode() + body


def parse(data, limit=10_000):
    return parse_response(data, limit)


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
def test_parse_response_reads_status_headers_and_body(newline):
    response = parse(block(BODY, "Content-Type: Text/HTML;Charset='Shift_JIS'", "X: a: b", newline=newline))
    assert (response.status, response.charset) == (200, "Shift_JIS")
    assert response.header(b"x") == "a: b"
    assert response.body == BODY
    assert response.skip_reason is None


def test_parse_response_without_reason_phrase_is_fine():
    assert parse(block(BODY, status="HTTP/2 200")).status == 200


def raw_deflate(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "encoded"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("x-gzip", gzip.compress(BODY, mtime=0)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", raw_deflate(BODY)),
        ("identity", BODY),
        ("gzip", BODY),
    ],
)
def test_parse_response_undoes_content_codings(coding, encoded):
    assert parse(block(encoded, f"Content-Encoding: {coding}")).body == BODY


def test_parse_response_undoes_brotli(tmp_path):
    with BrotliWriter(str(tmp_path / "body.br")) as writer:
        writer.write(BODY)
    packed = (tmp_path / "body.br").read_bytes()
    assert parse(block(packed, "Content-Encoding: br")).body == BODY
    with pytest.raises(OversizeError):
        parse(block(packed, "Content-Encoding: br"), limit=10)


@pytest.mark.parametrize(
    ("coding", "encoded"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)[:-12]),
        ("deflate", b"\xff\xff\xff"),
        ("br", b"\xff\xff\xff"),
        ("zip", BODY),
    ],
)
def test_parse_response_of_a_damaged_content_coding_is_an_error(coding, encoded):
    with pytest.raises(HttpError):
        parse(block(encoded, f"Content-Encoding: {coding}"))


def test_parse_response_of_an_inflating_body_stops_at_the_limit():
    with pytest.raises(OversizeError, match="more than 10000 bytes"):
        parse(block(gzip.compress(b"\0" * 1_000_000), "Content-Encoding: gzip"))


def test_parse_response_joins_chunks():
    body = b"4\r\n<htm\r\n6;ext=1\r\nl>body\r\n0\r\nTrailer: x\r\n\r\n"
    assert parse(block(body, "Transfer-Encoding: chunked")).body == b"<html>body"


def test_parse_response_with_a_chunked_header_but_no_chunks_keeps_the_body():
    assert parse(block(BODY, "Transfer-Encoding: chunked")).body == BODY


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"<html>", b"HTTP/1.1 abc\r\n\r\n"])
def test_parse_response_of_no_response_is_an_error(data):
    with pytest.raises(HttpError, match="status line"):
        parse(data)


@pytest.mark.parametrize("start", [b"", b"6\r\n<html>\r\n"])
def test_parse_response_of_an_absurd_chunk_size_is_no_chunk(start):
    body = start + b"f" * 25 + b"\r\nbody"
    expected = b"<html>" if start else body
    assert parse(block(body, "Transfer-Encoding: chunked")).body == expected


def test_parse_response_joins_chunks_with_leading_zeros():
    body = b"0" * 20 + b"6\r\n<html>\r\n" + b"0" * 20 + b"\r\n\r\n"
    assert parse(block(body, "Transfer-Encoding: chunked")).body == b"<html>"


@pytest.mark.parametrize("status", ["9" * 5000, "2000", "20"])
def test_parse_response_of_a_status_that_has_not_three_digits_is_an_error(status):
    with pytest.raises(HttpError, match="status line"):
        parse(block(BODY, "Content-Type: text/html", status=f"HTTP/1.1 {status} OK"))


def test_parse_response_ends_headers_at_newlines_only():
    headers = b"X-Title: a\x85Content-Type: image/png\r\nContent-Type: text/html\r\n\r\n"
    assert parse(b"HTTP/1.1 200 OK\r\n" + headers + BODY).header(b"content-type") == "text/html"


ZSTD = zstandard.ZstdCompressor()


def test_parse_response_undoes_zstd_within_limits():
    packed = ZSTD.compress(BODY)
    assert parse(block(packed + packed, "Content-Encoding: zstd")).body == BODY * 2
    assert parse(block(BODY, "Content-Encoding: zstd")).body == BODY
    with pytest.raises(OversizeError):
        parse(block(ZSTD.compress(b"\0" * 1_000_000), "Content-Encoding: zstd"))
    with pytest.raises(HttpError, match="damaged"):
        parse(block(packed[:-3], "Content-Encoding: zstd"))


def test_parse_response_of_a_zstd_window_over_8_mib_is_an_error():
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packer.compress(b"<html>" + b" " * 9_000_000) + packer.flush()
    with pytest.raises(HttpError, match="memory"):
        parse(block(packed, "Content-Encoding: zstd"), limit=1 << 30)


def test_parse_response_undoes_several_codings_from_the_last_to_the_first():
    packed = ZSTD.compress(gzip.compress(BODY))
    assert parse(block(packed, "Content-Encoding: gzip, zstd")).body == BODY
    with pytest.raises(HttpError, match="5 content codings"):
        parse(block(packed, "Content-Encoding: gzip, gzip, gzip, gzip, gzip"))


@pytest.mark.parametrize("coding", ["none", "UTF-8", "br", "deflate", ""])
def test_parse_response_of_a_coding_that_was_not_applied_keeps_the_body(coding):
    assert parse(block(BODY, f"Content-Encoding: {coding}")).body == BODY


def test_parse_response_takes_the_first_field_of_a_name_in_any_case():
    fields = ("Content-Type-Options: x", "CONTENT-TYPE : text/html", "Content-Type: image/png")
    assert parse(block(BODY, *fields)).header(b"content-type") == "text/html"
    assert parse(block(BODY)).header(b"content-type") == ""
