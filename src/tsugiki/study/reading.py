"""Tables as files: CSV, TSV, JSON, JSON lines and Parquet, into columns and rows of text and numbers."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tsugiki.errors import InputError

Cell = str | float | None
_LARGEST: Final = 100_000_000
"""Bytes of a table. One of 100,000 models and 100 benchmarks takes less; larger files are something else."""
_ABSENT: Final = frozenset(("", "-", "–", "—", "−", "n/a", "na", "nan", "none", "null", "?", "..."))
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SHOWN: Final = 10


@dataclass(frozen=True)
class RawTable:
    """A table as it was read. rows: one tuple a row, as long as `columns`; None where a cell is empty."""

    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def column(self, name: str) -> list[Cell]:
        """All cells of a column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def read_raw(path: Path) -> RawTable:
    """Read a table by its file's suffix.

    JSON is a list of objects, or an object of objects ({model: {benchmark: score}}, whose outer keys become
    the column "model"). Raises InputError for a missing, broken, empty or unknown file, a repeated column
    and a row that is longer than the heading.
    """
    readers: dict[str, Callable[[Path], RawTable]] = {
        ".csv": _read_separated,
        ".tsv": _read_separated,
        ".json": _read_json,
        ".jsonl": _read_json_lines,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is no table", hint=f"give a file that ends in {', '.join(readers)}")
    if not path.is_file():
        raise InputError(f"{path} does not exist", hint="check the path")
    if path.stat().st_size > _LARGEST:
        raise InputError(
            f"{path} has {path.stat().st_size:,} bytes; a table of scores has at most {_LARGEST:,}",
            hint="give one row a model, not one an item",
        )
    table = reader(path)
    _check(table)
    return table


def _check(table: RawTable) -> None:
    repeated = sorted({name for name in table.columns if table.columns.count(name) > 1})
    if repeated:
        raise InputError(
            f"{table.source}: columns of the same name: {listed(repeated)}", hint="give each its own name"
        )
    if "" in table.columns:
        raise InputError(
            f"{table.source}: column {table.columns.index('') + 1} has no name", hint="name every column"
        )
    if not table.rows:
        raise InputError(f"{table.source} has no rows", hint="give a table with a row for each model")


def listed(names: Sequence[str], most: int = _SHOWN) -> str:
    """Names for a message: the first few, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}", hint="save the table as UTF-8") from error


def _read_separated(path: Path) -> RawTable:
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        lines = list(csv.reader(io.StringIO(_text_of(path), newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise InputError(
            f"{path} can't be read as a table: {error}", hint="check quotes and separators"
        ) from error
    lines = [line for line in lines if any(cell.strip() for cell in line)]
    if not lines:
        raise InputError(f"{path} is empty", hint="give a table with a heading and a row for each model")
    heading = tuple(name.strip() for name in lines[0])
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(heading):
            raise InputError(
                f"{path}: row {number} has {len(line)} cells, the heading has {len(heading)}",
                hint="write an empty cell where a score is missing, and quote names that hold a separator",
            )
    rows = tuple(tuple(cell_of(cell) for cell in line) for line in lines[1:])
    return RawTable(str(path), heading, rows)


def cell_of(value: Any) -> Cell:
    """A cell as a number where it is one, as None where it says that there is none, else as text.

    A true or false is 1 or 0; NaN is "none"; infinity stays text, so that it is listed as no score.
    """
    if value is None:
        return None
    if isinstance(value, int | float):
        return None if isinstance(value, float) and math.isnan(value) else _finite(value)
    text = str(value).strip()
    if text.casefold() in _ABSENT:
        return None
    if not _NUMBER.fullmatch(text):
        return text
    return _finite(float(text))


def _finite(value: float) -> float | str:
    try:
        number = float(value)
    except OverflowError:
        return str(value)
    return number if math.isfinite(number) else str(value)


def _of_records(source: str, records: Sequence[Any]) -> RawTable:
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            raise InputError(
                f"{source}: entry {number} is no object", hint='write [{"model": "a", "MMLU": 0.5}, ...]'
            )
    names = tuple(dict.fromkeys(str(name).strip() for record in records for name in record))
    rows = []
    for record in records:
        stripped = {str(name).strip(): value for name, value in record.items()}
        rows.append(tuple(cell_of(stripped.get(name)) for name in names))
    return RawTable(source, names, tuple(rows))


def _read_json(path: Path) -> RawTable:
    try:
        value = json.loads(_text_of(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}", hint="check the file") from error
    if isinstance(value, Mapping) and value and all(isinstance(row, Mapping) for row in value.values()):
        value = [{"model": name, **row} for name, row in value.items()]
    if not isinstance(value, list):
        raise InputError(f"{path} holds no list of objects", hint='write [{"model": "a", "MMLU": 0.5}, ...]')
    return _of_records(str(path), value)


def _read_json_lines(path: Path) -> RawTable:
    records = []
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except (json.JSONDecodeError, RecursionError) as error:
                raise InputError(
                    f"{path}: line {number} is not valid JSON: {error}", hint="write one object a line"
                ) from error
    return _of_records(str(path), records)


def _read_parquet(path: Path) -> RawTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} can't be read as Parquet: {error}", hint="check the file") from error
    columns = [[cell_of(cell) for cell in column.to_pylist()] for column in table.columns]
    return RawTable(str(path), tuple(table.column_names), tuple(zip(*columns, strict=True)))
