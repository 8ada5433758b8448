"""Choose the pages of a site that fit its budget, the same ones on every run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lyx
import plain
import render
from sites import Site

LARGEST = 300_000  # bytes of HTML
SHORT = 600  # characters
FOREIGN = 0.15  # share of kana below which a page is not Japanese prose
RECORD = 500  # bytes that the headers of a record take, packed
GOOD, FAIR, POOR = range(3)
NAVIGATION = re.compile(r"(^|/)(index|genindex|search|ix01|toc|sitemap|.*-index|.*-toc)[^/]*\.html$|TOC")
FREE = re.compile(r"GPL|CC BY-SA \d")
DENSE = 1.6  # characters of text for a packed byte
DENSITY = {"en": 0.9, "ja": 0.6}


@dataclass(frozen=True)
class Page:
    """A page of a site as its package ships it."""

    path: str
    body: bytes
    text: str
    failures: tuple[str, ...]
    packed: int

    @property
    def navigation(self) -> bool:
        """Whether the page leads to others rather than says something."""
        return bool(NAVIGATION.search(self.path))


def rank(key: str) -> str:
    """A fixed shuffle."""
    return hashlib.sha256(key.encode()).hexdigest()


def _files(site: Site, folder: Path) -> Iterator[tuple[str, bytes]]:
    pattern = re.compile(site.pattern)
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder).as_posix()
        if file.is_file() and not file.is_symlink() and pattern.search(path):
            yield path, file.read_bytes()


def _sources(site: Site, tree: Path) -> Iterator[tuple[str, bytes]]:
    folder = tree / site.root
    if site.kind == "html":
        yield from _files(site, folder)
        return
    if site.kind == "fragments":
        pages = render.fragments(folder, site.language, site.title, FREE)
    else:
        renderer = {"mallard": render.mallard, "docbook": render.docbook, "lyx": lyx.lyx}[site.kind]
        pages = renderer(folder, site.language, site.title)
    for path, page in pages:
        yield path, page.encode()


def pages(site: Site, tree: Path) -> list[Page]:
    """All pages of the site that are not too large, measured."""
    found = []
    for path, body in _sources(site, tree):
        if len(body) > LARGEST or not body.strip():
            continue
        text = plain.text_of(plain.decode(body))
        failed = plain.swallow_failures(text) if site.language == "ja" else []
        found.append(Page(path, body, text, tuple(failed), plain.packed_size(body)))
    return found


def _worth(site: Site, page: Page) -> tuple[int, str]:
    """Order of choice: pages that pass, then pages with much text for their size, then the rest."""
    order = rank(site.host + page.path)
    density = len(page.text) / page.packed
    if site.language != "ja":
        if len(page.text) <= SHORT or density < DENSITY.get(site.language, 0.0):
            return POOR, order
        return (FAIR if density < DENSE else GOOD), order
    if not page.failures:
        return GOOD, order
    foreign = plain.kana_share(page.text) < FOREIGN or len(page.text) < plain.SHORTEST
    return (POOR if foreign or density < DENSITY["ja"] else FAIR), order


def choose(site: Site, tree: Path) -> list[Page]:
    """Pages within the budget, the worthiest first; a few poor ones are always among them."""
    ordered = sorted(pages(site, tree), key=lambda p: _worth(site, p))
    poor = [p for p in ordered if _worth(site, p)[0] == POOR]
    chosen: list[Page] = []
    left = site.budget * 1024
    for page in [*poor[: max(2, min(10, len(ordered) // 25))], *ordered]:
        if page not in chosen and page.packed + RECORD <= left:
            chosen.append(page)
            left -= page.packed + RECORD
    return sorted(chosen, key=lambda p: p.path)
