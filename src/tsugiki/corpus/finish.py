"""From work units to final files: near-duplicates, split, documents in order, facts for the report."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tsugiki.artifacts.contract import Outcome, Workspace
from tsugiki.artifacts.documents import HELD_OUT, KEPT, REJECTED, TRAIN, write_documents
from tsugiki.corpus import kernels
from tsugiki.corpus.duplicates import Candidate, components, survivors
from tsugiki.corpus.engine import shared_bands
from tsugiki.corpus.minhash import shingles
from tsugiki.corpus.pipeline import SIGNATURE, Settings, UnitStatistics, signatures_of
from tsugiki.corpus.split import Split, histogram, split_by_group
from tsugiki.corpus.stage import Config
from tsugiki.errors import StageError

NEAR_DUPLICATE = "near_duplicate"

_ROWS_PER_PART = 16_384
_SAMPLES = 3
_SAMPLE_CHARACTERS = 300
_HOSTS = 200
_WARNINGS = 1000


@dataclass(frozen=True)
class Passed:
    """The documents that passed all rules, in the order of the units; one entry of each field a document."""

    documents: tuple[Candidate, ...]
    signatures: npt.NDArray[np.uint32]
    roots: npt.NDArray[np.int64]
    survivor: tuple[int, ...]


def finish(
    config: Config, settings: Settings, units: Sequence[Path], statistics: UnitStatistics, out: Workspace
) -> Outcome:
    """Write the documents and describe them. Raises StageError where a post-condition fails."""
    passed = _cluster(config, settings, units)
    kept = sorted(set(passed.survivor))
    out.progress(0, 1, "split", f"{len(kept)} documents")
    split = _split(config, settings, units, passed, kept)
    held_out = {kept[i] for i in split.held_out} if split else set()
    labels = _Labels(passed, held_out)
    summary = _write(units, labels, out)
    if summary.documents[KEPT] != len(kept):
        raise StageError(
            f"{summary.documents[KEPT]} documents were written where {len(kept)} were kept",
            hint="report this as a bug, with the run's log.txt",
        )
    facts = _facts(config, statistics=statistics, passed=passed, kept=kept, split=split, summary=summary)
    return Outcome(counts=summary.counts(statistics.records), facts=facts)


def _passed_tables(units: Sequence[Path], columns: Sequence[str]) -> Iterator[pa.Table]:
    for unit in units:
        table = pq.read_table(unit, columns=[*columns, "rejected_by"])
        yield table.filter(pc.equal(pc.list_value_length(table["rejected_by"]), 0))


def _cluster(config: Config, settings: Settings, units: Sequence[Path]) -> Passed:
    documents: list[Candidate] = []
    parts = []
    for table in _passed_tables(units, ["id", "date", "text", SIGNATURE]):
        lengths = pc.utf8_length(table["text"]).to_pylist()
        ids, dates = table["id"].to_pylist(), table["date"].to_pylist()
        documents += map(Candidate, ids, dates, lengths)
        parts.append(signatures_of(table, settings.hashes))
    signatures = np.concatenate(parts)
    parameters = config.near_duplicates
    edges = shared_bands(kernels.band_keys(signatures, parameters.bands, parameters.rows))
    roots = components(len(documents), edges)
    chosen = survivors(documents, roots, parameters.keep)
    return Passed(tuple(documents), signatures, roots, tuple(chosen))


def _split(
    config: Config, settings: Settings, units: Sequence[Path], passed: Passed, kept: Sequence[int]
) -> Split | None:
    if config.heldout == 0:
        return None
    wanted = max(1, round(config.heldout * len(kept)))
    if config.heldout_max_documents is not None:
        wanted = min(wanted, config.heldout_max_documents)

    def stream(indices: Sequence[int]) -> Iterator[npt.NDArray[np.uint64]]:
        chosen = {kept[i] for i in indices}
        numbers = itertools.count()
        for table in _passed_tables(units, ["text"]):
            for text in table["text"].to_pylist():
                if next(numbers) in chosen:
                    yield shingles(text, settings.ngram)

    return split_by_group(
        [passed.documents[i].id for i in kept],
        stream,
        np.ascontiguousarray(passed.signatures[kept]),
        shared_bands,
        wanted=wanted,
        threshold=config.heldout_similarity,
        seed=config.seed,
    )


class _Labels:
    """What clustering and split say of each document, by its id."""

    def __init__(self, passed: Passed, held_out: set[int]) -> None:
        sizes = Counter(passed.survivor)
        self._rows: dict[str, tuple[str, int, bool, str | None]] = {}
        for index, (document, chosen) in enumerate(zip(passed.documents, passed.survivor, strict=True)):
            alive = index == chosen
            split = (HELD_OUT if index in held_out else TRAIN) if alive else None
            self._rows[document.id] = (passed.documents[chosen].id, sizes[chosen], alive, split)

    def complete(self, table: pa.Table) -> pa.Table:
        """A unit's table with the columns of clusters and split, and a reason for near-duplicates."""
        ids = table["id"].to_pylist()
        rows = [self._rows.get(name, (None, None, None, None)) for name in ids]
        reasons = [
            [NEAR_DUPLICATE] if alive is False else reasons
            for (_, _, alive, _), reasons in zip(rows, table["rejected_by"].to_pylist(), strict=True)
        ]
        columns = {
            name: [row[i] for row in rows]
            for i, name in enumerate(("cluster", "cluster_size", "survivor", "split"))
        }
        for name, values in (*columns.items(), ("rejected_by", reasons)):
            place = table.schema.get_field_index(name)
            field_ = table.schema.field(place)
            table = table.set_column(place, field_, pa.array(values, field_.type))
        return table.drop_columns([SIGNATURE])


@dataclass
class _Summary:
    """What is counted while the final files are written."""

    documents: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    host_documents: Counter[str] = field(default_factory=Counter)
    host_characters: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[tuple[str, str | None, str]]] = field(default_factory=dict)

    def add(self, part: str, table: pa.Table) -> None:
        """Count a table that is about to be written."""
        self.documents[part] += table.num_rows
        if part == REJECTED:
            self._sample(table)
            return
        columns = (table["split"].to_pylist(), table["host"].to_pylist(), table["text"].to_pylist())
        for split, host, text in zip(*columns, strict=True):
            size = len(text.encode())
            for name in (KEPT, split):
                self.characters[name] += len(text)
                self.bytes[name] += size
            self.documents[split] += 1
            self.host_documents[host or ""] += 1
            self.host_characters[host or ""] += len(text)

    def _sample(self, table: pa.Table) -> None:
        """Keep, for each reason, the documents with the smallest ids."""
        columns = (table["rejected_by"].to_pylist(), table["id"].to_pylist(), table["url"].to_pylist())
        for (reasons, name, url), text in zip(
            zip(*columns, strict=True), table["text"].to_pylist(), strict=True
        ):
            for reason in reasons:
                best = self.samples.setdefault(reason, [])
                best.append((name, url, text[:_SAMPLE_CHARACTERS]))
                best.sort()
                del best[_SAMPLES:]

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


def _write(units: Sequence[Path], labels: _Labels, out: Workspace) -> _Summary:
    """Write both parts in the order of (file, offset), in pieces of a fixed number of rows."""
    summary = _Summary()
    for part in (KEPT, REJECTED):
        shutil.rmtree(out.root / part, ignore_errors=True)
        waiting: list[pa.Table] = []
        number = 0
        for done, unit in enumerate(units, start=1):
            table = labels.complete(pq.read_table(unit))
            empty = pc.equal(pc.list_value_length(table["rejected_by"]), 0)
            table = table.filter(empty if part == KEPT else pc.invert(empty))
            summary.add(part, table)
            waiting.append(table)
            out.progress(done, len(units), "files", f"writing {part}")
            while sum(piece.num_rows for piece in waiting) >= _ROWS_PER_PART:
                whole = pa.concat_tables(waiting)
                _write_part(out.root / part, number, whole.slice(0, _ROWS_PER_PART))
                waiting, number = [whole.slice(_ROWS_PER_PART)], number + 1
        rest = pa.concat_tables(waiting)
        if rest.num_rows:
            _write_part(out.root / part, number, rest)
    return summary


def _write_part(directory: Path, number: int, table: pa.Table) -> None:
    write_documents(directory / f"part-{number:05d}.parquet", table.combine_chunks())


def _facts(
    config: Config,
    *,
    statistics: UnitStatistics,
    passed: Passed,
    kept: Sequence[int],
    split: Split | None,
    summary: _Summary,
) -> dict[str, Any]:
    removed = len(passed.documents) - len(kept)
    sizes = Counter(passed.survivor)
    reasons = Counter(statistics.reasons) + Counter({NEAR_DUPLICATE: removed})
    alone = Counter(statistics.alone) + Counter({NEAR_DUPLICATE: removed})
    last = {"step": "after near-duplicates", "documents": len(kept), "characters": summary.characters[KEPT]}
    return {
        "language": config.language,
        "funnel": [*statistics.funnel(), last],
        "reasons": [
            {"reason": reason, "documents": count, "alone": alone[reason]}
            for reason, count in _ranked(reasons)
        ],
        "rejected_samples": [
            {"reason": reason, "url": url, "text": text}
            for reason, _ in _ranked(reasons)
            for _, url, text in summary.samples.get(reason, [])
        ],
        "skipped_records": dict(_ranked(statistics.skipped)),
        "warnings": statistics.warnings[:_WARNINGS],
        "encodings": dict(_ranked(statistics.encodings)),
        "languages": dict(_ranked(statistics.languages)),
        "hosts": [
            {"host": host, "documents": count, "characters": summary.host_characters[host]}
            for host, count in _ranked(summary.host_documents)[:_HOSTS]
        ],
        "near_duplicates": {
            "clusters": sum(size > 1 for size in sizes.values()),
            "removed": removed,
            "largest": max(sizes.values()),
        },
        "split": _split_facts(config, split, summary),
        "similarity_histogram": histogram(split.similarity) if split else [],
    }


def _split_facts(config: Config, split: Split | None, summary: _Summary) -> Mapping[str, Any]:
    counts = {"train": summary.documents[TRAIN], "heldout": summary.documents[HELD_OUT]}
    if split is None:
        return {
            **counts,
            "groups": None,
            "largest_group": None,
            "max_similarity": None,
            "method": "none held out",
        }
    return {
        **counts,
        "groups": split.groups,
        "largest_group": split.largest_group,
        "max_similarity": round(max(split.similarity), 6),
        "max_containment": round(max(split.containment), 6),
        "threshold": config.heldout_similarity,
        "rounds": split.rounds,
        "method": "exact: every held-out document against every training document",
    }


def _ranked(counter: Mapping[str, int]) -> list[tuple[str, int]]:
    """Most frequent first; equal counts by name, so that the order never depends on that of the input."""
    return sorted(
        ((key, count) for key, count in counter.items() if count), key=lambda item: (-item[1], item[0])
    )
