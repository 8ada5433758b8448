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

from tsugiki.corpus import prefilter_decision as decision
from tsugiki.corpus import prefilter_kernel as kernel
from tsugiki.corpus import prefilter_text_kernel as seen
from tsugiki.corpus.decode import codec_of, decode
from tsugiki.languages import CodePoints, LanguagePack

HEAD_BYTES = 1 << 16
"""No more of a page is looked at."""

_FOUR_BYTES = b"\x81\x30\x81\x30"  # one character of GB 18030 (§4.2): Latin letters, no-break spaces
_UTF_16 = {b"\xff\xfe": "utf_16_le", b"\xfe\xff": "utf_16_be"}
_TITLE_CHARACTERS = 1 << 16
_TITLE = re.compile(r"<title\b[^>]{0,200}>([^<]{0,2000})", re.IGNORECASE)
_SUBTAG = re.compile(r"\s*([A-Za-z]{2,3})(?![A-Za-z])")
_BASIC_PLANE = decision.BASIC_PLANE
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
    """A pack's facts as `decision.decide` wants them.

    tables: of code points (script, evidence, unmixed), then one for each legacy encoding of two bytes.
    """

    pack: LanguagePack
    charsets: frozenset[str]
    domain: re.Pattern[str] | None
    tables: Table
    stop_words: npt.NDArray[np.uint64]
    settings: npt.NDArray[np.float64]


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
    flags = _of_charset(http_charset, facts.charsets) if http_charset else 0
    if facts.domain is not None and facts.domain.match(url):
        flags |= decision.DOMAIN
    language = packed_subtag(http_language) if http_language else 0
    view = np.frombuffer(head, np.uint8)
    answer = decision.decide(view, facts.tables, facts.stop_words, facts.settings, language, flags)
    if answer >= decision.ASK:
        begin, length = divmod(answer - decision.ASK, 256)
        own = _codec(head[begin : begin + length]) in facts.charsets
        flags |= decision.ASKED | (decision.OWN_CHARSET if own else 0)
        answer = decision.decide(view, facts.tables, facts.stop_words, facts.settings, language, flags)
    if answer == decision.DECODE:
        return _in_script_decoded(body, http_charset, facts)
    return bool(answer == decision.YES)


@lru_cache(maxsize=1024)
def _of_charset(label: str, charsets: frozenset[str]) -> int:
    """Flags: UTF-16 or UTF-32 is declared, in which every second byte may be 0; it is one of `charsets`."""
    wide = label.strip().lower().startswith(("utf-16", "utf-32", "utf16", "ucs"))
    return (decision.WIDE if wide else 0) | (decision.OWN_CHARSET if _codec(label) in charsets else 0)


def _in_script_decoded(body: bytes, http_charset: str | None, facts: _Facts) -> bool:
    """Whether a page in a legacy encoding is in the pack's letters and words, with nothing else to go by."""
    decoded = decode(body[: decision.EVIDENCE_BYTES], http_charset, facts.pack)
    if decoded is None:
        return False
    view = np.frombuffer(decoded.text.encode("utf-8", "replace"), np.uint8)
    whole = len(body) <= decision.EVIDENCE_BYTES
    arrays = (facts.tables, facts.stop_words, facts.settings)
    return bool(decision.is_in_script(view, 0, *arrays, whole, True) == decision.YES)


def packed_subtag(tag: str) -> int:
    """The primary subtag of a language tag (or a list of them), lower case, as `scan_head` packs it."""
    match = _SUBTAG.match(tag)
    return int.from_bytes(match[1].lower().encode(), "big") if match else 0


def _domain_pattern(domains: Sequence[str]) -> re.Pattern[str] | None:
    """Finds URLs whose host lies in one of the domains by plain cutting: a hint needs no more."""
    if not domains:
        return None
    ends = "|".join(map(re.escape, domains))
    # the host ends before a slash, ? or #; a port, a final dot and, before the host, a user may stand there
    return re.compile(rf"(?:[^:/?#]*://)?[^/?#]*\.(?:{ends})\.*(?::[^/?#@]*)?(?:[/?#]|$)", re.IGNORECASE)


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
    legacy = [_legacy_table(codec, frequent) for codec in wide] if facts.evidence else []
    shared = facts.undeclared_share is not None
    settings = np.zeros(decision.LANGUAGES + len(facts.html_lang))
    settings[decision.CHECK_LETTERS] = facts.check_letters
    settings[decision.SHARED] = shared
    settings[decision.ASCII_SCRIPT] = script[ord("a")] == kernel.INSIDE
    settings[decision.TRUST_OTHER] = facts.trust_other_lang
    settings[decision.ESCAPES] = any(codec.startswith("iso2022") for codec in facts.charsets)
    settings[decision.CHARSETS] = bool(facts.charsets)
    settings[decision.EVIDENCE] = bool(facts.evidence)
    settings[decision.UNMIXED] = bool(facts.evidence_without)
    settings[decision.LEGACY] = len(legacy)
    settings[decision.SHARE] = facts.undeclared_share or facts.own_share
    settings[decision.STOP_WORD_SHARE] = facts.stop_word_share
    settings[decision.LANGUAGES :] = [packed_subtag(tag) for tag in facts.html_lang]
    points = (script, _marked(facts.evidence), _unmixed(script, facts.evidence_without))
    return _Facts(
        pack=pack,
        charsets=frozenset(facts.charsets),
        domain=_domain_pattern(facts.domains),
        tables=np.concatenate([*points, *legacy]),
        stop_words=np.array([_hash(word) for word in pack.stop_words[:_MOST_STOP_WORDS]], np.uint64),
        settings=settings,
    )


def _hash(word: str) -> int:
    return int(seen.hash_word(np.frombuffer(word.encode(), np.uint8)))


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
