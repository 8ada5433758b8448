"""The prefilter's decision on one page, in one compiled call (numba, nogil, cached).

A page takes less than ten microseconds, so a call from Python for each question would take longer than the
answers. What a pack says comes as flat arrays, which `prefilter.py` makes.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from tsugiki.corpus import prefilter_kernel as kernel
from tsugiki.corpus.prefilter_kernel import begins, count_legacy, count_utf8, lower_word
from tsugiki.corpus.prefilter_text_kernel import count_visible, find_byte

NO, YES, DECODE, ASK = 0, 1, 2, 16
"""Answers of `decide`. DECODE: only decoded text can tell. From ASK on: ASK + (place << 8 | length) of a
charset label that has to be looked up."""

WIDE, OWN_CHARSET, DOMAIN, ASKED = 1, 2, 4, 8
"""Flags of a call: UTF-16 or UTF-32 is declared; the charset is the language's own; so is the host's domain;
the charset in the page was looked up already."""

(
    CHECK_LETTERS,
    SHARED,
    ASCII_SCRIPT,
    TRUST_OTHER,
    ESCAPES,
    CHARSETS,
    EVIDENCE,
    UNMIXED,
    LEGACY,
    SHARE,
    STOP_WORD_SHARE,
    LANGUAGES,
) = range(12)
"""Places in the settings of a pack; from LANGUAGES on stand its packed subtags. EVIDENCE, UNMIXED: whether
there is such a table; LEGACY: how many tables."""

BASIC_PLANE = 0x10000
LEGACY_TABLE = BASIC_PLANE + 0x100
"""Entries of a table of code points, of which the pack has three (script, evidence, unmixed), and of one of a
legacy encoding, which follow."""

EVIDENCE_BYTES = 1 << 14
"""Letters and evidence are looked for in so much of a page."""

_EVIDENCE_CHARACTERS = 2000  # so many that are not ASCII tell as much as all
_UNMIXED_CHARACTERS = 1000  # letters of the script
_EVIDENCE_IN_TITLE = 2
_EVIDENCE_IN_HEAD = 20
_STRAY = 4  # evidence for each invalid byte: in another encoding some bytes look like UTF-8 by chance
# Of the sample crawl written in every encoding of the packs and read in each: where it is the right one, the
# characters that the pack calls frequent are 36 % at least for Chinese and 43 % for Japanese; where it is a
# wrong one with 50 valid characters for each invalid byte, 25 % at most.
_LEGACY_FREQUENT = 1 / 3
_LEGACY_VALID = 50
_LEGACY_CHARACTERS = 1000
_LEGACY_BROKEN = _LEGACY_CHARACTERS // _LEGACY_VALID + 1  # more of them are too many for all that are left
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

_kernel: Any = nb.njit
_BYTES = nb.types.Array(nb.uint8, 1, "C", readonly=True)
_TABLES, _HASHES, _SETTINGS = nb.uint8[::1], nb.uint64[::1], nb.float64[::1]
_ALL_ESCAPES = np.uint64(0x1B1B1B1B1B1B1B1B)  # ESC in every byte
_UTF_8 = lower_word("utf-8")


@_kernel(nb.boolean(_BYTES), nogil=True, cache=True)
def has_escapes(head: Any) -> Any:
    """Whether ISO 2022 escapes are there: ESC and $ or (."""
    eights = kernel.words_of(head)
    place = find_byte(head, eights, 0, _ALL_ESCAPES)
    while place + 1 < head.size:
        if head[place + 1] == 36 or head[place + 1] == 40:  # noqa: PLR2004
            return True
        place = find_byte(head, eights, place + 1, _ALL_ESCAPES)
    return False


@_kernel(nb.boolean(nb.int64, nb.int64), inline="always", cache=True)
def _is_of_links(letters: Any, linked: Any) -> Any:
    """Whether there are links and hardly any letters outside of them: there is no main text then."""
    return linked > 0 and letters < _FEW_UNLINKED


@_kernel(nb.boolean(_BYTES, nb.int64, _TABLES, _HASHES, _SETTINGS), nogil=True, cache=True)
def _is_contradicted(head: Any, begin: int, tables: Any, words: Any, settings: Any) -> Any:
    """Whether what a reader sees is in other letters or words than the language's, or nothing but links.

    Bytes that are no UTF-8 are taken for the language's own letters, unless A to Z are: then they are foreign
    ones, of two bytes. Text between ISO 2022 escapes is not read; nor is that of a page with few letters.
    """
    if settings[CHECK_LETTERS] == 0:
        return False
    shared = settings[SHARED] != 0
    ascii_script = settings[ASCII_SCRIPT] != 0
    looked = head[:EVIDENCE_BYTES]
    share = settings[SHARE]
    most = _VISIBLE_LETTERS if shared else _VISIBLE_OF_OWN_SCRIPT
    foreign = np.int64((1 - share) * most)  # more of them, and the share is out of reach
    enough = most if shared else np.int64(share * most)
    least = settings[STOP_WORD_SHARE] * _DECLARED_WORDS
    inside, outside, broken, _, linked, ended, tokens, hits = count_visible(
        looked, begin, tables[:BASIC_PLANE], words, most, foreign, enough, least if shared else 0.0
    )
    if ascii_script:
        outside += broken // 2
    else:
        inside += broken
    letters = inside + outside
    if shared and ended and looked.size == head.size and _is_of_links(letters, linked):
        contradicted = True
    elif shared and tokens >= _WORDS_TO_TELL and words.size > 0:
        contradicted = inside < share * letters or hits < least * tokens
    else:
        contradicted = letters >= _TOO_FEW_TO_TELL and inside < share * letters
    return contradicted and (ascii_script or not has_escapes(looked))


@_kernel(nb.boolean(_BYTES, nb.int64, nb.int64, _TABLES), nogil=True, cache=True)
def _is_legacy(looked: Any, title: int, title_end: int, table: Any) -> Any:
    """Whether the head reads as text of the language in the table's encoding."""
    hits, valid, broken = count_legacy(looked, 0, looked.size, table, _LEGACY_CHARACTERS, _LEGACY_BROKEN)
    if _LEGACY_VALID * (broken - 1) > valid or hits < _LEGACY_FREQUENT * valid:  # one stray byte is no sign
        return False
    if hits >= _EVIDENCE_IN_HEAD:
        return True
    if title < 0:
        return False
    end = min(title_end, looked.size)
    in_title, _, _ = count_legacy(looked, title, end, table, _LEGACY_CHARACTERS, _LEGACY_BROKEN)
    return in_title >= _EVIDENCE_IN_TITLE


@_kernel(nb.boolean(_BYTES, nb.int64, nb.int64), inline="always", cache=True)
def _names_utf_8(head: Any, begin: int, end: int) -> Any:
    return end - begin == _UTF_8.size and begins(head, begin, _UTF_8)


@_kernel(
    nb.types.Tuple((nb.boolean, nb.int64))(_BYTES, nb.int64[::1], _TABLES, _SETTINGS), nogil=True, cache=True
)
def _shows_evidence(head: Any, scan: Any, tables: Any, settings: Any) -> Any:
    """Whether the language's own characters stand in the title or the head; bytes found that are no UTF-8."""
    evidence = tables[BASIC_PLANE : 2 * BASIC_PLANE]
    title, title_end = scan[kernel.TITLE_BEGIN], scan[kernel.TITLE_END]
    if title >= 0 and settings[EVIDENCE] != 0:
        hits, broken, _ = count_utf8(
            head, title, title_end, evidence, _EVIDENCE_IN_TITLE, 0, _EVIDENCE_CHARACTERS
        )
        if broken == 0 and hits >= _EVIDENCE_IN_TITLE:
            return True, np.int64(0)
    enough, beside_most = _EVIDENCE_IN_HEAD, 0
    if settings[UNMIXED] != 0:
        evidence = tables[2 * BASIC_PLANE : 3 * BASIC_PLANE]
        enough, beside_most = _UNMIXED_CHARACTERS, _UNMIXED_CHARACTERS // _WITHOUT
    end = min(EVIDENCE_BYTES, head.size)
    hits, broken, beside = count_utf8(head, 0, end, evidence, enough, beside_most, _EVIDENCE_CHARACTERS)
    return (hits >= _EVIDENCE_IN_HEAD and _STRAY * broken <= hits and _WITHOUT * beside <= hits), broken


@_kernel(nb.boolean(_BYTES, nb.int64[::1], _TABLES, _SETTINGS), nogil=True, cache=True)
def _is_in_legacy_encoding(looked: Any, scan: Any, tables: Any, settings: Any) -> Any:
    """Whether the head reads as text of the language in one of the pack's legacy encodings."""
    for k in range(np.int64(settings[LEGACY])):
        first = 3 * BASIC_PLANE + k * LEGACY_TABLE
        table = tables[first : first + LEGACY_TABLE]
        if _is_legacy(looked, scan[kernel.TITLE_BEGIN], scan[kernel.TITLE_END], table):
            return True
    return False


@_kernel(nb.int64(_BYTES, nb.int64[::1], _TABLES, _SETTINGS, nb.int64), nogil=True, cache=True)
def _has_evidence(head: Any, scan: Any, tables: Any, settings: Any, flags: int) -> Any:
    """YES where the encoding is the language's own, or its own characters stand in the title or the head.

    NO where not; ASK where it depends on the charset that the page declares.
    """
    looked = head[:EVIDENCE_BYTES]
    if settings[EVIDENCE] == 0 and settings[CHARSETS] == 0 and settings[LEGACY] == 0:
        return YES if settings[ESCAPES] != 0 and has_escapes(looked) else NO
    shown, broken = _shows_evidence(head, scan, tables, settings)
    if shown or (settings[ESCAPES] != 0 and has_escapes(looked)):
        return YES
    plain = broken == 0
    begin, end = scan[kernel.CHARSET_BEGIN], scan[kernel.CHARSET_END]
    own = flags & OWN_CHARSET != 0
    ask = settings[CHARSETS] != 0 and not flags & ASKED and begin >= 0 and not _names_utf_8(head, begin, end)
    if (own or ask) and not (plain and not kernel.is_ascii(head)):  # valid UTF-8 is not what was declared
        return YES if own else ASK
    return YES if not plain and _is_in_legacy_encoding(looked, scan, tables, settings) else NO


@_kernel(
    nb.int64(_BYTES, nb.int64, _TABLES, _HASHES, _SETTINGS, nb.boolean, nb.boolean), nogil=True, cache=True
)
def is_in_script(  # noqa: PLR0917 (a kernel: numba takes positional arguments)
    looked: Any, begin: int, tables: Any, words: Any, settings: Any, whole: Any, decoded: Any
) -> Any:
    """YES if enough of the letters that a reader sees in the head belong to the pack's script, else NO.

    Enough of the words must be stop words of the pack: these tell the languages of one script apart. whole:
    whether `looked` is the whole page; decoded: whether it is UTF-8 made of decoded text. DECODE where it is
    not, and has to be.
    """
    share = settings[SHARE]
    foreign = np.int64((1 - share) * _VISIBLE_LETTERS)
    inside, outside, broken, different, linked, ended, tokens, hits = count_visible(
        looked,
        begin,
        tables[:BASIC_PLANE],
        words,
        _VISIBLE_LETTERS,
        foreign,
        _VISIBLE_LETTERS,
        settings[STOP_WORD_SHARE],
    )
    if not decoded:
        if settings[ASCII_SCRIPT] != 0:
            if broken > _FOREIGN_BYTES * (inside + outside):
                return NO
        elif broken or has_escapes(looked):  # rare: a legacy encoding, and only letters to go by
            return DECODE
    letters = inside + outside
    if inside == 0 or inside < share * letters or (ended and whole and _is_of_links(letters, linked)):
        return NO
    if tokens >= _WORDS_TO_TELL and words.size > 0:
        found = hits >= settings[STOP_WORD_SHARE] * tokens
    else:
        most = min(max(_STOP_WORDS, words.size // _STOP_WORDS_PART), words.size)
        found = different >= min(most, (inside + linked) // _LETTERS_PER_STOP_WORD)
    if found and not decoded and has_escapes(looked):
        return NO
    return YES if found else NO


@_kernel(nb.boolean(nb.int64, _SETTINGS), nogil=True, cache=True)
def _is_own_language(declared: int, settings: Any) -> Any:
    for k in range(LANGUAGES, settings.size):  # noqa: SIM110 (numba has no any)
        if settings[k] == declared:
            return True
    return False


@_kernel(nb.int64(_BYTES, _TABLES, _HASHES, _SETTINGS, nb.int64, nb.int64), nogil=True, cache=True)
def decide(  # noqa: PLR0917 (a kernel: numba takes positional arguments)
    head: Any, tables: Any, words: Any, settings: Any, header_language: int, flags: int
) -> Any:
    """Whether a page with this head may be in the language: YES, NO, DECODE or from ASK on.

    tables, words (hashes of stop words), settings: what the pack says. header_language: the packed subtag of
    Content-Language, 0 if there is none. flags: WIDE and so on.
    """
    scan = kernel.scan_head(head)
    if scan[kernel.BINARY] >= _BINARY_BYTES and not flags & WIDE:
        return NO
    begin = max(scan[kernel.TITLE_END], 0)
    declared = scan[kernel.LANG]
    if declared == 0:
        declared = scan[kernel.META_LANG]
    if declared == 0:
        declared = header_language
    own = declared != 0 and _is_own_language(declared, settings)
    if declared != 0 and not own and settings[TRUST_OTHER] != 0:
        return NO
    if not own:
        found = _has_evidence(head, scan, tables, settings, flags)
        if found == ASK:
            place = scan[kernel.CHARSET_BEGIN]
            return ASK + ((place << 8) | (scan[kernel.CHARSET_END] - place))
        own = found == YES or (declared == 0 and flags & DOMAIN != 0)
    if own:
        return NO if _is_contradicted(head, begin, tables, words, settings) else YES
    if declared != 0 or settings[SHARED] == 0:
        return NO
    looked = head[:EVIDENCE_BYTES]
    return is_in_script(looked, begin, tables, words, settings, looked.size == head.size, False)
