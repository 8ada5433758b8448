"""What happened to pages on the way: prefilter, decoding, extraction, clean-up, contamination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tsugiki.report import facts
from tsugiki.report.formatting import exact, percent
from tsugiki.report.run import Stage
from tsugiki.report.text import clip

_MOST_ROWS: Final = 14
_MOST_HITS: Final = 10
_NAME: Final = 80


@dataclass(frozen=True)
class Listing:
    """A small list of names and figures; `note` says what it is, `more` how many rows are left out."""

    title: str
    rows: tuple[tuple[str, str], ...]
    note: str = ""
    more: int = 0


@dataclass(frozen=True)
class FunnelRow:
    """A step: documents and characters, and their shares of the first and of the previous step."""

    step: str
    documents: float
    of_first: float | None
    of_previous: float | None
    characters: float | None
    characters_of_previous: float | None


def funnel_rows(stage: Stage) -> tuple[FunnelRow, ...]:
    """The steps of the funnel whose documents were counted."""
    rows = [row for row in facts.rows(stage.facts, "funnel") if facts.number(row, "documents") is not None]
    found = []
    before: Any = {}
    for row in rows:
        documents, characters = facts.number(row, "documents"), facts.number(row, "characters")
        found.append(
            FunnelRow(
                step=clip(facts.text(row, "step"), _NAME),
                documents=documents or 0,
                of_first=facts.ratio(documents, facts.number(rows[0], "documents")),
                of_previous=facts.ratio(documents, facts.number(before, "documents")),
                characters=characters,
                characters_of_previous=facts.ratio(characters, facts.number(before, "characters")),
            )
        )
        before = row
    return tuple(found)


def listings(stage: Stage) -> tuple[Listing, ...]:
    """The lists that have something to show, in the order of the pipeline."""
    made = (_prefilter, _decoding, _encodings, _extraction, _cleaning, _contamination)
    return tuple(one for make in made if (one := make(stage)) is not None and one.rows)


def most_first(values: Any, *path: str) -> list[tuple[str, float]]:
    """The numbers of a mapping, largest first."""
    return sorted(facts.pairs(values, *path), key=lambda pair: (-pair[1], pair[0]))


def counted(title: str, pairs: list[tuple[str, float]], note: str = "") -> Listing:
    """A list of names and counts, cut to a length that can be read."""
    rows = tuple((clip(name, _NAME), exact(number)) for name, number in pairs[:_MOST_ROWS])
    return Listing(title, rows, note, max(0, len(pairs) - _MOST_ROWS))


def _named(values: Any, names: tuple[tuple[str, str], ...]) -> list[tuple[str, float]]:
    return [(title, n) for key, title in names if (n := facts.number(values, key)) is not None]


def _prefilter(stage: Stage) -> Listing | None:
    pages = facts.number(stage.facts, "prefilter", "pages")
    candidates = facts.number(stage.facts, "prefilter", "candidates")
    if pages is None or candidates is None:
        return None
    share = facts.ratio(candidates, pages)
    rows = (("Pages looked at", exact(pages)), ("Candidates", f"{exact(candidates)} ({percent(share)})"))
    return Listing("Prefilter", rows, "The head of each page alone decides whether the rest is read.")


def _decoding(stage: Stage) -> Listing:
    about = facts.section(stage.facts, "decoding")
    names = (("replaced", "With characters replaced"), ("undecodable", "In no known encoding"))
    pairs = [*most_first(about, "chosen_by"), *_named(about, names)]
    return counted("What told the encoding, pages", pairs)


def _encodings(stage: Stage) -> Listing:
    return counted("Encodings found, pages", most_first(stage.facts, "encodings"))


def _extraction(stage: Stage) -> Listing:
    about = facts.section(stage.facts, "extraction")
    names = (("empty", "Without any text"), ("too_deep", "Nested too deep"))
    pairs = [*most_first(about, "extractors"), *_named(about, names)]
    return counted("Main text taken out by, pages", pairs)


def _cleaning(stage: Stage) -> Listing:
    about = facts.section(stage.facts, "cleaning")
    pairs = _named(about, (("changed", "Documents changed"),))
    pairs += [(name.replace("_", " "), n) for name, n in most_first(about, "counts")]
    pairs += _named(about, (("too_short", "Too short afterwards"),))
    return counted("Clean-up", pairs)


def _contamination(stage: Stage) -> Listing | None:
    about = facts.section(stage.facts, "contamination")
    items, documents = facts.number(about, "items"), facts.number(about, "documents")
    if items is None and documents is None:
        return None
    rows = [
        ("Benchmark items found in pages", exact(items)),
        ("Pages that hold one, removed", exact(documents)),
    ]
    hits = [
        (clip(facts.text(hit, "item"), _NAME), f"{exact(facts.number(hit, 'documents'))} pages")
        for hit in facts.rows(about, "hits")
    ]
    return Listing("Contamination", (*rows, *hits[:_MOST_HITS]), "", max(0, len(hits) - _MOST_HITS))
