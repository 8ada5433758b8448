"""ROUGE-N with a tokenizer that is named, so that every model is measured alike (Lin 2004)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tsugiki.errors import DataError
from tsugiki.evaluation.metrics.ngrams import ngrams, overlap
from tsugiki.evaluation.metrics.tokenizers import Tokenize, words


def rouge_n(
    prediction: str, references: Sequence[str], *, order: int = 2, tokenize: Tokenize = words
) -> float:
    """F1 of the n-grams, against the best reference; 0 where one side has none."""
    mine = ngrams(tokenize(prediction), order)
    highest = 0.0
    for reference in references:
        other = ngrams(tokenize(reference), order)
        common = overlap(mine, other)
        if common:
            highest = max(highest, 2 * common / (mine.total() + other.total()))
    return highest


def rouge_2(prediction: str, references: Sequence[str], *, tokenize: Tokenize = words) -> float:
    """ROUGE-2 F. For Japanese give `tokenizer("ja-mecab")`.

    Published XL-Sum scores cut both texts with the scored model's own tokenizer: give that to match them.
    """
    return rouge_n(prediction, references, order=2, tokenize=tokenize)


def bootstrap_mid(scores: Sequence[float], *, draws: int = 1000, seed: int = 1234) -> float:
    """The "mid" of rouge_score's BootstrapAggregator: the median of the means of `draws` resamples.

    Only to match published numbers; it is the plain mean plus noise of the draws. numpy's legacy generator is
    the one that rouge_score draws from: the same seed gives the same number. Raises DataError for no scores.
    """
    if not len(scores):
        raise DataError("ROUGE was aggregated over no scores", hint="score at least one item")
    generator = np.random.RandomState(seed)
    values = np.asarray(scores, dtype=np.float64)
    means = [values[generator.choice(len(values), size=len(values))].mean() for _ in range(draws)]
    return float(np.percentile(means, 50))
