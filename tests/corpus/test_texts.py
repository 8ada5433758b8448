"""Reading files of texts: what is broken is counted with its line, and nothing hostile passes on."""

import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tsugiki.corpus import parquet_rows
from tsugiki.corpus import texts as texts_module
from tsugiki.corpus.items import Limits, Tally
from tsugiki.corpus.texts import read_texts
from tsugiki.errors import InputError

ROWS = [
    {"text": "一つ目", "url": "https://a.example/", "date": "2026-01-01", "title": "題"},
    {"text": "二つ目", "metadata": {"url": "https://b.example/"}},
]


DEFAULTS = Limits()


def read(path, limits=DEFAULTS):
    tally = Tally()
    texts = list(read_texts(path, tally, limits))
    assert tally.records == tally.pages + tally.skipped.total()
    return texts, tally


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.ZstdCompressor().compress)],
)
def test_read_texts_of_each_compression_gives_the_same(tmp_path, name, pack):
    data = "\n".join(json.dumps(row) for row in ROWS).encode()
    (tmp_path / name).write_bytes(pack(data))
    texts, tally = read(tmp_path / name)
    assert [(text.text, text.url) for text in texts] == [
        ("一つ目", "https://a.example/"),
        ("二つ目", "https://b.example/"),
    ]
    assert (texts[0].title, texts[0].date, texts[1].title) == ("題", "2026-01-01", None)
    assert (tally.records, tally.pages) == (2, 2)


def test_read_texts_of_parquet(tmp_path):
    columns = {"text": ["a", "b", "c"], "url": ["u", None, None], "metadata": [None, {"url": "v"}, None]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    texts, _ = read(tmp_path / "a.parquet")
    assert [(text.text, text.url) for text in texts] == [("a", "u"), ("b", "v"), ("c", "")]


def test_read_texts_of_parquet_without_text_is_refused(tmp_path):
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="text"):
        read(tmp_path / "a.parquet")


def test_read_texts_counts_broken_lines_and_goes_on(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{\n{"body": 1}\n{"text": " "}\n{"text": "y"}\n')
    texts, tally = read(tmp_path / "a.jsonl")
    assert [text.text for text in texts] == ["x", "y"]
    assert len(tally.warnings) == 2
    assert tally.skipped["empty body"] == 1


def test_read_texts_replaces_lone_surrogates_everywhere(tmp_path):
    row = {"text": "a\ud800b", "url": "https://\udfff.example/", "title": "\ud800"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (text,), _ = read(tmp_path / "a.jsonl")
    assert (text.text, text.url, text.title) == ("a?b", "https://?.example/", "?")


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.ZstdCompressor().compress)],
)
def test_read_texts_of_a_truncated_file_reports_it(tmp_path, name, pack):
    data = pack("\n".join(json.dumps({"text": f"text {i * 7919}"}) for i in range(5000)).encode())
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    texts, tally = read(tmp_path / name)
    assert len(texts) < 5000
    assert tally.warnings


def test_read_texts_of_endless_nesting_is_a_broken_line(tmp_path):
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + '\n{"text": "x"}\n')
    texts, tally = read(tmp_path / "a.jsonl")
    assert [text.text for text in texts] == ["x"]
    assert dict(tally.skipped) == {"broken": 1}


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.ZstdCompressor().compress)],
)
def test_read_texts_of_an_endless_line_skips_it_in_bounded_memory(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(b'{"text": "x"}\n' + b"A" * 80_000_000 + b'\n{"text": "y"}\n'))
    tracemalloc.start()
    texts, tally = read(tmp_path / name, Limits(max_text_bytes=1000))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(text.text, text.offset) for text in texts] == [("x", 0), ("y", 2)]
    assert (tally.records, dict(tally.skipped)) == (3, {"too large": 1})
    assert peak_bytes < (40_000_000 if name.endswith(".zst") else 2_000_000)


def test_read_texts_of_nothing_but_nul_is_an_empty_body(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "\0 \0"}))
    texts, tally = read(tmp_path / "a.jsonl")
    assert (texts, dict(tally.skipped)) == ([], {"empty body": 1})


def test_read_texts_of_a_damaged_row_group_keeps_the_others(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"text {number}" for number in range(3000)]})
    pq.write_table(table, path, row_group_size=1024, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 30] = b"\xff" * 30
    path.write_bytes(data)
    texts, tally = read(path)
    assert [text.offset for text in texts] == [*range(1024), *range(2048, 3000)]
    assert all(text.text == f"text {text.offset}" for text in texts)
    assert (tally.warnings[0]["offset"], dict(tally.skipped)) == (1024, {"broken": 1})


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_read_texts_of_parquet_gives_times_as_text(tmp_path, unit):
    dates = pa.array(
        [1_700_000_000_000_000_001 // 10 ** {"s": 9, "us": 3, "ns": 0}[unit]], pa.timestamp(unit)
    )
    pq.write_table(pa.table({"text": ["a"], "date": dates}), tmp_path / "a.parquet")
    (text,), _ = read(tmp_path / "a.parquet")
    assert text.date == "2023-11-14T22:13:20"


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.string_view(),
    ],
)
def test_read_texts_of_parquet_takes_every_type_of_string(tmp_path, kind):
    texts = pa.array(["一", "b", None, "一"], pa.string())
    texts = texts.dictionary_encode() if pa.types.is_dictionary(kind) else texts.cast(kind)
    pq.write_table(pa.table({"text": texts, "url": texts}), tmp_path / "a.parquet")
    found, tally = read(tmp_path / "a.parquet")
    assert [(text.text, text.url, text.offset) for text in found] == [
        ("一", "一", 0),
        ("b", "b", 1),
        ("一", "一", 3),
    ]
    assert dict(tally.skipped) == {"broken": 1}


@pytest.mark.parametrize("column", [[1, 2], [["a"], ["b"]], [{"text": "a"}], [None, None], [1.5]])
def test_read_texts_of_parquet_with_a_column_of_another_type_is_refused(tmp_path, column):
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="expected strings"):
        read(tmp_path / "a.parquet")


def test_read_texts_of_parquet_counts_texts_that_are_not_utf8_or_too_large(tmp_path):
    texts = pa.array([b"good", b"\xff\xfe", b"x" * 200, b"good too"])
    pq.write_table(pa.table({"text": texts, "url": texts}), tmp_path / "a.parquet")
    found, tally = read(tmp_path / "a.parquet", Limits(max_text_bytes=100))
    assert [text.text for text in found] == ["good", "good too"]
    assert dict(tally.skipped) == {"not UTF-8": 1, "too large": 1}
    assert [warning["offset"] for warning in tally.warnings] == [1, 2]


def test_read_texts_of_parquet_takes_few_rows_at_once_where_a_text_may_be_large(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 4_000_000)
    texts = [character * 2_000_000 for character in "ab"] * 40  # a dictionary of two, 160 MB once read
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", dictionary_pagesize_limit=1 << 24)
    assert (tmp_path / "a.parquet").stat().st_size < 1_000_000
    before = pa.total_allocated_bytes()
    found = [pa.total_allocated_bytes() - before for _ in read_texts(tmp_path / "a.parquet", Tally())]
    assert len(found) == 80
    assert max(found) < 30_000_000


@pytest.mark.parametrize("text", ["x", "\ud800" * 9, "あ" * 17_000_000])
def test_read_texts_of_odd_sizes_and_only_surrogates(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}))
    (found,), tally = read(tmp_path / "a.jsonl")
    assert found.text == text.replace("\ud800", "?")
    assert not tally.warnings


def test_read_texts_of_a_line_of_millions_of_values_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(texts_module, "MAX_VALUES", 1000)
    (tmp_path / "a.jsonl").write_text('{"text": "x", "y": [' + "[]," * 2000 + "0]}\n" + '{"text": "y"}')
    found, tally = read(tmp_path / "a.jsonl")
    assert [text.text for text in found] == ["y"]
    assert dict(tally.skipped) == {"too large": 1}


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.jsonl.zst"])
def test_read_texts_goes_by_the_first_bytes_not_by_the_name(tmp_path, pack, name):
    (tmp_path / name).write_bytes(pack(b'{"text": "x"}\n'))
    found, _ = read(tmp_path / name)
    assert [text.text for text in found] == ["x"]


def test_read_texts_of_zstd_frames_with_skippable_ones_between(tmp_path):
    frames = [zstandard.ZstdCompressor().compress(b'{"text": "%d"}\n' % i) for i in range(3)]
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0junk"  # pzstd writes such
    (tmp_path / "a.jsonl.zst").write_bytes(skippable + skippable.join(frames) + skippable)
    found, tally = read(tmp_path / "a.jsonl.zst")
    assert [text.text for text in found] == ["0", "1", "2"]
    assert not tally.warnings
