"""A page of sections with figures and tables, the form of all pages of the study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tsugiki.report.figures.figure import Figure
from tsugiki.report.page import environment


@dataclass(frozen=True)
class Table:
    """A table of the page: its caption, titles and rows; the first column names the row."""

    caption: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Part:
    """A section: heading, what it says, figures and tables, and findings as a list."""

    key: str
    heading: str
    lead: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


OBSERVATIONAL: Final = (
    "Observational: what goes together in a table of finished models need not be cause and effect."
)


@dataclass(frozen=True)
class Sheet:
    """The whole page. command, caution: what the footer says of where it is from, and how to read it."""

    name: str
    meta: str
    headline: str
    tiles: tuple[tuple[str, str, str], ...]
    parts: tuple[Part, ...]
    command: str = "tsugiki study"
    caution: str = OBSERVATIONAL


def render_sheet(sheet: Sheet) -> str:
    """A sheet as HTML text."""
    return environment().get_template("study.html.j2").render(sheet=sheet)
