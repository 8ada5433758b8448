"""What the kernels know of a character, as arrays over all code points.

One entry of a pack's table is 16 bits: the number of the character's class in the low byte (0: none), flags
above it. The flags for white space, letters and digits are Python's own (`str.isspace`, `isalpha`, `isalnum`,
`isdecimal`), so that a kernel splits a text exactly as `str.split` and `str.strip` do.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from tsugiki.languages import CodePoints

UInt16s = npt.NDArray[np.uint16]
UInt32s = npt.NDArray[np.uint32]

CODE_POINTS: Final = 0x110000
CLASS: Final = 0x00FF
TERMINATOR: Final = 0x0100
SPACE: Final = 0x0200
QUOTE: Final = 0x0400
BULLET: Final = 0x0800
ALPHABETIC: Final = 0x1000
ALPHANUMERIC: Final = 0x2000
EDGE: Final = 0x4000
DIGIT: Final = 0x8000

BULLETS = "•-*‣◦・·"
"""A line that begins with one of these is an item (Gopher has `•` and `-`; the others are as common)."""
CLOSING_QUOTES = "\"'”"
"""After these a line counts as ended; `"` and `'` are C4's (arXiv:1910.10683), `”` is their typeset form."""
WORD_EDGES = ".,;:!?()\"'"
"""Marks that are taken off both ends of a word before it is looked up among the stop words."""

_ASSIGNED = (*range(0x40000), *range(0xE0000, 0xE0200))
"""Outside of these code points nothing is assigned that is a letter, a mark, a digit or a space."""


def _where(test: str, value: int) -> UInt16s:
    flags = np.zeros(CODE_POINTS, np.uint16)
    flags[[point for point in _ASSIGNED if getattr(chr(point), test)()]] = value
    return flags


@cache
def _general() -> UInt16s:
    flags = _where("isspace", SPACE) | _where("isalpha", ALPHABETIC)
    flags |= _where("isalnum", ALPHANUMERIC) | _where("isdecimal", DIGIT)
    for marks, flag in ((CLOSING_QUOTES, QUOTE), (BULLETS, BULLET), (WORD_EDGES, EDGE)):
        flags[[ord(mark) for mark in marks]] |= flag
    return flags


@cache
def pack_table(classes: tuple[tuple[CodePoints, ...], ...], terminators: str) -> UInt16s:
    """The table of a pack's script, shape (0x110000,): class number (from 1) and flags of each code point."""
    table = _general().copy()
    for number, ranges in enumerate(classes, start=1):
        for first, last in ranges:
            table[first : last + 1] |= number
    table[[ord(mark) for mark in terminators]] |= TERMINATOR
    return table


@cache
def lower_case() -> UInt32s:
    """The small letter of each code point, where it is a single one; otherwise the code point itself."""
    table = np.arange(CODE_POINTS, dtype=np.uint32)
    for point in _ASSIGNED:
        small = chr(point).lower()
        if len(small) == 1:
            table[point] = ord(small)
    return table


@cache
def word_characters(*, spaceless: bool) -> npt.NDArray[np.bool_]:
    """Which characters are parts of words that are written apart from their neighbours, shape (0x110000,).

    With spaces: letters, digits, marks that combine with them, and the underscore. Without spaces: only
    digits and letters with upper and lower case (Latin, Greek, Cyrillic words inside of such a text).
    """
    words = np.zeros(CODE_POINTS, np.bool_)
    for point in _ASSIGNED:
        character = chr(point)
        if spaceless:
            words[point] = character.isdecimal() or character.lower() != character.upper()
        else:
            words[point] = (
                character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")
            )
    return words
