"""Printing for a person and for a program: aligned columns, and crawled text that can't act on a terminal."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

from cyclopts import Parameter

from tsugiki.report.text import clip, visible

Json = Annotated[
    bool,
    Parameter(
        name="--json", negative="", show_default=False, help="Print the result as JSON, and nothing else."
    ),
]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_PLAIN: Final = frozenset("\n\u200c\u200d")
_ASTRAL: Final = 0x10000


def json_text(value: Any) -> str:
    r"""JSON whose strings hold what they hold, but with everything that acts on a terminal as an escape.

    Control characters, bidirectional overrides, lone surrogates and unassigned code points become `\uXXXX`,
    so a program reads the same text and a person who looks at it is safe.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return re.sub(r"[^\x20-\x7e\n]", _escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in _PLAIN or unicodedata.category(character) not in _UNSEEN:
        return character
    point = ord(character)
    if point < _ASTRAL:
        return f"\\u{point:04x}"
    high, low = divmod(point - _ASTRAL, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def print_json(value: Any) -> None:
    """Print a value as JSON that is safe to look at."""
    print(json_text(value))


def one_line(text: str | None, characters: int = 200) -> str:
    """A title or URL as one visible line; `–` where there is none."""
    return clip(" ".join(visible(text).split()), characters) if text else "–"


def block(text: str, characters: int | None = None, indent: str = "  | ") -> str:
    """Text as visible lines, each after `indent`, so that none can pass for a line of ours."""
    shown = visible(text if characters is None else clip(text, characters))
    return "\n".join(indent + line for line in shown.split("\n"))


def display_width(text: str) -> int:
    """Columns that a terminal needs: two for full-width characters, none for combining ones."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def columns(rows: Sequence[Sequence[str]], right: Sequence[int] = (), indent: str = "") -> Iterator[str]:
    """Rows as aligned lines; `right` are the columns that are aligned to the right."""
    widths = [max(display_width(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = []
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - display_width(cell))
            cells.append(space + cell if index in right else cell + space)
        yield (indent + "  ".join(cells)).rstrip()
