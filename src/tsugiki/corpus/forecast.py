"""What a corpus will give and cost, before anything is read.

Sizes come from the files, yields and speeds from a measured sample (`expected.sample`, a finished corpus of a
part of it) or else from the sample crawl of this repository.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tsugiki.artifacts.contract import ArtifactType, Forecast, Forecasts
from tsugiki.artifacts.manifest import is_finished, read_manifest
from tsugiki.artifacts.metrics import read_metrics
from tsugiki.artifacts.processes import usable_cores
from tsugiki.corpus.config import Config, packs_of, rules_for
from tsugiki.errors import InputError, Problem
from tsugiki.languages import Typical, load_pack

# Ratios of the sample crawl (examples/crawl), for forecasts only; what a page is like stands in the pack. A
# crawl in which fewer than a quarter of the pages are in the language gives fewer documents.
_DOCUMENTS_PER_BYTE = 1 / 13_000
_TEXT_YIELDS = {".jsonl": 0.9, ".jsonl.gz": 2.8, ".json.gz": 2.8, ".jsonl.zst": 3.0, ".parquet": 2.0}
_WET_YIELD = 2.2
_CORE_SECONDS_PER_BYTE = 4e-7
_START_SECONDS = 3.0
_BASE_MEMORY_BYTES = 550e6
_WORKER_MEMORY_BYTES = 450e6
_DISK_PER_BYTE = 1.2

# A snapshot of Common Crawl: CC-MAIN-2024-51 has 2.64 B pages in about 80,000 files, 80 to 90 TB of WARC
# (corpus.md §1.6, §5.1).
_SNAPSHOT_PAGES = 2.64e9
_SNAPSHOT_BYTES = 85e12

_UNSEEN = Problem(
    "its files are not on this machine, so its time, memory and disk can't be told",
    "give `expected: {sample: CORPUS}`, a finished corpus of a part of it; or plan where the files are",
    where="source",
    severity="warning",
)


@dataclass(frozen=True)
class Measured:
    """What a finished corpus says of others like it, for each byte of input."""

    documents: float
    characters: float
    bytes: float
    disk: float
    core_seconds: float
    pages: float


def measured(directory: Path) -> Measured:
    """Read the yields and the speed of a finished corpus; raises InputError where it can't tell."""
    if not is_finished(directory):
        raise InputError(
            f"expected.sample: {directory} is no finished corpus",
            hint="make one first: `tsugiki corpus DIRECTORY --source 'a few files' --language CODE`",
        )
    manifest = read_manifest(directory)
    rows = read_metrics(directory / "metrics.jsonl", step="units")
    size = float(rows[-1]["input_bytes"]) if rows else 0.0
    if manifest.kind != "corpus" or not size:
        raise InputError(
            f"expected.sample: {directory} says nothing of its input's size",
            hint="name a corpus that this version has made",
        )
    counts = manifest.counts
    files = sum(file.bytes for file in manifest.files.values())
    return Measured(
        documents=counts["documents"] / size,
        characters=counts["characters"] / size,
        bytes=counts["bytes"] / size,
        disk=files / size,
        core_seconds=float(rows[-1]["cpu_seconds"]) / size,
        pages=float(rows[-1]["pages"]) / size,
    )


def forecast(config: Config, inputs: Forecasts) -> Forecast:
    """What the stage will give and cost; of files that nothing is known of, no counts rather than zeros.

    Raises InputError for an unknown language, rule set or override.
    """
    pack = load_pack(config.language, packs_of(config))
    rules_for(config)
    sizes = [one for name in config.sources for one in _sizes_of(name, inputs)]
    total = sum(size for _, size in sizes)
    expected = config.expected
    sample = measured(Path(expected.sample)) if expected and expected.sample else None
    if not total and sample and expected and expected.snapshots:
        total = expected.snapshots * _SNAPSHOT_PAGES / sample.pages if sample.pages else 0.0
    text = sum(size * _text_yield(name) for name, size in sizes)
    pages = sum(size for name, size in sizes if not _text_yield(name))
    amounts = _sizes(config, pack.typical, (pages, text, total), sample)
    if not any(amounts):
        # That a corpus holds nothing out is known all the same.
        counts = {} if config.heldout else {"heldout_documents": 0.0}
        facts = {"language": config.language}
        return Forecast(ArtifactType.DOCUMENTS, counts, facts, problems=(_UNSEEN,))
    return _as_forecast(config, amounts, total, sample)


def _as_forecast(
    config: Config, sizes: tuple[float, float, float], total: float, sample: Measured | None
) -> Forecast:
    documents, characters, size = sizes
    held_out = min(config.heldout * documents, config.heldout_max_documents or documents)
    share = 1 - held_out / documents if documents else 1.0
    workers = config.workers or usable_cores()
    core_seconds = total * (sample.core_seconds if sample else _CORE_SECONDS_PER_BYTE)
    counts = {
        "documents": documents,
        "characters": characters,
        "bytes": size,
        "train_documents": documents - held_out,
        "train_characters": characters * share,
        "train_bytes": size * share,
        "heldout_documents": held_out,
    }
    facts: dict[str, object] = {"language": config.language, "estimated": config.expected is None}
    if total:
        facts |= {"input_bytes": total, "core_hours": core_seconds / 3600, "workers": workers}
    return Forecast(
        type=ArtifactType.DOCUMENTS,
        counts=counts,
        facts=facts,
        seconds=_START_SECONDS + core_seconds / workers if total else None,
        memory_bytes=_BASE_MEMORY_BYTES + workers * _WORKER_MEMORY_BYTES if total else None,
        disk_bytes=total * (sample.disk if sample else _DISK_PER_BYTE) if total else None,
        problems=() if total else (_UNSEEN,),
    )


def _text_yield(name: str) -> float:
    """UTF-8 bytes of text in a byte of a file that holds texts already; 0 for crawls."""
    if name.endswith((".wet.gz", ".wet")):
        return _WET_YIELD
    return next((share for suffix, share in _TEXT_YIELDS.items() if name.endswith(suffix)), 0.0)


def _sizes(
    config: Config, typical: Typical, amounts: tuple[float, float, float], sample: Measured | None
) -> tuple[float, float, float]:
    """Documents, characters and bytes: as far as stated, else by the sample, else by the sizes of the files.

    amounts: bytes of crawls, bytes of text in other files, and bytes of input together.
    """
    pages, text, total = amounts
    known = config.expected
    stated: Mapping[str, int | None] = (
        known.model_dump(include={"documents", "characters", "bytes"}) if known else {}
    )
    if sample is not None:
        found = (sample.documents * total, sample.characters * total, sample.bytes * total)
        names = ("documents", "characters", "bytes")
        documents, characters, size = (
            stated.get(name) or value for name, value in zip(names, found, strict=True)
        )
        return float(documents), float(characters), float(size)
    characters = pages * _DOCUMENTS_PER_BYTE * typical.characters_per_document
    characters += text / typical.bytes_per_character
    size_stated = stated.get("bytes")
    if size_stated is not None:
        characters = size_stated / typical.bytes_per_character
    characters = stated.get("characters") or characters
    documents = stated.get("documents") or characters / typical.characters_per_document
    return documents, characters, size_stated or characters * typical.bytes_per_character


def _sizes_of(name: str, inputs: Forecasts) -> list[tuple[str, float]]:
    """The files of a source and their bytes: a pattern's end (`*.jsonl*`) doesn't say what each file is.

    Where the files are not here, or others than those that were counted, the source as one.
    """
    matches = glob.glob(name, recursive=True)  # noqa: PTH207 (Path.glob refuses absolute patterns)
    found = [(match, float(Path(match).stat().st_size)) for match in matches if Path(match).is_file()]
    known = inputs[name].counts.get("bytes") if name in inputs else None
    return found if known in {None, sum(size for _, size in found)} else [(name, float(known or 0))]
