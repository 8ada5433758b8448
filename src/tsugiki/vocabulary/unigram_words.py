"""Texts as a Unigram tokenizer's model sees them: what scores and pieces are learnt on."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsugiki.errors import DataError
from tsugiki.models.spelling import SPACE, byte_of
from tsugiki.models.tokenizer import TextTokenizer
from tsugiki.vocabulary.characters import NEVER_PIECES
from tsugiki.vocabulary.pieces import ANY_SCRIPT, Scripts, script_of
from tsugiki.vocabulary.unigram_lattice import code_points
from tsugiki.vocabulary.words import Cut, Words, batches, is_mostly_ascii

_LONGEST_LINE = 1000
"""Characters; longer stretches are cut there, so that the memory of a lattice has a bound."""


@dataclass(frozen=True)
class UnigramWords:
    """A corpus, normalised and cut as the tokenizer does it, `▁` for spaces.

    lines: distinct stretches of text between the places that no piece crosses (its pre-tokenizer's borders,
    line breaks), with counts. words: the lines cut further where no *new* piece may cross: before a space,
    between two scripts, where the word segmenter says. characters: how often each occurs. is_split: whether
    the base has no piece of two digits; then no new piece has any.
    """

    lines: Counter[str]
    words: Counter[str]
    characters: Counter[str]
    is_split: bool

    @property
    def mostly_ascii(self) -> bool:
        """Whether more than half of the letters are ASCII."""
        return is_mostly_ascii(self.characters)

    def may_grow(self, character: str) -> bool:
        """Whether new pieces may hold the character."""
        if character != SPACE and unicodedata.category(character) in NEVER_PIECES:
            return False
        return not (self.is_split and script_of(character) == "NUMBER")

    def in_characters(self) -> tuple[list[str], Words]:
        """The words in characters, numbered in the order of their code points, for the learner of merges."""
        words = sorted(self.words)
        code_S, end_W = code_points(words)
        codes, token_S = np.unique(code_S, return_inverse=True)
        lengths = np.diff(end_W, prepend=0)
        return [chr(code) for code in codes.tolist()], Words(
            token_S.astype(np.int32),
            np.repeat(np.arange(len(words), dtype=np.int32), lengths),
            np.array([self.words[word] for word in words], dtype=np.int64),
            self.characters,
        )

    def count_pieces(self, base: TextTokenizer) -> NDArray[np.int64]:
        """How often each piece of the base occurs in the lines as the base encodes them, (V,)."""
        count_V = np.zeros(base.size, dtype=np.int64)
        lines = sorted(self.lines)
        for line, ids in zip(lines, base.encode_within(lines), strict=True):
            np.add.at(count_V, ids, self.lines[line])
        return count_V


def segment_lines(tokenizer: TextTokenizer, texts: Iterable[str], *, cut: Cut | None = None) -> UnigramWords:
    """Read texts as a Unigram tokenizer does.

    cut: the places in a text where a word ends besides (`segmenters`), as offsets in characters.
    Raises DataError where there is no text.
    """
    lines: Counter[str] = Counter()
    for batch in batches(texts):
        for text in batch:
            for stretch in tokenizer.stretches(text):
                lines.update(_lines(stretch))
    if not any(line.strip(SPACE) for line in lines):
        raise DataError("the documents hold no text to learn pieces from", hint="name a corpus with text")
    characters: Counter[str] = Counter()
    for line, count in lines.items():
        for character, times in Counter(line).items():
            characters[" " if character == SPACE else character] += times * count
    digits = [
        sum(script_of(one) == "NUMBER" for one in piece)
        for piece in tokenizer.pieces
        if byte_of(piece) is None
    ]
    return UnigramWords(lines, _cut_words(lines, cut), characters, max(digits, default=0) <= 1)


def _lines(stretch: str) -> list[str]:
    """Without line breaks, which are no part of new pieces, and no longer than `_LONGEST_LINE`."""
    return [
        line[start : start + _LONGEST_LINE]
        for line in re.split(r"[\r\n]+", stretch)
        for start in range(0, len(line), _LONGEST_LINE)
    ]


def _cut_words(lines: Counter[str], cut: Cut | None) -> Counter[str]:
    texts = sorted(lines)
    code_S, end_L = code_points(texts)
    begins_S = np.zeros(len(code_S) + 1, dtype=np.bool_)
    start_L = np.append(0, end_L[:-1])
    begins_S[start_L] = True
    begins_S[:-1] |= code_S == ord(SPACE)
    scripts = Scripts()
    codes, number_S = np.unique(code_S, return_inverse=True)
    script_of_code = [
        ANY_SCRIPT if code == ord(SPACE) else scripts.of_character(chr(code)) for code in codes.tolist()
    ]
    script_S = np.array(script_of_code, dtype=np.int64)[number_S]
    left, right = script_S[:-1], script_S[1:]
    begins_S[1:-1] |= (left != right) & (left != ANY_SCRIPT) & (right != ANY_SCRIPT)
    if cut is not None:
        for text, start in zip(texts, start_L.tolist(), strict=True):
            begins_S[np.asarray(cut(text.replace(SPACE, " ")), dtype=np.int64) + start] = True
    joined = "".join(texts)
    starts = [*np.flatnonzero(begins_S[:-1]).tolist(), len(joined)]
    line_of = np.searchsorted(end_L, starts[:-1], side="right").tolist()
    words: Counter[str] = Counter()
    for begin, end, line in zip(starts, starts[1:], line_of, strict=False):
        words[joined[begin:end]] += lines[texts[line]]
    return words
