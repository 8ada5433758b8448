"""From units to the corpus: near-duplicates, hosts, the held-out split, the final files, the facts.

What grows with the number of documents lies in files below `work/`: the same memory serves a thousand pages
and a hundred million.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsugiki.artifacts.contract import Outcome, Workspace
from tsugiki.artifacts.documents import KEPT, REJECTED
from tsugiki.corpus.clusters import INDEX, Parameters, choose, find_clusters, save_index
from tsugiki.corpus.config import Config
from tsugiki.corpus.engine import Engine
from tsugiki.corpus.facts import Found, facts_of
from tsugiki.corpus.heldout import Split, hold_out
from tsugiki.corpus.histograms import Histograms
from tsugiki.corpus.host_filter import HOSTS_FILE, HostVerdict, host_facts, judge_hosts, rules_of_hosts
from tsugiki.corpus.neardup.survivors import (
    FINEWEB2_WEIGHTS,
    Clusters,
    DocumentColumns,
    kept_documents,
    summarise,
)
from tsugiki.corpus.neardup.units import create_array
from tsugiki.corpus.segments import Segment
from tsugiki.corpus.statistics import UnitStatistics
from tsugiki.corpus.stored import Stored
from tsugiki.corpus.writing import Labels, Summary, write_parts
from tsugiki.errors import DataError, StageError
from tsugiki.languages import LanguagePack

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Material:
    """What the units gave, and how to go on with it."""

    config: Config
    pack: LanguagePack
    segments: Sequence[Segment]
    statistics: UnitStatistics
    histograms: Histograms
    older: tuple[Path, ...]
    engine: Engine


def assemble(material: Material, out: Workspace) -> Outcome:
    """Write the documents and describe them. Raises StageError where a post-condition fails."""
    config = material.config
    stored = Stored.of(material.segments)
    material = replace(material, engine=material.engine.for_documents(stored.count))
    parameters = Parameters(config.near_duplicates, material.older, out.work / "clusters", config.memory)
    index = out.root / INDEX if config.near_duplicates.index else None
    grouped = find_clusters(
        stored, parameters, material.engine, index, _progress(out, "near-duplicates", "bands")
    )
    columns = stored.columns(parameters.work)
    first = choose(grouped, columns, parameters)
    after_duplicates = summarise(first)
    verdict = _judge(material, stored, first, parameters, out)
    clusters = first
    if verdict.excluded is not None:
        clusters = choose(grouped, columns, parameters, verdict.excluded)
    if index is not None:
        save_index(index, parameters, columns, clusters)
    kept = kept_documents(clusters.survivor, parameters.work / "kept")
    _check_kept(kept, verdict)
    labels = _labels(material, parameters, verdict, out)
    with _rejected_beside(stored, labels, material.engine, out) as rejected:
        split = _split(material, stored, kept, columns, out)
        labels = replace(labels, held_out=_held_out(stored, kept, split, parameters.work))
        summary = write_parts(
            KEPT, stored, labels, out.root, material.engine, progress=_progress(out, "writing", "parts")
        )
    summary.add(vars(rejected()))
    if summary.documents[KEPT] != kept.size:
        raise StageError(
            f"{summary.documents[KEPT]} documents were written where {kept.size} were kept",
            hint="report this as a bug, with the run's log.txt",
        )
    hosts = _host_facts(material, verdict, stored, summary, out)
    found = Found(
        config=config,
        statistics=material.statistics,
        histograms=material.histograms,
        grouped=grouped,
        clusters=clusters,
        after_duplicates=after_duplicates,
        kept=int(kept.size),
        split=split,
        summary=summary,
        hosts=hosts,
    )
    return Outcome(counts=summary.counts(material.statistics.records), facts=facts_of(found))


def _progress(out: Workspace, note: str, unit: str) -> Callable[[int, int], None]:
    return lambda done, total: out.progress(done, total, unit, note)


def _judge(
    material: Material, stored: Stored, clusters: Clusters, parameters: Parameters, out: Workspace
) -> HostVerdict:
    return judge_hosts(
        stored,
        clusters,
        rules_of_hosts(material.config.hosts, material.pack),
        out.root / HOSTS_FILE,
        work=parameters.work,
        engine=material.engine,
        progress=_progress(out, "hosts", "segments"),
    )


def _check_kept(kept: Int64s, verdict: HostVerdict) -> None:
    if kept.size:
        return
    reasons = ", ".join(f"{name} ({count} hosts)" for name, count in verdict.summary.reasons.items() if count)
    if reasons:
        raise DataError(
            f"no document is left: every host is blocked, by {reasons}",
            hint="raise hosts.ng_share or hosts.dating_share, or set hosts.statistics: false",
        )
    raise DataError(
        "no document is left: earlier corpora hold all of them already",
        hint="check near_duplicates.against; a crawl that brings nothing new needs no corpus of its own",
    )


def _split(
    material: Material, stored: Stored, kept: Int64s, columns: DocumentColumns, out: Workspace
) -> Split | None:
    config = material.config
    if config.heldout == 0:
        return None
    out.progress(0, 1, "split", f"{kept.size} documents")
    wanted = max(1, round(config.heldout * kept.size))
    if config.heldout_max_documents is not None:
        wanted = min(wanted, config.heldout_max_documents)
    ngram = config.near_duplicates.ngram

    def shingles_of(indices: Int64s) -> Iterable[npt.NDArray[np.uint64]]:
        return stored.shingles(kept[indices], ngram)

    return hold_out(
        *(stored.units, kept, columns.id, shingles_of, out.work / "clusters" / "split"),
        hashes=config.near_duplicates.bands * config.near_duplicates.rows,
        wanted=wanted,
        threshold=config.heldout_similarity,
        seed=config.seed,
        memory_bytes=config.memory,
        threads=material.engine.workers,
    )


def _held_out(stored: Stored, kept: Int64s, split: Split | None, work: Path) -> str | None:
    """A file with one byte a document: 1 for those held out."""
    if split is None:
        return None
    path = work / "held-out"
    create_array(path, "|u1", (stored.count,))[kept[split.held_out]] = 1
    return str(path)


def _labels(material: Material, parameters: Parameters, verdict: HostVerdict, out: Workspace) -> Labels:
    """The labels before the split."""
    config = material.config.near_duplicates
    chosen = parameters.work / ("chosen" if verdict.excluded is None else "chosen-again")
    weights = sorted(config.weights.items()) if config.weights else FINEWEB2_WEIGHTS
    return Labels(
        segments=str(parameters.work / "segments.json"),
        survivor=str(chosen / "survivor"),
        size=str(chosen / "cluster-size"),
        ids=str(parameters.work / "column-id"),
        held_out=None,
        hosts=str(out.root / HOSTS_FILE),
        scope=verdict.rules.scope,
        older=tuple(str(directory / INDEX) for directory in material.older),
        scheme=(config.ngram, config.bands, config.rows),
        weights=tuple(weights),
    )


@contextmanager
def _rejected_beside(
    stored: Stored, labels: Labels, engine: Engine, out: Workspace
) -> Iterator[Callable[[], Summary]]:
    """Write the rejected documents while the split is made; gives a function that waits for them.

    Where tasks run in threads: the split alone leaves cores idle there. Otherwise it is done by the function.
    """

    def write() -> Summary:
        return write_parts(REJECTED, stored, labels, out.root, replace(engine, workers=1))

    if not engine.threads or engine.workers == 1:
        yield lambda: write_parts(
            REJECTED,
            stored,
            labels,
            out.root,
            engine,
            progress=_progress(out, "writing", "parts of rejected ones"),
        )
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(write).result


def _host_facts(
    material: Material, verdict: HostVerdict, stored: Stored, summary: Summary, out: Workspace
) -> dict[str, object]:
    rejected = sum(summary.alone[reason] for reason in verdict.rules.reasons())
    return dict(host_facts(verdict, out.root / HOSTS_FILE, stored, material.pack, rejected))
