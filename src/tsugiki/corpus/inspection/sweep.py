"""What other thresholds would keep, from the stored columns alone.

A document's fate under other thresholds follows from its features and from the reasons that no threshold on
a feature made (language, lists, contamination, near-duplicates): those stay. What can't be known without the
texts is said, not guessed: documents that newly pass were not compared with others, nor cleaned.

Cost: each part is read once, a few columns only, batch by batch; memory does not grow with the corpus.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tsugiki.corpus.inspection.artifact import NEAR_DUPLICATE, Corpus, as_floats, batches
from tsugiki.corpus.inspection.cuts import Cut
from tsugiki.corpus.inspection.scenarios import Scenario

CHARACTERS: Final = "letters"
"""The feature that is the length of the text."""

_ROWS: Final = 1 << 17

Mask = npt.NDArray[np.bool_]


@dataclass
class Amount:
    """Documents and the characters of their texts."""

    documents: int = 0
    characters: int = 0

    def add(self, mask: Mask, characters: npt.NDArray[np.int64]) -> None:
        """Count the documents under a mask; both of shape (rows,)."""
        self.documents += int(np.count_nonzero(mask))
        self.characters += int(characters[mask].sum())


@dataclass(frozen=True)
class Changed:
    """A document whose fate a scenario changes, and where it lies."""

    distance: float
    id: str
    file: Path
    row: int
    passes: bool


@dataclass
class Step:
    """What a scenario would keep.

    kept: what would be kept. newly_passing: of that, what is rejected now, before near-duplicates, clean-up
    and host filter. newly_rejected: kept now, no longer then. rejected: where one of the changed rules holds,
    among documents with features; alone: where nothing else speaks against the document.
    clusters: survivors of near-duplicate clusters among the newly rejected.
    """

    scenario: Scenario
    kept: Amount = field(default_factory=Amount)
    newly_passing: Amount = field(default_factory=Amount)
    newly_rejected: Amount = field(default_factory=Amount)
    rejected: Amount = field(default_factory=Amount)
    alone: Amount = field(default_factory=Amount)
    clusters: int = 0
    samples: list[Changed] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As plain data, without the samples."""
        amounts = ("kept", "newly_passing", "newly_rejected", "rejected", "alone")
        return {
            "scenario": self.scenario.title,
            "set": self.scenario.values,
            **{name: asdict(getattr(self, name)) for name in amounts},
            "clusters_that_lose_their_survivor": self.clusters,
        }


@dataclass
class Sweep:
    """The answer: what is kept now, and each step.

    rejected: all rejected documents; by_rules: those that only rules reject; near_duplicates: those that
    only near-duplicates reject. stale: documents of which the rules of today say something else than what is
    stored.
    """

    now: Amount = field(default_factory=Amount)
    rejected: Amount = field(default_factory=Amount)
    by_rules: Amount = field(default_factory=Amount)
    near_duplicates: Amount = field(default_factory=Amount)
    stale: int = 0
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class _Batch:
    """Rows of a part as arrays of shape (rows,)."""

    file: Path
    first: int
    values: Mapping[str, npt.NDArray[np.float64]]
    characters: npt.NDArray[np.int64]
    kept: Mask
    ruled: Mask  # a rule's reason is stored
    near: Mask  # rejected as a near-duplicate
    fixed: Mask  # rejected for something that no threshold changes
    in_cluster: Mask
    ids: pa.Array | None
    rejections: dict[tuple[str, str, float], npt.NDArray[np.int8]] = field(default_factory=dict)

    def rejects(self, cut: Cut) -> npt.NDArray[np.int8]:
        """1 where the cut rejects."""
        key = (cut.feature, cut.sign, cut.value)
        if key not in self.rejections:
            self.rejections[key] = cut.rejects(self.values[cut.feature]).astype(np.int8)
        return self.rejections[key]


def sweep(corpus: Corpus, scenarios: Sequence[Scenario], samples: int = 0) -> Sweep:
    """What each scenario would keep.

    samples: so many documents a scenario whose fate it changes, those nearest to its threshold.
    Raises InputError where a part is damaged or lacks the column of a rule.
    """
    result = Sweep(steps=[Step(scenario) for scenario in scenarios])
    cuts = [*corpus.cuts, *(cut for one in scenarios for cut in one.added)]
    features = list(dict.fromkeys(cut.feature for cut in cuts))
    for batch in _read(corpus, features, with_ids=samples > 0):
        failed = np.zeros(len(batch.kept), np.int16)
        for cut in corpus.cuts:
            failed += batch.rejects(cut)
        _count_now(result, batch, failed)
        for step in result.steps:
            _count(step, batch, failed, samples)
    return result


def _count_now(result: Sweep, batch: _Batch, failed: npt.NDArray[np.int16]) -> None:
    result.now.add(batch.kept, batch.characters)
    result.rejected.add(~batch.kept, batch.characters)
    result.by_rules.add(batch.ruled & ~batch.near & ~batch.fixed, batch.characters)
    result.near_duplicates.add(batch.near & ~batch.ruled & ~batch.fixed, batch.characters)
    result.stale += int(np.count_nonzero(((failed > 0) != batch.ruled) & ~batch.fixed))


def _count(step: Step, batch: _Batch, failed: npt.NDArray[np.int16], samples: int) -> None:
    others = failed.copy()
    for cut in step.scenario.removed:
        others -= batch.rejects(cut)
    tried = np.zeros(len(failed), np.int16)
    for cut in step.scenario.added:
        tried += batch.rejects(cut)
    passes = (others + tried) == 0
    free = ~batch.fixed & ~batch.near  # their fate is the rules' alone
    entering = passes & free & ~batch.kept
    leaving = ~passes & batch.kept
    step.kept.add((batch.kept & passes) | entering, batch.characters)
    step.newly_passing.add(entering, batch.characters)
    step.newly_rejected.add(leaving, batch.characters)
    step.rejected.add(tried > 0, batch.characters)
    step.alone.add((tried > 0) & (others == 0) & free, batch.characters)
    step.clusters += int(np.count_nonzero(leaving & batch.in_cluster))
    if samples:
        _keep_samples(step, batch, entering, leaving, samples)


def _keep_samples(step: Step, batch: _Batch, entering: Mask, leaving: Mask, samples: int) -> None:
    """The documents nearest to the threshold; where a scenario has several, those with the smallest ids."""
    rows = np.flatnonzero(entering | leaving)
    distances = _distances(step.scenario, batch, rows)
    if len(rows) > samples:
        # all that are as near as the last one wanted, so that the ids decide and not the order
        near = distances <= np.partition(distances, samples - 1)[samples - 1]
        rows, distances = rows[near], distances[near]
    if batch.ids is None or not len(rows):
        return
    ids = batch.ids.take(pa.array(rows)).to_pylist()
    found = (
        Changed(distance, name, batch.file, batch.first + row, bool(entering[row]))
        for distance, name, row in zip(distances.tolist(), ids, rows.tolist(), strict=True)
    )
    step.samples = heapq.nsmallest(samples, [*step.samples, *found], key=lambda one: (one.distance, one.id))


def _distances(scenario: Scenario, batch: _Batch, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    cuts = scenario.added or scenario.removed
    if len(cuts) != 1:
        return np.zeros(len(rows))
    distances: npt.NDArray[np.float64] = np.abs(batch.values[cuts[0].feature][rows] - cuts[0].value)
    return np.nan_to_num(distances, nan=np.inf)


def _read(corpus: Corpus, features: Sequence[str], *, with_ids: bool) -> Iterator[_Batch]:
    columns = [*features, "rejected_by", "cluster_size"]
    counted = CHARACTERS if CHARACTERS in corpus.columns else "text"
    columns += [name for name in (counted, *(["id"] if with_ids else [])) if name not in columns]
    for file in corpus.files:
        first = 0
        for batch in batches(file, columns, _ROWS):
            yield _batch(corpus, file, first, batch, features)
            first += batch.num_rows


def _batch(corpus: Corpus, file: Path, first: int, batch: pa.RecordBatch, features: Sequence[str]) -> _Batch:
    reasons = batch.column("rejected_by")
    kinds = _reason_kinds(corpus, reasons)
    by_feature = CHARACTERS in batch.schema.names
    lengths = batch.column(CHARACTERS) if by_feature else pc.utf8_length(batch.column("text"))
    sizes = as_floats(batch.column("cluster_size"))
    return _Batch(
        file=file,
        first=first,
        values={name: as_floats(batch.column(name)) for name in features},
        characters=np.asarray(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False), np.int64),
        kept=~(kinds["rule"] | kinds["near"] | kinds["other"]),
        ruled=kinds["rule"],
        near=kinds["near"],
        fixed=kinds["other"],
        in_cluster=sizes > 1,
        ids=batch.column("id") if "id" in batch.schema.names else None,
    )


def _reason_kinds(corpus: Corpus, reasons: pa.ListArray) -> dict[str, Mask]:
    """For each document whether a rule, near-duplicates, or something else is among its reasons."""
    flat = pc.list_flatten(reasons)
    encoded = flat if pa.types.is_dictionary(flat.type) else flat.dictionary_encode()
    codes = np.asarray(pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False), np.int64)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(reasons), 0).to_numpy(zero_copy_only=False))
    parents = np.repeat(np.arange(len(lengths)), lengths)
    names = [_kind(corpus, name) for name in encoded.dictionary.to_pylist()]
    kinds = {}
    for kind in ("rule", "near", "other"):
        wanted = np.array([name == kind for name in names], bool)
        mask = np.zeros(len(lengths), bool)
        if len(codes):
            mask[parents[wanted[codes]]] = True
        kinds[kind] = mask
    return kinds


def _kind(corpus: Corpus, reason: str | None) -> str:
    if reason is not None and corpus.is_rule_reason(reason):
        return "rule"
    return "near" if reason == NEAR_DUPLICATE else "other"
