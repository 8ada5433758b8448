"""Near-duplicates over all units: one task a band, components on disk, the survivors of every cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tsugiki.corpus.config import NearDuplicates
from tsugiki.corpus.engine import Engine, run_tasks
from tsugiki.corpus.neardup.bands import band_edges
from tsugiki.corpus.neardup.components import Components
from tsugiki.corpus.neardup.index import (
    BandIndex,
    Scheme,
    edges_to_index,
    open_index,
    write_index,
    write_index_band,
)
from tsugiki.corpus.neardup.survivors import Clusters, DocumentColumns, choose_survivors
from tsugiki.corpus.neardup.verify import CANDIDATE_PARTNERS, Verified, join_verified
from tsugiki.corpus.stored import Stored, stored_at

INDEX = "index"
"""Folder of a corpus's index of band keys."""


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
    """The pairs of one band among the new documents, and with each earlier corpus; see `find_clusters`."""
    stored = stored_at(job["segments"])
    units, band, target = stored.units, job["band"], Path(job["target"])
    scheme = Scheme(*job["scheme"])
    band_edges(
        *(units, scheme.bands, band, target), partners=job["partners"], memory_bytes=job["memory_bytes"]
    )
    first = stored.count
    for number, directory in enumerate(job["older"]):
        place = Path(directory) / INDEX
        edges_to_index(
            *(units, scheme.bands, band, _old_edges(target, number)),
            directory=place,
            scheme=scheme,
            first=first,
            memory_bytes=job["memory_bytes"],
        )
        first += open_index(place, scheme).documents
    if job["index"]:
        write_index_band(units, scheme.bands, band, Path(job["index"]), memory_bytes=job["memory_bytes"])
    return {"band": band}


def _old_edges(target: Path, number: int) -> Path:
    return target.with_name(f"{target.name}.older-{number:03d}")


def find_clusters(
    stored: Stored,
    parameters: Parameters,
    engine: Engine,
    index: Path | None,
    progress: Callable[[int, int], None],
) -> Grouped:
    """Group near-duplicates; the bands are independent tasks, in any order, on any number of workers.

    index: where to write an index of these documents, if anywhere. Raises InputError for an earlier corpus
    that has no index or was made with other settings.
    """
    config, work = parameters.config, parameters.work
    older = parameters.open_older()
    segments = work / "segments.json"
    stored.save(segments)
    targets = [work / "edges" / f"band-{band:04d}" for band in range(config.bands)]
    shared = {
        "segments": str(segments),
        "scheme": [config.ngram, config.bands, config.rows],
        "partners": CANDIDATE_PARTNERS if config.verify else 1,
        "older": [str(directory) for directory in parameters.older],
        "index": str(index) if index else None,
        "memory_bytes": parameters.memory_bytes,
    }
    jobs = [{**shared, "band": band, "target": str(target)} for band, target in enumerate(targets)]
    for done, _ in enumerate(run_tasks(edges_task, jobs, engine), start=1):
        progress(done, len(jobs))
    nodes = stored.count + sum(old.documents for old in older)
    components = Components(work / "parents", nodes)
    verified = _join(stored, parameters, targets, components)
    for number in range(len(older)):
        components.union_files(_old_edges(target, number) for target in targets)
    return Grouped(components.roots(), older, verified)


def _join(
    stored: Stored, parameters: Parameters, targets: Sequence[Path], components: Components
) -> Verified | None:
    config = parameters.config
    if config.verify is None:
        components.union_files(targets)
        return None
    return join_verified(
        targets,
        lambda documents: stored.shingles(documents, config.ngram),
        config.verify,
        components,
        memory_bytes=parameters.memory_bytes,
    )


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
