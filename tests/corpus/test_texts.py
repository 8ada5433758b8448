"""Reading files of texts: what is broken is counted with its line, and nothing hostile passes on."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tsugiki.corpus.read import Tally
from tsugiki.corpus.texts import read_texts
from tsugiki.errors import InputError

ROWS = [
    {"text": "一つ目", "url": "https://a.example/", "date": "2026-01-01", "title": "題"},
    {"text": "二つ目", "metadata": {"url": "https://b.example/"}},
]


def read(path):
    tally = Tally()
    return list(read_texts(path, tally)), tally


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
    pq.write_table(pa.table({"text": ["a", "b"], "url": ["u", None]}), tmp_path / "a.parquet")
    texts, _ = read(tmp_path / "a.parquet")
    assert [(text.text, text.url) for text in texts] == [("a", "u"), ("b", "")]


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
