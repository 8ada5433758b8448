"""Documents: the artifact of the corpus stage.

    documents/part-*.parquet   kept documents, one row each
    rejected/part-*.parquet    the same columns, for documents with at least one reason in `rejected_by`

Rejected documents are kept so that thresholds can be swept afterwards without recomputation. JSONL
(`.jsonl`, `.jsonl.gz`, `.jsonl.zst`, with `text` and optionally `id` and `metadata`) is for the rest of the
world.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tsugiki.artifacts.files import atomic_path
from tsugiki.errors import InputError

KEPT = "documents"
REJECTED = "rejected"
TRAIN = "train"
HELD_OUT = "heldout"

_GROUP_ROWS = 2048
_GROUP_BYTES = 32 << 20

BASE_FIELDS = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("url", pa.string()),
    pa.field("host", pa.string()),
    pa.field("date", pa.string()),
    pa.field("title", pa.string()),
    pa.field("text", pa.large_string(), nullable=False),
    pa.field("language", pa.string()),
    pa.field("language_score", pa.float32()),
    pa.field("source", pa.struct([("file", pa.string()), ("offset", pa.int64())])),
    pa.field("rejected_by", pa.list_(pa.string())),
    pa.field("cluster", pa.string()),
    pa.field("cluster_size", pa.int32()),
    pa.field("survivor", pa.bool_()),
    pa.field("split", pa.string()),
    pa.field("weight", pa.int32()),
)
"""`cluster` is the id of the near-duplicate cluster's survivor; `split` is "train" or "heldout"."""


def documents_schema(features: Mapping[str, pa.DataType]) -> pa.Schema:
    """The schema of a documents file: the base fields, then one typed column a quality feature."""
    return pa.schema([*BASE_FIELDS, *(pa.field(name, kind) for name, kind in features.items())])


def write_documents(path: Path, table: pa.Table) -> None:
    """Write one Parquet part atomically; the same table gives the same bytes."""
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd", row_group_size=_GROUP_ROWS)


def write_tables(path: Path, tables: Iterable[pa.Table]) -> None:
    """Write one Parquet part of several tables (at least one) atomically, a row group in memory at a time.

    A row group is closed by the table with which it reaches `_GROUP_ROWS` rows or `_GROUP_BYTES`.
    """
    with atomic_path(path) as partial, contextlib.ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for table in _grouped(tables):
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(partial, table.schema, compression="zstd"))
            writer.write_table(table, row_group_size=max(1, table.num_rows))


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        size += table.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)


def document_files(directory: Path, part: str = KEPT) -> list[Path]:
    """The Parquet parts of a documents artifact; raises InputError where there are none."""
    files = sorted((directory / part).glob("part-*.parquet"))
    if not files and part == KEPT:
        raise InputError(
            f"{directory} holds no documents (no {KEPT}/part-*.parquet)",
            hint="name a corpus stage, or a directory that one has made",
        )
    return files


def iterate_documents(
    directory: Path,
    *,
    part: str = KEPT,
    split: str | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Documents one at a time, in stored order, with bounded memory.

    split: "train", "heldout" or None for all. columns: what to read (default all).
    """
    wanted = None if columns is None else [*columns, *(["split"] if split and "split" not in columns else [])]
    for file in document_files(directory, part):
        for row in _rows(file, wanted):
            if split is None or row["split"] == split:
                yield row


def _rows(file: Path, wanted: list[str] | None) -> Iterator[dict[str, Any]]:
    """The rows of one part; raises InputError where it is damaged or lacks a column."""
    try:
        parquet = pq.ParquetFile(file)
        missing = set(wanted or ("text",)) - set(parquet.schema_arrow.names)
        if missing:
            raise InputError(
                f"{file} has no column {', '.join(sorted(missing))}", hint="make it again with a corpus stage"
            )
        for batch in parquet.iter_batches(batch_size=1024, columns=wanted):
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise InputError(
            f"{file} can't be read: {error}", hint="delete its stage's directory and run the stage again"
        ) from error


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a .jsonl, .jsonl.gz or .jsonl.zst file; raises InputError with the line at fault."""
    with io.TextIOWrapper(open_packed(path), encoding="utf-8") as lines:
        for number, line in enumerate(_until_damage(lines, path), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: not JSON ({error.msg})",
                    hint="one JSON object a line is expected",
                ) from error
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise InputError(
                    f'{path}, line {number}: no "text" string', hint='each line needs {"text": "..."}'
                )
            yield row


def _until_damage(lines: io.TextIOBase, path: Path) -> Iterator[str]:
    try:
        yield from lines
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is damaged: {error}", hint="make or fetch the file again; it may be cut short"
        ) from error


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as .jsonl, .jsonl.gz or .jsonl.zst, atomically; the same rows give the same bytes."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with atomic_path(path) as partial:
        if path.suffix == ".zst":
            with zstandard.open(partial, "wt", encoding="utf-8") as file:
                file.writelines(lines)
        elif path.suffix == ".gz":
            # without a name and a time in its head
            with partial.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                packed.writelines(line.encode() for line in lines)
        else:
            with partial.open("w", encoding="utf-8") as file:
                file.writelines(lines)


def open_packed(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where its name ends in .gz or .zst.

    One that is cut short raises EOFError or OSError when its end is read.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if suffix == ".zst":
        # not zstandard.open, which ends silently where a frame is cut short
        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return path.open("rb")
