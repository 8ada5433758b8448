"""Reading WARCs: what is whole is read, what is damaged is counted with its place, nothing is fatal."""

import gzip
import random
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsugiki.corpus.read import Limits, Tally, read_warc


def read(path, data, **options):
    path.write_bytes(data)
    tally = Tally()
    return list(read_warc(path, tally, **options)), tally


@pytest.fixture
def members(warc):
    rng = random.Random(0)
    bodies = ["<html>" + "".join(rng.choices("abcdefgh ", k=2000)) + f"{i}</html>" for i in range(4)]
    records = [warc.record(body, url=f"http://a.example/{i}") for i, body in enumerate(bodies)]
    return [warc.member(record) for record in records]


def urls(pages):
    return [page.url[-1] for page in pages]


def test_read_warc_of_whole_members_gives_pages_with_their_offsets(tmp_path, members):
    pages, tally = read(tmp_path / "a.warc.gz", b"".join(members))
    assert urls(pages) == ["0", "1", "2", "3"]
    assert [page.offset for page in pages] == [sum(map(len, members[:i])) for i in range(4)]
    assert pages[0].body.startswith(b"<html>")
    assert pages[0].charset == "utf-8"
    assert pages[0].date == "2026-01-01T00:00:00Z"
    assert (tally.records, tally.pages, tally.warnings) == (4, 4, [])


def test_read_warc_of_an_uncompressed_file_gives_the_same_pages(tmp_path, members):
    packed, _ = read(tmp_path / "a.warc.gz", b"".join(members))
    plain, tally = read(tmp_path / "a.warc", b"".join(map(gzip.decompress, members)))
    assert [(page.url, page.body) for page in plain] == [(page.url, page.body) for page in packed]
    assert [page.position for page in plain] == [0, 0, 0, 0]
    assert len({page.offset for page in plain}) == 4
    assert not tally.warnings


def test_read_warc_of_one_member_for_all_records_tells_them_apart_by_position(tmp_path, members):
    data = gzip.compress(b"".join(map(gzip.decompress, members)))
    pages, tally = read(tmp_path / "a.warc.gz", data)
    assert urls(pages) == ["0", "1", "2", "3"]
    assert {page.offset for page in pages} == {0}
    assert len({page.position for page in pages}) == 4
    assert not tally.warnings


def test_read_warc_cut_anywhere_in_the_last_member_reports_it_and_keeps_the_others(tmp_path, members):
    whole = b"".join(members[:3])
    size = len(members[3])
    for kept in [*range(1, size, 97), size - 20, *range(size - 9, size)]:
        pages, tally = read(tmp_path / "a.warc.gz", whole + members[3][:kept])
        assert urls(pages)[:3] == ["0", "1", "2"], kept
        assert len(pages) == 3 or pages[3].body.endswith(b"3</html>"), kept
        assert [warning["offset"] for warning in tally.warnings] == [len(whole)], kept
        assert tally.skipped["broken"] == 1, kept


def test_read_warc_with_a_damaged_byte_loses_only_that_member(tmp_path, members):
    start, size = len(members[0]), len(members[1])
    for place in [*range(11, size, 131), size - 8, size - 1]:
        data = bytearray(b"".join(members))
        data[start + place] ^= 0xFF
        pages, tally = read(tmp_path / "a.warc.gz", bytes(data))
        assert set(urls(pages)) >= {"0", "2", "3"}, place
        assert tally.warnings, place
        assert tally.warnings[0]["offset"] == start


def test_read_warc_with_bytes_cut_out_finds_the_next_member(tmp_path, members):
    pages, tally = read(tmp_path / "a.warc.gz", members[0] + members[1][:300] + members[2] + members[3])
    assert urls(pages) == ["0", "2", "3"]
    assert len(tally.warnings) == 1


@pytest.mark.parametrize("junk", [b"\0" * 512, b"junk" * 9, b"\x1f\x8b\x08junk"])
def test_read_warc_with_junk_between_members_reports_it_and_goes_on(tmp_path, members, junk):
    pages, tally = read(tmp_path / "a.warc.gz", members[0] + junk + members[1])
    assert urls(pages) == ["0", "1"]
    assert [warning["offset"] for warning in tally.warnings] == [len(members[0])]


@pytest.mark.parametrize("length", [60, 1, 99_999, 10**12, "abc", -5])
def test_read_warc_with_a_wrong_length_drops_that_record_and_says_so(tmp_path, warc, members, length):
    bad = warc.member(warc.record("<html>short</html>", url="http://a.example/9", length=length))
    pages, tally = read(tmp_path / "a.warc.gz", members[0] + bad + members[1])
    assert urls(pages) == ["0", "1"]
    assert [warning["offset"] for warning in tally.warnings] == [len(members[0])]
    records = [gzip.decompress(part) for part in (members[0], bad, members[1])]
    pages, tally = read(tmp_path / "a.warc", b"".join(records))
    assert urls(pages) == ["0", "1"]
    assert [warning["offset"] for warning in tally.warnings] == [len(records[0])]


def test_read_warc_of_a_cut_uncompressed_file_reports_the_last_record(tmp_path, members):
    records = list(map(gzip.decompress, members))
    for cut in (3, 50, 1500, len(records[3]) - 10):
        pages, tally = read(tmp_path / "a.warc", b"".join(records)[:-cut])
        assert urls(pages)[:3] == ["0", "1", "2"]
        assert len(tally.warnings) == (0 if len(pages) == 4 else 1), cut
    for tail in (b"WARC", b"WARC/1.0\r\nWARC-Type: resp"):
        pages, tally = read(tmp_path / "a.warc", b"".join(records) + tail)
        assert urls(pages)[:3] == ["0", "1", "2"]
        assert len(tally.warnings) == 1


@pytest.mark.parametrize(
    "data", [b"", b"no archive at all", gzip.compress(b"no archive at all", mtime=0), b"\x1f\x8b"]
)
def test_read_warc_of_something_else_reports_it(tmp_path, data):
    pages, tally = read(tmp_path / "a.warc.gz", data)
    assert pages == []
    assert tally.skipped["broken"] == 1
    assert tally.warnings[0]["file"] == "a.warc.gz"


def test_read_warc_counts_what_is_no_page_by_its_reason(tmp_path, warc):
    records = [
        warc.record("", status="301 Moved", headers=("Location: /x",)),
        warc.record("", status="304 Not Modified"),
        warc.record("<html>gone</html>", status="404 Not Found"),
        warc.record("<html>oops</html>", status="503 Unavailable"),
        warc.record("{}", content_type="application/json"),
        warc.record(" \r\n "),
        warc.record("GET /", kind="request"),
        warc.record("x", kind="warcinfo"),
        warc.record("<!doctype HTML><p>x", content_type=""),
        warc.record("just text", content_type=""),
    ]
    path = warc.file(tmp_path / "a.warc.gz", records)
    tally = Tally()
    assert len(list(read_warc(path, tally))) == 1
    assert dict(tally.skipped) == {
        "redirect": 2,
        "status 4xx": 1,
        "status 5xx": 1,
        "not HTML": 2,
        "empty body": 1,
        "not a response": 2,
    }
    assert tally.records == 10
    assert tally.warnings == []


def test_read_warc_of_a_name_look_up_is_no_damage(tmp_path, warc):
    path = warc.file(tmp_path / "a.warc.gz", [warc.record("20260101 a.example", url="dns:a.example")])
    tally = Tally()
    assert list(read_warc(path, tally)) == []
    assert (dict(tally.skipped), tally.warnings) == ({"not a response": 1}, [])


def test_read_warc_skips_bodies_that_are_too_large_without_reading_on_wrongly(tmp_path, warc, members):
    big = warc.member(warc.record("x" * 50_000, url="http://a.example/b"))
    pages, tally = read(
        tmp_path / "a.warc.gz", members[0] + big + members[1], limits=Limits(max_body_bytes=10_000)
    )
    assert urls(pages) == ["0", "1"]
    assert dict(tally.skipped) == {"too large": 1}
    assert tally.warnings[0]["offset"] == len(members[0])


def test_read_warc_of_a_content_coding_bomb_stops_at_the_limit(tmp_path, warc):
    bomb = zlib.compress(b"\0" * 3_000_000, 9)
    path = warc.file(tmp_path / "a.warc.gz", [warc.record(bomb, headers=("Content-Encoding: deflate",))])
    tally = Tally()
    assert list(read_warc(path, tally, Limits(max_body_bytes=100_000))) == []
    assert dict(tally.skipped) == {"too large": 1}


def test_read_warc_of_a_block_without_a_status_line_reports_it(tmp_path, warc):
    record = warc.record("<html>", status="200 OK").replace(b"HTTP/1.1 200", b"HTTQ/1.1 200")
    path = warc.file(tmp_path / "a.warc.gz", [record])
    tally = Tally()
    assert list(read_warc(path, tally)) == []
    assert "status line" in tally.warnings[0]["message"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_read_warc_of_any_mutation_neither_fails_nor_stays_silent(tmp_path, warc, data):
    records = [warc.record(f"<html>page {i}</html>", url=f"http://a.example/{i}") for i in range(3)]
    packed = data.draw(st.booleans())
    whole = b"".join(map(warc.member, records)) if packed else b"".join(records)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    mutated = whole[:start] + data.draw(st.binary(max_size=30)) + whole[end:]
    pages, tally = read(tmp_path / "a.warc.gz", mutated)
    assert len(pages) <= 4
    lost = 3 - len({page.url for page in pages})
    if packed and lost > 0 and end - start < len(whole):
        assert tally.warnings or tally.skipped or not mutated or _at_a_boundary(warc, records, mutated)


def _at_a_boundary(warc, records, mutated):
    """Whole members cut away leave no trace in the bytes; nobody could notice."""
    members = list(map(warc.member, records))
    remains = mutated
    for member in members:
        remains = remains.replace(member, b"", 1)
    return remains == b""
