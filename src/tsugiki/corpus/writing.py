"""The final files: kept and rejected documents in canonical order, in parts of a fixed number of rows.

Which rows go into which part follows from the labels alone, so the parts are independent tasks, and any
number of workers writes the same bytes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tsugiki.artifacts.documents import HELD_OUT, KEPT, REJECTED, TRAIN, write_tables
from tsugiki.corpus.engine import Engine, run_tasks
from tsugiki.corpus.hosts.statistics import BlockedHosts, blocked_hosts
from tsugiki.corpus.neardup.index import Scheme, open_index
from tsugiki.corpus.neardup.survivors import NO_SURVIVOR, id_text, weight_of
from tsugiki.corpus.neardup.units import open_array
from tsugiki.corpus.stored import Stored, stored_at

NEAR_DUPLICATE = "near_duplicate"

_ROWS_PER_PART = 16_384
_SAMPLES = 3
_SAMPLE_CHARACTERS = 300

Sample = tuple[str, str | None, str]


@dataclass(frozen=True)
class Labels:
    """Where the labels of all documents that passed lie; every field is JSON data.

    segments: `Stored.save`. survivor, size, columns: work files of `neardup`. held_out: a file of one byte a
    document, or None. hosts: hosts.parquet. older: directories of indexes. weights: see `weight_of`.
    """

    segments: str
    survivor: str
    size: str
    ids: str
    held_out: str | None
    hosts: str
    scope: str
    older: tuple[str, ...]
    scheme: tuple[int, int, int]
    weights: tuple[tuple[int, int], ...]


@dataclass
class Summary:
    """What is counted while the parts are written."""

    documents: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def add(self, other: Mapping[str, Any]) -> None:
        """Add what a part's task returned."""
        for name in ("documents", "characters", "bytes", "reasons", "alone"):
            getattr(self, name).update(other[name])
        for reason, samples in other["samples"].items():
            best = [*self.samples.get(reason, []), *(tuple(sample) for sample in samples)]
            self.samples[reason] = sorted(best)[:_SAMPLES]

    def counts(self, records: int) -> dict[str, int]:
        """The counts of the manifest."""
        counts = {
            "documents": self.documents[KEPT],
            "characters": self.characters[KEPT],
            "bytes": self.bytes[KEPT],
            "records": records,
            "rejected": self.documents[REJECTED],
        }
        for split in (TRAIN, HELD_OUT):
            counts[f"{split}_documents"] = self.documents[split]
            counts[f"{split}_characters"] = self.characters[split]
            counts[f"{split}_bytes"] = self.bytes[split]
        return counts


def write_parts(
    part: str,
    stored: Stored,
    labels: Labels,
    root: Path,
    engine: Engine,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Summary:
    """Write `documents/` or `rejected/` below `root` from the labels, whatever an earlier try has left.

    part: KEPT or REJECTED; the rejected ones don't depend on the split.
    """
    shutil.rmtree(root / part, ignore_errors=True)
    jobs = list(_jobs(part, stored, labels, root))
    summary = Summary()
    for done, result in enumerate(run_tasks(part_task, jobs, engine), start=1):
        summary.add(result)
        progress(done, len(jobs))
    return summary


def _jobs(part: str, stored: Stored, labels: Labels, root: Path) -> Iterator[dict[str, Any]]:
    survivor = open_array(Path(labels.survivor), "<i8", (stored.count,))
    counts = []
    for number, segment in enumerate(stored.segments):
        place = stored.slice_of(number)
        kept = int((survivor[place] == np.arange(place.start, place.stop)).sum())
        counts.append(kept if part == KEPT else segment.documents - kept)
    for number, pieces in enumerate(_pieces(counts)):
        target = root / part / f"part-{number:05d}.parquet"
        yield {"labels": vars(labels), "part": part, "pieces": pieces, "target": str(target)}


def _pieces(counts: Sequence[int]) -> Iterator[list[tuple[int, int, int]]]:
    """(segment, first row, row after the last) of each part; rows are those of the segment in this part."""
    waiting: list[tuple[int, int, int]] = []
    room = _ROWS_PER_PART
    for segment, count in enumerate(counts):
        start = 0
        while start < count:
            stop = min(count, start + room)
            waiting.append((segment, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield waiting
                waiting, room = [], _ROWS_PER_PART
    if waiting:
        yield waiting


def part_task(job: dict[str, Any]) -> dict[str, Any]:
    """Write one part, a row group in memory at a time; returns what it counted, as JSON data."""
    labels = _labels(job["labels"])
    summary = Summary()

    def tables() -> Iterator[pa.Table]:
        for piece in job["pieces"]:
            for table in _rows_of(labels, job["part"], *piece):
                _count(job["part"], table, summary)
                yield table

    write_tables(Path(job["target"]), tables())
    return vars(summary)


def _rows_of(labels: Labels, part: str, number: int, start: int, stop: int) -> Iterator[pa.Table]:
    """Rows `start` to `stop` of those of a segment that belong into `part`, one row group at a time."""
    place = 0
    for table in complete(labels, number):
        empty = pc.equal(pc.list_value_length(table["rejected_by"]), 0)
        chosen = table.filter(empty if part == KEPT else pc.invert(empty))
        first, last = max(start - place, 0), min(stop - place, chosen.num_rows)
        place += chosen.num_rows
        if first < last:
            yield chosen.slice(first, last - first)
        if place >= stop:
            return


def _labels(data: Mapping[str, Any]) -> Labels:
    lists = {"older": tuple(data["older"]), "scheme": tuple(data["scheme"])}
    return Labels(**{**data, **lists, "weights": tuple(map(tuple, data["weights"]))})


def complete(labels: Labels, number: int) -> Iterator[pa.Table]:
    """A segment's row groups with the columns of clusters, split and weight, and the last reasons."""
    stored = stored_at(labels.segments)
    segment, place = stored.segments[number], stored.slice_of(number)
    passed = segment.records()["row"]
    with pq.ParquetFile(segment.table) as file:
        start = done = 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            stop = start + table.num_rows
            count = int(np.searchsorted(passed, stop)) - done
            rows = (passed[done : done + count] - start).tolist()
            first = place.start + done
            yield _labelled(labels, table, rows, slice(first, first + count))
            start, done = stop, done + count


def _labelled(labels: Labels, table: pa.Table, rows: list[int], place: slice) -> pa.Table:
    """Fill in the columns for `rows`, which hold the documents numbered `place`."""
    if not rows:
        return table
    count = stored_at(labels.segments).count
    survivor = open_array(Path(labels.survivor), "<i8", (count,))[place]
    size = open_array(Path(labels.size), "<i8", (count,))[place]
    alive = survivor == np.arange(place.start, place.stop)
    columns: dict[str, list[Any]] = {
        "cluster": _cluster_ids(labels, survivor),
        "cluster_size": size.tolist(),
        "survivor": alive.tolist(),
        "split": _splits(labels, place, alive),
        "weight": [
            weight if kept else None
            for weight, kept in zip(weight_of(size, labels.weights).tolist(), alive.tolist(), strict=True)
        ],
    }
    return _with_columns(table, rows, columns, _late_reasons(labels, table, rows, survivor, alive))


def _with_columns(
    table: pa.Table, rows: Sequence[int], columns: Mapping[str, list[Any]], reasons: Sequence[list[str]]
) -> pa.Table:
    for name, values in columns.items():
        whole: list[Any] = [None] * table.num_rows
        for row, value in zip(rows, values, strict=True):
            whole[row] = value
        table = _replaced(table, name, whole)
    known = table["rejected_by"].to_pylist()
    for row, found in zip(rows, reasons, strict=True):
        known[row] = found
    return _replaced(table, "rejected_by", known)


def _replaced(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    place = table.schema.get_field_index(name)
    field_ = table.schema.field(place)
    return table.set_column(place, field_, pa.array(values, field_.type))


def _cluster_ids(labels: Labels, survivor: npt.NDArray[np.int64]) -> list[str | None]:
    """The ids of the survivors; those of earlier corpora from their indexes."""
    stored = stored_at(labels.segments)
    ids = open_array(Path(labels.ids), "<u8", (stored.count, 2))
    older = [open_index(Path(place), Scheme(*labels.scheme)) for place in labels.older]
    found: list[str | None] = []
    for node in survivor.tolist():
        if node == NO_SURVIVOR:
            found.append(None)
            continue
        words, rest = ids, node
        for index in older:
            if rest < words.shape[0]:
                break
            rest -= words.shape[0]
            words = index.ids
        found.append(id_text(words[rest]))
    return found


def _splits(labels: Labels, place: slice, alive: npt.NDArray[np.bool_]) -> list[str | None]:
    count = stored_at(labels.segments).count
    held = open_array(Path(labels.held_out), "|b1", (count,))[place] if labels.held_out else alive & False
    return [
        (HELD_OUT if out else TRAIN) if kept else None
        for out, kept in zip(held.tolist(), alive.tolist(), strict=True)
    ]


def _late_reasons(
    labels: Labels,
    table: pa.Table,
    rows: list[int],
    survivor: npt.NDArray[np.int64],
    alive: npt.NDArray[np.bool_],
) -> list[list[str]]:
    """Reasons that only the whole corpus knows: another document survives, or the host is blocked."""
    blocked = _blocked(labels.hosts, labels.scope, Path(labels.hosts).stat().st_mtime_ns)
    hosts = table["host"].take(pa.array(rows))
    marked = blocked.mark(hosts) if len(blocked) else [()] * len(rows)
    found = []
    for node, kept, why in zip(survivor.tolist(), alive.tolist(), marked, strict=True):
        duplicate = [] if kept or node == NO_SURVIVOR else [NEAR_DUPLICATE]
        found.append([*duplicate, *why])
    return found


@cache
def _blocked(path: str, scope: Any, _written: int) -> BlockedHosts:
    return blocked_hosts(Path(path), scope)


def _count(part: str, table: pa.Table, summary: Summary) -> None:
    summary.documents[part] += table.num_rows
    if part == KEPT:
        for split, text in zip(table["split"].to_pylist(), table["text"].to_pylist(), strict=True):
            size = len(text.encode())
            for name in (KEPT, split):
                summary.characters[name] += len(text)
                summary.bytes[name] += size
            summary.documents[split] += 1
    else:
        _count_reasons(table, summary)


def _count_reasons(table: pa.Table, summary: Summary) -> None:
    """Count the reasons of documents that had passed, and keep samples of all: the smallest ids."""
    columns = (table["rejected_by"].to_pylist(), table["id"].to_pylist(), table["url"].to_pylist())
    passed = table["survivor"].is_valid().to_pylist()
    for row, (reasons, name, url) in enumerate(zip(*columns, strict=True)):
        if passed[row]:
            summary.reasons.update(reasons)
            summary.alone.update(reasons if len(reasons) == 1 else ())
        for reason in reasons:
            best = summary.samples.setdefault(reason, [])
            if len(best) < _SAMPLES or name < best[-1][0]:
                text = table["text"][row].as_py()[:_SAMPLE_CHARACTERS]
                best.append((name, url, text))
                best.sort()
                del best[_SAMPLES:]
