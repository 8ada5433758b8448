"""Statistics of hosts over the whole corpus, and which hosts they block.

Swallow drops every page of a host if the share of its pages with a dating-site name is above .001, or the
share with an NG expression above .005 (arXiv:2404.17733; corpus.md §1.5); its code for that was never
released. Shares are compared strictly. Note what that means for small hosts: with fewer than 1,000 pages (200
for NG expressions) a single page decides, so on most hosts of a small corpus the rule is one of zero
tolerance. `minimum_documents` leaves hosts alone until so many pages are known; the paper's value is 1.

Each work unit is aggregated alone (`partial`), and the partial tables are merged range by range of host names
(`merge`), so that memory is bounded by one range whatever the number of hosts.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from tsugiki.artifacts.files import atomic_path
from tsugiki.corpus.hosts import kernels
from tsugiki.corpus.hosts.names import comparable_host, site_of
from tsugiki.corpus.hosts.sources import key_of
from tsugiki.errors import InputError

DATING = "dating_names"
NG = "ng_expressions"
"""Columns of the documents: how often dating sites are named, how many NG expressions there are."""

COUNTS = ("documents", "characters", "dating_documents", "ng_documents")
PARTIAL_SCHEMA = pa.schema(
    [pa.field("host", pa.string(), nullable=False), *((n, pa.int64()) for n in COUNTS)]
)
SCHEMA = PARTIAL_SCHEMA.append(pa.field("blocked_by", pa.list_(pa.string())))

_ROWS_PER_RANGE = 1_000_000
_SAMPLES_PER_RANGE = 64
_ROW_GROUP = 65_536

Scope = Literal["host", "domain"]
Share = Annotated[float, Field(ge=0, le=1)]


class HostRules(BaseModel):
    """When a host is blocked. None turns a rule off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dating_share: Share | None = 0.001
    """Blocked where more than this share of the documents names a dating site."""
    ng_share: Share | None = 0.005
    """Blocked where more than this share of the documents holds an NG expression."""
    minimum_documents: int = Field(default=1, ge=1)
    """Hosts with fewer documents are left alone."""
    scope: Scope = "host"
    """What counts as one: the whole name, or the registered domain (`a.example.jp` -> `example.jp`)."""

    def reasons(self) -> dict[str, tuple[str, float]]:
        """For each rule in use its reason, with the column that it counts and the threshold."""
        rules = (("dating", self.dating_share), ("ng", self.ng_share))
        return {
            f"host:{name}_share>{share:g}": (f"{name}_documents", share)
            for name, share in rules
            if share is not None
        }


@dataclass(frozen=True)
class HostSummary:
    """Totals over all hosts; `reasons` counts hosts, of which some have two."""

    hosts: int
    documents: int
    blocked_hosts: int
    blocked_documents: int
    reasons: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """As plain data, for a stage's facts."""
        return dict(vars(self))


def partial(table: pa.Table, scope: Scope = "host") -> pa.Table:
    """The hosts of some documents with their counts (`PARTIAL_SCHEMA`), sorted by host.

    table: columns `host` and `text`, or `letters` in its place; `dating_names` and `ng_expressions` where the
    pack has such lists (without the column nothing is counted). A document without a host counts under "".
    """
    hosts = _scoped(table["host"], scope)
    if "letters" in table.column_names:
        characters = pc.fill_null(table["letters"], 0)
    else:
        characters = pc.utf8_length(table["text"])
    columns = {
        "host": hosts,
        "documents": pa.array(np.ones(table.num_rows, np.int64)),
        "characters": characters.cast(pa.int64()),
        "dating_documents": _hits(table, DATING),
        "ng_documents": _hits(table, NG),
    }
    return _grouped(pa.table(columns))


def write_partial(path: Path, table: pa.Table) -> None:
    """Write what `partial` gave, atomically."""
    with atomic_path(path) as aside:
        pq.write_table(table, aside, compression="zstd", row_group_size=_ROW_GROUP)


def _scoped(hosts: pa.ChunkedArray, scope: Scope) -> pa.ChunkedArray:
    """The names that are counted: each distinct host is looked at once."""
    coded = pc.dictionary_encode(pc.fill_null(hosts, "")).unify_dictionaries()
    chunks = []
    for chunk in coded.chunks:
        names = [scoped_name(host, scope) for host in chunk.dictionary.to_pylist()]
        chunks.append(pa.array(names, pa.string()).take(chunk.indices))
    return pa.chunked_array(chunks, pa.string())


def scoped_name(host: str, scope: Scope) -> str:
    """The name under which a host is counted; empty for what is no host."""
    comparable = comparable_host(host) or ""
    return site_of(comparable) if scope == "domain" and comparable else comparable


def _hits(table: pa.Table, column: str) -> pa.Array | pa.ChunkedArray:
    if column not in table.column_names:
        return pa.array(np.zeros(table.num_rows, np.int64))
    return pc.greater(pc.fill_null(table[column], 0), 0).cast(pa.int64())


def _grouped(table: pa.Table) -> pa.Table:
    """Rows of one host added up, sorted by host (Arrow compares UTF-8 bytes: the order of code points)."""
    sums = table.group_by("host", use_threads=False).aggregate([(name, "sum") for name in COUNTS])
    sums = sums.rename_columns({f"{name}_sum": name for name in COUNTS}).select(PARTIAL_SCHEMA.names)
    return sums.cast(PARTIAL_SCHEMA).sort_by("host").combine_chunks()


def merge(
    partials: Sequence[Path], target: Path, rules: HostRules, partitions: int | None = None
) -> HostSummary:
    """Add up partial tables and write `hosts.parquet` (`SCHEMA`), sorted by host.

    partitions: into how many ranges of names the work is cut; by default so that one holds about a million
    rows. The file's bytes depend neither on it nor on the order of `partials`.
    Raises InputError where a partial table is damaged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(target.name + ".work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        bounds = _bounds(partials, partitions)
        pieces = _scatter(partials, bounds, work)
        return _gather(pieces, target, rules)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _bounds(partials: Sequence[Path], partitions: int | None) -> list[str]:
    """Names that cut the hosts into ranges of about equal numbers of rows."""
    rows = sum(_open(path).metadata.num_rows for path in partials)
    wanted = partitions or -(-rows // _ROWS_PER_RANGE)
    if wanted <= 1 or not rows:
        return []
    step = max(1, rows // (wanted * _SAMPLES_PER_RANGE))
    sample: list[str] = []
    for path in partials:
        offset = 0
        for batch in _open(path).iter_batches(columns=["host"], batch_size=_ROW_GROUP):
            places = np.arange(offset, batch.num_rows, step)
            sample += batch.column(0).take(pa.array(places)).to_pylist()
            offset = int(offset + places.size * step - batch.num_rows)
    sample.sort()
    return sorted({sample[len(sample) * i // wanted] for i in range(1, wanted)})


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} can't be read: {error}", hint="delete it and run the same command again"
        ) from error
    if not file.schema_arrow.equals(PARTIAL_SCHEMA):
        raise InputError(f"{path} holds no host counts", hint="delete it and run the same command again")
    return file


def _scatter(partials: Sequence[Path], bounds: Sequence[str], work: Path) -> list[Path]:
    """Cut every partial table at the bounds; one file a range."""
    paths = [work / f"range-{number:05d}.parquet" for number in range(len(bounds) + 1)]
    with ExitStack() as stack:
        writers = [stack.enter_context(pq.ParquetWriter(path, PARTIAL_SCHEMA)) for path in paths]
        for path in partials:
            for batch in _open(path).iter_batches(batch_size=_ROW_GROUP):
                table = pa.Table.from_batches([batch])
                for writer, piece in zip(writers, _cut(table, bounds), strict=True):
                    if piece.num_rows:
                        writer.write_table(piece)
    return paths


def _cut(table: pa.Table, bounds: Sequence[str]) -> Iterator[pa.Table]:
    """A table that is sorted by host, cut so that piece i holds bounds[i-1] <= host < bounds[i]."""
    hosts = table["host"]
    start = 0
    for bound in bounds:
        stop = bisect_left(range(table.num_rows), bound, lo=start, key=lambda row: hosts[row].as_py())
        yield table.slice(start, stop - start)
        start = stop
    yield table.slice(start)


def _gather(pieces: Sequence[Path], target: Path, rules: HostRules) -> HostSummary:
    """Add each range up and write it behind the one before, in row groups of a fixed size."""
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter(dict.fromkeys(rules.reasons(), 0))
    waiting = SCHEMA.empty_table()
    with atomic_path(target) as aside, pq.ParquetWriter(aside, SCHEMA, compression="zstd") as writer:
        for path in pieces:
            table = _judged(_grouped(pq.read_table(path)), rules)
            _count(table, totals, reasons)
            waiting = pa.concat_tables([waiting, table])
            whole = waiting.num_rows - waiting.num_rows % _ROW_GROUP
            if whole:
                writer.write_table(waiting.slice(0, whole).combine_chunks(), row_group_size=_ROW_GROUP)
                waiting = waiting.slice(whole)
        writer.write_table(waiting.combine_chunks(), row_group_size=_ROW_GROUP)
    return HostSummary(
        totals["hosts"], totals["documents"], totals["blocked"], totals["blocked_documents"], dict(reasons)
    )


def _judged(table: pa.Table, rules: HostRules) -> pa.Table:
    """The table with `blocked_by`. A host without a name is never blocked: it is no host."""
    documents = table["documents"].to_numpy()
    judged = (documents >= rules.minimum_documents) & pc.not_equal(table["host"], "").to_numpy()
    found: list[list[str]] = [[] for _ in range(table.num_rows)]
    for reason, (column, share) in rules.reasons().items():
        for row in np.flatnonzero(judged & (table[column].to_numpy() / documents > share)):
            found[row].append(reason)
    return table.append_column(SCHEMA.field("blocked_by"), pa.array(found, SCHEMA.field("blocked_by").type))


def _count(table: pa.Table, totals: Counter[str], reasons: Counter[str]) -> None:
    blocked = table.filter(pc.greater(pc.list_value_length(table["blocked_by"]), 0))
    totals["hosts"] += table.num_rows
    totals["documents"] += pc.sum(table["documents"]).as_py() or 0
    totals["blocked"] += blocked.num_rows
    totals["blocked_documents"] += pc.sum(blocked["documents"]).as_py() or 0
    for reason in pc.list_flatten(blocked["blocked_by"]).to_pylist():
        reasons[reason] += 1


@dataclass(frozen=True, eq=False)
class BlockedHosts:
    """The blocked hosts as sorted 64-bit keys: 9 bytes a host. Picklable."""

    keys: kernels.UInt64s
    choices: np.ndarray
    """For each key the number of its entry in `reasons`."""
    reasons: tuple[tuple[str, ...], ...]
    scope: Scope

    def reasons_of(self, host: object) -> tuple[str, ...]:
        """Why a host is blocked; empty where it isn't."""
        name = scoped_name(host, self.scope) if isinstance(host, str) else ""
        if not name:
            return ()
        found = kernels.position(self.keys, np.uint64(key_of(name)))
        return self.reasons[self.choices[found]] if found >= 0 else ()

    def __contains__(self, host: object) -> bool:
        return bool(self.reasons_of(host))

    def __len__(self) -> int:
        return int(self.keys.size)

    def mark(self, hosts: pa.ChunkedArray) -> list[tuple[str, ...]]:
        """The reasons for each document of a column of hosts; each distinct host is looked up once."""
        distinct = {host: self.reasons_of(host) for host in pc.unique(hosts).to_pylist()}
        return [distinct[host] for host in hosts.to_pylist()]


def blocked_hosts(path: Path, scope: Scope = "host") -> BlockedHosts:
    """The blocked hosts of a `hosts.parquet`; scope: that of the rules with which it was made."""
    keys: list[int] = []
    choices: list[int] = []
    known: dict[tuple[str, ...], int] = {}
    for batch in pq.ParquetFile(path).iter_batches(columns=["host", "blocked_by"], batch_size=_ROW_GROUP):
        blocked = batch.filter(pc.greater(pc.list_value_length(batch.column("blocked_by")), 0))
        for row in blocked.to_pylist():
            keys.append(key_of(row["host"]))
            choices.append(known.setdefault(tuple(row["blocked_by"]), len(known)))
    order = np.argsort(np.array(keys, np.uint64), kind="stable")
    return BlockedHosts(
        np.array(keys, np.uint64)[order], np.array(choices, np.uint8)[order], tuple(known), scope
    )
