"""One door to every format: what is read, that all of it is accounted for, and that nothing breaks it."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fastwarc.warc import ArchiveIterator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsugiki.corpus.formats import SUFFIXES, kind_of, read_items
from tsugiki.corpus.items import MAX_WARNINGS, Limits, Page, Tally, Text
from tsugiki.corpus.records import Fault, Record, Window, parse_records
from tsugiki.errors import InputError

CRAWL = sorted((Path(__file__).parents[2] / "examples" / "crawl").glob("*.warc.gz"))
NUMBERS = range(6)


DEFAULTS = Limits()


def read(path, data=None, limits=DEFAULTS):
    if data is not None:
        path.write_bytes(data)
    tally = Tally()
    items = list(read_items(path, tally, limits))
    assert tally.records == tally.pages + tally.skipped.total()
    assert tally.pages == len(items)
    return items, tally


def conversion(text, *, url="http://a.example/", media="text/plain", kind="conversion", length=None):
    block = text.encode() if isinstance(text, str) else text
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"WARC-Identified-Content-Language: eng\r\nContent-Type: {media}\r\n"
        f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def frame(record, **options):
    return zstandard.ZstdCompressor(**options).compress(record)


def skippable(content, magic=0x184D2A5D):
    return magic.to_bytes(4, "little") + len(content).to_bytes(4, "little") + content


@pytest.fixture
def records(warc):
    return [warc.record(f"<html>page {i} {i * 7919}</html>", url=f"http://a.example/{i}") for i in NUMBERS]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.warc", "warc"),
        ("x.warc.gz", "warc"),
        ("CC-MAIN.WARC.ZST", "warc"),
        ("x.wet.gz", "wet"),
        ("x.warc.wet.gz", "wet"),
        ("x.wet", "wet"),
        ("x.jsonl.zst", "jsonl"),
        ("c4-train.00000.json.gz", "jsonl"),
        ("x.parquet", "parquet"),
        ("x.json", None),
        ("x.warc.bz2", None),
        ("warc.gz.txt", None),
    ],
)
def test_kind_of_a_name_goes_by_its_suffix(name, kind):
    assert kind_of(name) == kind
    assert (kind is not None) == name.lower().endswith(SUFFIXES)


def test_read_items_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match="no kind"):
        read(tmp_path / "a.txt", b"x")


# --- zstd -----------------------------------------------------------------------------------------------


def dictionary():
    samples = [f"WARC/1.0 http://a.example/{i} <html>page {i * 31}</html>".encode() * 3 for i in range(800)]
    return zstandard.train_dictionary(4096, samples)


@pytest.mark.parametrize("packed", [False, True])
def test_read_items_of_zstd_frames_with_a_dictionary(tmp_path, records, packed):
    trained = dictionary()
    content = trained.as_bytes()
    start = skippable(frame(content) if packed else content)
    frames = [frame(record, dict_data=trained) for record in records]
    items, tally = read(tmp_path / "a.warc.zst", start + b"".join(frames))
    assert [item.url[-1] for item in items] == list("012345")
    assert items[2].offset == len(start) + len(frames[0]) + len(frames[1])
    assert not tally.warnings


@pytest.mark.parametrize("content", [b"", b"\x37\xa4\x30\xec junk", b"\x28\xb5\x2f\xfd junk"])
def test_read_items_of_a_damaged_dictionary_counts_it_and_each_frame(tmp_path, records, content):
    frames = b"".join(frame(record, dict_data=dictionary()) for record in records)
    items, tally = read(tmp_path / "a.warc.zst", skippable(content) + frames)
    assert items == []
    assert tally.skipped["broken"] >= 1


def streamed(data):
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("pack", [frame, streamed])
@pytest.mark.parametrize("single", [False, True])
def test_read_items_of_zstd_without_a_dictionary(tmp_path, records, pack, single):
    data = pack(b"".join(records)) if single else b"".join(map(pack, records))
    items, tally = read(tmp_path / "a.warc.zst", data + skippable(b"x", 0x184D2A50))
    assert [item.url[-1] for item in items] == list("012345")
    assert len({(item.offset, item.position) for item in items}) == 6
    assert len({item.offset for item in items}) == (1 if single else 6)
    assert not tally.warnings


def test_read_items_of_cut_and_damaged_frames_goes_on_at_the_next(tmp_path, records):
    frames = [frame(record, write_checksum=True) for record in records]
    start, size = len(frames[0]), len(frames[1])
    for place in [*range(0, size, 17), size - 1]:
        data = bytearray(b"".join(frames))
        data[start + place] ^= 0xFF
        items, tally = read(tmp_path / "a.warc.zst", bytes(data))
        assert {item.url[-1] for item in items} == set("02345"), place
        assert tally.warnings[0]["offset"] == start
        items, tally = read(tmp_path / "a.warc.zst", frames[0] + frames[1][: place or 1])
        assert [item.url[-1] for item in items][:1] == ["0"]
        assert [warning["offset"] for warning in tally.warnings] == [start]


@pytest.mark.parametrize("pack", [gzip.compress, frame, streamed])
def test_read_items_of_a_bomb_needs_little_memory(tmp_path, warc, records, pack):
    bomb = pack(warc.record("A" * 60_000_000, url="http://a.example/b"))
    (tmp_path / "a.warc.gz").write_bytes(pack(records[0]) + bomb + pack(records[1]))
    del bomb
    tracemalloc.start()
    items, tally = read(tmp_path / "a.warc.gz", limits=Limits(max_body_bytes=100_000))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [item.url[-1] for item in items] == ["0", "1"]
    assert dict(tally.skipped) == {"too large": 1}
    assert peak_bytes < 40_000_000


def test_read_items_of_a_window_over_the_limit_is_counted(tmp_path, records):
    parameters = zstandard.ZstdCompressionParameters(window_log=24)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    wide = packer.compress(records[0] + b" " * 8_000_000) + packer.flush()
    limits = Limits(max_window_bytes=1 << 23)
    items, tally = read(tmp_path / "a.warc.zst", wide + frame(records[1]), limits)
    assert [item.url[-1] for item in items] == ["1"]
    assert "memory" in tally.warnings[0]["message"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, frame])
@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.zst"])
def test_read_items_goes_by_the_first_bytes_not_by_the_name(tmp_path, records, pack, name):
    items, _ = read(tmp_path / name, b"".join(map(pack, records)))
    assert len(items) == 6


# --- single members -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [gzip.compress, frame, bytes])
def test_read_items_after_a_wrong_length_within_one_member_goes_on_at_the_next_record(
    tmp_path, warc, records, pack
):
    bad = warc.record("<html>short</html>", url="http://a.example/9", length=30)
    filler = [
        warc.record("<html>" + "x" * 900_000 + "</html>", url=f"http://a.example/{i}") for i in "abcdef"
    ]
    data = pack(b"".join([*filler, records[0], bad, records[1]]))
    items, tally = read(tmp_path / "a.warc", data)
    assert "".join(item.url[-1] for item in items) == "abcdef01"
    assert dict(tally.skipped) == {"broken": 1}


# --- other records --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress, frame])
@pytest.mark.parametrize("name", ["a.wet", "a.warc.wet.gz", "a.warc.gz"])
def test_read_items_of_wet_gives_texts_without_a_language(tmp_path, records, pack, name):
    wet = [conversion("\ufeff一つ目\n二行目", url="http://b.example/"), conversion("two")]
    items, tally = read(tmp_path / name, b"".join(map(pack, [*wet, records[0]])))
    assert [type(item) for item in items] == [Text, Text, Page]
    assert items[0] == Text(name, 0, "一つ目\n二行目", "http://b.example/", "2026-01-01T00:00:00Z", None, 0)
    assert items[1].offset == len(pack(wet[0]))
    assert not tally.warnings


def test_read_items_of_wet_counts_what_is_no_text(tmp_path):
    broken = [
        conversion(b"\xff\xfe\x80"),
        conversion(" \n\0"),
        conversion(b"\x89PNG", media="image/png"),
        conversion("x" * 2000),
        conversion("short", length=3),
        conversion("good"),
    ]
    data = b"".join(map(gzip.compress, broken))
    items, tally = read(tmp_path / "a.wet.gz", data, Limits(max_text_bytes=1000))
    assert [item.text for item in items] == ["good"]
    expected = {"not UTF-8": 1, "empty body": 1, "not text": 1, "too large": 1, "broken": 1}
    assert dict(tally.skipped) == expected


def test_read_items_takes_html_resources_and_counts_revisits(tmp_path, warc):
    data = b"".join(
        [
            conversion("<p>hello", kind="resource", media="text/html; charset=euc-jp"),
            conversion("log", kind="resource", media="text/plain"),
            conversion(" ", kind="resource", media="text/html"),
            warc.record("<html>", kind="revisit"),
        ]
    )
    (page,), tally = read(tmp_path / "a.warc", data)
    assert (page.body, page.charset, page.http_status, page.http_language) == (
        b"<p>hello",
        "euc-jp",
        None,
        None,
    )
    assert dict(tally.skipped) == {"not HTML": 1, "empty body": 1, "revisit": 1}


def test_read_items_keeps_what_the_http_header_says(tmp_path, warc):
    record = warc.record("<html>", headers=("content-LANGUAGE: ja-JP",))
    (page,), _ = read(tmp_path / "a.warc", record)
    assert (page.http_language, page.http_status, page.charset) == ("ja-JP", 200, "utf-8")


def test_read_items_of_bare_newlines_and_folded_fields(tmp_path, records):
    block = b"HTTP/1.1 200 OK\r\nContent-Type : text/html\r\n\r\n<html>x"
    head = f"WARC/1.0\nwarc-type: RESPONSE\nWARC-Target-URI:\n  http://a.example/9\nContent-length:{len(block)}\n\n"
    items, tally = read(tmp_path / "a.warc", head.encode() + block + b"\n\n" + records[0])
    assert [item.url for item in items] == ["http://a.example/9", "http://a.example/0"]
    assert not tally.warnings


def test_read_items_of_many_faults_counts_all_and_describes_the_first(tmp_path):
    data = b"".join(conversion(b"\xff") for _ in range(MAX_WARNINGS + 50))
    _, tally = read(tmp_path / "a.wet", data)
    assert tally.skipped["not UTF-8"] == MAX_WARNINGS + 50
    assert len(tally.warnings) == MAX_WARNINGS + 1


# --- against FastWARC, and fuzz -------------------------------------------------------------------------


@pytest.mark.skipif(not CRAWL, reason="the sample crawl is not in this checkout")
def test_parse_records_of_a_real_crawl_equals_fastwarc():
    data = gzip.decompress(CRAWL[0].read_bytes())
    expected = [
        (
            record.headers.get("WARC-Target-URI", "").strip("<>"),
            record.headers.get("WARC-Date"),
            record.reader.read(),
        )
        for record in ArchiveIterator(io.BytesIO(data), parse_http=False)
    ]
    found = list(parse_records(Window(data), Limits()))
    assert len(found) == len(expected) > 200
    assert all(isinstance(record, Record) for record in found)
    for record, (url, date, block) in zip(found, expected, strict=True):
        assert (record.url, record.date, record.length) == (url, date, len(block))
        assert record.block in (block, None)


class Pieces:
    """A stream that gives out its bytes in pieces of a few."""

    error = None
    cut = False

    def __init__(self, data, size):
        self.data, self.size = io.BytesIO(data), size

    def read(self, size):
        return self.data.read(min(size, self.size))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_parse_records_of_a_stream_equals_that_of_memory(data):
    whole = b"".join(
        conversion("x" * n, url=f"http://a.example/{n}") for n in data.draw(st.lists(st.integers(0, 300)))
    )
    place = data.draw(st.integers(0, len(whole)))
    mutated = (
        whole[:place] + data.draw(st.binary(max_size=8)) + whole[place + data.draw(st.integers(0, 40)) :]
    )
    limits = Limits(max_text_bytes=10**6, max_body_bytes=10**6)
    window = Window(bytearray(), Pieces(mutated, data.draw(st.integers(1, 400))))
    found = list(parse_records(window, limits))
    expected = list(parse_records(Window(mutated), limits))
    huge = any(isinstance(item, Fault) and "declared" in item.message for item in expected)
    assert found == expected or huge  # what a stream has passed, it can't search again


def mutate(draw, whole):
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(whole)))
        end = min(len(whole), start + draw(st.integers(0, 60)))
        whole = whole[:start] + draw(st.binary(max_size=20)) + whole[end:]
    return whole[: len(whole) - draw(st.sampled_from([0, 0, 0, 1, 5, 50]))]


def samples(warc, directory):
    pages = [warc.record(f"<html>page {i}</html>", url=f"http://a.example/{i}") for i in range(3)]
    packed = gzip.compress(b"<html>packed</html>", mtime=0)
    pages.append(warc.record(packed, headers=("Content-Encoding: gzip", "Transfer-Encoding: chunked")))
    pages.append(warc.record(frame(b"<html>z"), headers=("Content-Encoding: zstd",)))
    wet = [conversion(f"text {i}") for i in range(3)]
    lines = b"".join(json.dumps({"text": f"t {i}", "url": "u"}).encode() + b"\n" for i in range(9))
    table = pa.table({"text": [f"t {i}" for i in range(50)], "url": ["u"] * 50})
    pq.write_table(table, directory / "sample", row_group_size=20)
    for pack, end in ((bytes, ""), (lambda data: gzip.compress(data, mtime=0), ".gz"), (frame, ".zst")):
        yield f"a.warc{end}", b"".join(map(pack, pages))
        yield f"b.warc{end}", pack(b"".join(pages + wet))
        yield f"c.wet{end}", b"".join(map(pack, wet))
        yield f"d.jsonl{end}", pack(lines)
    yield "e.warc.zst", skippable(frame(dictionary().as_bytes())) + b"".join(map(frame, pages))
    yield "f.parquet", (directory / "sample").read_bytes()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return {}


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_read_items_of_any_mutation_neither_fails_nor_loses_count(tmp_path, warc, corpus, data):
    if not corpus:
        corpus.update(samples(warc, tmp_path))
    name = data.draw(st.sampled_from(sorted(corpus)))
    mutated = mutate(data.draw, corpus[name])
    try:
        items, tally = read(tmp_path / name, mutated)
    except InputError:
        assert name == "f.parquet"
        return
    if mutated == corpus[name]:
        assert items
        assert not tally.warnings


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(SUFFIXES),
    start=st.sampled_from(
        [
            b"",
            b"\x1f\x8b\x08",
            b"\x28\xb5\x2f\xfd",
            b"\x5d\x2a\x4d\x18",
            b"WARC/1.0\r\nContent-Length: ",
            b"PAR1",
        ]
    ),
    data=st.binary(max_size=300),
)
def test_read_items_of_any_bytes_neither_fails_nor_loses_count(tmp_path, suffix, start, data):
    items, tally = read(tmp_path / f"a{suffix}", start + data)
    blank = not (start + data).strip()
    assert items or tally.skipped or blank or start == b"\x5d\x2a\x4d\x18" or suffix.startswith(".json")


def test_read_items_cut_anywhere_accounts_for_every_record(tmp_path, warc):
    for name, whole in samples(warc, tmp_path):
        full, _ = read(tmp_path / name, whole)
        for size in range(1, len(whole), max(1, len(whole) // 25)):
            items, tally = read(tmp_path / name, whole[:size])
            assert len(items) <= len(full)
            assert items == full[: len(items)]
            assert items == full or tally.warnings or size in _starts(full, whole), (name, size)


def _starts(items, whole):
    """Where a cut leaves no trace: at the end of a line, a member or a record (or in its line ends)."""
    lines = {place for place, byte in enumerate(whole) if byte == ord("\n")}
    return {item.offset - n for item in items for n in range(5)} | lines | {place + 1 for place in lines}
