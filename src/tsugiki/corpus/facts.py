"""What the manifest says of a corpus: plain data for the report; the same for any number of workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsugiki.artifacts.documents import HELD_OUT, KEPT, TRAIN
from tsugiki.corpus.clusters import Grouped
from tsugiki.corpus.config import Config
from tsugiki.corpus.heldout import Split, histogram
from tsugiki.corpus.histograms import Histograms
from tsugiki.corpus.minhash import detection_probability
from tsugiki.corpus.neardup.survivors import Clusters, ClusterSummary
from tsugiki.corpus.neardup.units import blocks_of
from tsugiki.corpus.statistics import UnitStatistics
from tsugiki.corpus.writing import NEAR_DUPLICATE, Summary

_SIMILARITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
_SIZES = (1, 2, 3, 5, 10, 30, 100, 1000, 1 << 62)
_ITEMS = 200


@dataclass(frozen=True)
class Found:
    """Everything that is known when the last file is written."""

    config: Config
    statistics: UnitStatistics
    histograms: Histograms
    grouped: Grouped
    clusters: Clusters
    after_duplicates: ClusterSummary
    kept: int
    split: Split | None
    summary: Summary
    hosts: Mapping[str, Any]


def facts_of(found: Found) -> dict[str, Any]:
    """The facts of the manifest."""
    statistics, summary = found.statistics, found.summary
    reasons = Counter(statistics.reasons) + Counter(summary.reasons)
    alone = Counter(statistics.alone) + Counter(summary.alone)
    return {
        "language": found.config.language,
        "funnel": _funnel(found),
        "reasons": [
            {"reason": reason, "documents": count, "alone": alone[reason]}
            for reason, count in ranked(reasons)
        ],
        "rejected_samples": [
            {"reason": reason, "url": url, "text": text}
            for reason, _ in ranked(reasons)
            for _, url, text in summary.samples.get(reason, [])
        ],
        "histograms": found.histograms.facts(),
        "skipped_records": dict(ranked(statistics.skipped)),
        "warnings": statistics.warnings,
        "warned": statistics.warned,
        "prefilter": {
            "pages": statistics.documents["pages"],
            "candidates": statistics.documents["candidate language"],
        },
        "encodings": dict(ranked(statistics.encodings)),
        "decoding": {
            "chosen_by": dict(ranked(statistics.decoded_by)),
            "replaced": statistics.replaced,
            "undecodable": statistics.skipped["undecodable"],
        },
        "extraction": {
            "extractors": dict(ranked(statistics.extractors)),
            "empty": statistics.skipped["no text"],
            "too_deep": statistics.skipped["too deep"],
        },
        "languages": dict(ranked(statistics.languages)),
        "cleaning": _cleaning(statistics),
        **({"contamination": _contamination(statistics, reasons)} if found.config.decontaminate else {}),
        **found.hosts,
        "near_duplicates": _near_duplicates(found),
        "split": _split_facts(found),
        "similarity_histogram": histogram(found.split.similarity) if found.split else [],
    }


def _funnel(found: Found) -> list[dict[str, Any]]:
    """The steps of the units, then those of the whole; characters are those of the final text where known."""
    steps = found.statistics.funnel()
    steps.append(
        {
            "step": "after near-duplicates",
            "documents": found.after_duplicates.kept,
            "characters": found.summary.characters[KEPT]
            if found.kept == found.after_duplicates.kept
            else None,
        }
    )
    last = {
        "step": "after host filter",
        "documents": found.kept,
        "characters": found.summary.characters[KEPT],
    }
    return [*steps, last]


def _cleaning(statistics: UnitStatistics) -> dict[str, Any]:
    counts = {name: count for name, count in ranked(statistics.cleaned) if name != "documents"}
    short = sum(count for reason, count in statistics.reasons.items() if reason.startswith("cleaned:"))
    return {"changed": statistics.cleaned["documents"], "counts": counts, "too_short": short}


def _contamination(statistics: UnitStatistics, reasons: Mapping[str, int]) -> dict[str, Any]:
    hits = ranked(statistics.contaminated)
    return {
        "items": len(hits),
        "documents": reasons.get("contaminated", 0),
        "hits": [{"item": item, "documents": count} for item, count in hits[:_ITEMS]],
    }


def _near_duplicates(found: Found) -> dict[str, Any]:
    parameters, after = found.config.near_duplicates, found.after_duplicates
    verified = found.grouped.verified
    return {
        "clusters": after.clusters,
        "removed": found.summary.reasons[NEAR_DUPLICATE],
        "largest": after.largest,
        "with_older": after.with_older,
        "sizes": list(_sizes(found.clusters)),
        "ngram": parameters.ngram,
        "bands": parameters.bands,
        "rows": parameters.rows,
        "keep": parameters.keep,
        "verified": None
        if verified is None
        else {"threshold": parameters.verify, "pairs": verified.candidates, "confirmed": verified.confirmed},
        "detection": [
            {
                "similarity": similarity,
                "probability": round(detection_probability(similarity, parameters.bands, parameters.rows), 6),
            }
            for similarity in _SIMILARITIES
        ],
    }


def _sizes(clusters: Clusters) -> Iterator[dict[str, int]]:
    """How many clusters and documents there are of each size; a cluster counts where its survivor is ours."""
    edges = np.array(_SIZES)
    counted = np.zeros((2, edges.size - 1), np.int64)
    for block in blocks_of(clusters.survivor.size):
        numbers = np.arange(block.start, block.stop)
        sizes = clusters.size[block]
        kinds = np.searchsorted(edges, sizes, side="right") - 1
        alive = clusters.survivor[block] == numbers
        counted[0] += np.bincount(kinds[alive], minlength=edges.size - 1)
        counted[1] += np.bincount(kinds, minlength=edges.size - 1)
    for low, high, found, documents in zip(_SIZES[:-1], _SIZES[1:], *counted.tolist(), strict=True):
        if documents:
            yield {"from": low, "to": high - 1, "clusters": found, "documents": documents}


def _split_facts(found: Found) -> dict[str, Any]:
    documents, split = found.summary.documents, found.split
    counts = {"train": documents[TRAIN], "heldout": documents[HELD_OUT]}
    if split is None:
        absent = dict.fromkeys(("groups", "largest_group", "max_similarity"))
        return {**counts, **absent, "method": "none held out"}
    return {
        **counts,
        "groups": split.groups,
        "largest_group": split.largest_group,
        "max_similarity": round(max(split.similarity), 6),
        "max_containment": round(max(split.containment), 6),
        "threshold": found.config.heldout_similarity,
        "rounds": split.rounds,
        "method": "exact: every held-out document against every training document",
    }


def ranked(counter: Mapping[str, int]) -> list[tuple[str, int]]:
    """Most frequent first; equal counts by name, so that the order never depends on that of the input."""
    return sorted(
        ((key, count) for key, count in counter.items() if count), key=lambda item: (-item[1], item[0])
    )
