"""From a page to its main text: one paragraph a line, no blank lines.

Three ways. resiliparse is fast (a tenth of trafilatura's time, equal quality downstream according to DCLM,
arXiv:2406.11794). trafilatura with Swallow's settings is careful. The cascade, which is the default, takes
the fast one, cuts menus and lists of links off its ends, and asks the careful one only where the outcome
still looks wrong (extract_quality.py). Where nothing is left, the whole page's text is taken.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from tsugiki.corpus.extract_quality import Line, lines_of, looks_of, mark_links, trim

Extractor = Literal["cascade", "resiliparse", "trafilatura"]

MAX_DEPTH = 512
"""Deeper pages are refused, as browsers do: parsers' time grows with the square of the depth."""
MAX_CAREFUL_CHARACTERS = 1 << 20
MAX_CAREFUL_TAGS = 20_000
"""Larger pages never go to trafilatura, whose trees take a hundred times the page and whose time can grow
with the square of the elements; by itself it then gives no text, the cascade keeps the fast one's."""

TOO_DEEP = "too deep"
TOO_LARGE = "too large for trafilatura"
FAILED = "extractor failed"
WHOLE_PAGE = "whole page"

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Elements that need no end tag: unclosed ones are siblings, not nested.
_UNCLOSED = frozenset(
    "area base br col embed hr img input link meta param source track wbr p li dt dd tr td th thead tbody "  # noqa: SIM905
    "tfoot colgroup caption option optgroup rp rt html head body".split()
)
_MANY_OPTIONS = 500
_OPTION = re.compile(r"<option\b[^<>]*>[^<]*(?:</option\s*>)?", re.IGNORECASE)


@dataclass(frozen=True)
class Extracted:
    """The main text, who found it ("resiliparse", "trafilatura" or "whole page"), and what went wrong.

    `problem` is empty where nothing did: a page without text is none. Where it is not, `text` is empty.
    """

    text: str
    extractor: str
    problem: str = ""


def extract(page: str, extractor: Extractor = "cascade") -> Extracted:
    """The main text of an HTML page. Never raises, whatever the page; see `Extracted.problem`."""
    if _too_deep(page):
        return Extracted("", extractor, TOO_DEEP)
    if page.count("<option") + page.count("<OPTION") > _MANY_OPTIONS:
        page = _OPTION.sub("", page)  # no text, and the parser's time grows with the square of their number
    try:
        page.encode("utf-8")
    except UnicodeEncodeError:  # lone surrogates can't be handed to C
        page = page.encode("utf-8", "replace").decode("utf-8")
    if extractor == "trafilatura":
        return _trafilatura(page)
    return _cascade(page) if extractor == "cascade" else _resiliparse(page)


def tidy(text: str) -> str:
    """Collapse white space within lines, drop blank lines and characters that no text has (NUL)."""
    lines = (" ".join(line.split()) for line in text.replace("\0", "").splitlines())
    return "\n".join(line for line in lines if line)


def _cascade(page: str) -> Extracted:
    """The fast one's text, trimmed; the careful one's where that looks wrong and the careful one has any."""
    try:
        main, whole = (lines_of(text) for text in _plain_texts(mark_links(page), main_only=False))
    except Exception as error:  # noqa: BLE001 (third-party code on hostile input; the reason is passed on)
        return Extracted("", "resiliparse", f"{FAILED}: {type(error).__name__}")
    kept = trim(main)
    if looks_of(kept, main, whole).wrong:
        careful = _trafilatura(page)
        if careful.text:
            return careful
    return Extracted(_joined(kept), "resiliparse") if kept else Extracted(_joined(whole), WHOLE_PAGE)


def _joined(lines: list[Line]) -> str:
    return tidy("\n".join(line.text for line in lines))


def _resiliparse(page: str) -> Extracted:
    try:
        main, *_ = _plain_texts(page, main_only=True)
        if text := tidy(main):
            return Extracted(text, "resiliparse")
        return Extracted(tidy(_plain_texts(page, main_only=False)[1]), WHOLE_PAGE)
    except Exception as error:  # noqa: BLE001 (as above)
        return Extracted("", "resiliparse", f"{FAILED}: {type(error).__name__}")


def _plain_texts(page: str, *, main_only: bool) -> tuple[str, str]:
    """What resiliparse takes for the main text, and the text of the whole page ("" if it is not wanted)."""
    from resiliparse.extract import html2text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(page)

    def text(*, main_content: bool) -> str:
        return html2text.extract_plain_text(
            tree, main_content=main_content, alt_texts=False, preserve_formatting=True
        )

    return text(main_content=True), "" if main_only else text(main_content=False)


def _trafilatura(page: str) -> Extracted:
    """With Swallow's settings (warc2raw.py): no comments, no tables, everything else default."""
    from trafilatura import extract as extract_carefully

    if len(page) > MAX_CAREFUL_CHARACTERS or page.count("<") > 2 * MAX_CAREFUL_TAGS:
        return Extracted("", "trafilatura", TOO_LARGE)
    try:
        text = extract_carefully(page, include_comments=False, include_tables=False) or ""
    except Exception as error:  # noqa: BLE001 (as above)
        return Extracted("", "trafilatura", f"{FAILED}: {type(error).__name__}")
    return Extracted(tidy(text), "trafilatura")


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
