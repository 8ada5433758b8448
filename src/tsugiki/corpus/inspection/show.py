"""One document as a person wants to see it: its reasons, how close each rule was, its cluster, its text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tsugiki.artifacts.documents import KEPT
from tsugiki.corpus.inspection.artifact import NEAR_DUPLICATE, Corpus
from tsugiki.corpus.inspection.cuts import split_reason
from tsugiki.corpus.inspection.rows import Place, Selection, fetch, find
from tsugiki.errors import InputError

NEAR_MISSES: Final = 3
MOST_MEMBERS: Final = 20


@dataclass(frozen=True)
class Reading:
    """A rule and what the document has to say to it.

    margin: how far the value lies on the rejected side, as a share of the threshold; negative where it
    passes.
    """

    rule: str
    feature: str
    sign: str
    threshold: float
    value: float
    margin: float

    @property
    def fails(self) -> bool:
        """Whether the rule rejects the document."""
        return self.margin > 0 or (self.margin == 0 and self.sign in {"<=", ">="})


@dataclass(frozen=True)
class Member:
    """Another document of the same near-duplicate cluster."""

    id: str
    url: str | None
    date: str | None
    survivor: bool


@dataclass(frozen=True)
class Shown:
    """A document, all that is stored of it, and what follows from that.

    readings: every rule whose feature is stored, failing ones first (the widest margin first), then the
    others (the narrowest first). survivor: the row of the cluster's survivor, of a near-duplicate only.
    """

    row: Mapping[str, Any]
    kept: bool
    readings: tuple[Reading, ...]
    features: Mapping[str, float | None]
    members: tuple[Member, ...] = ()
    survivor: Mapping[str, Any] | None = None

    @property
    def failing(self) -> list[Reading]:
        """The rules that reject the document."""
        return [reading for reading in self.readings if reading.fails]

    @property
    def near_misses(self) -> list[Reading]:
        """The rules that came nearest to rejecting it."""
        return [reading for reading in self.readings if not reading.fails][:NEAR_MISSES]

    @property
    def other_reasons(self) -> list[str]:
        """The reasons that are no threshold on a stored feature."""
        reasons = [reason for reason in self.row.get("rejected_by") or [] if reason]
        return [r for r in reasons if (parts := split_reason(r)) is None or parts[0] not in self.features]

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **self.row,
            "kept": self.kept,
            "rules": [{**asdict(reading), "fails": reading.fails} for reading in self.readings],
            "members": [asdict(member) for member in self.members],
            "survivor_url": self.survivor.get("url") if self.survivor else None,
        }


@dataclass(frozen=True)
class Answer:
    """The documents to show, and how many match in all."""

    documents: tuple[Shown, ...]
    matching: int


def show(
    corpus: Corpus, selection: Selection, *, limit: int = 5, seed: int | None = None, cluster: bool = False
) -> Answer:
    """Matching documents with all that is known of them.

    cluster: list the other members of each document's near-duplicate cluster.
    Raises InputError where nothing matches an id, or for a reason that no document has.
    """
    found = find(corpus, selection, limit, seed)
    if selection.id is not None and not found.matching:
        raise InputError(
            f'no document of {corpus.directory} has an id that begins with "{selection.id}"',
            hint="list some with: tsugiki corpus show CORPUS --limit 20",
        )
    rows = fetch(found.places)
    shown = (_shown(corpus, place, row, cluster) for place, row in zip(found.places, rows, strict=True))
    return Answer(tuple(shown), found.matching)


def _shown(corpus: Corpus, place: Place, row: Mapping[str, Any], cluster: bool) -> Shown:  # noqa: FBT001
    return Shown(
        row=row,
        kept=place.file.parent.name == KEPT,
        readings=readings(corpus, row),
        features={name: row.get(name) for name in corpus.features},
        members=_members(corpus, row) if cluster else (),
        survivor=_survivor(corpus, row),
    )


def readings(corpus: Corpus, row: Mapping[str, Any]) -> tuple[Reading, ...]:
    """Every rule with the document's value: failing ones first, then by how close they were."""
    found = []
    for cut in corpus.cuts:
        value = row.get(cut.feature)
        if isinstance(value, int | float) and not math.isnan(value):
            margin = cut.margin(value)
            found.append(Reading(cut.name, cut.feature, cut.sign, cut.value, value, margin))
    # the sort is stable: equal margins stay in the order of the pack
    return tuple(sorted(found, key=lambda one: (not one.fails, -one.margin)))


def _survivor(corpus: Corpus, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    survivor = row.get("cluster")
    if NEAR_DUPLICATE not in (row.get("rejected_by") or []) or not survivor:
        return None
    place = find(corpus, Selection(id=survivor), 1).places
    return fetch(place)[0] if place else None


def _members(corpus: Corpus, row: Mapping[str, Any]) -> tuple[Member, ...]:
    if not row.get("cluster"):
        return ()
    places = find(corpus, Selection(cluster=row["cluster"]), MOST_MEMBERS + 1).places
    others = fetch(places, ["id", "url", "date", "survivor"])
    members = [Member(r["id"], r["url"], r["date"], bool(r["survivor"])) for r in others]
    return tuple(member for member in members if member.id != row["id"])[:MOST_MEMBERS]


def samples_of(places: Sequence[Place]) -> list[dict[str, Any]]:
    """URL and text at each place, in order."""
    return fetch(places, ["id", "url", "text"])
