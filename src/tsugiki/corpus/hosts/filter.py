"""What the URL alone says against a document: the pack's excluded domains and the block lists."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from tsugiki.corpus.hosts.lists import HostLists
from tsugiki.corpus.hosts.names import host_of

EXCLUDED = "host:excluded"
URL_REASON = "url:{category}"


def is_excluded(host: str | None, domains: Sequence[str]) -> bool:
    """Whether a host is one of `domains` or below one: `ja.wikipedia.org` is below `wikipedia.org`.

    host: in comparable form (`host_of`). Only whole labels count: `notwikipedia.org` is another site, though
    Swallow's test for the ending of the name takes it along (corpus.md §1.5).
    """
    return host is not None and f".{host}".endswith(tuple(f".{domain}" for domain in domains))


@dataclass(frozen=True)
class UrlFilter:
    """Excluded domains (from `pack.hosts.excluded`) and block lists together; goes to workers by pickle."""

    excluded: tuple[str, ...] = ()
    lists: HostLists | None = field(default=None, compare=False)

    def reasons(self, url: object) -> list[str]:
        """All reasons against a URL: `host:excluded`, `url:<category>`; empty where there is none."""
        reasons = [EXCLUDED] if self.excluded and is_excluded(host_of(url), self.excluded) else []
        category = self.lists.category_of(url) if self.lists is not None else None
        return reasons if category is None else [*reasons, URL_REASON.format(category=category)]

    @property
    def digest(self) -> str:
        """SHA-256 of what decides every answer; for a stage's identity."""
        lists = self.lists.digest if self.lists is not None else ""
        return hashlib.sha256(repr((sorted(self.excluded), lists)).encode()).hexdigest()
