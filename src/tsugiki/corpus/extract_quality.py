"""Telling running text from what stands around it, line by line: for the cascade in extract.py.

Every link of a page is marked before resiliparse reads it, so that its output still shows what was linked.
Then a few facts about each line (how wide, how much of it linked, whether it ends like a sentence) are enough
to cut menus, bylines and lists of other articles off both ends, and to see where the whole looks wrong.

The thresholds were chosen on trafilatura's evaluation set (990 pages, mostly European news and blogs; the
figures are in docs/log.md and can be made again with `benchmarks/extraction.py --trafilatura-set`). There,
pages that look wrong gain by trafilatura's text whatever that looks like; choosing between the two texts by
their looks was worse by 0.005 in F1, so the careful one is taken wherever it is asked and answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OPEN, CLOSE = "\ue000", "\ue001"  # private use: no text needs them, and they are taken out again
_LINK = re.compile(r"(<a\b[^<>]*>)", re.IGNORECASE)
_LINK_END = re.compile(r"(</a\s*>)", re.IGNORECASE)
_MARKS = re.compile(f"[{OPEN}{CLOSE}]")
_MARK_OR_TEXT = re.compile(f"{OPEN}|{CLOSE}|[^{OPEN}{CLOSE}]+")

_ENDS = tuple(".!?:…。．！？：")
_CLOSING = "\"'”’»)]）」』】"

_LINKED = 0.5  # a line with more of it linked is a menu or a list of articles, unless it is a sentence
_SENTENCE_WIDTH = 40  # a line that ends like a sentence and is this wide is one
_LINKED_SENTENCE_WIDTH = 60
_PARAGRAPH_WIDTH = 160  # so is any line of this width
_HEADINGS = 1  # lines kept before the first sentence

_LEAST_WIDTH = 800
_LEAST_KEPT = 0.75
_LEAST_ENDED = 0.4
_LEAST_FOUND = 0.5


@dataclass(frozen=True)
class Line:
    """One line: its text, its width, the share of it that is linked, and whether it ends like a sentence.

    An ideograph is as wide as two letters.
    """

    text: str
    width: float
    linked: float
    ended: bool

    @property
    def is_sentence(self) -> bool:
        """Whether this is surely running text."""
        return self.width >= (_SENTENCE_WIDTH if self.ended else _PARAGRAPH_WIDTH)


@dataclass(frozen=True)
class Looks:
    """How a text looks.

    width: as of its lines. kept: the share of the main text that was not cut off. ended: the share of the
    width in lines that end like sentences. found: the share of the page's sentences (in width) that it has.
    """

    width: float
    kept: float
    ended: float
    found: float

    @property
    def wrong(self) -> bool:
        """Whether another extractor should be asked."""
        return (
            self.width < _LEAST_WIDTH
            or self.kept < _LEAST_KEPT
            or self.ended < _LEAST_ENDED
            or self.found < _LEAST_FOUND
        )


def mark_links(page: str) -> str:
    """The page with a mark behind each start and before each end of a link."""
    page = _MARKS.sub("", page)
    return _LINK_END.sub(f"{CLOSE}\\1", _LINK.sub(f"\\1{OPEN}", page))


def lines_of(marked: str) -> list[Line]:
    """The lines of an extracted text with its marks; empty lines are left out."""
    out = []
    inside = False
    for marked_line in marked.split("\n"):
        linked, inside = _linked(marked_line, inside=inside)
        text = _MARKS.sub("", marked_line).strip()
        if text:
            out.append(Line(text, width_of(text), linked / len(text), ends_like_a_sentence(text)))
    return out


def _linked(line: str, *, inside: bool) -> tuple[int, bool]:
    """How many characters lie in links, and whether one is open at the end."""
    if OPEN not in line and CLOSE not in line:
        return (len(line.strip()) if inside else 0), inside
    linked = 0
    for part in _MARK_OR_TEXT.findall(line):
        if part == OPEN:
            inside = True
        elif part == CLOSE:
            inside = False
        elif inside:
            linked += len(part)
    return linked, inside


def width_of(text: str) -> float:
    """In Latin letters: a character of three bytes in UTF-8 counts two, one of two bytes one and a half."""
    return (len(text) + len(text.encode("utf-8", "replace"))) / 2


def ends_like_a_sentence(line: str) -> bool:
    """Whether a terminator stands at the end, closing quotes and brackets behind it or not."""
    return line.rstrip(_CLOSING).endswith(_ENDS) or (line.endswith(("」", "』", "”", "»")))


def trim(lines: list[Line]) -> list[Line]:
    """The lines from the first sentence to the last, with one heading before, without those mostly of links.

    All but the links where there is no sentence at all.
    """
    own = [
        line
        for line in lines
        if line.linked <= _LINKED or (line.ended and line.width > _LINKED_SENTENCE_WIDTH)
    ]
    sentences = [place for place, line in enumerate(own) if line.is_sentence]
    if not sentences:
        return own
    return own[max(0, sentences[0] - _HEADINGS) : sentences[-1] + 1]


def looks_of(kept: list[Line], lines: list[Line], page: list[Line]) -> Looks:
    """The looks of `kept`, what is left of `lines`, the main text, which is a part of the whole `page`."""
    width = sum(line.width for line in kept)
    if not kept:
        return Looks(0.0, 0.0, 0.0, 0.0)
    sentences = _sentences(page)
    return Looks(
        width=width,
        kept=width / sum(line.width for line in lines),
        ended=sum(line.width for line in kept if line.ended) / width,
        found=min(1.0, _sentences(kept) / sentences) if sentences else 1.0,
    )


def _sentences(lines: list[Line]) -> float:
    return sum(line.width for line in lines if line.is_sentence and line.linked <= _LINKED)
