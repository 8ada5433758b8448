"""Expressions of a word list in a text: left to right, the longest, none overlapping (Swallow's ngword.py).

The list is compiled to a trie over code points in flat arrays, walked by a numba kernel; the compiled list is
cached by its content. Case is ignored. A match never begins or ends inside of a word that is written apart
from its neighbours: "ass" is not found in "class", nor the Japanese list's Latin "sm" in "small" (C4 asks for
the same, arXiv:1910.10683). A pack can name characters whose runs are words too (`script.word_runs`:
katakana, as in LLM-jp's filters; else a fax machine is a curse). For all others the search is Swallow's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numba as nb
import numpy as np
import numpy.typing as npt

from tsugiki.corpus.character_tables import lower_case, word_characters
from tsugiki.languages import CodePoints

UInt32s = npt.NDArray[np.uint32]
UInt64s = npt.NDArray[np.uint64]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_WORD: Final = np.uint32(1 << 31)
_RUN: Final = np.uint32(1 << 30)
_BOUND: Final = np.uint32(3 << 30)
_START: Final = np.uint32(1 << 29)
_LETTER: Final = np.uint32((1 << 29) - 1)
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_ONE: Final = np.uint64(1)
_ROOT: Final = 0

_kernel: Any = nb.njit


@dataclass(frozen=True, eq=False)
class Expressions:
    """A compiled list.

    alphabet: for each code point the number of its small letter among those of the list (0: none); bit 31
    marks characters of words, bit 30 those of runs, bit 29 letters that an expression begins with. An edge of
    the trie is the key state · letters + letter in an open-addressing table (`keys`, `targets`; target 0:
    free). accepts: whether an expression ends there.
    """

    alphabet: UInt32s
    letters: int
    keys: UInt64s
    targets: Int32s
    accepts: Flags

    def spans(self, symbols: UInt32s) -> Int64s:
        """The matches in a text's code points, shape (matches, 2): first place, and one behind the last."""
        return _find(symbols, self.alphabet, self.letters, self.keys, self.targets, self.accepts)


@cache
def compile_expressions(
    entries: Sequence[str],
    *,
    spaceless: bool,
    runs: tuple[CodePoints, ...] = (),
    whole_words: bool = True,
) -> Expressions:
    """Compile a list (a tuple, which is the key of the cache).

    spaceless: whether the language is written without spaces; says which characters form words.
    runs: characters of which a run is a word as well.
    whole_words: False finds expressions inside of words, too.
    """
    small = lower_case()
    folded = [[int(small[ord(letter)]) for letter in entry] for entry in entries if entry]
    numbers = {point: i for i, point in enumerate(sorted({p for entry in folded for p in entry}), start=1)}
    alphabet = np.zeros(small.size, np.uint32)
    for point, number in numbers.items():
        alphabet[small == point] = number
    for point in {entry[0] for entry in folded}:
        alphabet[small == point] |= _START
    if whole_words:
        alphabet[word_characters(spaceless=spaceless)] |= _WORD
        for first, last in runs:
            alphabet[first : last + 1] |= _RUN
    edges: dict[tuple[int, int], int] = {}
    ends = set()
    for entry in folded:
        state = _ROOT
        for point in entry:
            state = edges.setdefault((state, numbers[point]), len(edges) + 1)
        ends.add(state)
    accepts = np.zeros(len(edges) + 1, np.bool_)
    accepts[list(ends)] = True
    letters = len(numbers) + 1
    keys = np.array([state * letters + number for state, number in edges], np.uint64)
    table, targets = _table(keys)
    return Expressions(alphabet, letters, table, targets, accepts)


@_kernel("Tuple((uint64[::1], int32[::1]))(uint64[::1])", nogil=True, cache=True)
def _table(edges: UInt64s) -> tuple[UInt64s, Int32s]:
    """The open-addressing table of the edges; edge k leads to state k + 1."""
    bits = 4
    while (1 << bits) < 4 * edges.size:
        bits += 1
    mask = np.uint64((1 << bits) - 1)
    keys = np.zeros(1 << bits, np.uint64)
    targets = np.zeros(1 << bits, np.int32)
    for k in range(edges.size):
        slot = (edges[k] * _ODD) >> np.uint64(64 - bits)
        while targets[slot] != 0:
            slot = (slot + _ONE) & mask
        keys[slot] = edges[k]
        targets[slot] = k + 1
    return keys, targets


@_kernel(
    "int64[:, ::1](uint32[::1], uint32[::1], int64, uint64[::1], int32[::1], boolean[::1])",
    nogil=True,
    cache=True,
)
def _find(  # noqa: PLR0917 (numba has no keyword arguments)
    symbols: UInt32s, alphabet: UInt32s, letters: int, keys: UInt64s, targets: Int32s, accepts: Flags
) -> Int64s:
    size = symbols.size
    spans = np.empty((size, 2), np.int64)
    count = 0
    mask = np.uint64(keys.size - 1)
    bits = 0
    while (1 << bits) < keys.size:
        bits += 1
    shift = np.uint64(64 - bits)
    i = 0
    before = np.uint32(0)
    while i < size:
        letter = alphabet[symbols[i]]
        start = letter
        end = 0
        if (letter & _START) != 0 and (letter & before & _BOUND) == 0:
            state = 0
            j = i
            while j < size and (letter & _LETTER) != 0:
                key = np.uint64(state) * np.uint64(letters) + np.uint64(letter & _LETTER)
                slot = (key * _ODD) >> shift
                while targets[slot] != 0 and keys[slot] != key:
                    slot = (slot + _ONE) & mask
                state = targets[slot]
                if state == 0:
                    break
                last = letter
                j += 1
                letter = alphabet[symbols[j]] if j < size else np.uint32(0)
                if accepts[state] and (last & letter & _BOUND) == 0:
                    end = j
        if end:
            spans[count, 0] = i
            spans[count, 1] = end
            count += 1
            i = end
            before = alphabet[symbols[end - 1]]
        else:
            before = start
            i += 1
    return spans[:count].copy()
