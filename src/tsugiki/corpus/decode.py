"""From bytes to text: which encoding is a page in?

Evidence in order: byte order mark; ISO-2022 escapes; strict UTF-8 (legacy text almost never is valid UTF-8 by
chance, so it beats a declaration that says otherwise); what HTTP header and `<meta>` declare; the legacy
encodings of the language pack and of all packs that come with Tsugiki. Candidates of the last two kinds are
scored by how plausible their characters are, so a wrong declaration loses; a candidate may leave a few bytes
undecoded, at a price. A text is judged by the pack at hand and by those whose encoding it is: Japanese in
EUC-JP reads as passable Chinese in Big5 until it is also read as Japanese. An encoding of two bytes a
character that nobody declared must also give characters that are frequent in the language: in those, any text
of a neighbour reads as rare ideographs.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from tsugiki.languages import CodePoints, LanguagePack, load_pack, pack_codes

UTF_8 = "utf_8"
MAX_REPLACED_SHARE = 0.01
"""A page with more undecodable characters than this share of its non-ASCII ones is given up."""

_HEAD_BYTES = 1 << 14  # HTML asks for the first 1,024 bytes; real pages put scripts before it
_SCORED_CHARACTERS = 1 << 18  # euro signs of a price list at the end tell ISO-8859-15 from cp1252
_META = re.compile(rb"<meta[^>]{0,400}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.\-]{2,40})", re.IGNORECASE)
_XML = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_:.\-]{2,40})", re.IGNORECASE)
_BOMS = ((b"\xef\xbb\xbf", UTF_8), (b"\xff\xfe", "utf_16_le"), (b"\xfe\xff", "utf_16_be"))
_ISO_2022_ESCAPE = re.compile(rb"\x1b[$(][@-JB]")

# What browsers read under these names (WHATWG Encoding Standard, "Names and labels").
_BROWSER_CODECS = {
    "shift_jis": "cp932",
    "shift_jisx0213": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "hz": "gb18030",
    "big5": "big5hkscs",
    "euc_kr": "cp949",
    "johab": "cp949",
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
}
_OTHER_LABELS = {"x-sjis": "cp932", "windows-31j": "cp932", "x-euc-jp": "euc_jp", "x-gbk": "gb18030"}

_CREDIT_FREQUENT = 1.0
_CREDIT_PLAUSIBLE = 0.5
_CREDIT_LETTER = 0.4
_CREDIT_FOREIGN = 0.5
_PENALTY = -2.0
_DECLARED_BONUS = 0.25
_SINGLE_BYTE_BONUS = 0.6
_SINGLE_BYTE = ("cp125", "cp8", "iso8859", "koi8", "mac")
_DAMAGE = 0.1
_LATIN_1, _LATIN_9 = "cp1252", "iso8859_15"
_HALF_WIDTH_KANA = (0xFF61, 0xFF9F)
_RARE_SIGNS = (0xA4, 0xA6, 0xA8, 0xB8)  # of ISO-8859-1; ISO-8859-15 has the euro, S, s and z with caron there
# CJK marks and kana, ideographs, hangul
_OTHER_SCRIPTS = ((0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3))
_LEAST_SCORE = 0.0
# Of the sample crawl, Japanese in EUC-JP read as Big5 has at most that share in 19 of 20 pages; texts read
# right have 0.18 at least (Korean with little Hangul; Chinese has 0.36).
_LEAST_FREQUENT = 0.17
_LEAST_JUDGED = 50  # characters; fewer may all be rare ones
# The mean run of characters that are not ASCII is no longer: in Vietnamese, which has most of them, a vowel
# and its tone are two characters of cp1258. Cyrillic read as Latin letters comes in whole words.
_LONGEST_RUN = 3.0
_LAST_LATIN = 0x24F
_OFTEN = 0.25
_REPLACEMENT = "\ufffd"
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


@dataclass(frozen=True)
class Decoded:
    """A page's text, the encoding's name as IANA writes it, and what it was chosen by."""

    text: str
    encoding: str
    chosen_by: str
    replaced: int = 0


def codec_of(label: str | None) -> str | None:
    """The Python codec that browsers use for a charset label; None for an unknown one."""
    if not label:
        return None
    label = label.strip().strip("\"'").lower()
    try:
        name = codecs.lookup(_OTHER_LABELS.get(label, label)).name
    except (LookupError, ValueError):
        return None
    if not _is_text_codec(name):
        return None
    name = _BROWSER_CODECS.get(name, name)
    return UTF_8 if name == "utf-8" else name.replace("-", "_")


@cache
def _is_text_codec(name: str) -> bool:
    """Python lists transformations (rot13) and its own escapes among the codecs; no page is in one."""
    try:
        return b"a b".decode(name) == "a b" and not name.startswith(
            ("unicode", "raw", "idna", "puny", "utf-7")
        )
    except (LookupError, ValueError, AssertionError):
        return name.startswith(("utf-16", "utf-32"))


def declared_charset(head: bytes) -> str | None:
    """The charset label of the XML declaration or the first `<meta>` in the head of a page."""
    match = _XML.match(head) or _META.search(head)
    return match[1].decode("ascii") if match else None


def decode(body: bytes, http_charset: str | None, pack: LanguagePack) -> Decoded | None:
    """The text of a page; None where no encoding fits it.

    http_charset: the label of the Content-Type header, if any. pack: gives the legacy encodings to try and
    the characters that well-decoded text has.
    """
    for mark, codec in _BOMS:
        if body.startswith(mark):
            text = _strict(body[len(mark) :], codec)
            if text is not None:
                return _decoded(text, codec, "byte order mark")
    declared = _declared(body, http_charset)
    if _ISO_2022_ESCAPE.search(body):
        text = _strict(body, "iso2022_jp_ext")
        text = _damaged(body, "iso2022_jp_ext") if text is None else text
        if text is not None and not text.isascii():
            return _decoded(text, "iso2022_jp", "escape sequences", text.count(_REPLACEMENT))
    if body.isascii():
        return _decoded(body.decode("ascii"), UTF_8, "ASCII")
    text = _strict(body, UTF_8)
    if text is not None:
        return _decoded(text, UTF_8, "declared" if UTF_8 in declared else "strict UTF-8")
    return _best_scored(body, declared, pack)


def _declared(body: bytes, http_charset: str | None) -> list[str]:
    labels = (http_charset, declared_charset(body[:_HEAD_BYTES]))
    return list(dict.fromkeys(codec for codec in map(codec_of, labels) if codec))


def _strict(body: bytes, codec: str) -> str | None:
    try:
        return body.decode(codec)
    except (UnicodeError, ValueError):
        return None


def _decoded(text: str, codec: str, chosen_by: str, replaced: int = 0) -> Decoded:
    return Decoded(text, _NAMES.get(codec, codec.replace("_", "-")), chosen_by, replaced)


_NAMES = {
    UTF_8: "utf-8",
    "cp932": "shift_jis",
    "euc_jp": "euc-jp",
    "iso2022_jp": "iso-2022-jp",
    "iso2022_jp_ext": "iso-2022-jp",
    "cp949": "euc-kr",
    "big5hkscs": "big5",
    "cp1252": "windows-1252",
}


def _best_scored(body: bytes, declared: Sequence[str], pack: LanguagePack) -> Decoded | None:
    """Decode by every candidate, the damaged way where it must be, and take the most plausible text."""
    own = [*declared, UTF_8, *pack.decoding.legacy_encodings, _LATIN_1]
    owners = _owners()
    best: tuple[float, str, str, int] | None = None
    for codec in dict.fromkeys([*own, *owners]):
        text = _strict(body, codec)
        replaced = 0
        if text is None:
            text = _damaged(body, codec)
            replaced = text.count(_REPLACEMENT) if text else 0
        if text is None:
            continue
        judges = [pack] if codec in own else []
        judges += [other for other in owners.get(codec, ()) if other.code != pack.code]
        score = _score(text, codec, judges, declared) - (_DAMAGE if replaced else 0.0)
        if score >= _LEAST_SCORE and (best is None or score > best[0]):
            best = (score, codec, text, replaced)
    if best is None:
        return None
    _, codec, text, replaced = best
    if codec == "cp1258":  # a letter and its tone mark are two bytes there
        text = unicodedata.normalize("NFC", text)
    chosen_by = "least damaged" if replaced else "declared" if codec in declared else "scored"
    return _decoded(text, codec, chosen_by, replaced)


@cache
def _owners() -> dict[str, tuple[LanguagePack, ...]]:
    """The packs that come with Tsugiki, by each legacy encoding that they name."""
    packs = [load_pack(code) for code in pack_codes()]
    codecs_named = dict.fromkeys(codec for pack in packs for codec in pack.decoding.legacy_encodings)
    return {
        codec: tuple(pack for pack in packs if codec in pack.decoding.legacy_encodings)
        for codec in codecs_named
    }


def _score(text: str, codec: str, judges: Sequence[LanguagePack], declared: Sequence[str]) -> float:
    """How plausible the text is to the pack that finds it most so; below 0 where it is not believed."""
    foreign = _not_ascii(text)
    doubted = codec not in declared and _is_wide(codec)
    if codec not in declared and not doubted and codec != UTF_8 and _is_crowded(text, foreign):
        return _PENALTY
    scores = [
        _plausibility(foreign, judge) for judge in judges if not (doubted and _lacks_frequent(foreign, judge))
    ]
    meant = codec in declared or (codec == _LATIN_9 and _LATIN_1 in declared)
    return max(scores, default=_PENALTY) + (_bonus(codec) if meant else 0.0)


def _is_wide(codec: str) -> bool:
    """Whether a character takes two bytes or more."""
    return not codec.startswith(_SINGLE_BYTE) and codec != UTF_8


def _damaged(body: bytes, codec: str) -> str | None:
    """The text with U+FFFD for undecodable bytes; None if these are too many. Real pages have a stray one."""
    try:
        text = body.decode(codec, errors="replace")
    except (UnicodeError, ValueError):
        return None
    foreign = sum(map(len, _NOT_ASCII.findall(text)))
    return text if text.count(_REPLACEMENT) <= max(1, MAX_REPLACED_SHARE * foreign) else None


def _bonus(codec: str) -> float:
    """How much a declaration weighs.

    The letters of other languages' single-byte encodings earn nothing, and read as kanji they would earn
    half, so they need more; cp1252 does not, since servers declare it (as ISO-8859-1) without looking: they
    write it for ISO-8859-15, too, so that earns the same where the pack has it.
    """
    if _is_wide(codec) or codec in {_LATIN_1, _LATIN_9}:
        return _DECLARED_BONUS
    return _SINGLE_BYTE_BONUS


def plausibility(text: str, pack: LanguagePack) -> float:
    """The mean credit of the non-ASCII characters of `text`, from -2 (mojibake) to 1.

    The pack's frequent characters count 1, its plausible ones 0.5 and so do kana, hangul and ideographs (a
    page in another language keeps its declared encoding), other Latin letters 0.4, controls, half-width kana,
    private-use characters and U+FFFD -2, everything else 0. Half-width kana count nothing where a quarter of
    the characters is frequent: they are the mark of EUC-JP read as Shift_JIS, but that has none of these.
    """
    return _plausibility(_not_ascii(text), pack)


def _plausibility(foreign: npt.NDArray[np.uint32], pack: LanguagePack) -> float:
    """The same of the code points that are not ASCII."""
    if not foreign.size:
        return 0.0
    worth = _credits(pack.decoding.frequent, pack.decoding.plausible)[foreign]
    if (worth >= _CREDIT_FREQUENT).mean() >= _OFTEN:  # then half-width kana are meant
        worth = worth[(foreign < _HALF_WIDTH_KANA[0]) | (foreign > _HALF_WIDTH_KANA[1])]
    return float(worth.mean())


def _lacks_frequent(foreign: npt.NDArray[np.uint32], pack: LanguagePack) -> bool:
    """Whether hardly any of the characters (if these are enough to tell) are frequent in the language."""
    frequent = _credits(pack.decoding.frequent, pack.decoding.plausible)[foreign] >= _CREDIT_FREQUENT
    return bool(foreign.size >= _LEAST_JUDGED and frequent.mean() < _LEAST_FREQUENT)


def _is_crowded(text: str, foreign: npt.NDArray[np.uint32]) -> bool:
    """Whether letters with accents stand side by side as only the letters of another script do."""
    if foreign.size < _LEAST_JUDGED or np.median(foreign) > _LAST_LATIN:
        return False
    runs = sum(1 for _ in _NOT_ASCII.finditer(text[:_SCORED_CHARACTERS]))
    return foreign.size > _LONGEST_RUN * runs


def _not_ascii(text: str) -> npt.NDArray[np.uint32]:
    """The code points from 80 on, those above FFFF as FFFF."""
    codes = np.frombuffer(text[:_SCORED_CHARACTERS].encode("utf-32-le", "replace"), dtype=np.uint32)
    return np.minimum(codes[codes >= 0x80], np.uint32(0xFFFF))  # noqa: PLR2004


@cache
def _credits(frequent: tuple[CodePoints, ...], plausible: tuple[CodePoints, ...]) -> npt.NDArray[np.float32]:
    table = np.zeros(0x10000, np.float32)
    table[0xC0:0x250] = _CREDIT_LETTER
    for first, last in _OTHER_SCRIPTS:
        table[first : last + 1] = _CREDIT_FOREIGN
    for first, last in plausible:
        table[first : last + 1] = _CREDIT_PLAUSIBLE
    for first, last in frequent:
        table[first : last + 1] = _CREDIT_FREQUENT
    table[list(_RARE_SIGNS)] = 0.0
    # C1 controls, the private use area, half-width kana, U+FFFD
    for first, last in ((0x80, 0x9F), (0xE000, 0xF8FF), _HALF_WIDTH_KANA, (0xFFFD, 0xFFFD)):
        table[first : last + 1] = _PENALTY
    return table
