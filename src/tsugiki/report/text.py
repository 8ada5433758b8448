"""Making crawled text and model output safe to look at.

HTML escaping stops markup, but not characters that act on the reader instead: control characters (also
forbidden in XML, so they would break the figures), bidirectional overrides that reorder what is read
("Trojan Source", CVE-2021-42574), invisible characters, and lone surrogates, which UTF-8 can't encode.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_CONTROL_PICTURES: Final = 0x2400  # U+2400 SYMBOL FOR NULL and the 31 that follow it
_DELETE_PICTURE: Final = "\u2421"
_ACTING: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and newline, DEL, C1
    "\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffb"  # format characters
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # surrogates and noncharacters
    "\U000e0000-\U000e0fff]"  # tags and variation selectors of plane 14
)
_KEPT: Final = frozenset("\u200c\u200d\u202f")  # joiners that scripts and emoji need; our own thin space
_MARKS: Final = re.compile(
    r"([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u20d0-\u20ff]{4})[\u0300-\u036f"
    r"\u0483-\u0489\u1ab0-\u1aff\u20d0-\u20ff]+"
)
_LANGUAGE_TAG: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")


def visible(text: str) -> str:
    """`text` with every character that would act instead of being seen replaced by a visible stand-in.

    C0 controls become control pictures, others `‹U+202E›`, lone surrogates U+FFFD; of a pile of more than
    four combining marks the first four stay. Tabs, newlines, joiners and all ordinary text are unchanged.
    """
    text = text.replace("\r\n", "\n")
    return _MARKS.sub(r"\1", _ACTING.sub(_stand_in, text))


def _stand_in(match: re.Match[str]) -> str:
    character = match[0]
    point = ord(character)
    if character in _KEPT:
        return character
    if point < 0x20:  # noqa: PLR2004 - the end of C0
        return chr(_CONTROL_PICTURES + point)
    if point == 0x7F:  # noqa: PLR2004 - DEL
        return _DELETE_PICTURE
    if unicodedata.category(character) == "Cs":
        return "\ufffd"
    return f"‹U+{point:04X}›"


def clip(text: str, characters: int) -> str:
    """At most `characters` characters of `text`; an ellipsis says that there was more."""
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"


def language_tag(language: object) -> str:
    """`language` where it has the form of a BCP 47 tag, else `und` (undetermined), for `lang` attributes."""
    return language if isinstance(language, str) and _LANGUAGE_TAG.fullmatch(language) else "und"
