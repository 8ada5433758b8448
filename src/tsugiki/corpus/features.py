"""Quality features of a text, as numbers; the rules that read them are in the language packs.

Character classes, sentences and repetition follow Swallow (swallow-corpus/quality.py; corpus.md §1.4), with
its two crashes mended: a text without sentences, or shorter than n, has features of 0. Word features, for
languages with spaces, follow Gopher (arXiv:2112.11446, appendix A) in datatrove's reading. The dictionary of
`feature_types` is the columns of the documents files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tsugiki.corpus import kernels
from tsugiki.languages import CodePoints, LanguagePack

Features = dict[str, float | int]

_TOP = range(2, 5)
_REPEATED = range(5, 11)
_BULLETS = ("•", "-", "*", "‣", "◦", "・", "·")
_CLOSING_QUOTES = ('"', "'", "”")
_OTHER = 0
_CODE_POINTS = 0x110000

_TEXT_INTEGERS = ("letters", "language_letters", "sentence_length_max")
_TEXT_FLOATS = (
    "language_share",
    "paragraph_duplicates",
    "paragraph_duplicate_letters",
    "sentence_duplicates",
    "sentence_duplicate_letters",
    "sentence_length_mean",
    "ellipsis_share",
)
_CHARACTER_FLOATS = (*(f"top_{n}gram" for n in _TOP), *(f"repeated_{n}grams" for n in _REPEATED))
_WORD_INTEGERS = ("words", "stop_words", "placeholder_texts")
_WORD_FLOATS = (
    "word_length_mean",
    "symbol_share",
    "alphabetic_word_share",
    "bullet_line_share",
    "ellipsis_line_share",
    "terminated_line_share",
    "line_duplicates",
    "line_duplicate_letters",
    *(f"top_word_{n}gram" for n in _TOP),
    *(f"repeated_word_{n}grams" for n in _REPEATED),
)


def feature_types(pack: LanguagePack) -> dict[str, pa.DataType]:
    """The features that are computed for a pack's language, with their column types."""
    integers = [*_TEXT_INTEGERS, *(() if pack.script.spaceless else _WORD_INTEGERS)]
    floats = [*_TEXT_FLOATS, *(f"{name}_share" for name in pack.script.classes)]
    floats += _CHARACTER_FLOATS if pack.script.spaceless else _WORD_FLOATS
    return {**dict.fromkeys(integers, pa.int64()), **dict.fromkeys(floats, pa.float64())}


def compute_features(text: str, pack: LanguagePack) -> Features:
    """Every feature of `feature_types(pack)` for one text."""
    symbols = code_points(text)
    specific = _character_features(symbols) if pack.script.spaceless else _word_features(text, pack)
    return {**_script_features(symbols, pack), **_sentence_features(text, pack), **specific}


def code_points(text: str) -> npt.NDArray[np.uint32]:
    """The code points of a text; a lone surrogate counts as `?`."""
    return np.frombuffer(bytearray(text.encode("utf-32-le", "replace")), np.uint32)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


@cache
def _class_table(classes: tuple[tuple[CodePoints, ...], ...]) -> npt.NDArray[np.uint8]:
    """For each code point the number of its class (from 1), or 0."""
    table = np.zeros(_CODE_POINTS, np.uint8)
    for number, ranges in enumerate(classes, start=1):
        for first, last in ranges:
            table[first : last + 1] = number
    return table


def _script_features(symbols: npt.NDArray[np.uint32], pack: LanguagePack) -> Features:
    names = list(pack.script.classes)
    counts = np.bincount(_class_table(tuple(pack.script.classes.values()))[symbols], minlength=len(names) + 1)
    inside = int(counts.sum() - counts[_OTHER])
    return {
        "letters": int(symbols.size),
        "language_letters": inside,
        "language_share": _share(inside, symbols.size),
        **{f"{name}_share": _share(int(counts[i]), inside) for i, name in enumerate(names, start=1)},
    }


def _sentence_features(text: str, pack: LanguagePack) -> Features:
    """A sentence is a run up to and with at most one terminator; a paragraph is a line's sentences."""
    pattern = sentence_pattern(pack.script.sentence_terminators)
    lines = [pattern.findall(line) for line in text.split("\n")]
    sentences = [sentence for line in lines for sentence in line]
    lengths = [len(sentence) for sentence in sentences]
    paragraph_duplicates, paragraph_letters = _duplicates(["".join(line) for line in lines])
    sentence_duplicates, sentence_letters = _duplicates(sentences)
    ends = sum(sentence.strip().endswith(pack.script.ellipses) for sentence in sentences)
    return {
        "paragraph_duplicates": paragraph_duplicates,
        "paragraph_duplicate_letters": paragraph_letters,
        "sentence_duplicates": sentence_duplicates,
        "sentence_duplicate_letters": sentence_letters,
        "sentence_length_mean": _share(sum(lengths), len(lengths)),
        "sentence_length_max": max(lengths, default=0),
        "ellipsis_share": _share(ends, len(sentences)),
    }


@cache
def sentence_pattern(terminators: str) -> re.Pattern[str]:
    """Sentences as matches: what is not a terminator, and the terminator after it if there is one."""
    inside = re.escape(terminators)
    return re.compile(f"[^{inside}]+[{inside}]?")


def _duplicates(items: Sequence[str]) -> tuple[float, float]:
    """The share of items, and of their characters, that repeat another item."""
    counts = Counter(items)
    again = sum(count - 1 for count in counts.values())
    letters = sum(len(item) * (count - 1) for item, count in counts.items())
    return _share(again, len(items)), _share(letters, sum(map(len, items)))


def _character_features(symbols: npt.NDArray[np.uint32]) -> Features:
    """Repetition of character n-grams as in Swallow's code (its README says otherwise).

    top_n: the most frequent n-gram's share of all occurrences. repeated_n: the share of distinct n-grams that
    occur more than once.
    """
    counts = kernels.ngram_counts(symbols, _TOP.start, _REPEATED.stop - 1)
    rows = dict(zip(range(_TOP.start, _REPEATED.stop), counts.tolist(), strict=True))
    return {
        **{f"top_{n}gram": _share(rows[n][3], rows[n][0]) for n in _TOP},
        **{f"repeated_{n}grams": _share(rows[n][2], rows[n][1]) for n in _REPEATED},
    }


def _word_features(text: str, pack: LanguagePack) -> Features:
    words = text.split()
    return {
        **_gopher_quality(text, words, pack),
        **_line_features(text, pack),
        **_word_repetition(text, words),
    }


def _gopher_quality(text: str, words: Sequence[str], pack: LanguagePack) -> Features:
    spoken = [word for word in words if word.isalnum() or any(map(str.isalnum, word))]
    lower = {word.lower().strip(".,;:!?()\"'") for word in words}
    alphabetic = sum(word.isalpha() or any(map(str.isalpha, word)) for word in words)
    marks = max(text.count("#"), text.count("…") + text.count("..."))
    return {
        "words": len(spoken),
        "stop_words": len(lower.intersection(pack.stop_words)),
        "placeholder_texts": text.lower().count("lorem ipsum"),
        "word_length_mean": _share(sum(map(len, spoken)), len(spoken)),
        "symbol_share": _share(marks, len(spoken)),
        "alphabetic_word_share": _share(alphabetic, len(words)),
    }


def _line_features(text: str, pack: LanguagePack) -> Features:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    terminators = (*pack.script.sentence_terminators, *_CLOSING_QUOTES)
    terminated = sum(line.endswith(terminators) for line in lines)
    broken_off = sum(line.endswith(pack.script.ellipses) for line in lines)
    duplicates, _ = _duplicates(lines)
    letters = sum(len(line) * (count - 1) for line, count in Counter(lines).items())
    return {
        "bullet_line_share": _share(sum(line.startswith(_BULLETS) for line in lines), len(lines)),
        "ellipsis_line_share": _share(broken_off, len(lines)),
        "terminated_line_share": _share(terminated, len(lines)),
        "line_duplicates": duplicates,
        "line_duplicate_letters": _share(letters, len(text)),
    }


def _word_repetition(text: str, words: Sequence[str]) -> Features:
    """Gopher: the share of characters in the most frequent word n-gram, and in n-grams seen before."""
    numbers: dict[str, int] = {}
    symbols = np.array([numbers.setdefault(word, len(numbers)) for word in words], np.uint32)
    lengths = np.array([len(word) for word in words], np.int64)
    counts = kernels.ngram_counts(symbols, _TOP.start, _TOP.stop - 1)
    features: Features = {}
    for n, (total, _, _, most, first) in zip(_TOP, counts.tolist(), strict=True):
        letters = int(lengths[first : first + n].sum()) + n - 1 if total else 0
        features[f"top_word_{n}gram"] = _share(letters * most, len(text))
    repeated = kernels.repeated_lengths(symbols, lengths, _REPEATED.start, _REPEATED.stop - 1)
    for n, letters in zip(_REPEATED, repeated.tolist(), strict=True):
        features[f"repeated_word_{n}grams"] = _share(letters, len(text))
    return features
