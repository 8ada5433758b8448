"""From rows to requests: what to fetch, in which output file it goes, and which requests it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tsugiki.corpus.selection.index import ROWS

MAXIMUM_REQUEST_BYTES = 8 << 20
"""Longer runs of neighbours are cut: a broken request costs its whole length again, and lies in memory."""
_BATCH_ROWS = 2_000_000
"""Rows sorted at a time, of whole WARC files: about 0.6 GB with their URLs."""


@dataclass(frozen=True)
class Row:
    """One wanted record."""

    file: str
    offset: int
    length: int
    url: str


@dataclass(frozen=True)
class Request:
    """Neighbouring records of one WARC file that are fetched together."""

    file: str
    offset: int
    length: int
    rows: tuple[Row, ...]


def merge(rows: Sequence[Row], gap: int, longest: int = MAXIMUM_REQUEST_BYTES) -> list[Request]:
    """Requests for rows sorted by (file, offset): neighbours at most `gap` bytes apart share one.

    A request has at most `longest` bytes, unless a single record has more.
    """
    requests: list[Request] = []
    held: list[Row] = []
    end = 0
    for row in rows:
        after = max(end, row.offset + row.length)
        if held and (row.file != held[0].file or row.offset - end > gap or after - held[0].offset > longest):
            requests.append(_request(held, end))
            held, after = [], row.offset + row.length
        held.append(row)
        end = after
    if held:
        requests.append(_request(held, end))
    return requests


def _request(rows: list[Row], end: int) -> Request:
    return Request(rows[0].file, rows[0].offset, end - rows[0].offset, tuple(rows))


def sort_table(table: pa.Table) -> pa.Table:
    """By (file, offset), each record once."""
    table = table.sort_by([("file", "ascending"), ("offset", "ascending"), ("url", "ascending")])
    if table.num_rows < 2:  # noqa: PLR2004 (nothing to repeat)
        return table
    files = pc.not_equal(table["file"][1:], table["file"][:-1])
    offsets = pc.not_equal(table["offset"][1:], table["offset"][:-1])
    first = np.concatenate([[True], pc.or_(files, offsets).to_numpy(zero_copy_only=False)])
    return table.filter(pa.array(first))


def sorted_batches(parts: Sequence[Path], batch_rows: int = _BATCH_ROWS) -> Iterator[pa.Table]:
    """All rows of sorted part files in the order of (file, offset), in tables of about `batch_rows` rows.

    Each table holds whole WARC files, so tables do not overlap. Memory: the names of the WARC files (90,000 a
    snapshot) and one table; statistics of the parts' row groups spare reading those of other tables.
    """
    counts: dict[str, int] = {}
    for part in parts:
        for value in pc.value_counts(pq.read_table(part, columns=["file"])["file"]).to_pylist():
            counts[value["values"]] = counts.get(value["values"], 0) + value["counts"]
    for first, last in _spans(counts, batch_rows):
        span = [("file", ">=", first), ("file", "<=", last)]
        tables = [pq.read_table(part, filters=span, schema=ROWS) for part in parts]
        yield sort_table(pa.concat_tables(tables))


def _spans(counts: dict[str, int], batch_rows: int) -> Iterator[tuple[str, str]]:
    """First and last name of neighbouring files with about `batch_rows` rows together."""
    # Arrow compares UTF-8 bytes, Python code points: the same order
    first, rows, last = "", 0, ""
    for name in sorted(counts):
        if rows and rows + counts[name] > batch_rows:
            yield first, last
            rows = 0
        if not rows:
            first = name
        rows += counts[name]
        last = name
    if rows:
        yield first, last


def cut_units(tables: Iterator[pa.Table], file_bytes: int) -> Iterator[pa.Table]:
    """Tables of one output file each, cut where `file_bytes` are reached."""
    held: list[pa.Table] = []
    held_bytes = 0
    for table in tables:
        rest = table
        while rest.num_rows:
            lengths = np.cumsum(rest["length"].to_numpy())
            take = int(np.searchsorted(lengths, file_bytes - held_bytes)) + 1
            head, rest = rest.slice(0, take), rest.slice(take)
            held.append(head)
            held_bytes += int(lengths[head.num_rows - 1])
            if held_bytes >= file_bytes:
                yield pa.concat_tables(held)
                held, held_bytes = [], 0
    if held:
        yield pa.concat_tables(held)


def limit_threshold(parts: Sequence[Path], limit: int) -> tuple[int, int]:
    """The hash up to which `limit` rows go, and how many of those with exactly this hash belong to them."""
    smallest = np.zeros(0, np.uint64)
    for part in parts:
        smallest = np.concatenate([smallest, pq.read_table(part, columns=["order"])["order"].to_numpy()])
        if len(smallest) > limit:
            smallest = np.partition(smallest, limit - 1)[:limit]
    if len(smallest) < limit:
        return 2**64 - 1, limit
    threshold = int(smallest.max())
    return threshold, int(np.count_nonzero(smallest == threshold))


def apply_limit(tables: Iterator[pa.Table], threshold: int, ties: int) -> Iterator[pa.Table]:
    """The rows below the threshold, and the first `ties` of those that equal it."""
    for table in tables:
        order = table["order"].to_numpy()
        equal = order == np.uint64(threshold)
        kept = (order < np.uint64(threshold)) | (equal & (np.cumsum(equal) <= ties))
        ties -= int(np.count_nonzero(equal & kept))
        if kept.any():
            yield table.filter(pa.array(kept))


def rows_of(table: pa.Table) -> list[Row]:
    """A table of ROWS as objects, for one output file at a time."""
    columns = (table[name].to_pylist() for name in ("file", "offset", "length", "url"))
    return [Row(*values) for values in zip(*columns, strict=True)]
