"""chrF and chrF++ from counts that add up over items (Popović 2015, 2017).

The counts of an item are [n-grams of the text, of the reference, in both] for each order: characters 1 to 6
without white space, then for chrF++ words 1 and 2. With several references the best one counts. The value of
their sum equals `sacrebleu.corpus_chrf(...).score / 100`: precision and recall averaged over the orders that
both sides have, beta = 2.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsugiki.evaluation.metrics.ngrams import ngrams, overlap

Array = NDArray[np.float64]

CHARACTER_ORDER = 6
WORD_ORDER = 2  # of chrF++
BETA = 2
_PUNCTUATION = frozenset(string.punctuation)


def counts(prediction: str, references: Sequence[str], *, word_order: int = 0) -> tuple[float, ...]:
    """The 3 * (6 + word_order) counts of one item, against the reference with the highest chrF."""
    mine = list(_grams(prediction, word_order))
    best: list[float] = []
    best_value = -1.0
    for reference in references:
        found: list[float] = []
        for first, second in zip(mine, _grams(reference, word_order), strict=True):
            # Not counted where the reference has no n-gram of this order: it could not be right.
            own = first.total() if second else 0
            found += [own, second.total(), overlap(first, second)]
        reached = float(value(found))
        if reached > best_value:
            best, best_value = found, reached
    return tuple(float(number) for number in best)


def _grams(text: str, word_order: int) -> Iterator:
    letters = "".join(text.split())
    for order in range(1, CHARACTER_ORDER + 1):
        yield ngrams(letters, order)
    parts = list(_words(text)) if word_order else []
    for order in range(1, word_order + 1):
        yield ngrams(parts, order)


def _words(text: str) -> Iterator[str]:
    """Words with one punctuation mark at the end, else at the beginning, cut off (chrF++.py's rule)."""
    for word in text.split():
        if len(word) > 1 and word[-1] in _PUNCTUATION:
            yield from (word[:-1], word[-1])
        elif len(word) > 1 and word[0] in _PUNCTUATION:
            yield from (word[0], word[1:])
        else:
            yield word


def value(totals_MS: ArrayLike) -> Array:
    """ChrF from 0 to 1 of summed counts, for any leading axes M."""
    totals_MS = np.asarray(totals_MS, dtype=np.float64)
    text_MN, reference_MN, both_MN = (totals_MS[..., part::3] for part in range(3))
    there_MN = (text_MN > 0) & (reference_MN > 0)
    orders_M = np.maximum(there_MN.sum(axis=-1), 1)
    precision_M = np.where(there_MN, both_MN / np.where(there_MN, text_MN, 1), 0).sum(axis=-1) / orders_M
    recall_M = np.where(there_MN, both_MN / np.where(there_MN, reference_MN, 1), 0).sum(axis=-1) / orders_M
    weighted_M = BETA**2 * precision_M + recall_M
    safe_M = np.where(weighted_M > 0, weighted_M, 1)
    return np.where(weighted_M > 0, (1 + BETA**2) * precision_M * recall_M / safe_M, 0.0)
