"""The loops over a text's characters behind the quality features, compiled with numba.

`text_counts` reads the code points once for character classes and sentences and once for lines;
`word_kernels.py` and `repetition.py` have the rest. `corpus/oracle.py` says the same in plain Python, and the
tests hold the two together. Sentences, lines and words are known by a
64-bit hash that is mixed at every character (a plain polynomial modulo 2^64 has collisions that a hostile
page can be built from: Thue-Morse strings).
"""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np
import numpy.typing as npt

from tsugiki.corpus.character_tables import (
    BULLET,
    CLASS,
    DIGIT,
    QUOTE,
    SPACE,
    TERMINATOR,
)

UInt16s = npt.NDArray[np.uint16]
UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int64s = npt.NDArray[np.int64]

CLASSES: Final = 256
(
    SENTENCES,
    SENTENCE_LETTERS,
    SENTENCE_LONGEST,
    SENTENCE_ELLIPSES,
    SENTENCE_REPEATS,
    SENTENCE_REPEAT_LETTERS,
    PARAGRAPHS,
    PARAGRAPH_REPEATS,
    PARAGRAPH_REPEAT_LETTERS,
    LINES,
    LINE_BREAKS,
    LINE_BULLETS,
    LINE_ELLIPSES,
    LINE_ENDS,
    LINE_SHORT,
    LINE_REPEATS,
    LINE_REPEAT_LETTERS,
    RAW_LINE_REPEAT_LETTERS,
    C4_LINES,
    C4_SENTENCES,
    C4_OPEN_SENTENCES,
) = range(21)
TEXT_COUNTS: Final = 21
SHORT_LINE: Final = 30
"""Characters of a short line (FineWeb, arXiv:2406.17557; datatrove's `short_line_length`)."""
C4_LEAST_WORDS: Final = 3
C4_LONGEST_WORD: Final = 1000
"""C4 keeps lines of at least 3 words, none longer than 1,000 letters (datatrove's C4QualityFilter)."""
C4_CITATIONS = ("[edit]", "[citation needed]")
"""Taken out of a line before C4 looks at it, as are `[]` and numbers such as `[12]` (its CITATION_REGEX)."""

_CITATIONS = np.array([ord(letter) for letter in "".join(C4_CITATIONS)], np.uint32)
_CITATION_STARTS = np.cumsum([0, *map(len, C4_CITATIONS)])
_NEWLINE: Final = 10
_OPEN: Final = 91
_CLOSE: Final = 93
SEED = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
ONE = np.uint64(1)
_SHIFT = np.uint64(29)

_kernel: Any = nb.njit


@_kernel("uint64(uint64, uint64)", inline="always", cache=True)
def step(value: Any, symbol: Any) -> Any:
    """One character more: xor, multiply by an odd constant, fold the upper bits down."""
    value = (value ^ (symbol + SEED)) * _MIX_1
    return value ^ (value >> _SHIFT)


@_kernel("uint64(uint64, int64)", inline="always", cache=True)
def finish(value: Any, length: int) -> Any:
    """The hash of a string of that length from its last `step`."""
    value = (value ^ np.uint64(length)) * _MIX_2
    return value ^ (value >> _SHIFT)


@_kernel("uint64(uint32[::1], int64, int64)", nogil=True, cache=True)
def span_hash(symbols: UInt32s, first: int, end: int) -> Any:
    """The hash of symbols[first:end]."""
    value = SEED
    for i in range(first, end):
        value = step(value, np.uint64(symbols[i]))
    return finish(value, end - first)


@_kernel("UniTuple(int64, 2)(uint64[::1], int64[::1], int64)", nogil=True, cache=True)
def _repeats(hashes: UInt64s, lengths: Int64s, count: int) -> tuple[int, int]:
    """How many of the first `count` items are equal to an earlier one, and the letters of those."""
    bits = 4
    while (1 << bits) < 2 * count:
        bits += 1
    mask = np.uint64((1 << bits) - 1)
    keys = np.zeros(1 << bits, np.uint64)
    again = letters = 0
    for i in range(count):
        key = hashes[i] | ONE  # 0 marks a free slot
        slot = (key >> ONE) & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + ONE) & mask
        if keys[slot] == key:
            again += 1
            letters += lengths[i]
        keys[slot] = key
    return again, letters


@_kernel("boolean(uint32[::1], int64, int64, uint32[::1], int64[::1])", nogil=True, cache=True)
def _ends_with(symbols: UInt32s, first: int, end: int, letters: UInt32s, starts: Int64s) -> bool:
    """Whether symbols[first:end] ends with one of the strings letters[starts[k]:starts[k + 1]]."""
    for k in range(starts.size - 1):
        size = starts[k + 1] - starts[k]
        if size > end - first:
            continue
        i = 0
        while i < size and symbols[end - size + i] == letters[starts[k] + i]:
            i += 1
        if i == size:
            return True
    return False


@_kernel("UniTuple(int64, 2)(uint32[::1], uint16[::1], int64, int64)", inline="always", cache=True)
def _stripped(symbols: UInt32s, table: UInt16s, first: int, end: int) -> tuple[int, int]:
    while end > first and table[symbols[end - 1]] & SPACE:
        end -= 1
    while first < end and table[symbols[first]] & SPACE:
        first += 1
    return first, end


@_kernel(
    "void(uint32[::1], uint16[::1], uint32[::1], int64[::1], int64[::1], int64[::1])", nogil=True, cache=True
)
def _count_sentences(  # noqa: PLR0917 (numba has no keyword arguments)
    symbols: UInt32s, table: UInt16s, ellipses: UInt32s, starts: Int64s, classes: Int64s, out: Int64s
) -> None:
    """Classes, sentences and paragraphs, in one pass.

    A sentence is a run of characters that are no terminators, with the terminator after it if there is one,
    and never crosses a line break. A paragraph is a line's sentences together (terminators at its beginning
    are lost), so it is known by their hashes in order.
    """
    size = symbols.size
    sentence_hashes = np.empty(size + 1, np.uint64)
    sentence_lengths = np.empty(size + 1, np.int64)
    paragraph_hashes = np.empty(size + 1, np.uint64)
    paragraph_lengths = np.empty(size + 1, np.int64)
    sentences = paragraphs = paragraph_length = longest = total = broken_off = 0
    start = -1
    sentence = paragraph = SEED
    for i in range(size + 1):
        symbol = symbols[i] if i < size else np.uint32(_NEWLINE)
        entry = table[symbol]
        if i < size:
            classes[entry & CLASS] += 1
        line_ends = symbol == _NEWLINE
        closes = line_ends or (entry & TERMINATOR) != 0
        if start < 0 and not closes:
            start = i
        if start >= 0 and not line_ends:
            sentence = step(sentence, np.uint64(symbol))
        if closes and start >= 0:
            length = i - start + (0 if line_ends else 1)
            sentence_hashes[sentences] = finish(sentence, length)
            sentence_lengths[sentences] = length
            paragraph = step(paragraph, sentence_hashes[sentences])
            paragraph_length += length
            longest = max(longest, length)
            total += length
            first, end = _stripped(symbols, table, start, start + length)
            broken_off += _ends_with(symbols, first, end, ellipses, starts)
            sentences += 1
            start = -1
            sentence = SEED
        if line_ends:
            paragraph_hashes[paragraphs] = finish(paragraph, paragraph_length)
            paragraph_lengths[paragraphs] = paragraph_length
            paragraphs += 1
            paragraph_length = 0
            paragraph = SEED
    out[SENTENCES] = sentences
    out[SENTENCE_LETTERS] = total
    out[SENTENCE_LONGEST] = longest
    out[SENTENCE_ELLIPSES] = broken_off
    out[SENTENCE_REPEATS], out[SENTENCE_REPEAT_LETTERS] = _repeats(
        sentence_hashes, sentence_lengths, sentences
    )
    out[PARAGRAPHS] = paragraphs
    out[PARAGRAPH_REPEATS], out[PARAGRAPH_REPEAT_LETTERS] = _repeats(
        paragraph_hashes, paragraph_lengths, paragraphs
    )


@_kernel("int64(uint32[::1], uint16[::1], int64, int64)", nogil=True, cache=True)
def _citation_end(symbols: UInt32s, table: UInt16s, first: int, end: int) -> int:
    """Where a citation that begins with the bracket at `first` ends; `first` where there is none."""
    i = first + 1
    while i < end and table[symbols[i]] & DIGIT:
        i += 1
    if i < end and symbols[i] == _CLOSE:
        return i + 1
    for k in range(_CITATION_STARTS.size - 1):
        size = _CITATION_STARTS[k + 1] - _CITATION_STARTS[k]
        i = 0
        while i < size and first + i < end and symbols[first + i] == _CITATIONS[_CITATION_STARTS[k] + i]:
            i += 1
        if i == size:
            return first + size
    return first


@_kernel("uint32[::1](uint32[::1], uint16[::1], int64, int64)", nogil=True, cache=True)
def _without_citations(symbols: UInt32s, table: UInt16s, first: int, end: int) -> UInt32s:
    """symbols[first:end] without citations (C4); copied only where it has a bracket."""
    i = first
    while i < end and symbols[i] != _OPEN:
        i += 1
    if i == end:
        return symbols[first:end]
    out = np.empty(end - first, np.uint32)
    size = 0
    i = first
    while i < end:
        stop = _citation_end(symbols, table, i, end) if symbols[i] == _OPEN else i
        if stop > i:
            i = stop
            continue
        out[size] = symbols[i]
        size += 1
        i += 1
    return out[:size]


@_kernel("UniTuple(int64, 2)(uint32[::1], uint16[::1])", nogil=True, cache=True)
def _line_words(symbols: UInt32s, table: UInt16s) -> tuple[int, int]:
    """The words of a line, and its sentences.

    A sentence ends where terminators, and closing quotes among them, stand before a space or the line's end;
    what is left behind the last one is a sentence too.
    """
    words = length = sentences = 0
    ended = is_open = False
    for i in range(symbols.size):
        entry = table[symbols[i]]
        if entry & SPACE:
            sentences += ended
            is_open = is_open and not ended
            ended = False
            length = 0
            continue
        if entry & TERMINATOR:
            ended = True
        elif not entry & QUOTE:
            ended = False
        is_open = True
        words += length == 0
        length += 1
    return words, sentences + (1 if is_open else 0)


@_kernel("int64(uint32[::1], uint16[::1], int64, int64)", nogil=True, cache=True)
def _longest_word(symbols: UInt32s, table: UInt16s, first: int, end: int) -> int:
    """The letters of the longest word in symbols[first:end]."""
    longest = length = 0
    for i in range(first, end):
        length = 0 if table[symbols[i]] & SPACE else length + 1
        longest = max(longest, length)
    return longest


@_kernel(
    "Tuple((int64, boolean))(uint32[::1], uint16[::1], uint32[::1], int64[::1], int64, int64)",
    nogil=True,
    cache=True,
)
def _c4_line(  # noqa: PLR0917 (as above)
    symbols: UInt32s, table: UInt16s, ellipses: UInt32s, starts: Int64s, first: int, end: int
) -> tuple[int, bool]:
    """The sentences of a line, 0 where its words are too few or too long; whether C4 keeps it as closed."""
    if _longest_word(symbols, table, first, end) > C4_LONGEST_WORD:
        return 0, False
    line = _without_citations(symbols, table, first, end)
    words, sentences = _line_words(line, table)
    if words < C4_LEAST_WORDS:
        return 0, False
    ended = (table[line[-1]] & (TERMINATOR | QUOTE)) != 0
    return sentences, ended and not _ends_with(line, 0, line.size, ellipses, starts)


@_kernel(
    "void(uint32[::1], uint16[::1], uint32[::1], int64[::1], int64[::1], int64[::1])", nogil=True, cache=True
)
def _count_lines(  # noqa: PLR0917 (as above)
    symbols: UInt32s, table: UInt16s, ellipses: UInt32s, starts: Int64s, blocked: Int64s, out: Int64s
) -> None:
    """Lines with something in them; white space at their ends is left out, except in FineWeb's raw line.

    blocked: positions, ascending, of phrases for which C4 drops a line.
    """
    size = symbols.size
    breaks = 0
    for i in range(size):
        breaks += symbols[i] == _NEWLINE
    hashes = np.empty(breaks + 1, np.uint64)
    raw_hashes = np.empty(breaks + 1, np.uint64)
    lengths = np.empty(breaks + 1, np.int64)
    raw_lengths = np.empty(breaks + 1, np.int64)
    lines = bullets = broken_off = terminated = short = kept = kept_sentences = open_sentences = block = 0
    line_start = 0
    while line_start <= size:
        line_end = line_start
        while line_end < size and symbols[line_end] != _NEWLINE:
            line_end += 1
        first, end = _stripped(symbols, table, line_start, line_end)
        hit = False
        while block < blocked.size and blocked[block] < line_end:
            hit = True
            block += 1
        if end > first:
            hashes[lines] = span_hash(symbols, first, end)
            lengths[lines] = end - first
            raw_lengths[lines] = line_end - line_start
            raw_hashes[lines] = hashes[lines]
            if end - first != line_end - line_start:
                raw_hashes[lines] = span_hash(symbols, line_start, line_end)
            lines += 1
            off = _ends_with(symbols, first, end, ellipses, starts)
            bullets += (table[symbols[first]] & BULLET) != 0
            broken_off += off
            terminated += (table[symbols[end - 1]] & (TERMINATOR | QUOTE)) != 0
            short += line_end - line_start <= SHORT_LINE
            if not hit:
                sentences, is_closed = _c4_line(symbols, table, ellipses, starts, first, end)
                open_sentences += sentences
                kept += is_closed
                kept_sentences += sentences * is_closed
        line_start = line_end + 1
    out[LINES] = lines
    out[LINE_BREAKS] = breaks
    out[LINE_BULLETS] = bullets
    out[LINE_ELLIPSES] = broken_off
    out[LINE_ENDS] = terminated
    out[LINE_SHORT] = short
    out[LINE_REPEATS], out[LINE_REPEAT_LETTERS] = _repeats(hashes, lengths, lines)
    _, out[RAW_LINE_REPEAT_LETTERS] = _repeats(raw_hashes, raw_lengths, lines)
    out[C4_LINES] = kept
    out[C4_SENTENCES] = kept_sentences
    out[C4_OPEN_SENTENCES] = open_sentences


@_kernel(
    "UniTuple(int64[::1], 2)(uint32[::1], uint16[::1], uint32[::1], int64[::1], int64[::1])",
    nogil=True,
    cache=True,
)
def text_counts(
    symbols: UInt32s, table: UInt16s, ellipses: UInt32s, starts: Int64s, blocked: Int64s
) -> tuple[Int64s, Int64s]:
    """Characters by class, shape (256,), and the counts of sentences and lines, shape (TEXT_COUNTS,).

    symbols: code points; table: of `pack_table`; ellipses, starts: see `_ends_with`; blocked: see
    `_count_lines`.
    """
    classes = np.zeros(CLASSES, np.int64)
    out = np.zeros(TEXT_COUNTS, np.int64)
    _count_sentences(symbols, table, ellipses, starts, classes, out)
    _count_lines(symbols, table, ellipses, starts, blocked, out)
    return classes, out
