"""Could this page be in the language? Decided from the bytes of its head, before anything costly.

Swallow asks for `<html lang>` or a Japanese title (arXiv:2404.17733 §3.1: F1 0.926). Added here, all as data
of the language pack: the encoding, characters that hardly any other language uses (found in UTF-8 and in the
pack's legacy encodings), the top-level domain, and, for scripts that many languages share, a declaration of
another language as a veto. Nothing is decoded but the heads of pages in UTF-16, and of those in a legacy
encoding where only the letters can tell.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from tsugiki.corpus import prefilter_kernel as kernel
from tsugiki.corpus.decode import codec_of, decode
from tsugiki.languages import CodePoints, LanguagePack

HEAD_BYTES = 1 << 16
"""No more of a page is looked at."""

_EVIDENCE_BYTES = 1 << 14
_EVIDENCE_IN_TITLE = 2
_EVIDENCE_IN_HEAD = 20
_STRAY = 4  # evidence for each invalid byte: in another encoding some bytes look like UTF-8 by chance
# Of the sample crawl read in every encoding of the packs: where it is the right one, at least 48 % of the
# characters are evidence and 72 valid ones come on each invalid byte; where it is a wrong one, never both.
_LEGACY_EVIDENCE = 0.4
_LEGACY_VALID = 50
_VISIBLE_LETTERS = 2000
_STOP_WORDS = 3  # different ones at least,
_STOP_WORDS_PART = 4  # and a quarter of a long list, some of which are words of other languages too
_LETTERS_PER_STOP_WORD = 60  # short pages need fewer
_ESCAPE = b"\x1b"
_UTF_16 = {b"\xff\xfe": "utf_16_le", b"\xfe\xff": "utf_16_be"}
_TITLE_CHARACTERS = 1 << 16
_TITLE = re.compile(r"<title\b[^>]{0,200}>([^<]{0,2000})", re.IGNORECASE)
_SUBTAG = re.compile(r"\s*([A-Za-z]{2,3})(?![A-Za-z])")
_BASIC_PLANE = 0x10000
_MOST_PACKS = 64
_MOST_STOP_WORDS = 62

Table = npt.NDArray[np.uint8]


def page_title(page: str) -> str | None:
    """The content of the first `<title>`, entities resolved and white space collapsed; None if empty."""
    match = _TITLE.search(page[:_TITLE_CHARACTERS])
    title = " ".join(html.unescape(match[1]).split()) if match else ""
    return title or None


def host_of(url: str) -> str | None:
    """The host name of a URL, lower case; None where there is none or the URL is malformed."""
    try:
        return urlsplit(url).hostname
    except ValueError:  # brackets that are no IPv6 address
        return None


@dataclass(frozen=True)
class _Facts:
    """A pack's facts as the kernels want them. `legacy`: one table for each legacy encoding of two bytes."""

    pack: LanguagePack
    html_lang: frozenset[int]
    charsets: frozenset[str]
    domains: tuple[str, ...]
    evidence: Table | None
    legacy: tuple[Table, ...]
    letters: Table | None
    stop_words: npt.NDArray[np.uint64]
    escapes: bool


_COMPILED: dict[int, _Facts] = {}


def is_candidate(
    body: bytes, http_charset: str | None, url: str, pack: LanguagePack, http_language: str | None = None
) -> bool:
    """Whether the page is worth decoding and extracting for the pack's language.

    body: the page's bytes, of which the first 64 kB are looked at. http_charset, http_language: what the
    Content-Type and Content-Language headers say, if anything.
    """
    facts = _facts(pack)
    head = body[:HEAD_BYTES]
    codec = _UTF_16.get(head[:2])
    if codec:
        head = head.decode(codec, "replace").encode("utf-8", "replace")
    view = np.frombuffer(head, np.uint8)
    lang, meta_lang, charset_begin, charset_end, title_begin, title_end = kernel.scan_head(view).tolist()
    declared = lang or meta_lang or (packed_subtag(http_language) if http_language else 0)
    if declared in facts.html_lang:
        return True
    if pack.prefilter.trust_other_lang and declared:
        return False
    charset = head[charset_begin:charset_end] if charset_begin >= 0 else None
    if _has_evidence(view, head, (title_begin, title_end), (http_charset, charset), facts):
        return True
    if declared:
        return False
    return (bool(facts.domains) and _host_bytes(url).endswith(facts.domains)) or (
        facts.letters is not None and _in_script(view, body, http_charset, facts)
    )


def _has_evidence(
    view: Table,
    head: bytes,
    title: tuple[int, int],
    labels: tuple[str | None, bytes | None],
    facts: _Facts,
) -> bool:
    """Whether the encoding is the language's own, or its own characters stand in the title or the head."""
    end = min(_EVIDENCE_BYTES, len(head))
    if facts.escapes and _has_escapes(head, end):
        return True
    own_charset = bool(facts.charsets) and any(_codec(label) in facts.charsets for label in labels if label)
    if facts.evidence is None and not own_charset and not facts.legacy:
        return False
    table = _NOTHING if facts.evidence is None else facts.evidence
    if title[0] >= 0 and facts.evidence is not None:
        hits, broken = kernel.count_utf8(view, *title, table, _EVIDENCE_IN_TITLE)
        if not broken and hits >= _EVIDENCE_IN_TITLE:
            return True
    hits, broken = kernel.count_utf8(view, 0, end, table, _EVIDENCE_IN_HEAD)
    if hits >= _EVIDENCE_IN_HEAD and _STRAY * broken <= hits:
        return True
    if not broken:
        return own_charset and head.isascii()  # valid UTF-8 is not what was declared
    return own_charset or any(_is_legacy(view, end, title, table) for table in facts.legacy)


def _has_escapes(head: bytes, end: int) -> bool:
    """Whether ISO 2022 escapes are there; a single byte is found a hundred times faster than two."""
    place = head.find(_ESCAPE, 0, end)
    return place >= 0 and any(head.find(_ESCAPE + mark, place, end) >= 0 for mark in (b"$", b"("))


def _is_legacy(view: Table, end: int, title: tuple[int, int], table: Table) -> bool:
    """Whether the head reads as text of the language in the table's encoding."""
    hits, valid, broken = kernel.count_legacy(view, 0, end, table)
    if _LEGACY_VALID * (broken - 1) > valid or hits < _LEGACY_EVIDENCE * valid:  # one stray byte is no sign
        return False
    if hits >= _EVIDENCE_IN_HEAD:
        return True
    return title[0] >= 0 and bool(kernel.count_legacy(view, *title, table)[0] >= _EVIDENCE_IN_TITLE)


def _in_script(view: Table, body: bytes, http_charset: str | None, facts: _Facts) -> bool:
    """Whether enough of the letters that a reader sees in the head belong to the pack's script.

    Enough of the pack's stop words must be among them: these tell the languages of one script apart.
    """
    head = view[:_EVIDENCE_BYTES]
    inside, outside, broken, words = _visible(head, facts)
    if broken or _has_escapes(body, _EVIDENCE_BYTES):  # rare: a legacy encoding, and only letters to go by
        decoded = decode(body[:_EVIDENCE_BYTES], http_charset, facts.pack)
        if decoded is None:
            return False
        head = np.frombuffer(decoded.text.encode("utf-8", "replace"), np.uint8)
        inside, outside, _, words = _visible(head, facts)
    least = facts.pack.prefilter.undeclared_share or 0.0
    known_words = facts.stop_words.size
    enough_words = min(
        max(_STOP_WORDS, known_words // _STOP_WORDS_PART), known_words, inside // _LETTERS_PER_STOP_WORD
    )
    return bool(inside and inside >= least * (inside + outside) and words >= enough_words)


def _visible(head: Table, facts: _Facts) -> list[int]:
    counts: list[int] = kernel.count_visible(head, facts.letters, facts.stop_words, _VISIBLE_LETTERS).tolist()
    return counts


def packed_subtag(tag: str) -> int:
    """The primary subtag of a language tag (or a list of them), lower case, as `scan_head` packs it."""
    match = _SUBTAG.match(tag)
    return int.from_bytes(match[1].lower().encode(), "big") if match else 0


def _host_bytes(url: str) -> str:
    """The host of a URL by plain cutting: a tenth of urlsplit's time, and a hint needs no more."""
    start = url.find("://") + 3
    host = url[start:] if start > 2 else url  # noqa: PLR2004 (found)
    for mark in "/?#":
        host = host.partition(mark)[0]
    return host.rpartition("@")[2].partition(":")[0].rstrip(".").lower()


@lru_cache(maxsize=1024)
def _codec(label: str | bytes) -> str | None:
    return codec_of(label if isinstance(label, str) else label.decode("ascii", "replace"))


def _facts(pack: LanguagePack) -> _Facts:
    """The pack's facts, made once.

    Kept by the pack's identity, which is safe as long as the pack itself is kept beside: hashing all that a
    pack says takes longer than looking at a page.
    """
    found = _COMPILED.get(id(pack))
    if found is None:
        if len(_COMPILED) >= _MOST_PACKS:
            _COMPILED.clear()
        found = _COMPILED[id(pack)] = _compile(pack)
    return found


def _compile(pack: LanguagePack) -> _Facts:
    facts = pack.prefilter
    spans = tuple(span for ranges in pack.script.classes.values() for span in ranges)
    wide = [codec for codec in pack.decoding.legacy_encodings if not codec.startswith("iso2022")]
    return _Facts(
        pack=pack,
        html_lang=frozenset(map(packed_subtag, facts.html_lang)),
        charsets=frozenset(facts.charsets),
        domains=tuple(f".{domain}" for domain in facts.domains),
        evidence=_marked(facts.evidence) if facts.evidence else None,
        legacy=tuple(_legacy_table(codec, facts.evidence) for codec in wide) if facts.evidence else (),
        letters=_letters(spans) if facts.undeclared_share is not None else None,
        stop_words=np.array([_hash(word) for word in pack.stop_words[:_MOST_STOP_WORDS]], np.uint64),
        escapes=any(codec.startswith("iso2022") for codec in facts.charsets),
    )


def _hash(word: str) -> int:
    return int(kernel.hash_word(np.frombuffer(word.encode(), np.uint8)))


_NOTHING: Table = np.zeros(_BASIC_PLANE, np.uint8)


def _marked(spans: Sequence[CodePoints]) -> Table:
    """INSIDE for the code points of `spans` up to FFFF, 0 elsewhere."""
    table = np.zeros(_BASIC_PLANE, np.uint8)
    for first, last in spans:
        table[first : last + 1] = kernel.INSIDE
    return table


@cache
def _letters(spans: tuple[CodePoints, ...]) -> Table:
    """INSIDE for the letters of `spans` (all letters if there are none), OUTSIDE for all other letters."""
    table = np.zeros(_BASIC_PLANE, np.uint8)
    table[[code for code in range(_BASIC_PLANE) if chr(code).isalpha()]] = kernel.OUTSIDE
    inside = _marked(spans or ((0, _BASIC_PLANE - 1),)) > 0
    table[inside & (table > 0)] = kernel.INSIDE
    return table


@cache
def _legacy_table(codec: str, spans: tuple[CodePoints, ...]) -> Table:
    """For each pair of bytes, then for each single byte: INSIDE, OUTSIDE, or 0 where it is no character."""
    table = np.zeros(_BASIC_PLANE + 0x100, np.uint8)
    for lead in range(0x80, 0x100):
        single = _character(bytes([lead]), codec)
        if single:
            table[_BASIC_PLANE + lead] = _kind(single, spans)
            continue
        for trail in range(0x40, 0x100):
            character = _character(bytes([lead, trail]), codec)
            if character:
                table[(lead << 8) | trail] = _kind(character, spans)
    return table


def _character(packed: bytes, codec: str) -> str:
    try:
        text = packed.decode(codec)
    except UnicodeError:
        return ""
    return text if len(text) == 1 else ""


def _kind(character: str, spans: Sequence[CodePoints]) -> int:
    inside = any(first <= ord(character) <= last for first, last in spans)
    return kernel.INSIDE if inside else kernel.OUTSIDE
