"""The spelling of byte-level pieces, and how their bytes lie to the borders of characters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

_CONTINUATION = range(0x80, 0xC0)
"""Bytes of UTF-8 that go on with a character (RFC 3629)."""


@cache
def byte_alphabet() -> Mapping[str, int]:
    """GPT-2's spelling of bytes: each of 256 printable characters, and the byte it stands for.

    Bytes that are printable in Latin-1 stand for themselves; the others follow from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def piece_to_bytes(piece: str) -> bytes | None:
    """The bytes that a byte-level piece spells; None where it is not in that alphabet (an added token)."""
    alphabet = byte_alphabet()
    try:
        return bytes(alphabet[character] for character in piece)
    except KeyError:
        return None


def keeps_characters_whole(piece: str) -> bool:
    """Whether a byte-level piece is whole characters, or lies within a single one."""
    data = piece_to_bytes(piece)
    if data is None:
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return data[0] >= _CONTINUATION.start and all(byte in _CONTINUATION for byte in data[1:])
    return True
