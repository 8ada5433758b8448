"""Documents for the rest of the world: rows of `text`, `id` and `metadata` as JSONL or Parquet."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.documents import HELD_OUT, TRAIN, write_jsonl
from tsugiki.artifacts.files import atomic_path
from tsugiki.corpus.inspection.artifact import Corpus, batches, row_count
from tsugiki.errors import InputError, did_you_mean

Format = Literal["jsonl", "parquet"]
Progress = Callable[[int, int], None]

WEIGHT: Final = "weight"
SUFFIXES: Final = {".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".jsonl.zst": "jsonl", ".parquet": "parquet"}
_METADATA: Final = ("url", "host", "date", "title", "language", "language_score", "split", "cluster_size")
_ROWS: Final = 1024
_GROUP_ROWS: Final = 8192
_HASH_RANGE: Final = 2.0**64


def export_documents(
    corpus: Corpus,
    target: Path,
    *,
    format: Format | None = None,  # noqa: A002 - the word that the command line has
    split: str | None = None,
    repeat_by_weight: bool = False,
    features: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> int:
    """Write the kept documents to `target`, in stored order, atomically; the number of rows written.

    split: "train", "heldout" or None for all. repeat_by_weight: a document of weight 2.4 is written twice,
    and four in ten such documents a third time; which, depends on their ids only. features: put them into the
    metadata. The same corpus gives the same bytes.
    Raises InputError where the target exists, is of an unknown kind, or a column is missing.
    """
    chosen = _format(target, format)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists", hint="choose another name, or give --overwrite")
    if split not in {None, TRAIN, HELD_OUT}:
        raise InputError(f'there is no split "{split}"', hint=did_you_mean(str(split), [TRAIN, HELD_OUT]))
    if repeat_by_weight and WEIGHT not in corpus.columns:
        raise InputError(
            f'{corpus.directory} has no column "{WEIGHT}"',
            hint="set re-hydration weights in the corpus stage (near_duplicates), or leave the option away",
        )
    names = [*_METADATA, *([WEIGHT] if WEIGHT in corpus.columns else [])]
    names += [name for name in corpus.features if features and name not in names]
    rows = _rows(corpus, [name for name in names if name in corpus.columns], split, progress)
    counter = _Counter(_repeated(rows) if repeat_by_weight else rows)
    if chosen == "parquet":
        _write_parquet(target, counter, _schema(corpus, names))
    else:
        write_jsonl(target, counter)
    return counter.count


class _Counter:
    """Counts the rows that pass through."""

    def __init__(self, rows: Iterator[dict[str, Any]]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self._rows:
            self.count += 1
            yield row


def _format(target: Path, wanted: Format | None) -> str:
    by_name = next((kind for suffix, kind in SUFFIXES.items() if target.name.endswith(suffix)), None)
    if wanted is None and by_name is None:
        raise InputError(
            f"{target.name} does not say in which format to write", hint="end it in " + ", ".join(SUFFIXES)
        )
    if wanted is not None and by_name is not None and wanted != by_name:
        raise InputError(f"{target.name} is to be {wanted}", hint="let name and --format say the same")
    return wanted or str(by_name)


def _rows(
    corpus: Corpus, names: list[str], split: str | None, progress: Progress
) -> Iterator[dict[str, Any]]:
    total, done = row_count(corpus.kept), 0
    columns = list(dict.fromkeys(["id", "text", "source", "split", *names]))
    for file in corpus.kept:
        for batch in batches(file, columns, _ROWS):
            for row in batch.to_pylist():
                if split is None or row["split"] == split:
                    metadata = {name: _plain(row[name]) for name in names}
                    yield {"id": row["id"], "text": row["text"], "metadata": {**metadata, **_source(row)}}
            done += batch.num_rows
            progress(done, total)


def _source(row: dict[str, Any]) -> dict[str, Any]:
    source = row.get("source") or {}
    return {"file": source.get("file"), "offset": source.get("offset")}


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _repeated(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each row as often as its weight says; a fraction is decided by a hash of the id."""
    for row in rows:
        weight = row["metadata"][WEIGHT]
        whole = max(0.0, 1.0 if weight is None else float(weight))
        times = math.floor(whole)
        digest = hashlib.blake2b(f"weight\n{row['id']}".encode(), digest_size=8).digest()
        times += int.from_bytes(digest, "big") / _HASH_RANGE < whole - times
        for _ in range(times):
            yield row


def _schema(corpus: Corpus, names: list[str]) -> pa.Schema:
    """id, text and a struct of the metadata, typed as stored."""
    fields = [pa.field(name, corpus.columns[name]) for name in names if name in corpus.columns]
    fields += [pa.field("file", pa.string()), pa.field("offset", pa.int64())]
    return pa.schema([("id", pa.string()), ("text", pa.large_string()), ("metadata", pa.struct(fields))])


def _write_parquet(target: Path, rows: _Counter, schema: pa.Schema) -> None:
    with atomic_path(target) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        waiting: list[dict[str, Any]] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == _GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                waiting = []
        if waiting or not rows.count:
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
