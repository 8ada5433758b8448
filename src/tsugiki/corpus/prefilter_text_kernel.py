"""What a reader would see of a page's head, counted from its bytes; compiled with numba (nogil, cached).

Tags, comments, scripts and styles are skipped eight bytes at a time. Letters in links are counted apart: they
are navigation, and a page whose letters are all in links has no main text.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from tsugiki.corpus.prefilter_kernel import (
    INSIDE,
    begins,
    code_point,
    first_marked,
    is_letter,
    is_space,
    lower_word,
    words_of,
)

_kernel: Any = nb.njit

_SCRIPT, _STYLE = map(lower_word, ("script", "style"))
_BYTES = nb.types.Array(nb.uint8, 1, "C", readonly=True)
_WORDS = nb.types.Array(nb.uint64, 1, "C", readonly=True)
_HASH_START = np.uint64(0xCBF29CE484222325)
_SEVEN_BITS = np.uint64(0x7F7F7F7F7F7F7F7F)
_HIGH_BITS = np.uint64(0x8080808080808080)
_ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)
_ALL_OPEN = np.uint64(0x3C3C3C3C3C3C3C3C)  # < in every byte
_ALL_CLOSE = np.uint64(0x3E3E3E3E3E3E3E3E)  # > in every byte
_TOP_BYTE = np.uint64(56)
_SLOTS = 256
_SHORT_TAG = 32  # bytes looked at one by one: a call costs more
_RUN = 32  # letters looked at before the limits are: the longest that is right for words of one letter a step
_TOKENS_TO_TELL = 60
_DEVIATIONS_SQUARED = 9.0
_END_OF_TABLE = 0x10000 << 3  # as `code_point` gives it
_ONE, _THREE = np.uint64(1), np.uint64(3)


@_kernel(nb.uint64(nb.uint64), inline="always", cache=True)
def _zero_bytes(word: Any) -> Any:
    """The high bit of each byte that is 0, and no other; (w - 01...) & ~w & 80... is not exact."""
    return ~(((word & _SEVEN_BITS) + _SEVEN_BITS) | word) & _HIGH_BITS


@_kernel(nb.int64(_BYTES, _WORDS, nb.int64, nb.uint64), nogil=True, cache=True)
def find_byte(head: Any, words: Any, begin: int, pattern: Any) -> int:
    """The first place from `begin` on of the byte that `pattern` has eight times; the size if there is none.

    words: `head`, eight bytes each.
    """
    place = begin
    k = place >> 3
    if k < words.size:
        marks = _zero_bytes(words[k] ^ pattern) & (_ALL_BITS << (np.uint64(place & 7) << _THREE))
        while marks == 0:
            k += 1
            if k >= words.size:
                break
            marks = _zero_bytes(words[k] ^ pattern)
        if marks != 0:
            return (k << 3) + first_marked(marks)
        place = k << 3
    byte = np.uint8(pattern & np.uint64(0xFF))
    while place < head.size and head[place] != byte:
        place += 1
    return min(place, head.size)


@_kernel(nb.int64(_BYTES, _WORDS, nb.int64), nogil=True, cache=True)
def _after_comment(head: Any, words: Any, place: int) -> int:
    end = find_byte(head, words, place, _ALL_CLOSE)
    while end < head.size and not (head[end - 1] == 45 and head[end - 2] == 45 and end - 2 >= place):  # noqa: PLR2004
        end = find_byte(head, words, end + 1, _ALL_CLOSE)
    return end + 1


@_kernel(nb.int64(_BYTES, _WORDS, nb.int64), inline="always", cache=True)
def _after_markup(head: Any, words: Any, place: int) -> int:
    """Where the text goes on after the tag, comment, script or style whose < is at `place`."""
    second = head[place + 1] if place + 1 < head.size else np.uint8(0)
    if second == 33 and place + 3 < head.size and head[place + 2] == 45 and head[place + 3] == 45:  # noqa: PLR2004 (!--)
        return _after_comment(head, words, place + 4)
    if second | 32 == 115:  # noqa: PLR2004 (s)
        script = begins(head, place + 1, _SCRIPT)
        if script or begins(head, place + 1, _STYLE):
            end = place + 6
            while True:
                end = find_byte(head, words, end, _ALL_OPEN)
                if end >= head.size:
                    return head.size
                if begins(head, end + 2, _SCRIPT if script else _STYLE) and head[end + 1] == 47:  # noqa: PLR2004 (/)
                    break
                end += 1
            place = end
    return find_byte(head, words, place, _ALL_CLOSE) + 1


@_kernel(nb.int64(_BYTES, nb.int64), inline="always", cache=True)
def _after_entity(head: Any, place: int) -> int:
    """Behind an entity such as &nbsp; at `place`; one byte on where there is none."""
    k = place + 1
    while k < head.size and k - place < 32 and (is_letter(head[k]) or 48 <= head[k] <= 57):  # noqa: PLR2004
        k += 1
    return k + 1 if k < head.size and head[k] == 59 else place + 1  # noqa: PLR2004 (;)


@_kernel(nb.int64(_BYTES, nb.int64, nb.int64), inline="always", cache=True)
def _link_after(head: Any, place: int, linked: int) -> int:
    """Whether text after the tag whose < is at `place` is in a link, if `linked` is how it was before."""
    if place + 3 >= head.size:
        return linked
    if head[place + 1] | 32 == 97:  # noqa: PLR2004 (a)
        return 1 if is_space(head[place + 2]) else linked
    if head[place + 1] == 47 and head[place + 2] | 32 == 97 and not is_letter(head[place + 3]):  # noqa: PLR2004 (/a)
        return 0
    return linked


@_kernel(nb.uint64(nb.uint64, nb.uint8), inline="always", cache=True)
def _hash_letter(value: Any, byte: Any) -> Any:
    """FNV-1a, a byte more; capitals A to Z as small letters."""
    if 65 <= byte <= 90:  # noqa: PLR2004
        byte |= 32
    return (value ^ np.uint64(byte)) * np.uint64(0x100000001B3)


@_kernel(nb.uint64(_BYTES), nogil=True, cache=True)
def hash_word(word: Any) -> Any:
    """The hash of a word in UTF-8."""
    value = _HASH_START
    for k in range(word.size):
        value = _hash_letter(value, word[k])
    return value


@_kernel(nb.uint8[::1](nb.uint64[::1]), nogil=True, cache=True)
def _slots_of(words: Any) -> Any:
    """Where a word is looked for by the top byte of its hash: its number from 1; the next slot if taken."""
    slots = np.zeros(_SLOTS, np.uint8)
    for k in range(words.size):
        slot = np.int64(words[k] >> _TOP_BYTE)
        while slots[slot] != 0 and words[slots[slot] - 1] != words[k]:
            slot = (slot + 1) % _SLOTS
        if slots[slot] == 0:
            slots[slot] = k + 1
    return slots


@_kernel(nb.uint64(nb.uint64, nb.uint64[::1], nb.uint8[::1]), inline="always", cache=True)
def _mark(word: Any, words: Any, slots: Any) -> Any:
    """The bit of the one of `words` that `word` is; 0 if it is none."""
    slot = np.int64(word >> _TOP_BYTE)
    while slots[slot] != 0:
        k = np.int64(slots[slot]) - 1
        if words[k] == word:
            return _ONE << np.uint64(k)
        slot = (slot + 1) % _SLOTS
    return np.uint64(0)


@_kernel(nb.boolean(nb.int64, nb.int64, nb.float64), inline="always", cache=True)
def _is_plain(hits: Any, tokens: Any, share: Any) -> Any:
    """Whether so many hits are three standard deviations of a binomial distribution away from `share`.

    A share of 0 is never asked for.
    """
    away = hits - share * tokens
    return share > 0 and away * away > _DEVIATIONS_SQUARED * share * (1 - share) * tokens


@_kernel(
    nb.types.UniTuple(nb.int64, 8)(
        _BYTES, nb.int64, nb.uint8[::1], nb.uint64[::1], nb.int64, nb.int64, nb.int64, nb.float64
    ),
    nogil=True,
    cache=True,
)
def count_visible(  # noqa: C901, PLR0912, PLR0915, PLR0917 (one pass; numba has no keyword arguments)
    head: Any, begin: int, table: Any, words: Any, most: int, foreign: int, enough: int, share: float
) -> Any:
    """Letters outside of links that a reader sees of the head from `begin` on, and how many of the words.

    table: INSIDE, OUTSIDE or 0 for the code points up to FFFF. words: hashes of at most 62 words. Goes on to
    the end, to `most` letters, to more than `foreign` letters OUTSIDE, until `enough` letters INSIDE are
    found, or until it is plain whether the share of `words` is above `share` (see `_is_plain`); asked behind
    each word or run of at most 32 letters. Returns letters INSIDE, OUTSIDE, bytes that are no UTF-8,
    different words (those in links, too), letters in links, 1 if the end was reached, words outside of links
    (0 where none are asked for), and how many of these are among `words`.
    """
    eights = words_of(head)
    slots = _slots_of(words)
    inside = outside = broken = linked_letters = linked = found_words = tokens = hits = 0
    seen = np.uint64(0)
    word = _HASH_START
    place = begin
    while place < head.size and inside + outside < most and outside <= foreign:
        run = own = 0
        cut = False
        step = 1
        byte = np.uint8(0)
        while place < head.size:
            byte = head[place]
            if byte < 0x80:  # noqa: PLR2004
                kind = table[byte]
                step = 1
            else:
                found = code_point(head, place, head.size)
                if found == 0:
                    cut = True
                    break
                broken += found < 0
                step = found & 7 if found > 0 else 1
                kind = table[found >> 3] if 0 < found < _END_OF_TABLE else np.uint8(0)
            if kind == 0 or run == _RUN:
                break
            run += 1
            own += kind == INSIDE
            if words.size > 0:
                for k in range(step):
                    word = _hash_letter(word, head[place + k])
            place += step
        if linked:
            linked_letters += run
        else:
            inside += own
            outside += run - own
        if cut:
            place = head.size
            break
        if run and inside >= enough:
            break
        if run == _RUN or place >= head.size:
            continue
        if word != _HASH_START:
            mark = _mark(word, words, slots)
            if linked == 0:
                hits += mark != 0
                tokens += 1
            found_words += mark & ~seen != 0
            seen |= mark
            word = _HASH_START
            if tokens >= _TOKENS_TO_TELL and _is_plain(hits, tokens, share):
                break
        if byte == 60:  # noqa: PLR2004 (<)
            linked = _link_after(head, place, linked)
            short = min(place + _SHORT_TAG, head.size)
            end = place + 1
            second = head[end] if end < short else np.uint8(33)
            if second != 33 and second | 32 != 115:  # noqa: PLR2004 (! and s begin what ends otherwise)
                while end < short and head[end] != 62:  # noqa: PLR2004 (>)
                    end += 1
            else:
                end = short
            step = (end + 1 if end < short else _after_markup(head, eights, place)) - place
        elif byte == 38:  # noqa: PLR2004 (&)
            step = _after_entity(head, place) - place
        place += step
    if word != _HASH_START:
        mark = _mark(word, words, slots)
        hits += mark != 0 and linked == 0
        tokens += linked == 0
        found_words += mark & ~seen != 0
    return inside, outside, broken, found_words, linked_letters, np.int64(place >= head.size), tokens, hits
