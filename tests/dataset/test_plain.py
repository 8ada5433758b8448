"""Texts of plain files become documents as they are; damage is counted, and nothing is made twice."""

import gzip
import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tsugiki.artifacts import plain
from tsugiki.artifacts.documents import iterate_documents
from tsugiki.artifacts.plain import as_documents
from tsugiki.dataset.tokenise import tokenise
from tsugiki.dataset.tokens import open_tokens
from tsugiki.errors import DataError, InputError

TEXTS = ["one text\nof two lines", "日本語の文章", "données"]


def lines_of(texts, key="text"):
    return "".join(json.dumps({key: text}) + "\n" for text in texts).encode()


def write_arrow(path, table):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def write_file(directory, name, texts=TEXTS, key="text"):
    """The texts in a file of the kind that `name` says."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.table({key: texts}), path)
    elif name.endswith(".arrow"):
        write_arrow(path, pa.table({key: texts}))
    else:
        data = lines_of(texts, key)
        if name.endswith(".gz"):
            data = gzip.compress(data)
        elif name.endswith(".zst"):
            data = zstandard.compress(data)
        path.write_bytes(data)
    return path


def rows_of(directory, split=None):
    return list(iterate_documents(directory, split=split))


def texts_of(directory, split=None):
    return [row["text"] for row in rows_of(directory, split)]


@pytest.mark.parametrize("key", ["text", "content"])
@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.ndjson", "a.json.gz", "a.parquet", "data-0.arrow"]
)
def test_as_documents_reads_every_kind_of_file_as_it_is(tmp_path, name, key):
    path = write_file(tmp_path, name, key=key)
    documents = as_documents("s", [path], tmp_path / "work")
    rows = rows_of(documents)
    assert [row["text"] for row in rows] == TEXTS
    assert [row["id"] for row in rows] == [f"{name}:{number}" for number in (1, 2, 3)]
    assert {row["split"] for row in rows} == {"train"}


def test_as_documents_of_a_corpus_stage_are_its_own(tmp_path, make_texts, write_parts):
    corpus = write_parts(tmp_path / "corpus", [make_texts(3)])
    assert as_documents("s", [corpus], tmp_path / "work") == corpus
    assert not (tmp_path / "work").exists()


def test_as_documents_of_several_files_keeps_their_order(tmp_path):
    paths = [write_file(tmp_path, f"{number}.jsonl", [f"text {number}"]) for number in (2, 1)]
    assert texts_of(as_documents("s", paths, tmp_path / "work")) == ["text 2", "text 1"]


def test_as_documents_of_a_hub_directory_holds_out_its_validation_and_leaves_its_test_alone(tmp_path):
    data = tmp_path / "set"
    for split in ("train", "validation", "test"):
        write_file(data, f"data/{split}-00000-of-00001.parquet", [f"{split} text"])
    (data / "README.md").write_text("# A set")
    write_file(data, "train/cache-abc.arrow", ["a cache"])
    documents = as_documents("s", [data], tmp_path / "work")
    assert texts_of(documents, "train") == ["train text"]
    assert texts_of(documents, "heldout") == ["validation text"]


def test_as_documents_takes_a_file_that_was_named_whatever_it_is_called(tmp_path):
    path = write_file(tmp_path, "test.jsonl")
    assert texts_of(as_documents("s", [path], tmp_path / "work"), "train") == TEXTS
    assert texts_of(as_documents("s", [path], tmp_path / "work", split="heldout"), "heldout") == TEXTS


def test_as_documents_keeps_ids_and_splits_that_rows_have(tmp_path):
    table = pa.table({"text": ["a", "b"], "id": [7, 8], "split": ["heldout", "other"], "more": [1.0, 2.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = rows_of(as_documents("s", [tmp_path / "a.parquet"], tmp_path / "work"))
    assert [(row["id"], row["split"]) for row in rows] == [("7", "heldout"), ("8", "train")]


def test_as_documents_counts_damage_and_goes_on(tmp_path, caplog):
    lines = [
        *(b'{"text": "good"}', b"{broken", b"[1]", b'{"text": 3}', b'{"text": ""}', b"", b'{"other": "x"}'),
        *(b'{"text": "\\ud800 lone"}', b"\xff\xfe", b"[" * 5000),
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    documents = as_documents("s", [tmp_path / "a.jsonl"], tmp_path / "work")
    assert texts_of(documents) == ["good", "? lone"]
    assert '"s": 7 of 9 rows hold no text: a.jsonl, row 2: not JSON' in caplog.text


def test_as_documents_of_a_line_that_is_too_long_passes_over_it(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(plain, "LINE_BYTES", 100)
    (tmp_path / "a.jsonl").write_bytes(lines_of(["x" * 1000, "short"]))
    assert texts_of(as_documents("s", [tmp_path / "a.jsonl"], tmp_path / "work")) == ["short"]
    assert "row 1: a line of more than 100 bytes" in caplog.text


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.arrow"])
def test_as_documents_of_a_file_cut_short_says_so(tmp_path, name, caplog):
    whole = write_file(tmp_path, name, [f"text {number} " * 50 for number in range(3000)])
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) - 20])
    other = write_file(tmp_path, "b.jsonl")
    documents = as_documents("s", [whole, other], tmp_path / "work")
    assert texts_of(documents)[-3:] == TEXTS
    assert f"{name} after row" in caplog.text
    assert "damaged from here on" in caplog.text


def test_as_documents_without_one_text_raises_with_the_first_places(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(DataError, match=r"not one of 1 rows holds a text \(a\.jsonl, row 1: no text\)"):
        as_documents("s", [tmp_path / "a.jsonl"], tmp_path / "work")


def test_as_documents_of_a_table_without_texts_raises_with_its_columns(tmp_path):
    path = write_file(tmp_path, "a.parquet", key="body")
    with pytest.raises(InputError, match=r"a\.parquet has no column text \(columns: body\)"):
        as_documents("s", [path], tmp_path / "work")


@pytest.mark.parametrize("name", ["readme.md", "empty"])
def test_as_documents_of_what_is_no_text_file_raises(tmp_path, name):
    path = tmp_path / name
    path.mkdir() if name == "empty" else path.write_text("# text")
    with pytest.raises(InputError, match="is of no known kind|holds no documents"):
        as_documents("s", [path], tmp_path / "work")


def test_as_documents_again_copies_nothing_and_a_changed_file_anew(tmp_path, monkeypatch):
    path = write_file(tmp_path, "a.jsonl")
    first = as_documents("s", [path], tmp_path / "work")
    with monkeypatch.context() as patch:
        patch.setattr(plain, "write_tables", lambda *_: pytest.fail("copied again"))
        assert as_documents("s", [path], tmp_path / "work") == first
    write_file(tmp_path, "a.jsonl", ["a new text"])
    assert texts_of(as_documents("s", [path], tmp_path / "work")) == ["a new text"]


def test_as_documents_cuts_parts_and_the_tokens_have_every_byte(tmp_path, tokenizer, monkeypatch, make_texts):
    monkeypatch.setattr(plain, "PART_BYTES", 5000)
    texts = make_texts(200)
    documents = as_documents("s", [write_file(tmp_path, "a.jsonl.zst", texts)], tmp_path / "work")
    assert len(list((documents / "documents").iterdir())) > 3
    source = open_tokens("s", tokenise(documents, tokenizer, tmp_path / "units"), tokenizer)
    assert source.documents == len(texts)
    assert source.text_bytes == sum(len(text.encode()) for text in texts)


def test_as_documents_logs_how_many_there_are(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    as_documents("s", [write_file(tmp_path, "a.jsonl")], tmp_path / "work")
    assert "s: 3 documents from 1 plain files, taken as they are" in caplog.text


@pytest.mark.parametrize("mark", ["rejected/part-00000.parquet", "manifest.json", "job.json"])
def test_as_documents_of_an_unfinished_corpus_stage_never_takes_what_lies_about(tmp_path, mark):
    write_file(tmp_path / "corpus", "rejected/part-00000.parquet", ["spam"])
    (tmp_path / "corpus" / mark).touch()
    with pytest.raises(InputError, match=r"holds no documents \(no documents/part"):
        as_documents("s", [tmp_path / "corpus"], tmp_path / "work")
