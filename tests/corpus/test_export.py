"""Export: what comes out reads back, repeats by weight, appears whole or not at all."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsugiki.artifacts.documents import documents_schema, read_jsonl, write_documents, write_jsonl
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import Manifest, content_files, write_manifest
from tsugiki.commands.corpus_export import export as command
from tsugiki.corpus.inspection.artifact import open_corpus
from tsugiki.corpus.inspection.export import export_documents
from tsugiki.corpus.read import Tally
from tsugiki.corpus.texts import read_texts
from tsugiki.errors import InputError

COUNT = 3000
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def document(number):
    return {
        "id": f"{number:04x}",
        "url": f"http://example.jp/{number}",
        "date": "2026-01-01",
        "title": "題",
        "text": f"本文{number}。\n二行目",
        "language": "ja",
        "language_score": float("nan") if number == 5 else 1.0,
        "source": {"file": "a.warc.gz", "offset": number},
        "rejected_by": [],
        "split": "heldout" if number % 10 == 0 else "train",
        "letters": 7,
        "weight": (0.0, 1.0, 2.5, None)[number % 4],
    }


def make(root, *, weight=True):
    fields = [field for field in documents_schema({"letters": pa.int64()}) if field.name != "weight"]
    schema = pa.schema([*fields, *([pa.field("weight", pa.float64())] if weight else [])])
    table = pa.Table.from_pylist([document(number) for number in range(COUNT)], schema=schema)
    write_documents(root / "documents" / "part-00000.parquet", table.slice(0, 2500).combine_chunks())
    write_documents(root / "documents" / "part-00001.parquet", table.slice(2500).combine_chunks())
    payload = {"kind": "corpus"}
    write_manifest(root, Manifest(
        type="documents", kind="corpus", code_version=1, identity=identity_of(payload), payload=payload,
        config={"language": "ja"}, files=content_files(root), counts={}, facts={}, provenance={},
    ))  # fmt: skip
    return open_corpus(root)


@pytest.fixture
def corpus(tmp_path):
    return make(tmp_path / "ja")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_export_reads_back_as_a_source_of_the_corpus_stage(corpus, tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    assert export_documents(corpus, target) == COUNT
    texts = list(read_texts(target, Tally()))
    assert [(text.text, text.url, text.date, text.title) for text in texts] == [
        (row["text"], row["url"], row["date"], row["title"]) for row in map(document, range(COUNT))
    ]
    again = tmp_path / f"again{suffix}"
    export_documents(corpus, again)
    assert again.read_bytes() == target.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


def test_export_rows_are_valid_json_with_metadata(corpus, tmp_path):
    target = tmp_path / "out.jsonl.zst"
    export_documents(corpus, target, features=True)
    rows = list(read_jsonl(target))
    assert rows[5]["id"] == "0005"
    assert rows[5]["metadata"]["language_score"] is None
    assert rows[7]["metadata"]["letters"] == 7
    assert (rows[7]["metadata"]["file"], rows[7]["metadata"]["offset"]) == ("a.warc.gz", 7)
    assert all("NaN" not in json.dumps(row) for row in rows)


@pytest.mark.parametrize(("split", "count"), [("train", 2700), ("heldout", 300)])
def test_export_of_one_split(corpus, tmp_path, split, count):
    target = tmp_path / "out.parquet"
    assert export_documents(corpus, target, split=split) == count
    table = pq.read_table(target)
    assert table.num_rows == count
    assert set(table["metadata"].combine_chunks().field("split").to_pylist()) == {split}


def test_export_repeats_by_weight_with_fractions_by_chance(corpus, tmp_path):
    target = tmp_path / "out.jsonl"
    export_documents(corpus, target, repeat_by_weight=True)
    times = dict.fromkeys((f"{number:04x}" for number in range(COUNT)), 0)
    for row in read_jsonl(target):
        times[row["id"]] += 1
    by_weight = [[times[f"{n:04x}"] for n in range(COUNT) if n % 4 == kind] for kind in range(4)]
    assert set(by_weight[0]) == {0}
    assert set(by_weight[1]) == set(by_weight[3]) == {1}
    assert set(by_weight[2]) == {2, 3}
    assert sum(by_weight[2]) / len(by_weight[2]) == pytest.approx(2.5, abs=0.06)


def test_export_of_nothing_is_an_empty_file_of_its_kind(corpus, tmp_path, monkeypatch):
    for file in corpus.kept:
        table = pq.read_table(file)
        write_documents(file, table.slice(0, 0))
    assert export_documents(corpus, tmp_path / "out.parquet") == 0
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out.txt", {}, "does not say in which format"),
        ("out.parquet", {"format": "jsonl"}, "is to be jsonl"),
        ("out.jsonl", {"split": "test"}, 'no split "test"'),
    ],
)
def test_export_refuses_what_makes_no_sense(corpus, tmp_path, name, options, message):
    with pytest.raises(InputError, match=message):
        export_documents(corpus, tmp_path / name, **options)
    assert not (tmp_path / name).exists()


def test_export_needs_the_weights_that_it_is_to_use(tmp_path):
    corpus = make(tmp_path / "ja", weight=False)
    with pytest.raises(InputError, match='no column "weight"'):
        export_documents(corpus, tmp_path / "out.jsonl", repeat_by_weight=True)


def test_export_keeps_a_file_that_is_there(corpus, tmp_path):
    target = tmp_path / "out.jsonl"
    target.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="exists"):
        export_documents(corpus, target)
    assert target.read_text(encoding="utf-8") == "mine"
    export_documents(corpus, target, overwrite=True)
    assert target.stat().st_size > 1000


def test_export_that_fails_midway_leaves_nothing(corpus, tmp_path):
    file = corpus.kept[-1]
    pq.write_table(pq.read_table(file).drop_columns(["title"]), file)
    with pytest.raises(InputError, match="no column title"):
        export_documents(corpus, tmp_path / "out.jsonl.zst")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ja"]


def test_export_progress_ends_at_the_total(corpus, tmp_path):
    seen = []
    export_documents(corpus, tmp_path / "out.jsonl", progress=lambda *figures: seen.append(figures))
    assert seen[-1] == (COUNT, COUNT)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_command_writes_and_says_what(corpus, tmp_path, capsys):
    command(corpus.directory, tmp_path / "out.jsonl.gz", json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["documents"], said["bytes"]) == (COUNT, (tmp_path / "out.jsonl.gz").stat().st_size)
    command(corpus.directory, tmp_path / "out.jsonl.gz", split="heldout", overwrite=True)
    assert "300 documents" in capsys.readouterr().out


def test_gzip_has_no_time_in_its_head(tmp_path):
    write_jsonl(tmp_path / "a.jsonl.gz", [{"text": "日本"}])
    data = (tmp_path / "a.jsonl.gz").read_bytes()
    assert data[4:8] == bytes(4)
    assert gzip.decompress(data).decode() == '{"text": "日本"}\n'
