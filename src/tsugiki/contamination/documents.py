"""Documents one at a time, of whatever they are stored in; what is damaged is counted and passed over."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.documents import iterate_documents, open_packed
from tsugiki.artifacts.plain import LINE_BYTES, Damage
from tsugiki.errors import InputError


def iterate_texts(sources: Sequence[Path], damage: Damage) -> Iterator[tuple[str, str]]:
    """(id, text) of every document, in stored order.

    A directory with `documents/` is an artifact of the corpus stage (its training split); any other is
    searched for files. Files: .jsonl, .json.gz, .jsonl.gz, .jsonl.zst with `text`; .parquet with `text`;
    anything else is one document. Raises InputError where a source does not exist or holds no file at all.
    """
    for source in sources:
        if (source / "documents").is_dir():
            for row in iterate_documents(source, split="train", columns=["id", "text"]):
                yield row["id"], row["text"] or ""
            continue
        files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        if not files or not source.exists():
            raise InputError(f"{source} holds no documents", hint="name a corpus, a folder or files")
        for file in files:
            yield from _file(file, damage)


def _file(path: Path, damage: Damage) -> Iterator[tuple[str, str]]:
    suffixes = set(path.suffixes[-2:])
    if path.suffix == ".parquet":
        yield from _parquet(path, damage)
    elif suffixes & {".jsonl", ".json"}:
        yield from _lines(path, damage)
    else:
        with open_packed(path) as file:
            yield path.name, file.read().decode("utf-8", "replace")


def _parquet(path: Path, damage: Damage) -> Iterator[tuple[str, str]]:
    try:
        with pq.ParquetFile(path) as file:
            names = set(file.schema_arrow.names)
            if "text" not in names:
                raise InputError(f"{path} has no column `text`", hint="name files of documents")
            number = 0
            for batch in file.iter_batches(1024, columns=[name for name in ("id", "text") if name in names]):
                for row in batch.to_pylist():
                    number += 1
                    yield str(row.get("id") or f"{path.name}:{number}"), row["text"] or ""
    except (pa.ArrowException, OSError) as error:
        damage.note(str(path), str(error).split("\n", maxsplit=1)[0])


def _lines(path: Path, damage: Damage) -> Iterator[tuple[str, str]]:
    number = 0
    try:
        with open_packed(path) as file:
            while line := file.readline(LINE_BYTES):
                number += 1
                place = f"{path.name}:{number}"
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    text = row["text"]
                except (ValueError, RecursionError, KeyError, TypeError) as error:
                    damage.note(place, f"{type(error).__name__}: {error}")
                    continue
                if isinstance(text, str):
                    name = row.get("id")
                    yield (str(name) if isinstance(name, str | int) else place), text
                else:
                    damage.note(place, f"`text` is {type(text).__name__}")
    except (OSError, EOFError, zlib.error) as error:
        damage.note(f"{path.name}:{number + 1}", str(error))
