"""The corpus stage: files of a crawl in, documents out.

work/units/*.parquet, *.json   one a file: its documents with features, reasons and signatures
documents/part-*.parquet       kept documents
rejected/part-*.parquet        rejected ones with every reason, near-duplicates among them
"""

from __future__ import annotations

import glob
import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tsugiki.artifacts.contract import (
    EXECUTION,
    ArtifactType,
    Count,
    Forecast,
    Forecasts,
    Inputs,
    Outcome,
    Reference,
    StageConfig,
    Workspace,
)
from tsugiki.artifacts.identity import identity_of
from tsugiki.errors import DataError, InputError, Problem

if TYPE_CHECKING:
    from tsugiki.corpus.pipeline import Settings, UnitStatistics
    from tsugiki.languages import Typical

KIND = "corpus"
PRODUCES = ArtifactType.DOCUMENTS
CODE_VERSION = 1

# Ratios of the sample crawl (examples/crawl), for forecasts only; what a page is like stands in the pack. A
# crawl in which fewer than a quarter of the pages are in the language gives fewer documents.
_DOCUMENTS_PER_BYTE = 1 / 13_000
_TEXT_YIELDS = {".jsonl": 0.9, ".jsonl.gz": 2.8, ".jsonl.zst": 3.0, ".parquet": 2.0}
_SECONDS_PER_BYTE = 5e-7
_START_SECONDS = 3.0
_BASE_MEMORY_BYTES = 450e6
_DISK_PER_BYTE = 1.2


_UNSEEN = Problem(
    "its files are not on this machine, so its time, memory and disk can't be told",
    "sizes come from `expected`; plan again where the files are",
    where="source",
    severity="warning",
)


class NearDuplicates(BaseModel):
    """MinHash parameters.

    The default is Swallow's: 40 buckets of 20 hashes, which detect 37 % of pairs with a similarity of 0.8 and
    99.4 % of those with 0.9.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    ngram: int = Field(default=5, ge=1, le=64, description="Length of the character n-grams.")
    bands: int = Field(default=40, ge=1, le=4096, description="Bands (Swallow's r, buckets).")
    rows: int = Field(default=20, ge=1, le=256, description="Hashes a band (Swallow's b).")
    keep: Literal["newest", "longest", "first"] = Field(
        default="newest", description="Which document of a cluster survives."
    )


class Expected(BaseModel):
    """What a corpus that is not on this machine is known to give, for `plan`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    documents: Count | None = Field(default=None, description="Kept documents.")
    characters: Count | None = Field(default=None, description="Characters of their text.")
    bytes: Count | None = Field(default=None, description="UTF-8 bytes of their text.")


class Config(StageConfig):
    """What the corpus stage reads and how it chooses."""

    source: Annotated[str | list[str], EXECUTION] = Field(
        description="Paths or globs of .warc, .warc.gz, .jsonl(.gz, .zst) or .parquet files."
    )
    language: str = Field(description="Code of the language pack, e.g. ja.")
    rules: Literal["pack", "none"] = Field(
        default="pack", description="Quality rules: those of the language pack, or none."
    )
    rule_overrides: dict[str, float] = Field(
        default_factory=dict, description="Thresholds by the rule's name in place of the pack's."
    )
    near_duplicates: NearDuplicates = Field(
        default=NearDuplicates(), description="How near-duplicates are found and which one is kept."
    )
    heldout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the documents to hold out of training, in whole groups.",
    )
    heldout_similarity: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Documents at least this alike (Jaccard, character n-grams) stay on one side.",
    )
    heldout_max_documents: int | None = Field(
        default=None, ge=1, description="Hold out at most this many documents."
    )
    extractor: Literal["resiliparse", "trafilatura"] = Field(
        default="resiliparse", description="What takes the main text out of a page."
    )
    expected: Annotated[Expected | None, EXECUTION] = Field(
        default=None, description="Known size of the result, for planning with data that is elsewhere."
    )
    workers: Annotated[int | None, EXECUTION] = Field(
        default=None, ge=1, description="Processes; by default as many as cores, one for small inputs."
    )

    @model_validator(mode="after")
    def _overrides_have_rules(self) -> Config:
        if self.rules == "none" and self.rule_overrides:
            message = 'rule_overrides changes rules, but rules is "none"'
            raise ValueError(message)
        return self

    def references(self) -> tuple[Reference, ...]:
        return tuple(Reference("source", name, ArtifactType.FILES) for name in self.sources)

    def identity_payload(self) -> dict[str, Any]:
        """The configuration, and what the language pack says: its thresholds decide as those written here."""
        return {**super().identity_payload(), "language_pack": _pack_identity(self.language)}

    @property
    def sources(self) -> tuple[str, ...]:
        """The globs and paths, as written."""
        return (self.source,) if isinstance(self.source, str) else tuple(self.source)


def _pack_identity(code: str) -> str | None:
    """A hash of the language pack's facts, those for forecasts left out; None for an unknown language."""
    from tsugiki.languages import load_pack

    try:
        pack = load_pack(code)
    except InputError:  # `estimate` says so, with all other faults of the recipe
        return None
    facts = pack.model_dump(mode="json", exclude={"typical", "name", "native_name"})
    # the order of columns and reasons, which the hash of a mapping leaves out
    return identity_of({"facts": facts, "classes": list(pack.script.classes), "rules": list(pack.rules)})


def estimate(config: Config, inputs: Forecasts) -> Forecast:
    """What the stage will give and cost, from the sizes of the files and the ratios of the sample crawl."""
    from tsugiki.corpus.rules import rules_of
    from tsugiki.languages import load_pack

    pack = load_pack(config.language)
    rules_of(pack, config.rule_overrides)
    sizes = {name: _bytes_of(name, inputs) for name in config.sources}
    total = sum(sizes.values())
    text = sum(size * _text_yield(name) for name, size in sizes.items())
    pages = sum(size for name, size in sizes.items() if not _text_yield(name))
    documents, characters, size = _expected_size(config.expected, pack.typical, pages, text)
    held_out = min(config.heldout * documents, config.heldout_max_documents or documents)
    share = 1 - held_out / documents if documents else 1.0
    counts = {
        "documents": documents,
        "characters": characters,
        "bytes": size,
        "train_documents": documents - held_out,
        "train_characters": characters * share,
        "train_bytes": size * share,
        "heldout_documents": held_out,
    }
    return Forecast(
        type=PRODUCES,
        counts=counts,
        facts={"language": config.language, "estimated": config.expected is None},
        seconds=_START_SECONDS + total * _SECONDS_PER_BYTE if total else None,
        memory_bytes=_BASE_MEMORY_BYTES + size * 4 if total else None,
        disk_bytes=total * _DISK_PER_BYTE if total else None,
        problems=() if total else (_UNSEEN,),
    )


def _text_yield(name: str) -> float:
    """UTF-8 bytes of text in a byte of a file that holds texts already; 0 for crawls."""
    return next((share for suffix, share in _TEXT_YIELDS.items() if name.endswith(suffix)), 0.0)


def _expected_size(
    expected: Expected | None, typical: Typical, crawl_bytes: float, text_bytes: float
) -> tuple[float, float, float]:
    """Documents, characters and bytes: as far as stated, else from the sizes of crawls and text files."""
    known = expected or Expected()
    characters = crawl_bytes * _DOCUMENTS_PER_BYTE * typical.characters_per_document
    characters += text_bytes / typical.bytes_per_character
    if known.bytes is not None:
        characters = known.bytes / typical.bytes_per_character
    characters = known.characters or characters
    documents = known.documents or characters / typical.characters_per_document
    return documents, characters, known.bytes or characters * typical.bytes_per_character


def _bytes_of(name: str, inputs: Forecasts) -> float:
    forecast = inputs.get(name)
    if forecast is not None and "bytes" in forecast.counts:
        return float(forecast.counts["bytes"])
    matches = glob.glob(name, recursive=True)  # noqa: PTH207 (Path.glob refuses absolute patterns)
    return float(sum(Path(match).stat().st_size for match in matches if Path(match).is_file()))


def run(config: Config, inputs: Inputs, out: Workspace) -> Outcome:
    """Make the documents.

    Raises InputError where files are missing or of an unknown kind, DataError where the crawl holds no page,
    none of the language, or none that passes, StageError where the split can't be proven.
    """
    from tsugiki.corpus.finish import finish

    start = time.perf_counter()
    settings = settings_of(config)
    files = input_files(config, inputs)
    units = _make_units(config, settings, files, out)
    statistics = _gather(units)
    seconds = time.perf_counter() - start
    out.metrics.append(step="read", files=len(files), records=statistics.records, seconds=round(seconds, 3))
    out.log.info("read %d records of %d files in %.1f s", statistics.records, len(files), seconds)
    for warning in statistics.warnings:
        out.log.warning("%(file)s at byte %(offset)s: %(message)s", warning)
    _check(config, statistics, len(files))
    outcome = finish(config, settings, units, statistics, out)
    seconds = time.perf_counter() - start
    out.metrics.append(step="all", documents=outcome.counts["documents"], seconds=round(seconds, 3))
    return outcome


def settings_of(config: Config) -> Settings:
    """What a work unit depends on; raises InputError for an unknown language or override."""
    from tsugiki.corpus.pipeline import Settings
    from tsugiki.corpus.rules import rules_of
    from tsugiki.languages import load_pack

    rules_of(load_pack(config.language), config.rule_overrides)
    return Settings(
        language=config.language,
        rules=config.rules == "pack",
        overrides=tuple(sorted(config.rule_overrides.items())),
        extractor=config.extractor,
        ngram=config.near_duplicates.ngram,
        hashes=config.near_duplicates.bands * config.near_duplicates.rows,
    )


def input_files(config: Config, inputs: Inputs) -> list[Path]:
    """The files to read, by base name.

    Raises InputError where a source stands for no file, a file is missing or of an unknown kind, or two files
    have one name (a document's id is made from it).
    """
    from tsugiki.corpus.pipeline import SUFFIXES

    files: dict[str, Path] = {}
    for name in config.sources:
        paths = inputs.get(name, ())
        if not paths:
            raise InputError(
                f'source: no file matches "{name}"', hint="check the path; a glob is relative to the recipe"
            )
        for path in paths:
            if not path.is_file():
                raise InputError(f"source: {path} is missing or is no file", hint="check the path")
            if not path.name.endswith(SUFFIXES):
                raise InputError(
                    f"source: {path.name} is of an unknown kind", hint="known: " + ", ".join(SUFFIXES)
                )
            known = files.setdefault(path.name, path)
            if known.resolve() != path.resolve():
                raise InputError(
                    f"source: two files are named {path.name}: {known} and {path}",
                    hint="rename one: the ids of documents are made from file names",
                )
    return [files[name] for name in sorted(files)]


def _make_units(config: Config, settings: Settings, files: list[Path], out: Workspace) -> list[Path]:
    """Make the units that are not there yet; the paths of all, in the order of `files`."""
    from dataclasses import asdict

    from tsugiki.corpus.engine import make_units

    directory = out.work / "units"
    directory.mkdir(exist_ok=True)
    pack = _pack_identity(config.language)
    version = identity_of({"settings": asdict(settings), "code_version": CODE_VERSION, "pack": pack})
    units = []
    for file in files:
        key = f"{version}\n{file.name}\n{file.stat().st_size}"
        units.append(directory / f"{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}.parquet")
    jobs = [
        (file, unit)
        for file, unit in zip(files, units, strict=True)
        if not unit.with_suffix(".json").exists()
    ]
    done = len(files) - len(jobs)
    out.progress(done, len(files), "files", "reading")
    for count, name in enumerate(make_units(jobs, settings, _workers(config, jobs)), start=done + 1):
        out.progress(count, len(files), "files", name)
    return units


_SMALL_BYTES = 24 << 20
"""Below this, starting processes takes longer than a second core saves."""


def _workers(config: Config, jobs: list[tuple[Path, Path]]) -> int:
    if config.workers is not None:
        return config.workers
    small = sum(file.stat().st_size for file, _ in jobs) < _SMALL_BYTES
    return 1 if small else len(os.sched_getaffinity(0))


def _gather(units: list[Path]) -> UnitStatistics:
    from tsugiki.corpus.pipeline import UnitStatistics, read_statistics

    total = UnitStatistics()
    for unit in units:
        total.add(read_statistics(unit))
    return total


def _check(config: Config, statistics: UnitStatistics, files: int) -> None:
    """No page, no page of the language, none that passes: each with what was seen instead."""
    reached = statistics.documents
    if not reached["HTML pages"]:
        seen = (
            ", ".join(f"{count} {reason}" for reason, count in statistics.skipped.most_common(6)) or "nothing"
        )
        raise DataError(
            f"the crawl holds no HTML page: {statistics.records} records in {files} files ({seen})",
            hint="check that the files are the right ones and whole",
        )
    if not reached["language identified"]:
        seen = ", ".join(f"{label} ({count})" for label, count in statistics.languages.most_common(5))
        raise DataError(
            f'no page of the language "{config.language}" among {reached["HTML pages"]} HTML pages '
            f"(candidates: {reached['candidate language']}; languages found in them: {seen or 'none'})",
            hint="check the stage's language, or give a crawl that has such pages",
        )
    if not reached["passed rules"]:
        raise DataError(
            f"all {reached['language identified']} pages of the language were rejected by the quality rules; "
            f"most often by {_top_reasons(statistics)}",
            hint="relax thresholds with rule_overrides, or set rules: none",
        )


def _top_reasons(statistics: UnitStatistics) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in statistics.reasons.most_common(5))
