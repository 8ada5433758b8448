"""The rows of a Parquet file of texts, in batches that are bounded in bytes, not in rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tsugiki.corpus.items import WHOLE, Limits, Span, Tally
from tsugiki.errors import InputError

BATCH_BYTES = 512 << 20
"""Of a batch, at most, or one row. Each row is taken to be as large as all of its row group: that is what a
dictionary of one text makes of it."""

MAX_BATCH_ROWS = 1024
_BUFFER_BYTES = 1 << 20  # read from the file at once, instead of whole column chunks
_DETAILS = ("url", "date", "title")
_DAMAGE = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)


def known_text(value: object) -> str | None:
    """A detail as text: strings as they are, dates in ISO 8601, anything else counts as absent."""
    if isinstance(value, date):  # datetime is a kind of date
        return value.isoformat()
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else None


def read_parquet(
    path: Path, tally: Tally, limits: Limits, span: Span = WHOLE
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file, or of some row groups: `text`, `url`, `date`, `title`, and their numbers from 0.

    Texts that are too large or not UTF-8 and row groups that are damaged are counted in `tally` and left
    out. Raises InputError where the file has no `text` column of strings.
    """
    try:
        file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES)
        schema = file.schema_arrow
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        tally.fault(path.name, 0, "broken", f"not a Parquet file ({error})")
        return
    with file:
        _check(path, schema)
        columns = ["text", *_columns(schema)]
        first = span.first
        row_bytes = path.stat().st_size / max(1, file.metadata.num_rows)
        for group in range(span.start, file.metadata.num_row_groups if span.stop is None else span.stop):
            for number, row in _group(_Source(file, columns, path.name, tally, limits), group, first):
                tally.passed = int((number - span.first) * row_bytes)
                yield number, row
            first += file.metadata.row_group(group).num_rows


def group_spans(path: Path, unit_bytes: int) -> list[Span]:
    """Row groups together until they have `unit_bytes` in the file; WHOLE where the file is no Parquet."""
    try:
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        sizes = [
            sum(group.column(i).total_compressed_size for i in range(group.num_columns)) for group in groups
        ]
    except FileNotFoundError:
        raise
    except _DAMAGE:
        return [WHOLE]
    spans: list[Span] = []
    start = first = rows = size = 0
    for number, (group, group_bytes) in enumerate(zip(groups, sizes, strict=True), 1):
        rows += group.num_rows
        size += group_bytes
        if size >= unit_bytes or number == len(groups):
            spans.append(Span(start, number, first))
            start, first, size = number, rows, 0
    return spans if len(spans) > 1 else [WHOLE]


def _check(path: Path, schema: pa.Schema) -> None:
    count = schema.names.count("text")
    if count != 1:
        seen = f"{count} columns" if count else "no column"
        raise InputError(
            f'{path} has {seen} "text" (it has {", ".join(schema.names)})',
            hint="rename the column that holds the documents' text",
        )
    kind = schema.field("text").type
    if not _is_text(kind):
        raise InputError(
            f'the column "text" of {path} is of the type {kind}, expected strings',
            hint="give the documents' text as one string a row",
        )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        "is_string",
        "is_large_string",
        "is_binary",
        "is_large_binary",
        "is_string_view",
        "is_binary_view",
    )
    return any(getattr(pa.types, test)(kind) for test in tests)


def _columns(schema: pa.Schema) -> list[str]:
    """The details that are there, by their paths: columns of their own or fields of a `metadata` struct."""
    found = [name for name in _DETAILS if schema.names.count(name) == 1]
    if schema.names.count("metadata") == 1 and pa.types.is_struct(kind := schema.field("metadata").type):
        names = [kind.field(place).name for place in range(kind.num_fields)]
        found += [f"metadata.{name}" for name in _DETAILS if names.count(name) == 1]
    return found


@dataclass(frozen=True)
class _Source:
    file: pq.ParquetFile
    columns: list[str]
    name: str
    tally: Tally
    limits: Limits


def _group(source: _Source, group: int, first: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of one row group; `first` is the number of the first."""
    number = first
    try:
        rows = _batch_rows(source.file.metadata.row_group(group))
        batches = source.file.iter_batches(rows, row_groups=[group], columns=source.columns)
    except _DAMAGE as error:
        source.tally.fault(source.name, number, "broken", f"a damaged row group ({error})")
        return
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            texts = batch.column("text")
            details = {column: _cells(batch, column) for column in source.columns if column != "text"}
        except _DAMAGE as error:
            message = f"the row group is damaged from this row on, or in the {rows} after it ({error})"
            source.tally.fault(source.name, number, "broken", message)
            return
        for place in range(batch.num_rows):
            text = _decode(texts[place], number, source)
            if not isinstance(text, _LeftOut):
                yield number, _row(text, details, place)
            number += 1


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    """So many rows that their texts have BATCH_BYTES at most, even if each is as large as the whole group."""
    for place in range(group.num_columns):
        column = group.column(place)
        if column.path_in_schema == "text":
            worst = max(1, column.total_uncompressed_size)
            return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // worst))
    return 1


class _LeftOut:
    """Stands for a text that is counted already."""


_LEFT_OUT = _LeftOut()


def _decode(cell: pa.Scalar, number: int, source: _Source) -> str | _LeftOut | None:
    """A text; None for null; _LEFT_OUT for one that is too large or not UTF-8, which is counted."""
    if isinstance(cell, pa.DictionaryScalar):
        cell = cell.value
    if not cell.is_valid:
        return None
    content = cell.as_buffer()
    if content.size > source.limits.max_text_bytes:
        message = f"a text of {content.size} bytes (limit {source.limits.max_text_bytes})"
        source.tally.fault(source.name, number, "too large", message)
        return _LEFT_OUT
    try:
        return content.to_pybytes().decode("utf-8")
    except UnicodeDecodeError as error:
        source.tally.fault(source.name, number, "not UTF-8", str(error))
        return _LEFT_OUT


def _cells(batch: pa.RecordBatch, column: str) -> list[Any]:
    """A detail of each row as Python values; bytes that are not UTF-8 are replaced."""
    parent, _, child = column.partition(".")
    values = batch.column(parent)
    if child:
        values = pc.struct_field(values, child)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_timestamp(values.type):  # Python's datetime holds microseconds
        values = values.cast(pa.timestamp("us", values.type.tz), safe=False)
    if _is_text(values.type):
        large = pa.types.is_large_string(values.type)
        cells = values.cast(pa.large_binary() if large else pa.binary()).to_pylist()
        return [None if cell is None else cell.decode("utf-8", "replace") for cell in cells]
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return values.to_pylist()
    return [None] * len(values)


def _row(text: str | None, details: dict[str, list[Any]], place: int) -> dict[str, Any]:
    row: dict[str, Any] = {"text": text, "metadata": {}}
    for column, cells in details.items():
        parent, _, child = column.partition(".")
        (row["metadata"] if child else row)[child or parent] = cells[place]
    return row
