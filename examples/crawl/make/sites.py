"""The sites of the sample crawl: which package is served under which host name (`sites.csv`).

`budget` is what a site's chosen pages may take, in kilobytes as gzip packs them; `kind` says
whether the package ships HTML or something that `render.py` or `lyx.py` makes HTML of.
Host names are reserved ones (RFC 2606), so nothing here can be mistaken for the web.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Site:
    """One host: a folder of one package in one language."""

    host: str
    package: str
    language: str
    root: str
    budget: int
    title: str
    licence: str
    holder: str
    pattern: str
    kind: str  # html, mallard, docbook, lyx or fragments


def _read() -> tuple[Site, ...]:
    with Path(__file__).with_name("sites.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Site(**{**row, "budget": int(row["budget"])}) for row in csv.DictReader(file))  # type: ignore[arg-type]


SITES = _read()
