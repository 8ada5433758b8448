"""Hosts over the whole corpus: statistics of the survivors, blocked hosts, and what may be said for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tsugiki.corpus import config as configuration
from tsugiki.corpus.engine import Engine, run_tasks
from tsugiki.corpus.expressions import compile_expressions
from tsugiki.corpus.features import code_points
from tsugiki.corpus.hosts.appeals import AppealSettings, Finder, collect_appeals
from tsugiki.corpus.hosts.statistics import (
    DATING,
    NG,
    BlockedHosts,
    HostRules,
    HostSummary,
    blocked_hosts,
    merge,
    partial,
    write_partial,
)
from tsugiki.corpus.neardup.survivors import Clusters
from tsugiki.corpus.neardup.units import create_array, open_array
from tsugiki.corpus.stored import Stored, stored_at
from tsugiki.languages import LanguagePack

HOSTS_FILE = "hosts.parquet"
_LISTED = 200
_TASK_DOCUMENTS = 4096
_APPEALS = AppealSettings(hosts=50)


@dataclass(frozen=True)
class HostVerdict:
    """What the statistics gave. `excluded`: for each document whether its host is blocked, or None."""

    summary: HostSummary
    rules: HostRules
    blocked: BlockedHosts
    excluded: npt.NDArray[np.bool_] | None


def rules_of_hosts(config: configuration.HostRules, pack: LanguagePack) -> HostRules:
    """The rules in use: those of the configuration as far as the pack has the lists that they count."""
    judged = config.statistics
    return HostRules(
        dating_share=config.dating_share if judged and "dating" in pack.lists else None,
        ng_share=config.ng_share if judged and "ng" in pack.lists else None,
        minimum_documents=config.minimum_documents,
        scope=config.scope,
    )


def host_task(job: dict[str, Any]) -> dict[str, Any]:
    """Count the hosts of some segments' survivors."""
    stored = stored_at(job["segments"])
    survivor = open_array(Path(job["survivor"]), "<i8", (stored.count,))
    found = []
    for number in job["numbers"]:
        segment, place = stored.segments[number], stored.slice_of(number)
        alive = survivor[place] == np.arange(place.start, place.stop)
        found.append(_columns(segment.table, segment.records()["row"][alive]))
    write_partial(Path(job["target"]), partial(pa.concat_tables(found), job["scope"]))
    return {"segments": len(found)}


def _together(stored: Stored, numbers: Sequence[int]) -> list[list[int]]:
    """The segments by tasks: small ones share one, so that it has something to do."""
    groups: list[list[int]] = []
    documents = _TASK_DOCUMENTS
    for number in numbers:
        documents += stored.segments[number].passed
        if documents > _TASK_DOCUMENTS:
            groups.append([])
            documents = stored.segments[number].passed
        groups[-1].append(number)
    return groups


def _columns(path: Path, rows: npt.NDArray[np.int64]) -> pa.Table:
    with pq.ParquetFile(path) as file:
        names = [name for name in ("host", "letters", DATING, NG) if name in file.schema_arrow.names]
        return file.read(columns=names).take(pa.array(rows))


def judge_hosts(
    stored: Stored,
    clusters: Clusters,
    rules: HostRules,
    target: Path,
    *,
    work: Path,
    engine: Engine,
    progress: Callable[[int, int], None],
) -> HostVerdict:
    """Count the survivors by host, write `target`, and mark the documents of blocked hosts."""
    shared = {"segments": str(work / "segments.json"), "survivor": str(work / "chosen" / "survivor")}
    clusters_count = clusters.survivor.size
    numbers = [number for number, segment in enumerate(stored.segments) if segment.passed]
    jobs: list[dict[str, Any]] = [
        {**shared, "numbers": some, "scope": rules.scope, "target": str(work / "hosts" / f"{some[0]:06d}")}
        for some in _together(stored, numbers)
    ]
    done = 0
    for result in run_tasks(host_task, jobs, engine):
        done += result["segments"]
        progress(done, len(numbers))
    summary = merge([Path(job["target"]) for job in jobs], target, rules)
    blocked = blocked_hosts(target, rules.scope)
    excluded = None
    if len(blocked):
        excluded = create_array(work / "excluded", "|b1", (clusters_count,))
        for number in numbers:
            hosts = _columns(stored.segments[number].table, stored.segments[number].records()["row"])["host"]
            excluded[stored.slice_of(number)] = [bool(reasons) for reasons in blocked.mark(hosts)]
    return HostVerdict(summary, rules, blocked, excluded)


def host_facts(
    verdict: HostVerdict, path: Path, stored: Stored, pack: LanguagePack, rejected: int
) -> Mapping[str, Any]:
    """The facts `hosts` (the largest that stay) and `host_filter` (what is blocked, with appeal samples)."""
    appeals = _appeals(verdict, path, stored, pack)
    return {
        "hosts": _largest_hosts(path),
        "host_filter": {
            "rules": [
                {"name": name, "threshold": share} for name, (_, share) in verdict.rules.reasons().items()
            ],
            "scope": verdict.rules.scope,
            "hosts": verdict.summary.hosts,
            "blocked_hosts": verdict.summary.blocked_hosts,
            "reasons": verdict.summary.reasons,
            "documents": rejected,
            "blocked": appeals,
        },
    }


def _largest_hosts(path: Path) -> list[dict[str, Any]]:
    """The unblocked hosts with the most documents; equal ones by name."""
    best = pa.table({})
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            free = pc.equal(pc.list_value_length(batch.column("blocked_by")), 0)
            table = pa.Table.from_batches([batch.filter(free)]).drop_columns(["blocked_by"])
            joined = pa.concat_tables([best, table]) if best.num_columns else table
            best = joined.sort_by([("documents", "descending"), ("host", "ascending")]).slice(0, _LISTED)
    return best.to_pylist()


def _appeals(verdict: HostVerdict, path: Path, stored: Stored, pack: LanguagePack) -> list[dict[str, Any]]:
    """The largest blocked hosts, each with its counts and a few documents for and against it."""
    if verdict.excluded is None:
        return []
    finders: dict[str, Finder] = {
        kind: _finder(pack, kind) for kind in ("dating", "ng") if kind in pack.lists
    }
    rows = collect_appeals(_suspects(stored, verdict.excluded), path, finders, _APPEALS, verdict.rules.scope)
    counts = _counts_of(path, {row["host"] for row in rows})
    found = []
    for host, group in groupby(rows, key=lambda row: row["host"]):
        samples = [
            {"url": row["url"], "matched": row["expression"], "kind": row["kind"], "text": row["text"]}
            for row in group
        ]
        known = counts[host]
        found.append({**known, "reasons": known.pop("blocked_by"), "appeal": samples})
    return found


def _finder(pack: LanguagePack, kind: str) -> Finder:
    """Where the first expression of a list stands, by the automaton that counted the column."""
    script = pack.script
    expressions = compile_expressions(
        pack.lists[kind].entries, spaceless=script.spaceless, runs=script.word_runs
    )

    def find(text: str) -> tuple[int, int] | None:
        spans = expressions.spans(code_points(text))
        return (int(spans[0, 0]), int(spans[0, 1])) if len(spans) else None

    return find


def _suspects(stored: Stored, excluded: npt.NDArray[np.bool_]) -> Iterator[pa.Table]:
    """The documents of blocked hosts, segment by segment."""
    for number, segment in enumerate(stored.segments):
        chosen = excluded[stored.slice_of(number)]
        if not chosen.any():
            continue
        rows = pa.array(segment.records()["row"][chosen])
        with pq.ParquetFile(segment.table) as file:
            wanted = ("id", "url", "host", "text", DATING, NG)
            names = [name for name in wanted if name in file.schema_arrow.names]
            yield file.read(columns=names).take(rows)


def _counts_of(path: Path, hosts: set[str]) -> dict[str, dict[str, Any]]:
    found = {}
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            chosen = batch.filter(pc.is_in(batch.column("host"), pa.array(sorted(hosts), pa.string())))
            found.update({row["host"]: row for row in chosen.to_pylist()})
    return found
