"""Reading benchmark items: .jsonl (plain, gzip, zstd) and .parquet files whose rows hold strings."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tsugiki.errors import InputError

ID = "id"


@dataclass(frozen=True)
class Item:
    """One benchmark item: `file#id` where it has an `id`, else `file:line` (or row), and its texts."""

    id: str
    texts: tuple[str, ...]


def read_items(path: Path, fields: Sequence[str] | None = None) -> list[Item]:
    """The items of a file, in order.

    fields: those that hold texts; by default all but `id`. Strings in lists and objects count too; numbers,
    truth values and nulls hold no text.
    Raises InputError, with file and line, for what can't be read, an item without a field, and an empty file.
    """
    rows = _parquet_rows(path, fields) if path.suffix == ".parquet" else _json_rows(path)
    items = [_item(path, number, row, fields) for number, row in rows]
    if not items:
        raise InputError(f"{path} holds no benchmark item", hint="give a file with one item a line")
    return items


def _item(path: Path, number: int, row: Mapping[str, Any], fields: Sequence[str] | None) -> Item:
    names = [name for name in row if name != ID] if fields is None else fields
    missing = [name for name in names if name not in row]
    if missing:
        known = ", ".join(row) or "none"
        raise InputError(
            f'{path}, line {number}: the item has no field "{missing[0]}" (it has: {known})',
            hint="name fields that every item has, or none for all strings",
        )
    own = row.get(ID)
    known_id = isinstance(own, str | int) and not isinstance(own, bool) and own != ""
    name = f"{path.name}#{own}" if known_id else f"{path.name}:{number}"
    return Item(_valid(name), tuple(text for field in names for text in _strings(row[field])))


def _strings(value: object) -> Iterator[str]:
    """All strings in a JSON value, in order."""
    waiting = [value]
    while waiting:
        first = waiting.pop()
        if isinstance(first, str):
            yield first
        elif isinstance(first, Mapping):
            waiting.extend(reversed(list(first.values())))
        elif isinstance(first, list):
            waiting.extend(reversed(first))


def _valid(text: str) -> str:
    """Without lone surrogates, which JSON can hold and no file of results can."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    hint = "one JSON object a line, in UTF-8"
    for number, line in enumerate(_content(path).removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, line {number}: not UTF-8 ({error})", hint=hint) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not JSON ({error})", hint=hint) from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not a JSON object", hint=hint)
        yield number, row


def _content(path: Path) -> bytes:
    """The content of a file, unpacked by its ending."""
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            return gzip.decompress(data)
        return _frames(data) if path.suffix == ".zst" else data
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise InputError(
            f"the benchmark items {path} can't be read: {error}", hint="check the path and the file"
        ) from error


def _frames(data: bytes) -> bytes:
    """All zstd frames; raises EOFError where the last one is cut."""
    parts = []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        parts.append(frame.decompress(data))
        if not frame.eof:
            raise EOFError("the file ends inside of a zstd frame")
        data = frame.unused_data
    return b"".join(parts)


def _parquet_rows(path: Path, fields: Sequence[str] | None) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with pq.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            missing = [name for name in fields or () if name not in columns]
            if missing:
                raise InputError(
                    f'{path} has no column "{missing[0]}" (it has: {", ".join(columns)})',
                    hint="name columns that the file has, or none for all strings",
                )
            wanted = None if fields is None else [*fields, *([ID] if ID in columns else [])]
            rows = file.read(columns=wanted).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"the benchmark items {path} can't be read: {error}", hint="check the path and the file"
        ) from error
    yield from enumerate(rows, start=1)
