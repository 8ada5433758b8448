"""Could this page be in the language? Decided from the bytes of its head, before anything costly.

Swallow asks for `<html lang>` or a Japanese title (arXiv:2404.17733 §3.1: F1 0.926). Added here, all as data
of the language pack: the encoding, characters that hardly any other language uses (found in UTF-8 and in the
pack's legacy encodings), the top-level domain, and, for scripts that many languages share, a declaration of
another language as a veto. What speaks for the language is then checked against the letters that a reader
sees: translations have untranslated pages, templates declare what their texts are not, and images are
served as pages. Nothing is decoded but the heads of pages in UTF-16, and of those in a legacy encoding where
only the letters can tell.
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
from tsugiki.corpus import prefilter_text_kernel as seen
from tsugiki.corpus.decode import codec_of, decode
from tsugiki.languages import CodePoints, LanguagePack

HEAD_BYTES = 1 << 16
"""No more of a page is looked at."""

_EVIDENCE_BYTES = 1 << 14
_EVIDENCE_CHARACTERS = 2000  # so many that are not ASCII tell as much as all
_EVIDENCE_IN_TITLE = 2
_EVIDENCE_IN_HEAD = 20
_STRAY = 4  # evidence for each invalid byte: in another encoding some bytes look like UTF-8 by chance
# Of the sample crawl written in every encoding of the packs and read in each: where it is the right one, the
# characters that the pack calls frequent are 36 % at least for Chinese and 43 % for Japanese; where it is a
# wrong one with 50 valid characters for each invalid byte, 25 % at most.
_LEGACY_FREQUENT = 1 / 3
_LEGACY_VALID = 50
_VISIBLE_LETTERS = 1000
_VISIBLE_OF_OWN_SCRIPT = 2000  # the share of a script of one's own is reached sooner than that
_WITHOUT = 20  # letters of the script at least for each character that should not stand beside them
_DECLARED_WORDS = 0.5  # of the share of stop words that a page without a declaration needs
_TOO_FEW_TO_TELL = 20  # letters
_BINARY_BYTES = 4  # of the first 512; pictures have dozens, and damaged pages one
_FEW_UNLINKED = 50  # letters outside of links: less than that is a title over a list of links
_STOP_WORDS = 3  # different ones at least,
_STOP_WORDS_PART = 4  # and a quarter of a long list, some of which are words of other languages too
_LETTERS_PER_STOP_WORD = 150  # short pages need fewer
_WORDS_TO_TELL = 30  # of so many, the share of stop words says more than how many different ones there are
_FOREIGN_BYTES = 0.2  # of the letters: more bytes that are no UTF-8 are not letters with accents
_ESCAPE = b"\x1b"
_FOUR_BYTES = b"\x81\x30\x81\x30"  # one character of GB 18030 (§4.2): Latin letters, no-break spaces
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
    """A pack's facts as the kernels want them.

    legacy: one table for each legacy encoding of two bytes. script: the letters of the language, of all.
    shared: whether other languages are written in them. ascii_script: whether A to Z are among them.
    """

    pack: LanguagePack
    html_lang: frozenset[int]
    charsets: frozenset[str]
    domains: tuple[str, ...]
    evidence: Table | None
    unmixed: Table | None
    legacy: tuple[Table, ...]
    script: Table
    shared: bool
    ascii_script: bool
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
    lang, meta_lang, charset_begin, charset_end, *title, binary = kernel.scan_head(view).tolist()
    if binary >= _BINARY_BYTES and not _is_wide_label(http_charset):
        return False
    declared = lang or meta_lang or (packed_subtag(http_language) if http_language else 0)
    begin = max(title[1], 0)
    if declared in facts.html_lang:
        return not _is_contradicted(view, begin, head, facts)
    if facts.pack.prefilter.trust_other_lang and declared:
        return False
    charset = head[charset_begin:charset_end] if charset_begin >= 0 else None
    if _has_evidence(view, head, (title[0], title[1]), (http_charset, charset), facts):
        return not _is_contradicted(view, begin, head, facts)
    if not declared and facts.domains and _host_bytes(url).endswith(facts.domains):
        return not _is_contradicted(view, begin, head, facts)
    return not declared and facts.shared and _in_script(view, begin, body, http_charset, facts)


def _is_wide_label(charset: str | None) -> bool:
    """Whether UTF-16 or UTF-32 is declared, in which every second byte may be 0."""
    return charset is not None and charset.strip().lower().startswith(("utf-16", "utf-32", "utf16", "ucs"))


def _is_contradicted(view: Table, begin: int, head: bytes, facts: _Facts) -> bool:
    """Whether what a reader sees is in other letters or words than the language's, or nothing but links.

    Bytes that are no UTF-8 are taken for the language's own letters, unless A to Z are: then they are foreign
    ones, of two bytes. Text between ISO 2022 escapes is not read; nor is that of a page with few letters.
    """
    if not facts.pack.prefilter.check_letters:
        return False
    end = min(_EVIDENCE_BYTES, view.size)
    if not facts.ascii_script and _has_escapes(head, end):
        return False
    least = facts.pack.prefilter.undeclared_share if facts.shared else None
    share = least or facts.pack.prefilter.own_share
    most = _VISIBLE_LETTERS if facts.shared else _VISIBLE_OF_OWN_SCRIPT
    foreign = int((1 - share) * most)  # more of them, and the share is out of reach
    enough = most if facts.shared else int(share * most)
    inside, outside, broken, _, linked, ended, tokens, hits = seen.count_visible(
        view[:end], begin, facts.script, facts.stop_words, most, foreign, enough, 0
    )
    if facts.ascii_script:
        outside += broken // 2
    else:
        inside += broken
    letters = inside + outside
    if facts.shared and ended and end == view.size and _is_of_links(letters, linked):
        return True
    if facts.shared and tokens >= _WORDS_TO_TELL and facts.stop_words.size:
        least_words = facts.pack.prefilter.stop_word_share * _DECLARED_WORDS
        return bool(inside < share * letters or hits < least_words * tokens)
    return letters >= _TOO_FEW_TO_TELL and inside < share * letters


def _is_of_links(letters: int, linked: int) -> bool:
    """Whether there are links and hardly any letters outside of them: there is no main text then."""
    return linked > 0 and letters < _FEW_UNLINKED


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
        hits, broken, _ = kernel.count_utf8(view, *title, table, _EVIDENCE_IN_TITLE, 0, _EVIDENCE_CHARACTERS)
        if not broken and hits >= _EVIDENCE_IN_TITLE:
            return True
    if facts.unmixed is None:
        limits = (_EVIDENCE_IN_HEAD, 0)
    else:
        table, limits = facts.unmixed, (_EVIDENCE_CHARACTERS, _EVIDENCE_CHARACTERS // _WITHOUT)
    hits, broken, beside = kernel.count_utf8(view, 0, end, table, *limits, _EVIDENCE_CHARACTERS)
    if hits >= _EVIDENCE_IN_HEAD and _STRAY * broken <= hits and _WITHOUT * beside <= hits:
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
    hits, valid, broken = kernel.count_legacy(view, 0, end, table, _EVIDENCE_CHARACTERS)
    if _LEGACY_VALID * (broken - 1) > valid or hits < _LEGACY_FREQUENT * valid:  # one stray byte is no sign
        return False
    if hits >= _EVIDENCE_IN_HEAD:
        return True
    if title[0] < 0:
        return False
    return bool(kernel.count_legacy(view, *title, table, _EVIDENCE_CHARACTERS)[0] >= _EVIDENCE_IN_TITLE)


def _in_script(view: Table, begin: int, body: bytes, http_charset: str | None, facts: _Facts) -> bool:
    """Whether enough of the letters that a reader sees in the head belong to the pack's script.

    Enough of the words must be stop words of the pack: these tell the languages of one script apart.
    """
    known_words = facts.stop_words.size
    most_words = min(max(_STOP_WORDS, known_words // _STOP_WORDS_PART), known_words)
    least = facts.pack.prefilter.undeclared_share or 0.0
    foreign = int((1 - least) * _VISIBLE_LETTERS)
    limits = (facts.script, facts.stop_words, _VISIBLE_LETTERS, foreign, _VISIBLE_LETTERS, 0)
    escapes = _has_escapes(body, _EVIDENCE_BYTES)
    whole = view.size <= _EVIDENCE_BYTES
    inside, outside, broken, words, linked, ended, tokens, hits = seen.count_visible(
        view[:_EVIDENCE_BYTES], begin, *limits
    )
    if facts.ascii_script and (escapes or broken > _FOREIGN_BYTES * (inside + outside)):
        return False
    if (broken or escapes) and not facts.ascii_script:  # rare: a legacy encoding, and only letters to go by
        decoded = decode(body[:_EVIDENCE_BYTES], http_charset, facts.pack)
        if decoded is None:
            return False
        view = np.frombuffer(decoded.text.encode("utf-8", "replace"), np.uint8)
        inside, outside, _, words, linked, ended, tokens, hits = seen.count_visible(view, 0, *limits)
    letters = inside + outside
    if not inside or inside < least * letters:
        return False
    if ended and whole and _is_of_links(letters, linked):
        return False
    if tokens >= _WORDS_TO_TELL and known_words:
        return bool(hits >= facts.pack.prefilter.stop_word_share * tokens)
    return bool(words >= min(most_words, (inside + linked) // _LETTERS_PER_STOP_WORD))


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
    script = _letters((*spans, *facts.evidence) if spans else ())
    frequent = pack.decoding.frequent or facts.evidence
    wide = [codec for codec in pack.decoding.legacy_encodings if not codec.startswith("iso2022")]
    return _Facts(
        pack=pack,
        html_lang=frozenset(map(packed_subtag, facts.html_lang)),
        charsets=frozenset(facts.charsets),
        domains=tuple(f".{domain}" for domain in facts.domains),
        evidence=_marked(facts.evidence) if facts.evidence else None,
        unmixed=_unmixed(script, facts.evidence_without) if facts.evidence_without else None,
        legacy=tuple(_legacy_table(codec, frequent) for codec in wide) if facts.evidence else (),
        script=script,
        shared=facts.undeclared_share is not None,
        ascii_script=bool(script[ord("a")] == kernel.INSIDE),
        stop_words=np.array([_hash(word) for word in pack.stop_words[:_MOST_STOP_WORDS]], np.uint64),
        escapes=any(codec.startswith("iso2022") for codec in facts.charsets),
    )


def _hash(word: str) -> int:
    return int(seen.hash_word(np.frombuffer(word.encode(), np.uint8)))


_NOTHING: Table = np.zeros(_BASIC_PLANE, np.uint8)


def _marked(spans: Sequence[CodePoints]) -> Table:
    """INSIDE for the code points of `spans` up to FFFF, 0 elsewhere."""
    table = np.zeros(_BASIC_PLANE, np.uint8)
    for first, last in spans:
        table[first : last + 1] = kernel.INSIDE
    return table


def _unmixed(script: Table, beside: Sequence[CodePoints]) -> Table:
    """INSIDE for the script's letters but ASCII, OUTSIDE for what should not stand beside them."""
    table = np.where(script == kernel.INSIDE, np.uint8(kernel.INSIDE), np.uint8(0))
    table[: ord("\x80")] = 0
    table[_marked(beside) > 0] = kernel.OUTSIDE
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
    if _character(_FOUR_BYTES, codec):
        for lead in range(0x81, 0xFF):  # pairs of a byte and a digit are halves of such characters
            table[(lead << 8) | 0x30 : (lead << 8) | 0x3A] = kernel.NEUTRAL
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
