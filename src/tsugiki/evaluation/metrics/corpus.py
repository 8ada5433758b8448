"""Metrics of a whole corpus, as a function of sums over its items: what a bootstrap resamples.

`CORPUS_METRICS[name].sums(prediction, references)` gives an item's counts, S numbers, which a row of
scores.parquet keeps in its column `sums`. `value(totals_MS)` is the metric of added counts, for any leading
axes M at once: a thousand draws are one call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tsugiki.errors import DataError
from tsugiki.evaluation.metrics import bleu, chrf
from tsugiki.evaluation.metrics.tokenizers import tokenizer

Array = NDArray[np.float64]
Sums = Callable[[str, Sequence[str]], tuple[float, ...]]


@dataclass(frozen=True)
class CorpusMetric:
    """A metric of a corpus. Values go from 0 to 1, 1 is best, unless lower_is_better says otherwise.

    width: S, how many numbers an item has. of_texts: the counts of an item, where they come from texts alone;
    None where a task knows them otherwise (bits and bytes). of_item: the metric of a single item, if that is
    another one than `of_totals` of its counts.
    """

    name: str
    width: int
    of_totals: Callable[[ArrayLike], Array]
    of_texts: Sums | None = None
    of_item: Callable[[ArrayLike], Array] | None = None
    lower_is_better: bool = False

    def sums(self, prediction: str, references: Sequence[str]) -> tuple[float, ...]:
        """The counts of an item, S numbers that add up over items.

        Raises DataError without a reference, and for a metric that is not one of texts.
        """
        if self.of_texts is None:
            raise DataError(
                f"{self.name} is not computed from texts", hint="the task has to fill the column sums itself"
            )
        if not references:
            raise DataError(
                f"an item of {self.name} has no reference", hint="an item without gold can't be scored"
            )
        return self.of_texts(prediction, references)

    def value(self, totals_MS: ArrayLike) -> Array:
        """The metric of sums over items, shape (..., S) -> (...). Raises DataError for another S."""
        totals_MS = np.asarray(totals_MS, dtype=np.float64)
        if totals_MS.shape[-1:] != (self.width,):
            raise DataError(
                f"{self.name} needs {self.width} sums an item, these have shape {totals_MS.shape}",
                hint="the rows were written by another version of this metric: evaluate again",
            )
        return self.of_totals(totals_MS)

    def item_value(self, sums_S: ArrayLike) -> float:
        """The score of one item, to look at; the corpus value is not the mean of these."""
        return float((self.of_item or self.of_totals)(np.asarray(sums_S, dtype=np.float64)))


def _ratio(totals_MS: ArrayLike, scale: float = 1.0) -> Array:
    """Scale * x / y of (x, y); NaN where y is 0: there was nothing to measure."""
    totals_MS = np.asarray(totals_MS, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(totals_MS[..., 1] > 0, scale * totals_MS[..., 0] / totals_MS[..., 1], np.nan)


def _bleu(name: str, tokens: str) -> CorpusMetric:
    return CorpusMetric(
        name,
        bleu.WIDTH,
        bleu.value,
        partial(bleu.counts, tokenize=tokenizer(tokens)),
        of_item=partial(bleu.value, effective_order=True),
    )


_ALL = (
    _bleu("bleu", "13a"),
    _bleu("bleu-ja-mecab", "ja-mecab"),
    # Published WMT20 scores into Japanese: words of nagisa with spaces between, then sacreBLEU's 13a.
    CorpusMetric(
        "bleu-nagisa",
        bleu.WIDTH,
        bleu.value,
        lambda prediction, references: bleu.counts(_spaced(prediction), [_spaced(one) for one in references]),
        of_item=partial(bleu.value, effective_order=True),
    ),
    CorpusMetric("chrf", 3 * chrf.CHARACTER_ORDER, chrf.value, chrf.counts),
    CorpusMetric(
        "chrf++",
        3 * (chrf.CHARACTER_ORDER + chrf.WORD_ORDER),
        chrf.value,
        partial(chrf.counts, word_order=chrf.WORD_ORDER),
    ),
    # x over y, both added up: accuracy among the items that count (SQuAD 2.0's answerable ones).
    CorpusMetric("ratio", 2, _ratio),
    # (nats, bytes) and (nats, characters).
    CorpusMetric("bits-per-byte", 2, partial(_ratio, scale=1 / log(2)), lower_is_better=True),
    CorpusMetric("bits-per-character", 2, partial(_ratio, scale=1 / log(2)), lower_is_better=True),
)


def _spaced(text: str) -> str:
    return " ".join(tokenizer("nagisa")(text))


CORPUS_METRICS: Mapping[str, CorpusMetric] = MappingProxyType({metric.name: metric for metric in _ALL})
