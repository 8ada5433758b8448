"""What Unicode says of single characters, so that texts need not be normalised as a whole.

`unicodedata.normalize("NFKC", ...)` takes 0.2 ms for 2,000 Japanese characters. Few of them change, and a
character can only be changed by another one if that other one is *joining*: a combining mark or the second
half of a composition (UAX #15, NFC_Quick_Check=Maybe). All tables are made once a process.
"""

from __future__ import annotations

import unicodedata
from functools import cache

LAST = 0x323AF
"""Behind this code point (CJK extension H) lie only tags and variation selectors, which NFKC leaves alone."""

_CONJOINING = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))
"""Hangul vowels and final consonants, which compose by a rule and not by the table (Unicode §3.12)."""


@cache
def unstable() -> frozenset[int]:
    """The code points that NFKC changes when they stand alone."""
    names = (c for c in range(LAST + 1) if unicodedata.decomposition(chr(c)))
    return frozenset(c for c in names if unicodedata.normalize("NFKC", chr(c)) != chr(c))


@cache
def joining() -> frozenset[int]:
    """The code points that may be reordered with, or composed to, a character before them under NFKC."""
    codes = range(LAST + 1)
    parts = {c: text.split() for c in codes if (text := unicodedata.decomposition(chr(c)))}
    seconds = {int(part[1], 16) for part in parts.values() if len(part) == 2 and part[0][0] != "<"}  # noqa: PLR2004
    seconds.update(_CONJOINING)
    marks = {c for c in codes if unicodedata.combining(chr(c))}
    direct = seconds | marks
    return frozenset(direct | {c for c in parts if ord(unicodedata.normalize("NFKD", chr(c))[0]) in direct})
