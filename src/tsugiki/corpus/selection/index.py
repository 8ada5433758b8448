"""The rows of Common Crawl's columnar index that are wanted, file by file, row group by row group.

The index (Parquet, some 300 files a snapshot and subset) has one row a capture. Its `content_languages` are
CLD2's answer, the most frequent first, as ISO 639-3 codes: "jpn", "jpn,eng" (corpus.md §5.2). Asking for
exactly "jpn" misses the pages with a second language, so labels are looked for at the beginning, or anywhere.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tsugiki.errors import InputError

_TEST_COLUMNS = ("content_languages", "fetch_status", "content_mime_detected")
_FETCH_COLUMNS = ("url", "warc_filename", "warc_record_offset", "warc_record_length")
_HOST_COLUMN = "url_host_name"
_STATUS = 200
MIME_TYPES = ("text/html", "application/xhtml+xml")

ROWS = pa.schema(
    [
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("url", pa.string()),
        ("order", pa.uint64()),
    ]
)
"""A wanted capture: WARC file below the base, byte range in it, its page, and `order`, a hash of the URL."""


@dataclass(frozen=True)
class Wanted:
    """Which rows are wanted.

    labels: ISO 639-3 codes of the language. where: whether one must stand first, or may stand anywhere.
    maximum_bytes: longer records (compressed) are left out. sample: share of pages, chosen by a hash of the
    URL. blocked: hosts (and all below them) that are left out.
    """

    labels: tuple[str, ...]
    where: Literal["primary", "any"] = "primary"
    maximum_bytes: int = 4 << 20
    sample: float = 1.0
    blocked: frozenset[str] = frozenset()
    mime_types: tuple[str, ...] = MIME_TYPES


@dataclass
class Seen:
    """What an index held."""

    rows: int = 0
    row_groups: int = 0
    row_groups_skipped: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows of the language, by the reason for which they are not wanted."""


def wanted_rows(file: IO[bytes], name: str, wanted: Wanted, seen: Seen) -> Iterator[pa.Table]:
    """Tables of ROWS, one a row group that has any, in the file's order.

    Memory: the needed columns of one row group. Raises InputError where the file is no Parquet, is damaged,
    or lacks a column.
    """
    try:
        parquet = pq.ParquetFile(file)
        _check_columns(parquet, name, wanted)
        for number in range(parquet.num_row_groups):
            table = _row_group(parquet, number, wanted, seen)
            if table is not None and table.num_rows:
                yield table
    except (pa.ArrowException, EOFError) as error:
        raise InputError(
            f"the index file {name} can't be read as Parquet: {str(error)[:300]}", hint="download it again"
        ) from error


def _check_columns(parquet: pq.ParquetFile, name: str, wanted: Wanted) -> None:
    needed = [*_TEST_COLUMNS, *_FETCH_COLUMNS, *([_HOST_COLUMN] if wanted.blocked else [])]
    schema = parquet.schema_arrow
    missing = [column for column in needed if column not in schema.names]
    if missing:
        raise InputError(
            f"the index file {name} lacks {', '.join(missing)}; it has {', '.join(schema.names[:12])}",
            hint="give Common Crawl's columnar index (cc-index-table.paths.gz) of 2018-34 or later",
        )
    for column in needed:
        number = column in {"fetch_status", "warc_record_offset", "warc_record_length"}
        kind = schema.field(column).type
        right = pa.types.is_integer(kind) if number else _is_text(kind)
        if not right:
            expected = "integers" if number else "text"
            raise InputError(
                f"the index file {name}: {column} is {kind}, expected {expected}",
                hint="give Common Crawl's columnar index",
            )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _row_group(parquet: pq.ParquetFile, number: int, wanted: Wanted, seen: Seen) -> pa.Table | None:
    """The wanted rows of one row group; the columns for fetching are only read where some row passes."""
    group = parquet.metadata.row_group(number)
    seen.rows += group.num_rows
    seen.row_groups += 1
    if not _may_hold(group, wanted):
        seen.row_groups_skipped += 1
        return None
    tests = parquet.read_row_group(number, columns=list(_TEST_COLUMNS))
    mask = _mask(tests, wanted, seen)
    if not pc.any(mask).as_py():
        return None
    columns = [*_FETCH_COLUMNS, *([_HOST_COLUMN] if wanted.blocked else [])]
    return _usable(parquet.read_row_group(number, columns=columns).filter(mask), wanted, seen)


def _may_hold(group: Any, wanted: Wanted) -> bool:
    """Whether the statistics of a row group leave room for a wanted row."""
    for i in range(group.num_columns):
        column = group.column(i)
        statistics = column.statistics
        if statistics is not None and statistics.has_min_max:
            low, high = statistics.min, statistics.max
            if not _may_lie_between(column.path_in_schema, low, high, wanted):
                return False
    return True


def _may_lie_between(column: str, low: Any, high: Any, wanted: Wanted) -> bool:
    if column == "fetch_status" and isinstance(low, int):
        return low <= _STATUS <= int(high)
    if not isinstance(low, str):
        return True
    if column == "content_mime_detected":
        return any(low <= kind <= high for kind in wanted.mime_types)
    if column == "content_languages" and wanted.where == "primary":
        # "jpn" and all that begins with "jpn,": "-" is the character after ","
        return any(low < f"{label}-" and label <= high for label in wanted.labels)
    return True


def _mask(tests: pa.Table, wanted: Wanted, seen: Seen) -> pa.ChunkedArray:
    """True for rows of the language that are whole HTML pages; null counts as false."""
    begin = "^" if wanted.where == "primary" else "(^|,)"
    labels = "|".join(map(re.escape, wanted.labels))
    languages = tests["content_languages"].cast(pa.string())
    language = pc.fill_null(pc.match_substring_regex(languages, f"{begin}({labels})(,|$)"), False)
    status = pc.fill_null(pc.equal(tests["fetch_status"], _STATUS), False)
    kinds = pa.array(wanted.mime_types)
    html = pc.fill_null(pc.is_in(tests["content_mime_detected"].cast(pa.string()), value_set=kinds), False)
    _count(seen, "status is not 200", pc.and_(language, pc.invert(status)))
    _count(seen, "not HTML", pc.and_(pc.and_(language, status), pc.invert(html)))
    return pc.and_(pc.and_(language, status), html)


def _count(seen: Seen, reason: str, mask: pa.ChunkedArray) -> None:
    number = pc.sum(mask).as_py() or 0
    if number:
        seen.left_out[reason] += number


def _usable(table: pa.Table, wanted: Wanted, seen: Seen) -> pa.Table:
    """ROWS of what passed: hosts, lengths and the sample applied, rows that can't be fetched left out."""
    files = table["warc_filename"].cast(pa.string())
    urls = table["url"].cast(pa.string())
    offsets, lengths = (table[f"warc_record_{name}"].cast(pa.int64()) for name in ("offset", "length"))
    good = pc.and_(pc.greater_equal(offsets, 0), pc.greater(lengths, 0))
    good = pc.and_(good, pc.and_(pc.is_valid(urls), _inside(files)))
    good = pc.fill_null(good, False)
    _count(seen, "unusable row", pc.invert(good))
    keep = _drop(good, pc.less_equal(lengths, wanted.maximum_bytes), "too long", seen)
    if wanted.blocked:
        hosts = table[_HOST_COLUMN].cast(pa.string()).to_pylist()
        free = pa.chunked_array(
            [pa.array([not is_blocked(host, wanted.blocked) for host in hosts], pa.bool_())]
        )
        keep = _drop(keep, free, "blocked host", seen)
    order = url_order(urls.to_pylist())
    if wanted.sample < 1:
        chosen = order < np.uint64(int(wanted.sample * 2.0**64))
        keep = _drop(keep, pa.chunked_array([pa.array(chosen)]), "not in the sample", seen)
    columns = [files, offsets, lengths, urls, pa.array(order)]
    return pa.Table.from_arrays(columns, schema=ROWS).filter(keep)


def _inside(files: pa.ChunkedArray) -> pa.ChunkedArray:
    """Names that stay below the base: relative, without `..`, without a scheme or odd characters."""
    return pc.and_(
        pc.match_substring_regex(files, r"^[\w.~-][\w.~/=+-]*$"),
        pc.invert(pc.match_substring_regex(files, r"(^|/)\.\.(/|$)")),
    )


def _drop(before: pa.ChunkedArray, test: pa.ChunkedArray, reason: str, seen: Seen) -> pa.ChunkedArray:
    test = pc.fill_null(test, False)
    _count(seen, reason, pc.and_(before, pc.invert(test)))
    return pc.and_(before, test)


def is_blocked(host: str | None, blocked: frozenset[str]) -> bool:
    """Whether the host or a domain above it is on the list."""
    rest = (host or "").lower().rstrip(".")
    while rest:
        if rest in blocked:
            return True
        rest = rest.partition(".")[2]
    return False


def url_order(urls: Iterable[str | None]) -> np.ndarray:
    """A hash of each URL, uint64: the same on every machine, so samples of it are reproducible and nested."""
    digests = b"".join(
        hashlib.blake2b((url or "").encode("utf-8", "surrogatepass"), digest_size=8).digest() for url in urls
    )
    return np.frombuffer(digests, dtype="<u8")
