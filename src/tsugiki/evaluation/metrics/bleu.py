"""BLEU from counts that add up over items (Papineni et al. 2002; Post 2018, arXiv 1804.08771).

The counts of an item are [length, reference length, correct 1..4, total 1..4], S = 10 numbers. The value of
their sum equals `sacrebleu.corpus_bleu(...).score / 100` with its defaults: exponential smoothing, the
reference whose length is closest (the shorter of two equally close ones), no effective order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsugiki.evaluation.metrics.ngrams import ngrams
from tsugiki.evaluation.metrics.tokenizers import Tokenize, thirteen_a

Array = NDArray[np.float64]

ORDER = 4
WIDTH = 2 + 2 * ORDER


def counts(prediction: str, references: Sequence[str], tokenize: Tokenize = thirteen_a) -> tuple[float, ...]:
    """The S = 10 counts of one item. An n-gram is correct as often as the one reference with most has it."""
    tokens = tokenize(prediction.rstrip())
    others = [tokenize(reference.rstrip()) for reference in references]
    closest = min((len(other) for other in others), key=lambda length: (abs(length - len(tokens)), length))
    correct, total = [], []
    for order in range(1, ORDER + 1):
        most: Counter[Any] = Counter()
        for other in others:
            most |= ngrams(other, order)
        mine = ngrams(tokens, order)
        correct.append(sum(min(count, most[key]) for key, count in mine.items() if key in most))
        total.append(max(len(tokens) - order + 1, 0))
    return tuple(float(number) for number in (len(tokens), closest, *correct, *total))


def value(totals_MS: ArrayLike, *, effective_order: bool = False) -> Array:
    """BLEU from 0 to 1 of summed counts, for any leading axes M.

    Smoothing: the n-th order without a match counts as 1 / (2^m total), m = how many such orders there were
    (mteval-v13a). effective_order: leave out orders that the text is too short for, as for single sentences;
    otherwise BLEU is 0 there. It is 0 too where nothing at all matches.
    """
    totals_MS = np.asarray(totals_MS, dtype=np.float64)
    length_M, reference_M = totals_MS[..., 0], totals_MS[..., 1]
    correct_MN, total_MN = totals_MS[..., 2 : 2 + ORDER], totals_MS[..., 2 + ORDER :]
    none_MN = (correct_MN == 0) & (total_MN > 0)
    smoothed_MN = np.where(none_MN, 2.0 ** -np.cumsum(none_MN, axis=-1), correct_MN)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_MN = np.log(smoothed_MN / total_MN)
        penalty_M = np.where(length_M < reference_M, np.exp(1 - reference_M / length_M), 1.0)
    there_MN = total_MN > 0
    orders_M = np.maximum(there_MN.sum(axis=-1), 1) if effective_order else ORDER
    value_M = penalty_M * np.exp(np.where(there_MN, log_MN, 0.0).sum(axis=-1) / orders_M)
    zero_M = ~correct_MN.any(axis=-1)
    if not effective_order:
        zero_M |= ~there_MN.all(axis=-1)
    return np.where(zero_M, 0.0, value_M)


def sentence(prediction: str, references: Sequence[str], tokenize: Tokenize = thirteen_a) -> float:
    """BLEU of one item, by its effective order."""
    return float(value(counts(prediction, references, tokenize), effective_order=True))
