"""The loops of the prefilter over the bytes of a page's head, compiled with numba (nogil, cached on disk).

They read bytes, not characters, so nothing is decoded for a page that is turned away. Markup is plain ASCII
in every encoding that the web uses but UTF-16, which the caller turns into UTF-8 first.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

_kernel: Any = nb.njit

LANG, META_LANG, CHARSET_BEGIN, CHARSET_END, TITLE_BEGIN, TITLE_END, BINARY = range(7)
"""Places in the answer of `scan_head`."""

_LANG_BYTES = 4096
_CHARSET_BYTES = 1 << 14  # HTML asks for the first 1,024 bytes; real pages put scripts before it
_BINARY_LOOKED_AT = 512
_ATTRIBUTES_BYTES = 1000
_TITLE_BYTES = 8000
_BYTES = nb.types.Array(nb.uint8, 1, "C", readonly=True)


def lower_word(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A word in small letters as `begins` wants it."""
    return np.frombuffer(bytearray(text.encode()), np.uint8)


_HTML, _META, _TITLE, _BODY, _XML = map(lower_word, ("html", "meta", "title", "body", "?xml"))
_LANG, _CONTENT, _CHARSET = map(lower_word, ("lang", "content", "charset"))
_ENCODING, _CONTENT_LANGUAGE = map(lower_word, ("encoding", "content-language"))
_WORDS = nb.types.Array(nb.uint64, 1, "C", readonly=True)
_NAME = _BYTES


@_kernel(nb.boolean(nb.uint8), inline="always", cache=True)
def is_letter(byte: Any) -> Any:
    """Whether an ASCII letter."""
    return 97 <= (byte | 32) <= 122  # noqa: PLR2004 (a to z)


@_kernel(nb.boolean(nb.uint8), inline="always", cache=True)
def is_space(byte: Any) -> Any:
    """Whether ASCII white space."""
    return byte == 32 or 9 <= byte <= 13  # noqa: PLR2004


@_kernel(nb.boolean(nb.uint8), inline="always", cache=True)
def _is_label(byte: Any) -> Any:
    """Letters, digits and _:.- as in the names of character sets."""
    return is_letter(byte) or 48 <= byte <= 58 or byte == 45 or byte == 46 or byte == 95  # noqa: PLR1714, PLR2004


@_kernel(nb.boolean(_BYTES, nb.int64, _NAME), nogil=True, cache=True)
def begins(head: Any, place: int, word: Any) -> bool:
    """Whether `word` (lower case) stands at `place`, whatever the case."""
    if place + word.size > head.size:
        return False
    for k in range(word.size):
        byte = head[place + k]
        if 65 <= byte <= 90:  # noqa: PLR2004 (A to Z)
            byte |= 32
        if byte != word[k]:
            return False
    return True


@_kernel(nb.int64(_BYTES, nb.int64, nb.int64, _NAME), nogil=True, cache=True)
def _find(head: Any, begin: int, end: int, word: Any) -> int:
    for place in range(begin, end - word.size + 1):
        if (head[place] | 32) == (word[0] | 32) and begins(head, place, word):
            return place
    return -1


@_kernel(nb.int64(_BYTES, nb.int64, nb.int64), nogil=True, cache=True)
def _end_of_tag(head: Any, begin: int, most: int) -> int:
    """Where the first > is; at most `most` bytes on, or at the end."""
    end = min(begin + most, head.size)
    for place in range(begin, end):
        if head[place] == 62:  # noqa: PLR2004 (>)
            return place
    return end


@_kernel(nb.int64(_BYTES, nb.int64, nb.int64, _NAME), nogil=True, cache=True)
def _value(head: Any, begin: int, end: int, name: Any) -> int:
    """Where the value of the attribute `name` begins, behind = and a quote; -1 if it is not there.

    A name that only ends so, as `data-lang` for `lang`, does not count; `xml:lang` does.
    """
    place = begin
    while True:
        place = _find(head, place, end, name)
        if place < 0:
            return -1
        before = head[place - 1] if place else np.uint8(32)
        place += name.size
        if _is_label(before) and before != 58:  # noqa: PLR2004 (:)
            continue
        k = place
        while k < end and is_space(head[k]):
            k += 1
        if k == end or head[k] != 61:  # noqa: PLR2004 (=)
            continue
        k += 1
        while k < end and (is_space(head[k]) or head[k] == 34 or head[k] == 39):  # noqa: PLR2004
            k += 1
        return k


@_kernel(nb.int64(_BYTES, nb.int64), nogil=True, cache=True)
def _subtag(head: Any, begin: int) -> int:
    """Two or three letters, lower case, packed into one number; 0 if there are more or less."""
    out = np.int64(0)
    k = begin
    while k < head.size and is_letter(head[k]):
        if k - begin == 3:  # noqa: PLR2004
            return 0
        out = (out << 8) | np.int64(head[k] | 32)
        k += 1
    return int(out) if k - begin >= 2 else 0  # noqa: PLR2004


@_kernel(nb.void(_BYTES, nb.int64, nb.int64, nb.int64[::1]), nogil=True, cache=True)
def _charset(head: Any, value: int, end: int, out: Any) -> None:
    if value < 0:
        return
    k = value
    while k < end and k - value < 40 and _is_label(head[k]):  # noqa: PLR2004
        k += 1
    if k - value >= 2:  # noqa: PLR2004
        out[CHARSET_BEGIN] = value
        out[CHARSET_END] = k


@_kernel(nb.int64(_BYTES), nogil=True, cache=True)
def _binary_bytes(head: Any) -> int:
    """How many of the first 512 bytes are "binary data bytes", which no text has (WHATWG MIME Sniffing, §3).

    These are the controls but tab, line feed, form feed, carriage return and escape.
    """
    count = 0
    for k in range(min(head.size, _BINARY_LOOKED_AT)):
        byte = head[k]
        count += byte < 9 or byte == 11 or 14 <= byte <= 26 or 28 <= byte <= 31  # noqa: PLR2004
    return count


@_kernel(nb.int64[::1](_BYTES), nogil=True, cache=True)
def scan_head(head: Any) -> Any:  # noqa: C901 (one pass)
    """What the markup of the head declares, as numbers and places; -1 or 0 for what is not there.

    Reads up to the <body>. Returns what the constants of this module name: the packed primary subtag of
    `<html lang>` and of a Content-Language `<meta>` (both in the first 4,096 bytes), the place of the charset
    (first 16 kB) and of the title's text, and how many of the first 512 bytes are binary.
    """
    out = np.full(7, -1, np.int64)
    out[LANG] = out[META_LANG] = 0
    out[BINARY] = _binary_bytes(head)
    place = 0
    while place < head.size - 5:
        if head[place] != 60:  # noqa: PLR2004 (<)
            place += 1
            continue
        place += 1
        begin = place
        if begins(head, place, _META):
            end = _end_of_tag(head, place, _ATTRIBUTES_BYTES)
            place = end
            if out[CHARSET_BEGIN] < 0 and begin < _CHARSET_BYTES:
                _charset(head, _value(head, begin, end, _CHARSET), end, out)
            if (
                out[META_LANG] == 0
                and begin < _LANG_BYTES
                and _find(head, begin, end, _CONTENT_LANGUAGE) >= 0
            ):
                value = _value(head, begin, end, _CONTENT)
                out[META_LANG] = _subtag(head, value) if value >= 0 else 0
        elif begins(head, place, _TITLE):
            begin = _end_of_tag(head, place, _ATTRIBUTES_BYTES) + 1
            end = begin
            while end < min(head.size, begin + _TITLE_BYTES) and head[end] != 60:  # noqa: PLR2004
                end += 1
            if out[TITLE_BEGIN] < 0:
                out[TITLE_BEGIN] = min(begin, end)
                out[TITLE_END] = end
            place = end
        elif begins(head, place, _HTML):
            end = _end_of_tag(head, place, _ATTRIBUTES_BYTES)
            value = _value(head, begin, end, _LANG) if out[LANG] == 0 and begin < _LANG_BYTES else -1
            if value >= 0:
                out[LANG] = _subtag(head, value)
            place = end
        elif begins(head, place, _XML):
            end = _end_of_tag(head, place, _ATTRIBUTES_BYTES)
            _charset(head, _value(head, begin, end, _ENCODING), end, out)
        elif begins(head, place, _BODY):
            break
    return out


INSIDE, OUTSIDE, NEUTRAL = 1, 2, 3
"""What a table of the kernels says of a character; 0: none of them. NEUTRAL: valid, but says nothing."""

_TELLING, _TELLING_PART = 300, 6
_LOW_BITS = np.uint64(0x0101010101010101)
_HIGH_BITS = np.uint64(0x8080808080808080)
_ONE, _THREE, _SEVEN, _TOP_BYTE = np.uint64(1), np.uint64(3), np.uint64(7), np.uint64(56)


@_kernel(nb.int64(_BYTES, nb.int64, nb.int64), inline="always", cache=True)
def code_point(head: Any, place: int, end: int) -> Any:
    """The UTF-8 character at `place` as code · 8 + bytes; negative: there is none; 0: it is cut off."""
    lead = np.int64(head[place])
    if lead & 0xF0 == 0xE0 and place + 2 < end:  # noqa: PLR2004 (three bytes: most that are not ASCII)
        second, third = np.int64(head[place + 1]), np.int64(head[place + 2])
        if second & 0xC0 != 0x80 or third & 0xC0 != 0x80:  # noqa: PLR2004
            return -1
        return ((lead & 0xF) << 15) | ((second & 0x3F) << 9) | ((third & 0x3F) << 3) | 3
    if lead < 0xC2 or lead > 0xF4:  # noqa: PLR2004
        return -1
    length = 2 + (lead >= 0xE0) + (lead >= 0xF0)  # noqa: PLR2004
    code = lead & (0x7F >> length)
    for k in range(1, length):
        if place + k >= end:
            return 0
        byte = np.int64(head[place + k])
        if byte & 0xC0 != 0x80:  # noqa: PLR2004
            return -1
        code = (code << 6) | (byte & 0x3F)
    return int((code << 3) | length)


@_kernel(nb.int64(nb.uint64), inline="always", cache=True)
def first_marked(marks: Any) -> Any:
    """Which byte of a word is the first (lowest) that has its high bit set; `marks` has no other bits.

    The lowest bit, brought to the foot of its byte, less one is 1 in all bits of the bytes below; one bit of
    each of these is added up by the multiplication.
    """
    below = ((marks & (~marks + _ONE)) >> _SEVEN) - _ONE
    return np.int64(((below & _LOW_BITS) * _LOW_BITS) >> _TOP_BYTE)


@_kernel(nb.int64(_BYTES, _WORDS, nb.int64, nb.int64), nogil=True, cache=True)
def _skip_ascii(head: Any, words: Any, place: int, end: int) -> int:
    """The first place from `place` on whose byte is not ASCII; `words` is `head`, eight bytes each."""
    if place >= end or head[place] >= 0x80:  # noqa: PLR2004
        return min(place, end)
    k = place >> 3
    if k < words.size:
        marks = words[k] & (_HIGH_BITS << (np.uint64(place & 7) << _THREE))
        while marks == 0:
            k += 1
            if k >= words.size:
                break
            marks = words[k] & _HIGH_BITS
        if marks != 0:
            return min((k << 3) + first_marked(marks), end)
        place = k << 3
    while place < end and head[place] < 0x80:  # noqa: PLR2004
        place += 1
    return min(place, end)


@_kernel(_WORDS(_BYTES), inline="always", cache=True)
def words_of(head: Any) -> Any:
    """The bytes, eight in each number; those of the last that are less than eight are left out."""
    return head[: head.size - head.size % 8].view(np.uint64)


@_kernel(nb.boolean(_BYTES), nogil=True, cache=True)
def is_ascii(head: Any) -> Any:
    """Whether no byte is above 7F."""
    return _skip_ascii(head, words_of(head), 0, head.size) == head.size


@_kernel(
    nb.types.UniTuple(nb.int64, 3)(_BYTES, nb.int64, nb.int64, nb.uint8[::1], nb.int64, nb.int64, nb.int64),
    nogil=True,
    cache=True,
)
def count_utf8(  # noqa: PLR0917 (a kernel: numba takes positional arguments)
    head: Any, begin: int, end: int, table: Any, enough: int, foreign: int, most: int
) -> Any:
    """Characters of head[begin:end] that are INSIDE by `table`, bytes that are no UTF-8, characters OUTSIDE.

    `table` is of the code points up to FFFF. Stops at `enough` characters INSIDE, behind `enough` such bytes
    or `foreign` characters OUTSIDE, or behind `most` characters that are not ASCII, whatever they are: a
    fifth of these are enough where none is INSIDE.
    """
    words = words_of(head)
    hits = 0
    broken = 0
    outside = 0
    place = begin
    patience = most - most // 5
    while hits < enough and broken <= enough and outside <= foreign and most > (0 if hits else patience):
        if place >= end:
            break
        if head[place] < 0x80:  # noqa: PLR2004
            place = _skip_ascii(head, words, place, end)
            continue
        found = code_point(head, place, end)
        if found == 0:
            break
        if found < 0:
            broken += 1
            place += 1
            continue
        most -= 1
        place += found & 7
        code = found >> 3
        if code < table.size:
            hits += table[code] == INSIDE
            outside += table[code] == OUTSIDE
    return hits, broken, outside


@_kernel(
    nb.types.UniTuple(nb.int64, 3)(_BYTES, nb.int64, nb.int64, nb.uint8[::1], nb.int64, nb.int64),
    nogil=True,
    cache=True,
)
def count_legacy(  # noqa: PLR0917 (a kernel: numba takes positional arguments)
    head: Any, begin: int, end: int, table: Any, most: int, most_broken: int
) -> Any:
    """The same for a legacy encoding: characters INSIDE, valid ones (INSIDE or OUTSIDE) and invalid bytes.

    `table` has an entry for each pair of bytes (characters of two bytes), then one for each single byte.
    Stops behind `most` characters and invalid bytes, behind `most_broken` of the latter, or where less than a
    sixth of 300 characters is INSIDE.
    """
    hits = 0
    valid = 0
    broken = 0
    words = words_of(head)
    place = _skip_ascii(head, words, begin, end)
    while place < end and most > 0 and broken <= most_broken:
        if valid >= _TELLING and hits * _TELLING_PART < valid:
            break
        kind = np.uint8(0)
        if place + 1 < end:
            kind = table[(np.int64(head[place]) << 8) | np.int64(head[place + 1])]
        step = 2 if kind else 1
        if kind == 0:
            kind = table[0x10000 + np.int64(head[place])]
        hits += kind == INSIDE
        valid += kind == INSIDE or kind == OUTSIDE  # noqa: PLR1714 (as numba wants it)
        broken += kind == 0
        most -= 1
        place = _skip_ascii(head, words, place + step, end)
    return hits, valid, broken
