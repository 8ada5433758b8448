"""The loops of the prefilter over the bytes of a page's head, compiled with numba (nogil, cached on disk).

They read bytes, not characters, so nothing is decoded for a page that is turned away. Markup is plain ASCII
in every encoding that the web uses but UTF-16, which the caller turns into UTF-8 first.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

_kernel: Any = nb.njit

LANG, META_LANG, CHARSET_BEGIN, CHARSET_END, TITLE_BEGIN, TITLE_END = range(6)
"""Places in the answer of `scan_head`."""

_LANG_BYTES = 4096
_CHARSET_BYTES = 1 << 14  # HTML asks for the first 1,024 bytes; real pages put scripts before it
_ATTRIBUTES_BYTES = 1000
_TITLE_BYTES = 8000
_BYTES = nb.types.Array(nb.uint8, 1, "C", readonly=True)


def _word(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(bytearray(text.encode()), np.uint8)


_HTML, _META, _TITLE, _BODY, _XML = map(_word, ("html", "meta", "title", "body", "?xml"))
_SCRIPT, _STYLE, _COMMENT, _COMMENT_END = map(_word, ("script", "style", "!--", "-->"))
_LANG, _CONTENT, _CHARSET = map(_word, ("lang", "content", "charset"))
_ENCODING, _CONTENT_LANGUAGE = map(_word, ("encoding", "content-language"))
_WORDS = nb.types.Array(nb.uint64, 1, "C", readonly=True)
_NAME = _BYTES


@_kernel(nb.boolean(nb.uint8), inline="always")
def _is_letter(byte: Any) -> Any:
    return 97 <= (byte | 32) <= 122  # noqa: PLR2004 (a to z)


@_kernel(nb.boolean(nb.uint8), inline="always")
def _is_space(byte: Any) -> Any:
    return byte == 32 or 9 <= byte <= 13  # noqa: PLR2004


@_kernel(nb.boolean(nb.uint8), inline="always")
def _is_label(byte: Any) -> Any:
    """Letters, digits and _:.- as in the names of character sets."""
    return _is_letter(byte) or 48 <= byte <= 58 or byte == 45 or byte == 46 or byte == 95  # noqa: PLR1714, PLR2004


@_kernel(nb.boolean(_BYTES, nb.int64, _NAME), nogil=True, cache=True)
def _begins(head: Any, place: int, word: Any) -> bool:
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
        if (head[place] | 32) == (word[0] | 32) and _begins(head, place, word):
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
        while k < end and _is_space(head[k]):
            k += 1
        if k == end or head[k] != 61:  # noqa: PLR2004 (=)
            continue
        k += 1
        while k < end and (_is_space(head[k]) or head[k] == 34 or head[k] == 39):  # noqa: PLR2004
            k += 1
        return k


@_kernel(nb.int64(_BYTES, nb.int64), nogil=True, cache=True)
def _subtag(head: Any, begin: int) -> int:
    """Two or three letters, lower case, packed into one number; 0 if there are more or less."""
    out = np.int64(0)
    k = begin
    while k < head.size and _is_letter(head[k]):
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


@_kernel(nb.int64[::1](_BYTES), nogil=True, cache=True)
def scan_head(head: Any) -> Any:  # noqa: C901 (one pass)
    """What the markup of the head declares, as numbers and places; -1 or 0 for what is not there.

    Reads up to the <body>. Returns what the constants of this module name: the packed primary subtag of
    `<html lang>` and of a Content-Language `<meta>` (both in the first 4,096 bytes), the place of the charset
    (first 16 kB) and of the title's text.
    """
    out = np.full(6, -1, np.int64)
    out[LANG] = out[META_LANG] = 0
    place = 0
    while place < head.size - 5:
        if head[place] != 60:  # noqa: PLR2004 (<)
            place += 1
            continue
        place += 1
        begin = place
        if _begins(head, place, _META):
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
        elif _begins(head, place, _TITLE):
            begin = _end_of_tag(head, place, _ATTRIBUTES_BYTES) + 1
            end = begin
            while end < min(head.size, begin + _TITLE_BYTES) and head[end] != 60:  # noqa: PLR2004
                end += 1
            if out[TITLE_BEGIN] < 0:
                out[TITLE_BEGIN] = min(begin, end)
                out[TITLE_END] = end
            place = end
        elif _begins(head, place, _HTML):
            end = _end_of_tag(head, place, _ATTRIBUTES_BYTES)
            value = _value(head, begin, end, _LANG) if out[LANG] == 0 and begin < _LANG_BYTES else -1
            if value >= 0:
                out[LANG] = _subtag(head, value)
            place = end
        elif _begins(head, place, _XML):
            end = _end_of_tag(head, place, _ATTRIBUTES_BYTES)
            _charset(head, _value(head, begin, end, _ENCODING), end, out)
        elif _begins(head, place, _BODY):
            break
    return out


INSIDE, OUTSIDE = 1, 2
"""What a table of the kernels below says of a character; 0: neither."""

_HASH_START = np.uint64(0xCBF29CE484222325)
_HIGH_BITS = np.uint64(0x8080808080808080)


@_kernel(nb.int64(_BYTES, nb.int64, nb.int64), nogil=True, cache=True)
def _code_point(head: Any, place: int, end: int) -> int:
    """The UTF-8 character at `place` as code · 8 + bytes; negative: there is none; 0: it is cut off."""
    lead = np.int64(head[place])
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


@_kernel(nb.int64(_BYTES, _WORDS, nb.int64, nb.int64), nogil=True, cache=True)
def _skip_ascii(head: Any, words: Any, place: int, end: int) -> int:
    """The first place from `place` on whose byte is not ASCII; `words` is `head`, eight bytes each."""
    while place < end and head[place] < 0x80:  # noqa: PLR2004
        place += 1
        if place & 7 == 0:
            word = place >> 3
            while word < words.size and words[word] & _HIGH_BITS == 0:
                word += 1
            place = word << 3
    return min(place, end)


@_kernel(_WORDS(_BYTES), inline="always")
def _words(head: Any) -> Any:
    return head[: head.size - head.size % 8].view(np.uint64)


@_kernel(
    nb.types.UniTuple(nb.int64, 2)(_BYTES, nb.int64, nb.int64, nb.uint8[::1], nb.int64),
    nogil=True,
    cache=True,
)
def count_utf8(head: Any, begin: int, end: int, table: Any, enough: int) -> Any:
    """How many characters of head[begin:end] are INSIDE by `table`, and how many bytes are no UTF-8.

    `table` is of the code points up to FFFF. Stops at `enough` characters.
    """
    words = _words(head)
    hits = 0
    broken = 0
    place = begin
    while hits < enough:
        place = _skip_ascii(head, words, place, end)
        if place >= end:
            break
        found = _code_point(head, place, end)
        if found == 0:
            break
        if found < 0:
            broken += 1
            place += 1
            continue
        place += found & 7
        code = found >> 3
        hits += code < table.size and table[code] == INSIDE
    return hits, broken


@_kernel(nb.types.UniTuple(nb.int64, 3)(_BYTES, nb.int64, nb.int64, nb.uint8[::1]), nogil=True, cache=True)
def count_legacy(head: Any, begin: int, end: int, table: Any) -> Any:
    """The same for a legacy encoding: characters INSIDE, valid ones (INSIDE or OUTSIDE) and invalid bytes.

    `table` has an entry for each pair of bytes (characters of two bytes), then one for each single byte.
    """
    hits = 0
    valid = 0
    broken = 0
    words = _words(head)
    place = _skip_ascii(head, words, begin, end)
    while place < end:
        kind = np.uint8(0)
        if place + 1 < end:
            kind = table[(np.int64(head[place]) << 8) | np.int64(head[place + 1])]
        step = 2 if kind else 1
        if kind == 0:
            kind = table[0x10000 + np.int64(head[place])]
        hits += kind == INSIDE
        valid += kind != 0
        broken += kind == 0
        place = _skip_ascii(head, words, place + step, end)
    return hits, valid, broken


@_kernel(nb.int64(_BYTES, nb.int64), nogil=True, cache=True)
def _after_markup(head: Any, place: int) -> int:
    """Where the text goes on after the tag, comment, script or style that begins at `place`."""
    if _begins(head, place + 1, _COMMENT):
        end = _find(head, place + 4, head.size, _COMMENT_END)
        return end + 3 if end >= 0 else head.size
    script = _begins(head, place + 1, _SCRIPT)
    if not script and not _begins(head, place + 1, _STYLE):
        return _end_of_tag(head, place, head.size) + 1
    k = place + 6
    while k + 1 < head.size:
        if head[k] == 60 and head[k + 1] == 47 and _begins(head, k + 2, _SCRIPT if script else _STYLE):  # noqa: PLR2004
            return _end_of_tag(head, k, head.size) + 1
        k += 1
    return head.size


@_kernel(nb.int64(_BYTES, nb.int64), nogil=True, cache=True)
def _after_entity(head: Any, place: int) -> int:
    """Behind an entity such as &nbsp; at `place`; `place` itself where there is none."""
    k = place + 1
    while k < head.size and k - place < 32 and (_is_letter(head[k]) or 48 <= head[k] <= 57):  # noqa: PLR2004
        k += 1
    return k + 1 if k < head.size and head[k] == 59 else place  # noqa: PLR2004 (;)


@_kernel(nb.uint64(nb.uint64, nb.uint8), inline="always")
def hash_letter(value: Any, byte: Any) -> Any:
    """FNV-1a, a byte more; capitals A to Z as small letters."""
    if 65 <= byte <= 90:  # noqa: PLR2004
        byte |= 32
    return (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)


@_kernel(nb.uint64(_BYTES), nogil=True, cache=True)
def hash_word(word: Any) -> Any:
    """The hash of a word in UTF-8."""
    value = _HASH_START
    for k in range(word.size):
        value = hash_letter(value, word[k])
    return value


@_kernel(nb.int64[::1](_BYTES, nb.uint8[::1], nb.uint64[::1], nb.int64), nogil=True, cache=True)
def count_visible(head: Any, table: Any, words: Any, enough: int) -> Any:  # noqa: C901 (one pass)
    """What a reader sees of the head, tags, comments, scripts and styles left out, up to `enough` letters.

    table: INSIDE, OUTSIDE or 0 for the code points up to FFFF. words: hashes of at most 62 words. Returns the
    letters INSIDE, those OUTSIDE, the bytes that are no UTF-8, and how many of `words` occur.
    """
    out = np.zeros(4, np.int64)
    place = 0
    word = _HASH_START
    seen = np.int64(0)
    while place < head.size and out[0] + out[1] < enough:
        byte = head[place]
        step = 1
        kind = np.uint8(0)
        if byte == 60:  # noqa: PLR2004 (<)
            step = _after_markup(head, place) - place
        elif byte == 38:  # noqa: PLR2004 (&)
            step = max(1, _after_entity(head, place) - place)
        elif byte < 0x80:  # noqa: PLR2004
            kind = table[byte]
        else:
            found = _code_point(head, place, head.size)
            if found == 0:
                break
            if found > 0:
                step = found & 7
                kind = table[found >> 3] if found >> 3 < table.size else np.uint8(0)
            out[2] += found < 0
        if kind == 0:
            for k in range(words.size if word != _HASH_START else 0):
                seen |= np.int64(words[k] == word) << k
            word = _HASH_START
        else:
            for k in range(step):
                word = hash_letter(word, head[place + k])
            out[0] += kind == INSIDE
            out[1] += kind == OUTSIDE
        place += step
    while seen:
        out[3] += seen & 1
        seen >>= 1
    return out
