"""Reading JSON, JSON lines (gzip too), CSV, TSV, XML and Parquet, with the place of every fault."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.parsers import expat

import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.errors import InputError

Record = dict[str, Any]

MAXIMUM_BYTES = 1 << 30
"""Unpacked; the largest file of the nineteen, TriviaQA's, has 50 MB."""
HINT = "fetch the file again, or compare it with the format that the task's file names"


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where its name ends in .gz; InputError for a damaged or huge one."""
    try:
        if path.suffix != ".gz":
            if path.stat().st_size > MAXIMUM_BYTES:
                raise InputError(f"{path} is larger than {MAXIMUM_BYTES} bytes", hint=HINT)
            return path.read_bytes()
        with gzip.open(path) as file:
            data = file.read(MAXIMUM_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} can't be read: {error}", hint=HINT) from error
    if len(data) > MAXIMUM_BYTES:
        raise InputError(f"{path} unpacks to more than {MAXIMUM_BYTES} bytes", hint=HINT)
    return data


def read_text(path: Path) -> str:
    """A UTF-8 text, without a byte order mark."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: not UTF-8", hint=HINT) from error


def read_json(path: Path) -> Any:
    """One JSON value."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})", hint=HINT) from error


def rows(path: Path) -> Iterator[tuple[str, Record]]:
    """(place, row) for each row of .jsonl, .jsonl.gz, .json (a list) or .parquet; JSON lines in .json too."""
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    text = read_text(path)
    if path.suffix == ".json" and text.lstrip().startswith("["):
        for number, row in enumerate(read_json(path), start=1):
            yield f"{path}, item {number}", _mapping(row, f"{path}, item {number}")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{place}: not JSON ({error})", hint=HINT) from error
            yield place, _mapping(row, place)


def _mapping(row: object, place: str) -> Record:
    if not isinstance(row, dict):
        raise InputError(f"{place}: an object is expected, not {type(row).__name__}", hint=HINT)
    return row


def _parquet_rows(path: Path) -> Iterator[tuple[str, Record]]:
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as Parquet: {error}", hint=HINT) from error


def table(path: Path, columns: int, *, tabs: bool = False) -> Iterator[tuple[str, list[str]]]:
    """(place, cells) for each line of a CSV file (RFC 4180) or, with `tabs`, of TSV without quoting."""
    text = io.StringIO(read_text(path), newline="")
    kind: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {"strict": True}
    reader = csv.reader(text, **kind)
    try:
        for cells in reader:
            place = f"{path}, line {reader.line_num}"
            if cells and len(cells) < columns:
                raise InputError(f"{place}: {len(cells)} cells, {columns} are expected", hint=HINT)
            if cells:
                yield place, cells
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})", hint=HINT) from error


def field(row: Mapping[str, Any], name: str, kind: type | tuple[type, ...], place: str) -> Any:
    """row[name] of the type `kind`; raises InputError that names the place, what is there and what is not."""
    value = row.get(name)
    if name not in row or not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        seen = f"{type(value).__name__} {value!r:.60}" if name in row else "nothing"
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(each.__name__ for each in kinds)
        raise InputError(
            f'{place}: "{name}" should be {wanted}, and is {seen} (it has: {", ".join(row) or "nothing"})',
            hint=HINT,
        )
    return value


def elements(path: Path, wanted: str) -> list[tuple[int, dict[str, Any]]]:  # noqa: C901 (expat's handlers)
    """(line, element) for each XML element `wanted`: {"attributes", "children": [(name, text), ...]}.

    Text is joined over the element's whole subtree, by the path of names below `wanted` ("answers/answer").
    Entities can't be declared: a few lines of them can stand for gigabytes ("billion laughs"), or name files.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    found: list[tuple[int, dict[str, Any]]] = []
    open_names: list[str] = []
    texts: list[tuple[str, list[str]]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == wanted and not open_names:
            found.append((parser.CurrentLineNumber, {"attributes": attributes, "children": []}))
            open_names.append(name)
        elif open_names:
            open_names.append(name)
            texts.append(("/".join(open_names[1:]), []))

    def end(_: str) -> None:
        if not open_names:
            return
        open_names.pop()
        if texts:
            path_of, parts = texts.pop()
            found[-1][1]["children"].append((path_of, "".join(parts).strip()))

    def characters(data: str) -> None:
        if texts:
            texts[-1][1].append(data)

    def refuse(*_: object) -> None:
        raise InputError(
            f"{path}, line {parser.CurrentLineNumber}: the XML declares entities, which no benchmark needs",
            hint="the file has been tampered with; fetch it again",
        )

    handlers: dict[str, Callable[..., None]] = {
        "StartElementHandler": start,
        "EndElementHandler": end,
        "CharacterDataHandler": characters,
        "EntityDeclHandler": refuse,
    }
    for name, handler in handlers.items():
        setattr(parser, name, handler)
    try:
        parser.Parse(read_bytes(path), True)
    except expat.ExpatError as error:
        raise InputError(f"{path}, line {error.lineno}: not XML ({error})", hint=HINT) from error
    return found
