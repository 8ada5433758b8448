"""Parts of large files: together they hold what the whole holds, wherever cut and whatever is damaged."""

import gzip
import json
import random
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsugiki.corpus import texts
from tsugiki.corpus.formats import read_items
from tsugiki.corpus.items import MAX_WARNINGS, WHOLE, Limits, Tally
from tsugiki.corpus.spans import UNIT_BYTES, part_bytes, spans_of

LIMITS = Limits()


def frame(data):
    return zstandard.compress(data)


def frames(data):
    """Cut at places that are no line ends, as pzstd does."""
    return b"".join(frame(data[start : start + 70_001]) for start in range(0, len(data), 70_001))


def stored(data):
    """Pack without making it smaller: gzip members within it can be seen from outside."""
    return gzip.compress(data, compresslevel=0, mtime=0)


def packed(data):
    return gzip.compress(data, mtime=0)


def read(path, limits=LIMITS, span=WHOLE):
    tally = Tally()
    items = list(read_items(path, tally, limits, span))
    assert tally.records == tally.pages + tally.skipped.total()
    return items, tally


def read_parts(path, unit_bytes, limits=LIMITS):
    """The items of all parts, their counts, and how many parts had to be read again from another place."""
    items, total, again, end = [], Tally(), 0, 0
    for span in spans_of(path, unit_bytes):
        found, tally = read(path, limits, span)
        if not span.exact and tally.begin != end:
            again += 1
            found, tally = read(path, limits, replace(span, start=end, exact=True))
        end = tally.end
        items += found
        total.records += tally.records
        total.pages += tally.pages
        total.skipped += tally.skipped
        total.warnings += tally.warnings
        assert tally.passed <= path.stat().st_size
    return items, total, again


def assert_parts_are_the_whole(path, unit_bytes, limits=LIMITS):
    items, tally = read(path, limits)
    found, total, again = read_parts(path, unit_bytes, limits)
    assert [(item.offset, item.position) for item in found] == [(i.offset, i.position) for i in items]
    assert found == items
    assert (total.records, total.pages) == (tally.records, tally.pages)
    assert total.skipped == Counter(tally.skipped)
    assert total.warnings[:MAX_WARNINGS] == tally.warnings[:MAX_WARNINGS]
    return again


def lines(count=3000, seed=0):
    """JSON lines that don't pack well; some are empty, some broken, one is long."""
    rng = random.Random(seed)
    out = []
    for number in range(count):
        text = json.dumps({"text": rng.randbytes(rng.randint(1, 150)).hex(), "url": f"u{number}"})
        out.append({100: "", 101: "{", 102: '{"text": 1}', 2000: "x" * 50_000}.get(number % 2500, text))
    return "\n".join(out).encode()


@pytest.fixture
def records(warc, page):
    rng = random.Random(1)
    return [
        warc.record(page(rng.randbytes(rng.randint(1, 2000)).hex()), url=f"http://a.example/{i}")
        for i in range(60)
    ]


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
@pytest.mark.parametrize(
    ("name", "pack", "least"),
    [
        ("a.jsonl", bytes, 20),
        ("a.jsonl.gz", packed, 8),
        ("a.jsonl.zst", frame, 4),
        ("a.jsonl.zst", frames, 4),
    ],
)
def test_parts_of_json_lines_are_the_whole(tmp_path, name, pack, least, end):
    path = tmp_path / name
    path.write_bytes(pack(lines() + end))
    assert least <= len(spans_of(path, 10_000)) <= (1000 if name == "a.jsonl" else texts.PACKED_SPANS)
    for unit_bytes in (1, 10_000, 100_000):
        assert_parts_are_the_whole(path, unit_bytes)
    assert_parts_are_the_whole(path, 10_000, replace(LIMITS, max_text_bytes=100))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_parts_of_damaged_json_lines_meet_the_damage_once_and_at_the_same_line(tmp_path, name):
    path = tmp_path / name
    data = (packed if name.endswith("gz") else frames)(lines())
    for place in range(1000, len(data), len(data) // 6):
        changed = bytearray(data)
        changed[place] ^= 0x55
        path.write_bytes(changed)
        assert_parts_are_the_whole(path, 10_000)
        path.write_bytes(data[:place])
        assert_parts_are_the_whole(path, 10_000)
        assert [warning for warning in read(path)[1].warnings if "is damaged from" in warning["message"]]


def test_parts_of_parquet_are_row_groups_with_the_right_numbers(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [None if i % 50 == 7 else random.Random(i).randbytes(40).hex() for i in range(1000)]
    pq.write_table(pa.table({"text": rows}), path, row_group_size=130)
    assert len(spans_of(path, 1)) == 8
    assert len(spans_of(path, 20_000)) == 4
    for unit_bytes in (1, 20_000, 50_000):
        assert assert_parts_are_the_whole(path, unit_bytes) == 0
    pq.write_table(pa.table({"text": ["x" * 5000], "pages": [1]}).slice(0, 0), path)
    assert spans_of(path, 1) == [WHOLE]
    path.write_bytes(b"PAR1 and nothing more")
    assert spans_of(path, 1) == [WHOLE]


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.warc", bytes), ("a.warc.gz", packed), ("a.warc.gz", stored), ("a.warc.zst", frame)],
)
@pytest.mark.parametrize("unit_bytes", [100, 1000, 7001, 50_000])
def test_parts_of_warc_are_the_whole_and_join_at_once(tmp_path, records, name, pack, unit_bytes):
    path = tmp_path / name
    path.write_bytes(b"".join(map(pack, records)))
    assert assert_parts_are_the_whole(path, unit_bytes) == 0
    assert len(spans_of(path, unit_bytes)) == -(-path.stat().st_size // unit_bytes)


def test_parts_of_warc_in_one_member_are_empty_but_for_the_first(tmp_path, records):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(packed(b"".join(records)))
    assert assert_parts_are_the_whole(path, 5000) == 0


def test_parts_that_begin_within_a_page_about_warc_are_read_again(tmp_path, warc, records):
    inner = b"".join(warc.record(f"<html>not a page {i}") for i in range(40))
    path = tmp_path / "a.warc"
    path.write_bytes(b"".join([*records[:5], warc.record(b"<html>\r\n" + inner), *records[5:10]]))
    assert assert_parts_are_the_whole(path, 3000) > 0
    assert not [item for item in read(path)[0] if item.body.startswith(b"<html>not")]


def test_parts_that_begin_within_a_stored_warc_file_are_read_again(tmp_path, warc, records):
    inner = b"".join(packed(warc.record(f"<html>not a page {i}")) for i in range(40))
    path = tmp_path / "a.warc.gz"
    whole = [*map(packed, records[:5]), stored(warc.record(b"<html>" + inner)), *map(packed, records[5:10])]
    path.write_bytes(b"".join(whole))
    assert assert_parts_are_the_whole(path, 3000) > 0


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_parts_of_any_mutated_warc_are_the_whole(tmp_path, warc, data):
    name, pack = data.draw(
        st.sampled_from(
            [("a.warc", bytes), ("b.warc.gz", packed), ("c.warc.gz", stored), ("d.warc.zst", frame)]
        )
    )
    inner = packed(warc.record("<html>inner")) + b"\r\n" + warc.record("<html>inner")
    bodies = ["<html>" + "x" * 300, "<html>" + "y" * 30, inner, "<html>z"]
    whole = b"".join(pack(warc.record(body)) for body in bodies)
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(whole)))
        end = start + data.draw(st.integers(0, 60))
        whole = whole[:start] + data.draw(st.binary(max_size=20)) + whole[end:]
    path = tmp_path / name
    path.write_bytes(whole)
    assert_parts_are_the_whole(path, data.draw(st.integers(40, max(50, len(whole)))))


def test_cuts_follow_from_the_file_alone_and_small_files_are_whole(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(500))
    assert spans_of(path, 10_000) == spans_of(path, 10_000)
    assert spans_of(path, path.stat().st_size) == [WHOLE]
    assert spans_of(path) == [WHOLE]
    assert UNIT_BYTES == 256 << 20


@pytest.mark.parametrize("name", ["A.PARQUET", "A.JSONL", "A.WARC"])
def test_parts_of_a_file_with_an_upper_case_name_are_the_whole(tmp_path, records, name):
    path = tmp_path / name
    if name == "A.PARQUET":
        pq.write_table(pa.table({"text": [f"text {i} {i * i}" for i in range(99)]}), path, row_group_size=30)
    else:
        path.write_bytes(b"".join(records) if name == "A.WARC" else lines(300))
    assert len(spans_of(path, 1000)) > 1
    assert read(path)[0]
    assert_parts_are_the_whole(path, 1000)


@pytest.mark.parametrize(
    ("megabytes", "parts"),
    [
        (0.001, 1),
        (7, 1),
        (9, 2),
        (40, 5),
        (64, 8),
        (200, 8),
        (1100, 8),
        (2048, 8),
        (2100, 9),
        (300_000, 1172),
    ],
)
def test_part_bytes_cuts_files_into_equal_parts_that_are_neither_tiny_nor_huge(megabytes, parts):
    size = int(megabytes * (1 << 20))
    wanted = part_bytes(size)
    assert wanted <= UNIT_BYTES
    assert -(-size // wanted) == parts
    assert parts * wanted - size < parts
