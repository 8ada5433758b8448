"""What a unit counts. Counts of several units add up, whatever the order: a resumed run has the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

STEPS = ("pages", "candidate language", "decoded", "extracted", "language identified", "passed rules")
"""How far a page can come. `pages` are those with a body worth looking at, texts of other files included."""

_FROM_TEXT = STEPS.index("extracted")
_COUNTERS = (
    "documents",
    "characters",
    "skipped",
    "encodings",
    "decoded_by",
    "extractors",
    "languages",
    "reasons",
    "alone",
    "cleaned",
    "contaminated",
)
_WARNINGS = 1000


@dataclass
class UnitStatistics:
    """The counts of one unit.

    documents, characters: by step. skipped: records left out, by reason. encodings, decoded_by, extractors,
    languages: of pages that came that far. reasons: documents by failing rule; alone: by that rule only.
    cleaned: changes by name. contaminated: documents by benchmark item. cpu_seconds, input_bytes: for
    forecasts. warned: warnings in all, of which `warnings` holds the first.
    """

    records: int = 0
    input_bytes: int = 0
    cpu_seconds: float = 0.0
    replaced: int = 0
    warned: int = 0
    documents: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)
    decoded_by: Counter[str] = field(default_factory=Counter)
    extractors: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    alone: Counter[str] = field(default_factory=Counter)
    cleaned: Counter[str] = field(default_factory=Counter)
    contaminated: Counter[str] = field(default_factory=Counter)
    warnings: list[dict[str, str | int]] = field(default_factory=list)

    def add(self, other: UnitStatistics) -> None:
        """Add another unit's counts to these; the first thousand warnings are kept, all are counted."""
        self.records += other.records
        self.input_bytes += other.input_bytes
        self.cpu_seconds += other.cpu_seconds
        self.replaced += other.replaced
        self.warn(other.warnings, other.warned)
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))

    def warn(self, warnings: list[dict[str, str | int]], count: int) -> None:
        """Keep warnings as far as there is room, and count them all."""
        self.warned += count
        self.warnings += warnings[: max(0, _WARNINGS - len(self.warnings))]

    def funnel(self) -> list[dict[str, Any]]:
        """Documents, and characters where text exists, after each step."""
        steps = [{"step": "records read", "documents": self.records, "characters": None}]
        for number, step in enumerate(STEPS):
            characters = self.characters[step] if number >= _FROM_TEXT else None
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

    def as_dict(self) -> dict[str, Any]:
        """The counts as JSON data; counters sorted, so that equal counts give equal bytes."""
        data = dict(vars(self))
        for name in _COUNTERS:
            data[name] = {key: count for key, count in sorted(data[name].items()) if count}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UnitStatistics:
        """The opposite of `as_dict`."""
        return cls(**{**data, **{name: Counter(data[name]) for name in _COUNTERS}})
