"""One input file -> its documents, each with features and reasons: the work unit of the corpus stage.

Units know nothing of each other, so any number of workers, in any order, gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tsugiki.artifacts.documents import BASE_FIELDS
from tsugiki.artifacts.files import atomic_path, read_json, write_json
from tsugiki.corpus.decode import decode
from tsugiki.corpus.extract import Extractor, TooDeepError, extract_text, tidy
from tsugiki.corpus.features import compute_features, feature_types
from tsugiki.corpus.identify import identify, is_language
from tsugiki.corpus.minhash import shingles, signature
from tsugiki.corpus.prefilter import host_of, is_candidate, page_title
from tsugiki.corpus.read import Page, Tally, read_warc
from tsugiki.corpus.rules import failing, rules_of
from tsugiki.corpus.texts import TEXT_SUFFIXES, Text, read_texts
from tsugiki.languages import load_pack

WARC_SUFFIXES = (".warc", ".warc.gz")
SUFFIXES = (*WARC_SUFFIXES, *TEXT_SUFFIXES)
LANGUAGE_REASON = "language"
SIGNATURE = "signature"

_STEPS = ("HTML pages", "decoded", "candidate language", "extracted", "language identified", "passed rules")
_COUNTERS = ("documents", "characters", "skipped", "encodings", "languages", "reasons", "alone")


@dataclass(frozen=True)
class Settings:
    """What a unit depends on besides its file."""

    language: str
    rules: bool = True
    overrides: tuple[tuple[str, float], ...] = ()
    extractor: Extractor = "resiliparse"
    ngram: int = 5
    hashes: int = 800


@dataclass
class UnitStatistics:
    """The counts of one unit; those of several add up."""

    records: int = 0
    documents: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)
    warnings: list[dict[str, str | int]] = field(default_factory=list)

    def add(self, other: UnitStatistics) -> None:
        """Add another unit's counts to these."""
        self.records += other.records
        self.warnings += other.warnings
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))

    def funnel(self) -> list[dict[str, Any]]:
        """Documents, and characters where text exists, after each step."""
        steps = [{"step": "records read", "documents": self.records, "characters": None}]
        for step in _STEPS:
            characters = self.characters[step] if step in _STEPS[3:] else None
            steps.append({"step": step, "documents": self.documents[step], "characters": characters})
        return steps

    def reached(self, step: str, characters: int = 0) -> None:
        """Count a document that came as far as `step`."""
        self.documents[step] += 1
        self.characters[step] += characters

    def rejected(self, reasons: list[str]) -> None:
        """Count a document's reasons, and whether one of them alone removed it."""
        self.reasons.update(reasons)
        if len(reasons) == 1:
            self.alone[reasons[0]] += 1


def unit_schema(settings: Settings) -> pa.Schema:
    """The columns of a unit's file: a document's, with the MinHash signature of those that passed."""
    features = feature_types(load_pack(settings.language))
    fields = [pa.field(name, kind) for name, kind in features.items()]
    return pa.schema([*BASE_FIELDS, *fields, pa.field(SIGNATURE, pa.binary(4 * settings.hashes))])


def make_unit(path: Path, target: Path, settings: Settings) -> None:
    """Process one file and write `target` (.parquet) and its statistics beside it (.json), last.

    A unit whose .json exists is whole.
    """
    rows, statistics = process_file(path, settings)
    table = pa.Table.from_pylist(rows, schema=unit_schema(settings))
    with atomic_path(target) as partial:
        pq.write_table(table, partial, compression="zstd", row_group_size=512)
    write_json(target.with_suffix(".json"), vars(statistics))


def read_statistics(target: Path) -> UnitStatistics:
    """The statistics beside a unit's file."""
    data = read_json(target.with_suffix(".json"))
    counters = {name: Counter(data[name]) for name in _COUNTERS}
    return UnitStatistics(records=data["records"], warnings=data["warnings"], **counters)


def process_file(path: Path, settings: Settings) -> tuple[list[dict[str, Any]], UnitStatistics]:
    """All documents of a file in the file's order, kept and rejected ones, and the statistics."""
    statistics = UnitStatistics()
    tally = Tally()
    rows = list(_documents(path, settings, statistics, tally))
    statistics.records = tally.records
    statistics.skipped.update(tally.skipped)
    statistics.warnings += tally.warnings
    return rows, statistics


def _documents(
    path: Path, settings: Settings, statistics: UnitStatistics, tally: Tally
) -> Iterator[dict[str, Any]]:
    pack = load_pack(settings.language)
    rules = rules_of(pack, dict(settings.overrides)) if settings.rules else []
    empty = dict.fromkeys(feature_types(pack))
    for origin, title, text in _texts(path, settings, statistics, tally):
        statistics.reached("extracted", len(text))
        found = identify(text, pack)
        statistics.languages[found.label] += 1
        row = {**_base(origin, title, text), **empty, "language": found.label, "language_score": found.score}
        if not is_language(found, pack):
            statistics.rejected([LANGUAGE_REASON])
            yield {**row, "rejected_by": [LANGUAGE_REASON]}
            continue
        statistics.reached("language identified", len(text))
        features = compute_features(text, pack)
        reasons = failing(features, rules)
        statistics.rejected(reasons)
        row |= {**features, "language": pack.code, "rejected_by": reasons}
        if not reasons:
            statistics.reached("passed rules", len(text))
            row[SIGNATURE] = signature(shingles(text, settings.ngram), settings.hashes).tobytes()
        yield row


def _texts(
    path: Path, settings: Settings, statistics: UnitStatistics, tally: Tally
) -> Iterator[tuple[Page | Text, str | None, str]]:
    """Origin, title and text of everything in the file that may be in the language."""
    if path.name.endswith(TEXT_SUFFIXES):
        for item in read_texts(path, tally):
            for step in _STEPS[:3]:
                statistics.reached(step)
            statistics.encodings["utf-8"] += 1
            yield item, item.title, tidy(item.text)
        return
    pack = load_pack(settings.language)
    for page in read_warc(path, tally):
        statistics.reached("HTML pages")
        decoded = decode(page.body, page.charset, pack)
        if decoded is None:
            tally.skipped["undecodable"] += 1
            continue
        statistics.reached("decoded")
        statistics.encodings[decoded.encoding] += 1
        if not is_candidate(decoded, page.url, pack):
            continue
        statistics.reached("candidate language")
        try:
            text = extract_text(decoded.text, settings.extractor)
        except TooDeepError as error:
            tally.warn(page.file, page.offset, "too deep", f"{page.url}: {error}")
            continue
        if not text:
            tally.skipped["no text"] += 1
            continue
        yield page, page_title(decoded.text), text


def _base(origin: Page | Text, title: str | None, text: str) -> dict[str, Any]:
    position = origin.position if isinstance(origin, Page) else 0
    return {
        "id": document_id(origin.file, origin.offset, position, origin.url, origin.date),
        "url": origin.url or None,
        "host": host_of(origin.url),
        "date": origin.date,
        "title": title,
        "text": text,
        "source": {"file": origin.file, "offset": origin.offset},
    }


def document_id(file: str, offset: int, position: int, url: str, date: str | None) -> str:
    """A 128-bit id that is the same on every machine: the file's base name and the place in it, URL, date."""
    key = "\n".join((file, str(offset), str(position), url, date or ""))
    return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=16).hexdigest()


def signatures_of(table: pa.Table, hashes: int) -> np.ndarray:
    """The signatures of a table whose column has no nulls; shape (rows, hashes), uint32."""
    packed = b"".join(table[SIGNATURE].to_pylist())
    return np.frombuffer(bytearray(packed), np.uint32).reshape(-1, hashes)
