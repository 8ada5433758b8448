"""From a page to its main text: one paragraph a line, no blank lines.

resiliparse is the default (a tenth of trafilatura's time, equal quality downstream according to DCLM,
arXiv:2406.11794); where its notion of main content leaves nothing, the whole page's text is taken.
trafilatura runs with Swallow's settings.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal

Extractor = Literal["resiliparse", "trafilatura"]

MAX_DEPTH = 512
"""Deeper pages are refused, as browsers do: parsers' time grows with the square of the depth."""

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Elements that need no end tag: unclosed ones are siblings, not nested.
_UNCLOSED = frozenset(
    "area base br col embed hr img input link meta param source track wbr p li dt dd tr td th thead tbody "  # noqa: SIM905
    "tfoot colgroup caption option optgroup rp rt html head body".split()
)
_MANY_OPTIONS = 500
_OPTION = re.compile(r"<option\b[^<>]*>[^<]*(?:</option\s*>)?", re.IGNORECASE)


class TooDeepError(ValueError):
    """The page's elements are nested deeper than MAX_DEPTH."""


def extract_text(page: str, extractor: Extractor = "resiliparse") -> str:
    """The main text of an HTML page; empty where it has none. Raises TooDeepError."""
    if _too_deep(page):
        raise TooDeepError(f"elements are nested deeper than {MAX_DEPTH}")
    if page.lower().count("<option") > _MANY_OPTIONS:
        page = _OPTION.sub("", page)  # no text, and the parser's time grows with the square of their number
    return tidy(_trafilatura(page) if extractor == "trafilatura" else _resiliparse(page))


def tidy(text: str) -> str:
    """Collapse white space within lines, drop blank lines and characters that no text has (NUL)."""
    lines = (" ".join(line.split()) for line in text.replace("\0", "").splitlines())
    return "\n".join(line for line in lines if line)


def _resiliparse(page: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(page, main_content=True, alt_texts=False, preserve_formatting=True)
    if text.strip():
        return text
    return extract_plain_text(page, main_content=False, alt_texts=False, preserve_formatting=True)


def _trafilatura(page: str) -> str:
    from trafilatura import extract

    # Swallow's settings (warc2raw.py): everything else default.
    return extract(page, include_comments=False, include_tables=False) or ""


def _too_deep(page: str) -> bool:
    """Whether elements of one name are open MAX_DEPTH times at once, or all together four times as often."""
    if page.count("<") < MAX_DEPTH:
        return False
    depth: Counter[str] = Counter()
    total = 0
    for slash, name in _TAG.findall(page):
        tag = name.lower()
        if tag in _UNCLOSED:
            continue
        if not slash:
            depth[tag] += 1
            total += 1
            if depth[tag] > MAX_DEPTH or total > 4 * MAX_DEPTH:
                return True
        elif depth[tag]:
            depth[tag] -= 1
            total -= 1
    return False
