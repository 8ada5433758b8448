"""Texts in files of the rest of the world, as documents: JSON lines, Parquet, Hugging Face datasets on disk.

They are copied once, as they are, into parts like those of a corpus stage (nothing is filtered, no language
is identified), so that everything else knows one kind of documents. Read are

    .jsonl .ndjson (plain, .gz, .zst), .json.gz, .json.zst    one JSON object a line
    .parquet                                                  what the hub stores
    .arrow                                                    what `Dataset.save_to_disk` leaves

with the text in `text`, or in `content` where there is no `text` (as sets of code have it). A row's `split`
counts where it is "train" or "heldout". In a directory, file names count as on the hub: what is called
validation is held out, what is called test is left alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.documents import (
    HELD_OUT,
    KEPT,
    REJECTED,
    TRAIN,
    document_files,
    documents_schema,
    open_packed,
    write_tables,
)
from tsugiki.artifacts.files import read_json, write_json
from tsugiki.artifacts.manifest import MANIFEST
from tsugiki.errors import DataError, InputError

_LINES = ("jsonl", "ndjson", "json")
SUFFIXES = (
    *(
        f".{kind}{packed}"
        for packed in ("", ".gz", ".zst")
        for kind in _LINES
        if (kind, packed) != ("json", "")
    ),
    *(".parquet", ".arrow"),
)
TEXT_FIELDS = ("text", "content")

LINE_BYTES = 64 << 20
"""A longer line is damage: no document has so many."""

PART_BYTES = 256 << 20
"""UTF-8 bytes of text after which a new part begins: parts are tokenised, and gone on with, one by one."""

_NAMED = {
    **dict.fromkeys(("validation", "valid", "val", "dev", "heldout"), HELD_OUT),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), None),
}
"""Words of file names and the split they stand for: those that `datasets` knows (`data_files`)."""

_MARKS = (KEPT, REJECTED, MANIFEST, "job.json")
"""Any of these in a directory tells that a stage has made it: what is rejected must never pass for a text."""

_LOG = logging.getLogger(__name__)
_ROWS = 1024
_SHOWN = 10
_DAMAGE = (pa.ArrowException, OSError, ValueError, EOFError, zlib.error)


@dataclass
class Damage:
    """What could not be read: lines or rows that were passed over, and the first places in words."""

    lines: int = 0
    places: list[str] = field(default_factory=list)

    def note(self, place: str, why: str) -> None:
        """Count one, and remember it among the first."""
        self.lines += 1
        if len(self.places) < _SHOWN:
            self.places.append(f"{place}: {why}")


def is_of_a_stage(paths: Sequence[Path]) -> bool:
    """Whether this is one directory that a corpus stage has made, or has begun to make."""
    return len(paths) == 1 and any((paths[0] / name).exists() for name in _MARKS)


def as_documents(
    name: str, paths: Sequence[Path], work: Path, *, split: str = TRAIN, log: logging.Logger = _LOG
) -> Path:
    """A directory of documents with the texts of plain files; that of a corpus stage is given back itself.

    name: what the recipe calls them. split: the split of rows and files that do not say theirs. work: where
    the copy is made, in a directory of its own for every state of the files; what is there is kept.

    Raises InputError where no file of a known kind is there, DataError where not one row has a text.
    """
    if is_of_a_stage(paths):
        document_files(paths[0])  # raises where it has no documents yet
        return paths[0]
    files = plain_files(name, paths)
    facts = [[str(file), found or split, *_stamp(file)] for file, found in files]
    out = work / f"plain-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}"
    counts = [_copied(file, found or split, out, number) for number, (file, found) in enumerate(files)]
    passed = sum(count["passed_over"] for count in counts)
    places = [place for count in counts for place in count["places"]][:_SHOWN]
    documents = sum(count["documents"] for count in counts)
    if passed:
        log.warning(
            '"%s": %d of %d rows hold no text: %s', name, passed, passed + documents, "; ".join(places)
        )
    if not documents:
        raise DataError(
            f'"{name}": not one of {passed} rows holds a text ({"; ".join(places) or "the files are empty"})',
            hint='each row needs a string "text": {"text": "..."}',
        )
    log.info("%s: %d documents from %d plain files, taken as they are", name, documents, len(files))
    return out


def _stamp(file: Path) -> tuple[int, int]:
    facts = file.stat()
    return facts.st_size, facts.st_mtime_ns


def plain_files(name: str, paths: Sequence[Path]) -> list[tuple[Path, str | None]]:
    """Every file and the split that its name tells; raises InputError where there is none.

    Files that were named themselves are taken whatever they are called.
    """
    found: list[tuple[Path, str | None]] = []
    for path in paths:
        if not path.is_dir():
            found.append((path, None))
            continue
        for file in sorted(path.rglob("*")):
            inner = file.relative_to(path)
            hidden = any(part.startswith((".", "cache-")) for part in inner.parts)
            if hidden or not file.is_file() or not file.name.lower().endswith(SUFFIXES):
                continue
            words = [word for word in re.split(r"[^a-z]+", str(inner).lower()) if word in _NAMED]
            if not words or _NAMED[words[0]] is not None:
                found.append((file, _NAMED[words[0]] if words else None))
    unknown = [file for file, _ in found if not file.name.lower().endswith(SUFFIXES)]
    if unknown or not found:
        what = f"{unknown[0]} is of no known kind" if unknown else f'"{name}" holds no documents'
        raise InputError(
            f"{what}: neither a corpus stage's directory nor {', '.join(SUFFIXES)}",
            hint="name a corpus stage, or files with a text in each row",
        )
    return found


def _copied(file: Path, split: str, out: Path, number: int) -> dict[str, Any]:
    """Copy one file into parts, unless that was done; counts of it."""
    done = out / f"file-{number:05d}.json"
    if done.exists():
        return dict(read_json(done))
    damage = Damage()
    rows = _documents(file, split, damage)
    parts = documents = 0
    while first := list(islice(rows, 1)):
        path = out / KEPT / f"part-{number:05d}-{parts:05d}.parquet"
        write_tables(path, _tables(first[0], rows))
        documents += pq.read_metadata(path).num_rows
        parts += 1
    counts = {"documents": documents, "passed_over": damage.lines, "places": damage.places}
    write_json(done, counts)
    return counts


def _tables(first: dict[str, Any], rows: Iterator[dict[str, Any]]) -> Iterator[pa.Table]:
    """The tables of one part: documents until there are `PART_BYTES` of text."""
    schema = documents_schema({})
    waiting, waiting_bytes, part_bytes = [first], 0, len(first["text"])
    while part_bytes < PART_BYTES and (row := next(rows, None)) is not None:
        waiting.append(row)
        waiting_bytes += len(row["text"])
        part_bytes += len(row["text"])
        if len(waiting) == _ROWS or waiting_bytes > LINE_BYTES:
            yield pa.Table.from_pylist(waiting, schema=schema)
            waiting, waiting_bytes = [], 0
    if waiting:
        yield pa.Table.from_pylist(waiting, schema=schema)


def _documents(file: Path, split: str, damage: Damage) -> Iterator[dict[str, Any]]:
    empty = dict.fromkeys(documents_schema({}).names)
    for number, row in _rows(file, damage):
        text = next((row[key] for key in TEXT_FIELDS if isinstance(row.get(key), str)), None)
        if not text:
            damage.note(f"{file.name}, row {number}", "no text")
            continue
        given = row.get("split")
        identifier = row.get("id")
        yield empty | {
            "id": f"{file.name}:{number}" if identifier is None else str(identifier),
            "text": text.encode("utf-8", "replace").decode(),  # lone surrogates, which JSON can hold
            "split": given if given in (TRAIN, HELD_OUT) else split,
        }


def _rows(file: Path, damage: Damage) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with their numbers from 1 on; what follows a damaged place of a file is counted as one row."""
    read = {".parquet": _parquet_rows, ".arrow": _arrow_rows}.get(file.suffix.lower(), _json_rows)
    number = 0
    try:
        for number, row in enumerate(read(file), start=1):
            if isinstance(row, str):
                damage.note(f"{file.name}, row {number}", row)
            else:
                yield number, row
    except _DAMAGE as error:
        damage.note(f"{file.name} after row {number}", f"damaged from here on ({str(error)[:200]})")


def _json_rows(file: Path) -> Iterator[Mapping[str, Any] | str]:
    """Objects, or what is wrong with a line."""
    with open_packed(file) as lines:
        while line := lines.readline(LINE_BYTES + 1):
            if len(line) > LINE_BYTES:
                while line and not line.endswith(b"\n"):
                    line = lines.readline(LINE_BYTES)
                yield f"a line of more than {LINE_BYTES} bytes"
            elif line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield f"not JSON ({error})"
                else:
                    yield row if isinstance(row, dict) else "no JSON object"


def _parquet_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    with pq.ParquetFile(file) as opened:
        columns = _wanted(file, opened.schema_arrow.names)
        for batch in opened.iter_batches(batch_size=_ROWS, columns=columns):
            yield from batch.to_pylist()


def _arrow_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    with pa.memory_map(str(file)) as opened:
        reader = pa.ipc.open_stream(opened)
        columns = _wanted(file, reader.schema.names)
        for batch in reader:
            for start in range(0, batch.num_rows, _ROWS):
                yield from batch.select(columns).slice(start, _ROWS).to_pylist()


def _wanted(file: Path, names: Sequence[str]) -> list[str]:
    if not set(names) & set(TEXT_FIELDS):
        raise InputError(
            f"{file} has no column text (columns: {', '.join(names)})",
            hint="name the column with the texts text, or give files that have one",
        )
    return [name for name in (*TEXT_FIELDS, "id", "split") if name in names]
