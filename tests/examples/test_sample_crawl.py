"""The sample crawl holds what its truth.csv says, and lists a licence for every host."""

import csv
import gzip
import re
import zlib
from collections import Counter
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType

CRAWL = Path(__file__).parents[2] / "examples" / "crawl"
PAGES = {"page", "navigation", "exact-duplicate", "near-duplicate"}
LABELS = {
    "Shift_JIS": "cp932",
    "x-sjis": "cp932",
    "EUC-JP": "euc_jp",
    "ISO-2022-JP": "iso2022_jp",
    "GB2312": "gb18030",
    "EUC-KR": "cp949",
    "ISO-8859-1": "cp1252",
    "UTF-8": "utf-8",
    "UTF-16": "utf-16",
}


class Captured:
    """One response of the crawl: the file it is in, its HTTP part in pieces."""

    def __init__(self, warc, block):
        self.warc, self.block = warc, block
        head, _, self.payload = block.partition(b"\r\n\r\n")
        self.status_line, *lines = head.split(b"\r\n")
        pairs = (line.partition(b":") for line in lines)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}

    @property
    def body(self):
        body = self.payload
        if self.headers.get(b"transfer-encoding") == b"chunked":
            body = _dechunked(body)
        return gzip.decompress(body) if self.headers.get(b"content-encoding") == b"gzip" else body


def _dechunked(data):
    out = []
    while data:
        size, _, data = data.partition(b"\r\n")
        if not int(size, 16):
            break
        out.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return b"".join(out)


@pytest.fixture(scope="module")
def truth():
    with (CRAWL / "truth.csv").open(encoding="utf-8", newline="") as file:
        return {row["url"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def captured():
    found = {}
    for file in sorted(CRAWL.glob("*.warc.gz")):
        with file.open("rb") as stream:
            for record in ArchiveIterator(stream, WarcRecordType.response, parse_http=False):
                url = record.headers["WARC-Target-URI"].strip("<>")
                assert url not in found
                found[url] = Captured(file.name, record.reader.read())
    return found


@pytest.fixture(scope="module")
def of_kind(truth):
    def select(*kinds):
        return [row for row in truth.values() if row["kind"] in kinds]

    return select


def _sound(rows, captured):
    return [(row, captured[row["url"]]) for row in rows if row["url"] in captured]


def test_it_is_small():
    files = [f for f in CRAWL.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    assert sum(f.stat().st_size for f in files) <= 8_000_000
    assert len(list(CRAWL.glob("*.warc.gz"))) >= 6


def test_truth_and_records_agree(truth, captured):
    assert set(captured) <= set(truth)
    lost = [url for url in truth if url not in captured]
    assert all(truth[url]["kind"] == "truncated" for url in lost)
    assert all(captured[url].warc == truth[url]["warc"] for url in captured)


def test_every_page_decodes_in_its_true_encoding(of_kind, captured):
    for row, record in _sound(of_kind(*PAGES), captured):
        text = record.body.decode(row["encoding"])
        assert "\ufffd" not in text[:2000] or row["encoding"] == "utf-8", row["url"]


def test_the_http_charset_is_the_one_listed(of_kind, captured):
    for row, record in _sound(of_kind(*PAGES), captured):
        declared = record.headers[b"content-type"].decode().partition("charset=")[2]
        assert declared == row["http_charset"], row["url"]


def test_the_meta_charset_is_the_one_listed(of_kind, captured):
    for row, record in _sound(of_kind("page"), captured):
        head = record.body.decode(row["encoding"])[:6000]
        found = re.search(r"<meta[^>]*charset=[\"']?([\w-]+)", head, re.IGNORECASE)
        assert (found.group(1) if found else "").lower() == row["meta_charset"].lower(), row["url"]


def test_encodings_right_missing_and_wrong(of_kind):
    japanese = [row for row in of_kind("page") if row["language"] == "ja"]
    held = Counter(row["encoding"] for row in japanese)
    assert all(held[name] >= 5 for name in ("cp932", "euc_jp", "iso2022_jp", "utf-16", "utf-8-sig")), held
    declared = [(row["encoding"], LABELS.get(row["http_charset"])) for row in japanese]
    assert sum(http is None for _, http in declared) >= 20
    assert sum(http not in {None, encoding} for encoding, http in declared) >= 20


def test_japanese_is_in_most_files_and_other_languages_are_there(of_kind):
    files = {row["warc"] for row in of_kind("page") if row["language"] == "ja"}
    assert len(files) >= 4
    held = Counter(row["language"] for row in of_kind("page"))
    assert held["ja"] >= 800
    assert held["en"] >= 500
    assert all(held[language] >= 20 for language in ("de", "ko", "zh")), held


def test_japanese_pages_hold_kana(of_kind, captured):
    pages = _sound([r for r in of_kind("page") if r["language"] == "ja"], captured)
    kana = [len(re.findall("[ぁ-ヺ]", c.body.decode(r["encoding"]))) for r, c in pages]
    assert sum(n >= 50 for n in kana) >= 0.8 * len(kana)


def test_exact_duplicates_have_the_same_bytes(of_kind, captured):
    rows = of_kind("exact-duplicate")
    assert len(rows) >= 20
    for row, record in _sound(rows, captured):
        if row["of"] in captured:
            assert record.body == captured[row["of"]].body, row["url"]


def test_near_duplicates_resemble_their_originals(of_kind, truth, captured):
    rows = of_kind("near-duplicate")
    assert len(rows) >= 40
    assert {row["note"].split(";")[0] for row in rows} == {"session banner", "mirror", "older version"}
    assert sum(float(row["similarity"]) >= 0.8 for row in rows) >= 0.9 * len(rows)
    for row, record in _sound(rows, captured):
        assert truth[row["of"]]["language"] == row["language"]
        assert record.body != captured[row["of"]].body


def test_redirects_point_to_pages_of_the_crawl(of_kind, captured, truth):
    rows = of_kind("redirect")
    assert {row["status"] for row in rows} == {"301", "302"}
    for row, record in _sound(rows, captured):
        assert record.status_line.split()[1].decode() == row["status"]
        assert record.headers[b"location"].decode() == row["of"]
        assert row["of"] in truth


def test_pages_that_are_gone(of_kind, captured):
    rows = of_kind("not-found")
    assert len(rows) >= 10
    assert all(record.status_line.split()[1] == b"404" for _, record in _sound(rows, captured))


def test_empty_bodies(of_kind, captured):
    bodies = [record.body for _, record in _sound(of_kind("empty"), captured)]
    assert b"" in bodies


def test_records_that_are_not_html(of_kind, captured):
    types = {r.headers[b"content-type"].split(b";")[0] for _, r in _sound(of_kind("non-html"), captured)}
    assert {b"image/png", b"text/css", b"text/plain", b"application/pdf", b"application/json"} <= types
    mislabelled = [r for row, r in _sound(of_kind("non-html"), captured) if row["url"].endswith("/logo.html")]
    assert mislabelled
    assert all(r.body.startswith(b"\x89PNG") for r in mislabelled)


def test_chunked_and_packed_bodies(truth, captured):
    for note, header in (("chunked", b"transfer-encoding"), ("content-encoding gzip", b"content-encoding")):
        rows = [row for row in truth.values() if note in row["note"]]
        assert len(rows) >= 5
        assert all(header in record.headers for _, record in _sound(rows, captured))


def test_broken_http(of_kind, captured):
    broken = {row["note"]: record for row, record in _sound(of_kind("broken-http"), captured)}
    assert not broken["bad status line"].status_line.startswith(b"HTTP/1.1 200")
    promised = broken["Content-Length too large"]
    assert int(promised.headers[b"content-length"]) > len(promised.payload)
    assert b"\r\nnonsense\r\n" in broken["malformed headers"].block


def test_one_file_is_cut_inside_its_last_member(of_kind):
    rows = of_kind("truncated")
    assert len(rows) == 1
    for file in CRAWL.glob("*.warc.gz"):
        data, last = file.read_bytes(), b""
        while data:
            unpacker = zlib.decompressobj(31)
            last = unpacker.decompress(data)
            whole, data = unpacker.eof, unpacker.unused_data
        assert whole == (file.name != rows[0]["warc"]), file.name
        if not whole:
            assert rows[0]["url"].encode() in last


def test_every_host_has_an_origin_and_a_licence(truth):
    with (CRAWL / "origins.csv").open(encoding="utf-8", newline="") as file:
        origins = {row["host"]: row for row in csv.DictReader(file)}
    hosts = {re.sub(r"^(mirror|archive)\.", "", row["host"]) for row in truth.values()}
    assert hosts == set(origins)
    listed = (CRAWL / "ORIGINS.md").read_text("utf-8")
    for host, row in origins.items():
        assert row["licence"]
        assert row["copyright"]
        assert row["version"]
        assert f"| {host} |" in listed


def test_hosts_are_reserved_names(truth):
    assert all(row["host"].endswith(".example") for row in truth.values())


def test_at_least_four_hosts_for_each_main_language(of_kind):
    for language in ("ja", "en"):
        assert len({row["host"] for row in of_kind("page") if row["language"] == language}) >= 4
