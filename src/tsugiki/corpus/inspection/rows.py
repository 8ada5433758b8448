"""Finding documents in a corpus by what they are, and fetching whole rows by their place."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tsugiki.corpus.inspection.artifact import Corpus, batches, reading
from tsugiki.errors import InputError, did_you_mean

_ROWS: Final = 1 << 16
_TEXT_ROWS: Final = 2048
"""Rows at a time where texts are read too, so that memory stays bounded."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Place:
    """A row of a part."""

    file: Path
    row: int


@dataclass(frozen=True)
class Selection:
    """Which documents: all conditions that are given must hold.

    id: the id or its beginning. url: a part of it, any case. host: the host or one that it is a sub-domain
    of. reason: a reason, or the beginning of one (`hiragana_share` stands for `hiragana_share<0.2`).
    part: "documents" (kept), "rejected", or None for both. contains: a part of the text. cluster: the
    survivor's id.
    """

    id: str | None = None
    url: str | None = None
    host: str | None = None
    reason: str | None = None
    part: str | None = None
    contains: str | None = None
    cluster: str | None = None

    @property
    def columns(self) -> list[str]:
        """What has to be read to decide."""
        needed = {
            "url": self.url,
            "host": self.host,
            "rejected_by": self.reason,
            "text": self.contains,
            "cluster": self.cluster,
        }
        return ["id", *(name for name, value in needed.items() if value is not None)]


@dataclass(frozen=True)
class Found:
    """The places to show and how many documents match in all."""

    places: tuple[Place, ...]
    matching: int


def find(corpus: Corpus, selection: Selection, limit: int, seed: int | None = None) -> Found:
    """The first `limit` matching documents in stored order; with a seed, that many chosen at random.

    The choice depends on the seed and the documents' ids only. Raises InputError for a reason that no
    document has.
    """
    matching = 0
    places: list[Place] = []
    best: list[tuple[bytes, Place]] = []
    for file, first, batch in _scan(corpus, selection):
        rows = np.flatnonzero(_matches(batch, selection))
        matching += len(rows)
        if seed is None:
            places += [Place(file, first + row) for row in rows[: max(0, limit - len(places))].tolist()]
        elif len(rows):
            ids = batch.column("id").take(pa.array(rows)).to_pylist()
            drawn = (
                (_draw(seed, name), Place(file, first + row))
                for name, row in zip(ids, rows.tolist(), strict=True)
            )
            best = heapq.nsmallest(limit, [*best, *drawn], key=lambda pair: pair[0])
    if not matching and selection.reason is not None:
        _check_reason(corpus, selection.reason)
    return Found(tuple(places) if seed is None else tuple(place for _, place in best), matching)


def _draw(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}\n{name}".encode(), digest_size=16).digest()


def _scan(corpus: Corpus, selection: Selection) -> Iterator[tuple[Path, int, pa.RecordBatch]]:
    files = [file for file in corpus.files if selection.part in {None, file.parent.name}]
    rows = _ROWS if selection.contains is None else _TEXT_ROWS
    for file in files:
        first = 0
        for batch in batches(file, selection.columns, rows):
            yield file, first, batch
            first += batch.num_rows


def _matches(batch: pa.RecordBatch, selection: Selection) -> Mask:
    """The rows for which every condition holds; shape (rows,)."""
    mask = np.ones(batch.num_rows, bool)
    tests: list[tuple[str | None, Callable[[str], pa.Array]]] = [
        (selection.id, lambda value: pc.starts_with(batch.column("id"), value)),
        (selection.cluster, lambda value: pc.equal(batch.column("cluster"), value)),
        (selection.url, lambda value: pc.match_substring(batch.column("url"), value, ignore_case=True)),
        (selection.host, lambda value: _on_host(batch.column("host"), value)),
        (selection.contains, lambda value: pc.match_substring(batch.column("text"), value)),
    ]
    for value, test in tests:
        if value is not None:
            mask &= pc.fill_null(test(value), False).to_numpy(zero_copy_only=False)
    if selection.reason is not None:
        mask &= _has_reason(batch.column("rejected_by"), selection.reason)
    return mask


def _on_host(hosts: pa.Array, name: str) -> pa.Array:
    name = name.lower()
    return pc.or_kleene(pc.equal(hosts, name), pc.ends_with(hosts, f".{name}"))


def _has_reason(reasons: pa.ListArray, wanted: str) -> Mask:
    flat = pc.list_flatten(reasons)
    encoded = flat if pa.types.is_dictionary(flat.type) else flat.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    exact = np.array([name is not None and name.startswith(wanted) for name in names], bool)
    mask = np.zeros(len(reasons), bool)
    if len(encoded):
        parents = pc.list_parent_indices(reasons).to_numpy(zero_copy_only=False)
        mask[parents[exact[encoded.indices.to_numpy(zero_copy_only=False)]]] = True
    return mask


def _check_reason(corpus: Corpus, wanted: str) -> None:
    known: set[str] = set()
    for file in corpus.rejected:
        for batch in batches(file, ["rejected_by"], _ROWS):
            encoded = pc.list_flatten(batch.column("rejected_by"))
            known.update(filter(None, pc.unique(encoded).to_pylist()))
    if not any(name.startswith(wanted) for name in known):
        raise InputError(f'no document was rejected by "{wanted}"', hint=did_you_mean(wanted, sorted(known)))


def fetch(places: Sequence[Place], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows at `places`, in that order; only the row groups that hold one are read."""
    rows: dict[Place, dict[str, Any]] = {}
    for file in dict.fromkeys(place.file for place in places):
        wanted = sorted({place.row for place in places if place.file == file})
        with reading(file) as parquet:
            for first, group, size in _groups(parquet.metadata):
                inside = [row - first for row in wanted if first <= row < first + size]
                if inside:
                    table = parquet.read_row_group(group, columns=columns).take(pa.array(inside))
                    found = [Place(file, first + row) for row in inside]
                    rows.update(zip(found, table.to_pylist(), strict=True))
    return [rows[place] for place in places]


def _groups(metadata: Any) -> Iterator[tuple[int, int, int]]:
    """(first row, number, rows) of each row group."""
    first = 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        yield first, group, size
        first += size
