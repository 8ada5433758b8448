"""Near-duplicates over all units: one task a band, components on disk, the survivors of every cluster.

What the tasks write lies in work/clusters/edges-<key>, where the key says what it is made from. A file there
is whole (it is written aside and renamed), so a run that was killed goes on with those that it finds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tsugiki.corpus.config import NearDuplicates
from tsugiki.corpus.engine import Engine, run_tasks
from tsugiki.corpus.neardup.bands import PAIR_BYTES, band_edges
from tsugiki.corpus.neardup.components import Components
from tsugiki.corpus.neardup.index import (
    FACTS,
    BandIndex,
    Scheme,
    edges_to_index,
    has_index_band,
    open_index,
    write_index,
    write_index_band,
)
from tsugiki.corpus.neardup.survivors import Clusters, DocumentColumns, choose_survivors
from tsugiki.corpus.neardup.units import BANDS, blocks_of, file_of, size_of
from tsugiki.corpus.neardup.verify import (
    CANDIDATE_PARTNERS,
    PAIRS_A_BATCH,
    Verified,
    compare_candidates,
    write_candidates,
)
from tsugiki.corpus.stored import Stored, stored_at

INDEX = "index"
"""Folder of a corpus's index of band keys."""

_EDGES_VERSION = 1
"""Goes up whenever the same units give other files of pairs."""


@dataclass(frozen=True)
class Parameters:
    """How near-duplicates are found, and where things lie."""

    config: NearDuplicates
    older: tuple[Path, ...]
    work: Path
    memory_bytes: int

    @property
    def scheme(self) -> Scheme:
        """What band keys depend on."""
        return Scheme(self.config.ngram, self.config.bands, self.config.rows)

    def open_older(self) -> list[BandIndex]:
        """The indexes of earlier corpora; raises InputError where one is missing or made otherwise."""
        return [open_index(directory / INDEX, self.scheme) for directory in self.older]


@dataclass(frozen=True)
class Grouped:
    """Clusters as found, before anyone has been chosen. `roots` lies in a work file."""

    roots: npt.NDArray[np.int64]
    older: list[BandIndex]
    verified: Verified | None


def edges_task(job: dict[str, Any]) -> dict[str, Any]:
    """The pairs of one band among the new documents, and with each earlier corpus; see `find_clusters`.

    `target` is written last: where it is, the band is done.
    """
    stored = stored_at(job["segments"])
    units, band, target = stored.units, job["band"], Path(job["target"])
    scheme, memory_bytes = Scheme(*job["scheme"]), job["memory_bytes"]
    first = stored.count
    for number, directory in enumerate(job["older"]):
        place = Path(directory) / INDEX
        edges_to_index(
            *(units, scheme.bands, band, _old_edges(target, number)),
            directory=place,
            scheme=scheme,
            first=first,
            memory_bytes=memory_bytes,
        )
        first += open_index(place, scheme).documents
    if job["index"]:
        write_index_band(units, scheme.bands, band, Path(job["index"]), memory_bytes=memory_bytes)
    band_edges(units, scheme.bands, band, target, partners=job["partners"], memory_bytes=memory_bytes)
    return {"band": band}


def _old_edges(target: Path, number: int) -> Path:
    return target.with_name(f"{target.name}.older-{number:03d}")


def compare_task(job: dict[str, Any]) -> dict[str, Any]:
    """One batch of candidate pairs, compared by their texts; see `find_clusters`."""
    stored, target = stored_at(job["segments"]), Path(job["target"])
    compare_candidates(
        *(Path(job["candidates"]), slice(*job["batch"]), target),
        lambda documents: stored.shingles(documents, job["ngram"]),
        job["threshold"],
        memory_bytes=job["memory_bytes"],
    )
    return {"batch": target.name}


def find_clusters(
    stored: Stored,
    parameters: Parameters,
    engine: Engine,
    index: Path | None,
    progress: Callable[[int, int], None],
) -> Grouped:
    """Group near-duplicates; bands and batches of pairs are independent tasks, on any number of workers.

    index: where to write an index of these documents, if anywhere. What an earlier run has finished is taken
    over. Raises InputError for an earlier corpus that has no index or was made with other settings.
    """
    work = parameters.work
    older = parameters.open_older()
    segments = work / "segments.json"
    stored.save(segments)
    edges = _edges_directory(stored, parameters, index)
    targets = _write_edges(stored, parameters, edges, index, engine=engine, progress=progress)
    nodes = stored.count + sum(old.documents for old in older)
    components = Components(work / "parents", nodes)
    if parameters.config.verify is None:
        verified = None
        components.union_files(targets)
    else:
        verified, alike = _verify(stored, parameters, engine, targets, edges)
        components.union_files(alike)
    for number in range(len(older)):
        components.union_files(_old_edges(target, number) for target in targets)
    return Grouped(components.roots(), older, verified)


def _edges_directory(stored: Stored, parameters: Parameters, index: Path | None) -> Path:
    """The directory for what is made from just these units and indexes; those of others are removed.

    The files that count are told by name, size and time, as a run may have been moved to another place.
    """
    files = [file_of(Path(one.stem), suffix) for one in stored.segments for suffix in (BANDS, ".parquet")]
    facts = {
        "version": _EDGES_VERSION,
        "near_duplicates": parameters.config.model_dump(mode="json", exclude={"keep", "weights"}),
        "passed": [one.passed for one in stored.segments],
        "units": [_fingerprint(file) for file in files],
        "older": [_fingerprint(directory / INDEX / FACTS) for directory in parameters.older],
        "index": index is not None,
        "batch": PAIRS_A_BATCH,
    }
    key = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()
    chosen = parameters.work / f"edges-{key}"
    for other in parameters.work.glob("edges*"):
        if other != chosen:
            shutil.rmtree(other)
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def _fingerprint(file: Path) -> list[Any]:
    status = file.stat()
    return [file.name, status.st_size, status.st_mtime_ns]


def _write_edges(
    stored: Stored,
    parameters: Parameters,
    edges: Path,
    index: Path | None,
    *,
    engine: Engine,
    progress: Callable[[int, int], None],
) -> list[Path]:
    """Write the pairs of the bands that are not there yet; the files of all, in order."""
    config = parameters.config
    shared = {
        "segments": str(parameters.work / "segments.json"),
        "scheme": [config.ngram, config.bands, config.rows],
        "partners": CANDIDATE_PARTNERS if config.verify else 1,
        "older": [str(directory) for directory in parameters.older],
        "index": str(index) if index else None,
        "memory_bytes": parameters.memory_bytes,
    }
    targets = [edges / f"band-{band:04d}" for band in range(config.bands)]
    jobs = [
        {**shared, "band": band, "target": str(target)}
        for band, target in enumerate(targets)
        if not target.exists() or (index is not None and not has_index_band(index, band, stored.count))
    ]
    done = len(targets) - len(jobs)
    for count, _ in enumerate(run_tasks(edges_task, jobs, engine), start=done + 1):
        progress(count, len(targets))
    return targets


def _verify(
    stored: Stored, parameters: Parameters, engine: Engine, targets: Sequence[Path], edges: Path
) -> tuple[Verified, list[Path]]:
    """Compare the candidates in batches of a fixed size; what was found, and the files of alike pairs."""
    candidates = edges / "candidates"
    if not candidates.exists():
        write_candidates(targets, stored.count, candidates, memory_bytes=parameters.memory_bytes)
    pairs = size_of(candidates) // PAIR_BYTES
    batches = blocks_of(pairs, PAIRS_A_BATCH)
    alike = [edges / f"alike-{number:06d}" for number in range(len(batches))]
    shared = {
        "segments": str(parameters.work / "segments.json"),
        "candidates": str(candidates),
        "ngram": parameters.config.ngram,
        "threshold": parameters.config.verify,
        "memory_bytes": parameters.memory_bytes,
    }
    jobs = [
        {**shared, "batch": [batch.start, batch.stop], "target": str(target)}
        for batch, target in zip(batches, alike, strict=True)
        if not target.exists()
    ]
    for _ in run_tasks(compare_task, jobs, engine):
        pass
    return Verified(pairs, sum(map(size_of, alike)) // PAIR_BYTES), alike


def choose(
    grouped: Grouped,
    columns: DocumentColumns,
    parameters: Parameters,
    excluded: npt.NDArray[np.bool_] | None = None,
) -> Clusters:
    """The survivors, in work files; `excluded` documents can't be one."""
    directory = parameters.work / ("chosen" if excluded is None else "chosen-again")
    return choose_survivors(
        *(grouped.roots, columns, parameters.config.keep, directory), excluded=excluded, older=grouped.older
    )


def save_index(index: Path, parameters: Parameters, columns: DocumentColumns, clusters: Clusters) -> None:
    """Write the rest of an index whose bands `find_clusters` wrote."""
    write_index(index, parameters.scheme, columns.id, clusters.survivor, clusters.size)
