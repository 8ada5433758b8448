"""What a piece of a byte-level vocabulary is: whole characters or a fragment of one, and its script."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ANY_SCRIPT = 0
"""White space and combining marks go with every script."""
MIXED_SCRIPTS = -1
"""Pieces of the base that hold several scripts; nothing is built on them."""

_SHARED_SCRIPTS = dict.fromkeys(
    ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "IDEOGRAPHIC", "KANGXI"), "HAN"
)
"""Hiragana and katakana count as Han, so a word may hold all three: sentencepiece's rule for pieces
(`trainer_interface.cc`, IsValidSentencePiece; U+30FC, the long vowel mark, is among them)."""

_WIDTHS = frozenset({"FULLWIDTH", "HALFWIDTH"})
_CONTINUATION = range(0x80, 0xC0)


class Kind(IntEnum):
    """How a piece's bytes lie to the borders of characters."""

    OPAQUE = 0
    """Special tokens, and whole characters together with a part of one: nothing is built on these."""
    WHOLE = 1
    """One or more whole characters."""
    LEAD = 2
    """The first bytes of one character."""
    CONTINUATION = 3
    """Bytes from within one character, without its first."""


def script_of(character: str) -> str:
    """The script of a character for the purpose of merging: "" goes with any, others only with their own.

    Letters have the script that their Unicode name begins with (the standard library knows no script
    property); digits, and punctuation with symbols, are scripts of their own.
    """
    category = unicodedata.category(character)
    if category[0] in "ZCM":
        return ""
    if category[0] == "N" and category != "Nl":
        return "NUMBER"
    if category[0] not in "LN":
        return "COMMON"
    words = unicodedata.name(character, "UNNAMED").split()
    word = words[1] if words[0] in _WIDTHS else words[0]
    word = word.split("-")[0] if word.startswith("CJK-") else word
    return _SHARED_SCRIPTS.get(word, word)


class PieceTable(NamedTuple):
    """Properties of every piece P, as arrays for the learner; capacity for pieces yet to be learnt.

    length: characters of WHOLE pieces, bytes of others. value: for fragments, the bits of the code point
    they hold so far. need: for LEAD, the bytes that the character still lacks. is_ascii: for WHOLE pieces.
    """

    kind_P: NDArray[np.int8]
    length_P: NDArray[np.int32]
    bytes_P: NDArray[np.int32]
    value_P: NDArray[np.int32]
    need_P: NDArray[np.int8]
    script_P: NDArray[np.int16]
    is_ascii_P: NDArray[np.bool_]


class Scripts:
    """Numbers for the scripts that occur: 0 goes with any, the others follow in order of appearance."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": ANY_SCRIPT}

    def of_character(self, character: str) -> int:
        """The number of a character's script."""
        return self._numbers.setdefault(script_of(character), len(self._numbers))

    def of_text(self, text: str) -> int:
        """The number of the one script of a text, MIXED_SCRIPTS where there are several."""
        found = {self.of_character(character) for character in text} - {ANY_SCRIPT}
        if len(found) > 1:
            return MIXED_SCRIPTS
        return found.pop() if found else ANY_SCRIPT

    def table(self, characters: Iterable[str]) -> NDArray[np.int16]:
        """Script numbers by code point, for the characters that can occur (others count as any)."""
        table = np.zeros(0x110000, dtype=np.int16)
        for character in sorted(characters):
            table[ord(character)] = self.of_character(character)
        return table


def describe_pieces(pieces: Sequence[bytes | None], capacity: int, scripts: Scripts) -> PieceTable:
    """The properties of `pieces` (None for special tokens), with room for `capacity` pieces."""
    table = PieceTable(
        kind_P=np.zeros(capacity, dtype=np.int8),
        length_P=np.zeros(capacity, dtype=np.int32),
        bytes_P=np.zeros(capacity, dtype=np.int32),
        value_P=np.zeros(capacity, dtype=np.int32),
        need_P=np.zeros(capacity, dtype=np.int8),
        script_P=np.zeros(capacity, dtype=np.int16),
        is_ascii_P=np.zeros(capacity, dtype=np.bool_),
    )
    for number, piece in enumerate(pieces):
        if piece:
            _describe(table, number, piece, scripts)
    return table


def _describe(table: PieceTable, number: int, piece: bytes, scripts: Scripts) -> None:
    table.bytes_P[number] = table.length_P[number] = len(piece)
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        _describe_fragment(table, number, piece)
        return
    table.kind_P[number] = Kind.WHOLE
    table.length_P[number] = len(text)
    table.script_P[number] = scripts.of_text(text)
    table.is_ascii_P[number] = text.isascii()


def _describe_fragment(table: PieceTable, number: int, piece: bytes) -> None:
    """A part of one character becomes LEAD or CONTINUATION; whatever straddles two stays OPAQUE."""
    first, rest = piece[0], piece[1:]
    if any(byte not in _CONTINUATION for byte in rest):
        return
    value = first & 0x3F
    if first in _CONTINUATION:
        if len(piece) > 3:  # noqa: PLR2004 - no character has more than three continuation bytes
            return
        table.kind_P[number] = Kind.CONTINUATION
    else:
        wanted = _character_bytes(first)
        if len(piece) >= wanted:
            return
        table.kind_P[number] = Kind.LEAD
        table.need_P[number] = wanted - len(piece)
        value = first & (0xFF >> (wanted + 1))
    for byte in rest:
        value = value << 6 | byte & 0x3F
    table.value_P[number] = value


def _character_bytes(lead: int) -> int:
    """Bytes of the UTF-8 character that starts with `lead`; 0 where no character does (RFC 3629)."""
    if 0xC2 <= lead <= 0xDF:  # noqa: PLR2004
        return 2
    if 0xE0 <= lead <= 0xEF:  # noqa: PLR2004
        return 3
    if 0xF0 <= lead <= 0xF4:  # noqa: PLR2004
        return 4
    return 0
