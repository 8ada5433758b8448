"""Documents and scores: what is written is read back, and bad files are named."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsugiki.artifacts.documents import (
    documents_schema,
    iterate_documents,
    read_jsonl,
    write_documents,
    write_jsonl,
)
from tsugiki.artifacts.files import sha256_of
from tsugiki.artifacts.scores import SCHEMA, read_scores, write_scores
from tsugiki.errors import InputError


def table(count):
    schema = documents_schema({"letters": pa.int32()})
    empty = dict.fromkeys(schema.names)
    rows = [
        {
            **empty,
            "id": str(i),
            "text": f"文 {i}",
            "split": "heldout" if i % 5 == 0 else "train",
            "letters": i,
        }
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def test_iterate_documents_gives_the_split_in_stored_order(tmp_path):
    write_documents(tmp_path / "documents" / "part-00000.parquet", table(12))
    write_documents(tmp_path / "documents" / "part-00001.parquet", table(3))
    held = list(iterate_documents(tmp_path, split="heldout", columns=["id", "text"]))
    assert [row["id"] for row in held] == ["0", "5", "10", "0"]
    assert len(list(iterate_documents(tmp_path))) == 15


def test_write_documents_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_documents(tmp_path / name, table(50))
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b")


def test_iterate_documents_of_another_directory_says_so(tmp_path):
    with pytest.raises(InputError, match="holds no documents"):
        list(iterate_documents(tmp_path))


def test_iterate_documents_of_a_damaged_part_or_one_without_the_column_names_it(tmp_path):
    part = tmp_path / "documents" / "part-00000.parquet"
    write_documents(part, table(200))
    with pytest.raises(InputError, match="has no column absent"):
        list(iterate_documents(tmp_path, columns=["absent"]))
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(InputError, match="can't be read"):
        list(iterate_documents(tmp_path))


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.zst"])
def test_jsonl_round_trip(tmp_path, name):
    rows = [{"id": "1", "text": "改行\nと\u2028"}, {"id": "2", "text": "", "metadata": {"a": 1}}]
    write_jsonl(tmp_path / name, rows)
    assert list(read_jsonl(tmp_path / name)) == rows


@pytest.mark.parametrize(("line", "said"), [("{", "line 2: not JSON"), ('{"body": 1}', 'line 2: no "text"')])
def test_read_jsonl_names_the_line_at_fault(tmp_path, line, said):
    (tmp_path / "d.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(InputError, match=said):
        list(read_jsonl(tmp_path / "d.jsonl"))


@pytest.mark.parametrize("name", ["d.jsonl.gz", "d.jsonl.zst"])
def test_read_jsonl_of_a_file_cut_short_says_so(tmp_path, name):
    path = tmp_path / name
    write_jsonl(path, ({"text": str(number)} for number in range(20_000)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="is damaged"):
        list(read_jsonl(path))


def test_write_scores_orders_rows(tmp_path):
    rows = [
        {**dict.fromkeys(SCHEMA.names), "model": m, "task": "t", "dataset": "d", "item": i}
        for m, i in (("b", "1"), ("a", "2"), ("a", "1"))
    ]
    write_scores(tmp_path / "scores.parquet", rows)
    found = read_scores(tmp_path).select(["model", "item"]).to_pylist()
    assert [(row["model"], row["item"]) for row in found] == [("a", "1"), ("a", "2"), ("b", "1")]


def test_read_scores_of_a_version_with_fewer_columns_fills_them(tmp_path):
    rows = [dict.fromkeys(SCHEMA.names) | {"model": "m", "task": "t", "dataset": "d", "item": "i"}]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    pq.write_table(table.drop_columns(["cut_context", "error"]), tmp_path / "scores.parquet")
    assert read_scores(tmp_path).schema.equals(SCHEMA, check_metadata=False)
    assert read_scores(tmp_path).to_pylist() == rows


def test_read_scores_of_another_directory_says_so(tmp_path):
    with pytest.raises(InputError, match=r"holds no scores\.parquet"):
        read_scores(tmp_path)
