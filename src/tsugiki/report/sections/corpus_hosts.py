"""Sites: which ones gave most pages, and which were blocked as a whole, with samples for an appeal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tsugiki.report import facts
from tsugiki.report.facts import Row
from tsugiki.report.formatting import exact, percent
from tsugiki.report.run import Stage
from tsugiki.report.text import clip

_MOST_HOSTS: Final = 12
_MOST_BLOCKED: Final = 40
_MOST_SAMPLES: Final = 3
_MOST_REASONS: Final = 6
_NAME: Final = 60
_SAMPLE_CHARACTERS: Final = 260


@dataclass(frozen=True)
class Host:
    """A site in a table; `measures` are the cells of the columns that the table has."""

    name: str
    documents: float | None
    characters: float | None
    share: float | None
    measures: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    samples: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Hosts:
    """The sites of a corpus. `measures` are the titles of the columns that something is known for.

    blocked_hosts, blocked_documents, hosts: how many in all. rules: what blocks a site, in words.
    """

    largest: tuple[Host, ...]
    more: int
    measures: tuple[str, ...]
    blocked: tuple[Host, ...]
    blocked_measures: tuple[str, ...]
    more_blocked: int
    blocked_hosts: float | None
    blocked_documents: float | None
    all_hosts: float | None
    rules: tuple[str, ...]

    @property
    def filtered(self) -> bool:
        """Whether a host filter ran."""
        return self.blocked_hosts is not None or bool(self.rules)


_MEASURES: Final = (("ng", "with NG expressions"), ("dating", "with dating sites' names"))


def hosts(stage: Stage) -> Hosts:
    """The sites of a corpus stage; everything in it may be empty."""
    rows = facts.rows(stage.facts, "hosts")
    about = facts.section(stage.facts, "host_filter")
    blocked = facts.rows(about, "blocked")
    known, known_blocked = _known(rows), _known(blocked)
    total = facts.number(stage.counts, "documents")
    return Hosts(
        largest=tuple(_host(row, known, total) for row in rows[:_MOST_HOSTS]),
        more=max(0, len(rows) - _MOST_HOSTS),
        measures=tuple(title for key, title in _MEASURES if key in known),
        blocked=tuple(_host(row, known_blocked, total) for row in blocked[:_MOST_BLOCKED]),
        blocked_measures=tuple(title for key, title in _MEASURES if key in known_blocked),
        more_blocked=_more(facts.number(about, "blocked_hosts"), len(blocked)),
        blocked_hosts=facts.number(about, "blocked_hosts"),
        blocked_documents=facts.number(about, "documents"),
        all_hosts=facts.number(about, "hosts"),
        rules=tuple(_rule(row) for row in facts.rows(about, "rules")),
    )


def _more(known: float | None, listed: int) -> int:
    """How many blocked sites are not in the table, which holds the first of those listed."""
    return max(0, round(max(known or 0, listed)) - min(listed, _MOST_BLOCKED))


def _rule(row: Row) -> str:
    """A rule in words; its name in the manifest is the reason on a document, `host:ng_share>0.005`."""
    name, threshold = clip(facts.text(row, "name"), _NAME), facts.number(row, "threshold")
    if threshold is None:
        return name
    measure = name.partition(">")[0].removeprefix("host:")
    words = {f"{key}_share": title for key, title in _MEASURES}
    return f"{words.get(measure, measure)} > {percent(threshold)}"


def _known(rows: list[Row]) -> frozenset[str]:
    """The measures that at least one row has."""
    keys = (key for key, _ in _MEASURES)
    return frozenset(key for key in keys if any(_measure(row, key) is not None for row in rows))


def _measure(row: Row, key: str) -> float | None:
    share = facts.number(row, f"{key}_share")
    if share is not None:
        return share
    return facts.ratio(facts.number(row, f"{key}_documents"), facts.number(row, "documents"))


def _host(row: Row, known: frozenset[str], total: float | None) -> Host:
    documents = facts.number(row, "documents")
    reasons = facts.texts(row, "reasons") or facts.texts(row, "blocked_by")
    return Host(
        name=clip(facts.text(row, "host") or "(no host)", _NAME),
        documents=documents,
        characters=facts.number(row, "characters"),
        share=facts.ratio(documents, total),
        measures=tuple(_cell(row, key) for key, _ in _MEASURES if key in known),
        reasons=tuple(clip(reason, _NAME) for reason in reasons[:_MOST_REASONS]),
        samples=tuple(_sample(one) for one in facts.rows(row, "appeal")[:_MOST_SAMPLES]),
    )


def _cell(row: Row, key: str) -> str:
    documents = facts.number(row, f"{key}_documents")
    share = percent(_measure(row, key), 2)
    return share if documents is None else f"{exact(documents)} ({share})"


def _sample(row: Row) -> Row:
    matched = row.get("matched")
    words = (
        ", ".join(facts.texts(row, "matched")) if isinstance(matched, list) else facts.text(row, "matched")
    )
    return {
        "url": clip(facts.text(row, "url"), 160),
        "matched": clip(words, 120),
        "text": clip(facts.text(row, "text").strip(), _SAMPLE_CHARACTERS),
    }
