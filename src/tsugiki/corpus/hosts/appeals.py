"""Why was this host blocked? A sample that lets a person judge.

For each blocked host (the largest first, a limited number of them): a few documents that counted against it,
each with the expression that was found and the text round it, and one document that did not. Of the documents
the ones with the smallest ids are taken, so the sample depends on the corpus alone, not on its order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tsugiki.artifacts.documents import write_jsonl
from tsugiki.corpus.hosts.statistics import DATING, NG, Scope, scoped_name
from tsugiki.errors import InputError

KINDS = {"dating": DATING, "ng": NG}
"""Kinds of evidence and the column that counts it; `none` is a document without any."""
_NONE = "none"

Finder = Callable[[str], tuple[int, int] | None]
"""Where in a text an expression stands (start, stop), or None."""


@dataclass(frozen=True)
class AppealSettings:
    """How much is shown."""

    documents: int = 3
    """For each host and each reason."""
    hosts: int = 200
    characters: int = 80
    """Of text on each side of the expression."""


@dataclass(frozen=True, order=True)
class _Evidence:
    """One document; ordered so that the heap's first is the one with the largest id."""

    rank: tuple[int, ...]
    row: Mapping[str, Any] = field(compare=False)


def word_finder(entries: Iterable[str]) -> Finder:
    """Finds the first entry in a text; of several at one place the longest. Case counts."""
    words = sorted({word for word in entries if word}, key=lambda word: (-len(word), word))

    def find(text: str) -> tuple[int, int] | None:
        best: tuple[int, int] | None = None
        for word in words:
            start = text.find(word) if best is None else text.find(word, 0, best[0] + len(word) - 1)
            if start >= 0 and (best is None or start < best[0]):
                best = start, start + len(word)
        return best

    return find


def collect_appeals(
    documents: Iterable[pa.Table],
    hosts: Path,
    finders: Mapping[str, Finder],
    settings: AppealSettings | None = None,
    scope: Scope = "host",
) -> list[dict[str, Any]]:
    """One row a sampled document, sorted by size of the host, kind of evidence and id.

    documents: tables with `id`, `url`, `host`, `text` and the columns of `KINDS` that there are; they are
    streamed, and only windows of text are kept. hosts: `hosts.parquet`. finders: by kind.
    """
    settings = settings or AppealSettings()
    blocked = _largest(hosts, settings.hosts)
    best: dict[tuple[str, str], list[_Evidence]] = {}
    for table in documents:
        for host, row in _rows_of(table, blocked, scope):
            for kind in _kinds(row):
                limit = 1 if kind == _NONE else settings.documents
                _offer(best.setdefault((host, kind), []), row, limit, _window(kind, finders, settings))
    order = {host: place for place, host in enumerate(blocked)}
    kinds = {kind: place for place, kind in enumerate((*KINDS, _NONE))}
    rows = []
    for host, kind in sorted(best, key=lambda key: (order[key[0]], kinds[key[1]])):
        found = sorted((evidence.row for evidence in best[host, kind]), key=lambda row: row["id"])
        facts = {name: blocked[host][name] for name in ("documents", "blocked_by")}
        rows += [{"host": host, **facts, "kind": kind, **row} for row in found]
    return rows


def write_appeals(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the sample as JSON lines."""
    write_jsonl(path, rows)


def _largest(path: Path, limit: int) -> dict[str, dict[str, Any]]:
    """The blocked hosts with the most documents, the largest first; equal ones by name."""
    heap: list[tuple[int, tuple[int, ...], dict[str, Any]]] = []
    try:
        for batch in pq.ParquetFile(path).iter_batches():
            blocked = batch.filter(pc.greater(pc.list_value_length(batch.column("blocked_by")), 0))
            for row in blocked.to_pylist():
                entry = (row["documents"], _backwards(row["host"]), row)
                if len(heap) < limit:
                    heapq.heappush(heap, entry)
                elif heap and entry[:2] > heap[0][:2]:
                    heapq.heapreplace(heap, entry)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} can't be read: {error}", hint="make it again") from error
    ordered = sorted(heap, key=lambda entry: entry[:2], reverse=True)
    return {row["host"]: row for _, _, row in ordered}


def _backwards(name: str) -> tuple[int, ...]:
    """A key that orders names from the last to the first; a name's beginning comes after it."""
    return (*(-ord(character) for character in name), 1)


def _rows_of(
    table: pa.Table, blocked: Mapping[str, Any], scope: Scope
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The documents of a table that lie on a listed host; only these become Python objects."""
    names = {
        host: scoped_name(host, scope) for host in pc.unique(table["host"]).to_pylist() if host is not None
    }
    wanted = [host for host, name in names.items() if name in blocked]
    if not wanted:
        return
    columns = ["id", "url", "host", "text", *(c for c in KINDS.values() if c in table.column_names)]
    chosen = table.select(columns).filter(pc.is_in(table["host"], pa.array(wanted, table["host"].type)))
    for batch in chosen.to_batches(max_chunksize=256):
        for row in batch.to_pylist():
            yield names[row["host"]], row


def _kinds(row: Mapping[str, Any]) -> list[str]:
    return [kind for kind, column in KINDS.items() if (row.get(column) or 0) > 0] or [_NONE]


def _offer(
    heap: list[_Evidence], row: Mapping[str, Any], limit: int, window: Callable[[str], dict[str, Any]]
) -> None:
    """Keep the documents with the smallest ids; the text is only searched where it is kept."""
    rank = _backwards(row["id"])
    if len(heap) >= limit and (not heap or rank <= heap[0].rank):
        return
    evidence = _Evidence(rank, {"id": row["id"], "url": row["url"], **window(row["text"])})
    if len(heap) < limit:
        heapq.heappush(heap, evidence)
    else:
        heapq.heapreplace(heap, evidence)


def _window(
    kind: str, finders: Mapping[str, Finder], settings: AppealSettings
) -> Callable[[str], dict[str, Any]]:
    def window(text: str) -> dict[str, Any]:
        find = finders.get(kind)
        found = find(text) if find else None
        if found is None:
            return {"expression": None, "text": text[: 2 * settings.characters]}
        start, stop = found
        around = text[max(0, start - settings.characters) : stop + settings.characters]
        return {"expression": text[start:stop], "text": around}

    return window
