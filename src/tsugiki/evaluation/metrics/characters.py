"""How much two short answers have in common, in characters.

`llmjp_char_f1` is what leaderboards call "char_f1"; it is no F1 of characters. `character_f1` is.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

_NOT_WORD = re.compile(r"\W")
_LATIN_1 = dict.fromkeys(range(128, 256))


def best(score: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    """The score against the reference that suits the answer best; 0 without any reference."""
    return max((score(prediction, reference) for reference in references), default=0.0)


def llmjp_char_f1(prediction: str, references: Sequence[str]) -> float:
    """What llm-jp-eval, Swallow's and Nejumi's boards name char_f1: fuzzywuzzy's token_sort_ratio / 100.

    Of fuzzywuzzy 0.18.0 with python-Levenshtein, defined again here: code points 128 to 255 go ("é" is lost);
    every character that is not a word character becomes a space; lower case; the words are sorted and joined
    by spaces. Equal texts give 1, an empty one 0, all others 1 - insertions and deletions / both lengths, in
    hundredths, halves to even. With several references the best counts; published scores gave one.
    """
    return best(_token_sort_ratio, prediction, references)


def _token_sort_ratio(first: str, second: str) -> float:
    first, second = _sorted_words(first), _sorted_words(second)
    if first == second:
        return 1.0
    if not first or not second:
        return 0.0
    both = len(first) + len(second)
    distance = both - 2 * longest_common_subsequence(first, second)
    return round(100 * (1 - distance / both)) / 100


def _sorted_words(text: str) -> str:
    spaced = _NOT_WORD.sub(" ", text.translate(_LATIN_1)).lower()
    return " ".join(sorted(spaced.split()))


def longest_common_subsequence(first: str, second: str) -> int:
    """Its length, by whole numbers as rows of bits (Hyyrö 2004, "Bit-parallel LCS-length computation").

    A bit of `row` is 0 where the length grows at that character of `first`; each character of `second` costs
    a few operations on numbers of len(first) bits.
    """
    places: dict[str, int] = {}
    for index, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for character in second:
        matches = row & places.get(character, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(first) - row.bit_count()


def character_f1(prediction: str, references: Sequence[str]) -> float:
    """F1 of the bags of characters, NFKC, white space left out; the best over the references.

    2 * common / both lengths, each character as often as both have it. Two empty texts agree.
    """
    return best(_character_f1, prediction, references)


def _character_f1(first: str, second: str) -> float:
    bags = [Counter("".join(unicodedata.normalize("NFKC", text).split())) for text in (first, second)]
    both = bags[0].total() + bags[1].total()
    return 2 * (bags[0] & bags[1]).total() / both if both else 1.0
