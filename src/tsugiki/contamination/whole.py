"""Questions too short for n-grams: looked for as a whole, between boundaries. Weak evidence, told apart.

"山は" stands in every "富士山は", so the letters alone prove nothing. A short question is found where all of
it stands in a document and is set off there: what comes before its first letter and after its last is no
letter, mark or digit, or nothing. Letters are compared as in corpus/contamination.py (NFKC, lower case;
white space and punctuation inside of it don't matter). A short phrase may still stand in a page that never
saw the benchmark ("Who are you?"), so such items are listed, and not left out of scores.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tsugiki.corpus.contamination import UInt32s, is_compared
from tsugiki.corpus.kernels import ngram_hashes

SHORTEST = 2
"""Letters below which a question is not looked for at all."""


@dataclass(frozen=True)
class Letters:
    """A text's compared letters, and whether each place between them (one more) is a boundary."""

    symbols: UInt32s
    boundary: NDArray[np.bool_]


@dataclass(frozen=True)
class ShortQuestions:
    """Questions by their number of letters: of each length the sorted hashes, and the keys in their order."""

    symbols: Mapping[str, UInt32s]
    by_length: Mapping[int, tuple[NDArray[np.uint64], tuple[str, ...]]]

    @classmethod
    def of(cls, symbols: Mapping[str, UInt32s]) -> ShortQuestions:
        """Those of two letters or more."""
        lengths: dict[int, list[str]] = {}
        for key, letters in symbols.items():
            if letters.size >= SHORTEST:
                lengths.setdefault(letters.size, []).append(key)
        by_length = {}
        for length, keys in sorted(lengths.items()):
            hashes = np.array([ngram_hashes(symbols[key], length)[0] for key in keys])
            order = np.argsort(hashes, kind="stable")
            by_length[length] = hashes[order], tuple(keys[place] for place in order)
        return cls({key: symbols[key] for keys in lengths.values() for key in keys}, by_length)

    def found(self, letters: Letters) -> Iterator[tuple[str, int, int]]:
        """(key, start, end) of each question that stands in the text, where it stands first."""
        for length, (hashes, keys) in self.by_length.items():
            if letters.symbols.size < length:
                break
            starts = np.flatnonzero(letters.boundary[:-length] & letters.boundary[length:])
            if not starts.size:
                continue
            there = ngram_hashes(letters.symbols, length)[starts]
            lows, highs = (np.searchsorted(hashes, there, side) for side in ("left", "right"))
            seen: set[str] = set()
            for place in np.flatnonzero(highs > lows):
                start = int(starts[place])
                stretch = letters.symbols[start : start + length]
                for key in keys[lows[place] : highs[place]]:
                    if key not in seen and np.array_equal(stretch, self.symbols[key]):
                        seen.add(key)
                        yield key, start, start + length


def letters_of(text: str) -> Letters:
    """The letters of a text as `simplify` has them, with the boundaries between them."""
    plain = text.encode("utf-8", "replace").decode("utf-8")
    lower = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).lower())
    codes = np.frombuffer(lower.encode("utf-32-le"), np.uint32)
    kept = np.flatnonzero(_compared()[codes])
    boundary = np.ones(kept.size + 1, np.bool_)
    boundary[1:-1] = np.diff(kept) > 1
    return Letters(np.ascontiguousarray(codes[kept]), boundary)


@cache
def _compared() -> NDArray[np.bool_]:
    """Whether each code point is compared."""
    return np.fromiter((is_compared(chr(code)) for code in range(0x110000)), np.bool_, 0x110000)
