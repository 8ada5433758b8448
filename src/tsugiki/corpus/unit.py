"""A file or a part of one -> its documents, each with features and reasons: the corpus stage's unit of work.

Units know nothing of each other, so any number of workers, in any order, gives the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tsugiki.artifacts.files import write_json
from tsugiki.corpus.cleaning.clean import clean
from tsugiki.corpus.config import QUALITY
from tsugiki.corpus.decode import decode
from tsugiki.corpus.extract import extract, tidy
from tsugiki.corpus.feature_names import Features
from tsugiki.corpus.features import compute_features
from tsugiki.corpus.formats import read_items
from tsugiki.corpus.histograms import Histograms
from tsugiki.corpus.hosts.names import host_of
from tsugiki.corpus.identify import identify, is_language
from tsugiki.corpus.items import WHOLE, Page, Span, Tally, Text
from tsugiki.corpus.minhash import shingles, signature
from tsugiki.corpus.prefilter import is_candidate, page_title
from tsugiki.corpus.remote import is_local, local_copy
from tsugiki.corpus.rules import failing
from tsugiki.corpus.segments import SegmentWriter
from tsugiki.corpus.statistics import UnitStatistics
from tsugiki.corpus.toolbox import CONTAMINATED, Toolbox, toolbox_of
from tsugiki.corpus.transfer import Transfer
from tsugiki.corpus.unit_progress import UnitProgress

LANGUAGE_REASON = "language"
CONTAMINATED_REASON = "contaminated"
CLEANED = "cleaned:"
"""Put before the reason of a document that is too short once its footer is gone."""

_LENGTHS = ("letters", "language_letters", "words")

Row = dict[str, Any]
Signature = npt.NDArray[np.uint32]
_HISTOGRAM_ROWS = 2048


def make_unit(job: dict[str, Any]) -> dict[str, Any]:
    """Process the file `job["file"]` into the unit `job["unit"]` (see `segments`), its .json last.

    The job also holds `config` and `resources` (toolbox.py) and `downloads`, a folder for remote files; for a
    part of a file its `span`, and the part's `bytes`.
    """
    started = time.process_time()
    toolbox = toolbox_of(json.dumps({"config": job["config"], "resources": job["resources"]}))
    file, unit = job["file"], Path(job["unit"])
    with contextlib.ExitStack() as stack:
        path = Path(file)
        if not is_local(file):
            transfer = stack.enter_context(Transfer())
            path = stack.enter_context(local_copy(file, Path(job["downloads"]), transfer))
        size = path.stat().st_size if job.get("bytes") is None else job["bytes"]
        part = Part(path, Span(**job.get("span", {})), stack.enter_context(UnitProgress(unit, size)))
        writer = SegmentWriter(unit, toolbox.schema, *_shape(toolbox))
        statistics, histograms, tally = fill(part, toolbox, stack.enter_context(writer))
    statistics.input_bytes = size
    statistics.cpu_seconds = time.process_time() - started
    segments = [segment.as_dict() for segment in writer.segments]
    data = {
        "statistics": statistics.as_dict(),
        "histograms": histograms.state(),
        "segments": segments,
        "reach": [tally.begin, tally.end],
    }
    write_json(unit.with_suffix(".json"), data)
    return {"name": path.name, "bytes": size, "pages": statistics.documents["pages"]}


@dataclass(frozen=True)
class Part:
    """What a unit is made of: a file, a part of it, and who is told how far it is."""

    path: Path
    span: Span = WHOLE
    progress: Callable[[int, int], None] = lambda _bytes, _pages: None


def _shape(toolbox: Toolbox) -> tuple[int, int]:
    parameters = toolbox.config.near_duplicates
    return parameters.bands, parameters.rows


def fill(part: Part, toolbox: Toolbox, writer: SegmentWriter) -> tuple[UnitStatistics, Histograms, Tally]:
    """Write all documents of a part, kept and rejected ones, in the file's order; gives what was counted."""
    statistics, tally = UnitStatistics(), Tally()
    histograms = Histograms(toolbox.pack, toolbox.rules)
    waiting: list[Row] = []
    for row, signed in documents(part, toolbox, statistics, tally):
        writer.add(row, signed, row.get(QUALITY) or 0.0)
        if row["rejected_by"] != [LANGUAGE_REASON]:
            waiting.append(row)
        if len(waiting) == _HISTOGRAM_ROWS:
            _draw(histograms, waiting, toolbox)
    _draw(histograms, waiting, toolbox)
    statistics.records = tally.records
    statistics.skipped.update(tally.skipped)
    statistics.warn(tally.warnings, len(tally.warnings))
    return statistics, histograms, tally


def _draw(histograms: Histograms, rows: list[Row], toolbox: Toolbox) -> None:
    """Add the rows to the histograms, and forget them."""
    if not rows:
        return
    columns = [pa.field(name, kind) for name, kind in toolbox.columns.items()]
    schema = pa.schema([*columns, pa.field("rejected_by", pa.list_(pa.string()))])
    table = pa.Table.from_pylist(rows, schema=schema)
    histograms.add(table, np.array([not row["rejected_by"] for row in rows]))
    rows.clear()


def documents(
    part: Part, toolbox: Toolbox, statistics: UnitStatistics, tally: Tally
) -> Iterator[tuple[Row, Signature | None]]:
    """Every text of a part that may be in the language, as a row; with its signature if it passed."""
    empty = dict.fromkeys(toolbox.columns)
    parameters = toolbox.config.near_duplicates
    hashes = parameters.bands * parameters.rows
    for origin, title, text in _texts(part, toolbox, statistics, tally):
        statistics.reached("extracted", len(text))
        found = identify(text, toolbox.pack)
        statistics.languages[found.label] += 1
        row = {**_base(origin, title, text), **empty, "language": found.label, "language_score": found.score}
        if not is_language(found, toolbox.pack):
            statistics.rejected([LANGUAGE_REASON])
            yield {**row, "rejected_by": [LANGUAGE_REASON]}, None
            continue
        statistics.reached("language identified", len(text))
        row |= _judged(row, text, toolbox, statistics)
        statistics.rejected(row["rejected_by"])
        if row["rejected_by"]:
            yield row, None
            continue
        statistics.reached("passed rules", len(row["text"]))
        yield row, signature(shingles(row["text"], parameters.ngram), hashes)


def _judged(row: Row, text: str, toolbox: Toolbox, statistics: UnitStatistics) -> Row:
    """Features, all failing reasons and, for a text that passed, the cleaned text."""
    features = compute_features(text, toolbox.pack)
    reasons = toolbox.urls.reasons(row["url"]) if row["url"] else []
    if toolbox.contamination is not None:
        hits = toolbox.contamination.hits(text)
        features[CONTAMINATED] = len(hits.items)
        statistics.contaminated.update(hits.items)
        if hits.items and toolbox.config.decontaminate and toolbox.config.decontaminate.reject:
            reasons.append(CONTAMINATED_REASON)
    if toolbox.classifier is not None:
        features[QUALITY] = toolbox.classifier.score(text)
    reasons += failing(features, toolbox.rules)
    judged = {**features, "language": toolbox.pack.code, "rejected_by": reasons}
    if reasons:
        return judged
    cleaned = clean(text, toolbox.pack, toolbox.cleaning)
    if cleaned.text == text:
        return judged
    statistics.cleaned.update(cleaned.changes)
    statistics.cleaned["documents"] += 1
    short = _too_short(cleaned.text, toolbox)
    if short:
        return {**judged, "rejected_by": [CLEANED + reason for reason in short]}
    return {**judged, "text": cleaned.text}


def _too_short(text: str, toolbox: Toolbox) -> list[str]:
    """The failing reasons of the rules on lengths, for a text that was shortened."""
    rules = [rule for rule in toolbox.rules if rule.feature in _LENGTHS]
    features: Features = compute_features(text, toolbox.pack) if rules else {}
    return failing(features, rules)


def _texts(
    part: Part, toolbox: Toolbox, statistics: UnitStatistics, tally: Tally
) -> Iterator[tuple[Page | Text, str | None, str]]:
    """Origin, title and text of everything in the part that may be in the language."""
    for item in read_items(part.path, tally, span=part.span):
        statistics.reached("pages")
        part.progress(tally.passed, tally.pages)
        if isinstance(item, Text):
            for step in ("candidate language", "decoded"):
                statistics.reached(step)
            statistics.encodings["utf-8"] += 1
            statistics.extractors["none: text already"] += 1
            yield item, item.title, tidy(item.text)
            continue
        found = _extracted(item, toolbox, statistics, tally)
        if found is not None:
            yield item, *found


def _extracted(
    page: Page, toolbox: Toolbox, statistics: UnitStatistics, tally: Tally
) -> tuple[str | None, str] | None:
    """Title and main text of a page; None, and counted, where it is left out."""
    if not is_candidate(page.body, page.charset, page.url, toolbox.pack, page.http_language):
        return None
    statistics.reached("candidate language")
    decoded = decode(page.body, page.charset, toolbox.pack)
    if decoded is None:
        tally.skipped["undecodable"] += 1
        return None
    statistics.reached("decoded")
    statistics.encodings[decoded.encoding] += 1
    statistics.decoded_by[decoded.chosen_by] += 1
    statistics.replaced += bool(decoded.replaced)
    extracted = extract(decoded.text, toolbox.config.extractor)
    if extracted.problem:
        tally.warn(page.file, page.offset, extracted.problem, f"{page.url}: {extracted.problem}")
        return None
    if not extracted.text:
        tally.skipped["no text"] += 1
        return None
    statistics.extractors[extracted.extractor] += 1
    return page_title(decoded.text), extracted.text


def _base(origin: Page | Text, title: str | None, text: str) -> Row:
    return {
        "id": document_id(origin.file, origin.offset, origin.position, origin.url, origin.date),
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
