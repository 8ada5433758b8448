"""From a page to its main text: one paragraph a line, no blank lines.

Three ways. resiliparse is fast (a tenth of trafilatura's time, equal quality downstream according to DCLM,
arXiv:2406.11794). trafilatura with Swallow's settings is careful. The cascade, which is the default, judges
the page's blocks in one pass over its bytes (extract_blocks.py): faster than the first and better at telling
main text than the second, which it asks only where hardly anything is left. Where nothing is, the whole
page's text is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tsugiki.corpus.extract_blocks import MAX_TAGS, blocks_of
from tsugiki.corpus.extract_depth import too_deep

Extractor = Literal["cascade", "resiliparse", "trafilatura"]

MAX_CAREFUL_CHARACTERS = 1 << 20
MAX_CAREFUL_TAGS = 20_000
"""Larger pages never go to trafilatura, whose trees take a hundred times the page and whose time can grow
with the square of the elements; by itself it then gives no text, the cascade keeps its own."""
LEAST_WIDTH = 200
"""The cascade asks trafilatura where its text is not as wide (letters; ideographs count two)."""

TOO_DEEP = "too deep"
TOO_LARGE = "too large for trafilatura"
FAILED = "extractor failed"
WHOLE_PAGE = "whole page"

_MANY_OPTIONS = 500
_OPTION = re.compile(r"<option\b[^<>]*>[^<]*(?:</option\s*>)?", re.IGNORECASE)


@dataclass(frozen=True)
class Extracted:
    """The main text, who found it (blocks, resiliparse, trafilatura or whole page), and what went wrong.

    `problem` is empty where nothing did: a page without text is none. Where it is not, `text` is empty.
    """

    text: str
    extractor: str
    problem: str = ""


def extract(page: str, extractor: Extractor = "cascade") -> Extracted:
    """The main text of an HTML page. Never raises, whatever the page; see `Extracted.problem`."""
    if too_deep(page):
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
    """The blocks that are main text; the careful one's text where they are hardly any and it has some."""
    if page.count("<") > MAX_TAGS:
        return _resiliparse(page)
    blocks = blocks_of(page)
    if blocks.main_width < LEAST_WIDTH:
        careful = _trafilatura(page)
        if careful.text:
            return careful
    main = tidy(blocks.main())
    return Extracted(main, "blocks") if main else Extracted(tidy(blocks.everything()), WHOLE_PAGE)


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
