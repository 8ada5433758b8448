"""Training a classifier: logistic regression over hashed n-grams, calibrated and measured on held-out folds.

Deterministic: the same two sets of documents give the same bytes, in whatever order they come.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from tsugiki.corpus.classifier import kernels
from tsugiki.corpus.classifier.metrics import balanced, fit_platt, measure
from tsugiki.corpus.classifier.model import (
    Calibration,
    Card,
    FeatureSettings,
    LinearClassifier,
    TellingNgram,
    weights_digest,
)
from tsugiki.corpus.classifier.samples import DocumentSet, Fold, folds, part_sets

_TELLING = 30
_TELLING_DOCUMENTS = 1000  # of each set, to find out which n-grams stand behind a bucket

Progress = Callable[[int, int, float], None]


class TrainingSettings(BaseModel):
    """How a classifier is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: FeatureSettings = FeatureSettings()
    epochs: int = Field(default=5, ge=1, le=1000)
    learning_rate: float = Field(default=0.5, gt=0)
    """AdaGrad's; features have length 1, so it fits texts of any length."""
    decay: float = Field(default=1e-6, ge=0)
    """L2."""
    heldout: float = Field(default=0.2, gt=0, le=0.5)
    """Share of each set that is not trained on: half calibrates the scores, half measures them."""
    maximum_documents: int = Field(default=50_000, ge=1)
    """Of each set."""
    seed: int = Field(default=0, ge=0, lt=1 << 63)


@dataclass(frozen=True)
class Trained:
    """A classifier and what is known of it."""

    classifier: LinearClassifier
    metrics: dict[str, Any]


def train(
    positive: DocumentSet, negative: DocumentSet, settings: TrainingSettings, progress: Progress | None = None
) -> Trained:
    """Train on two sets (from `samples.collect`); documents in both are dropped from both first.

    progress: told (epoch, epochs, mean loss). Raises DataError where there are too few documents.
    """
    part_sets(positive, negative)
    training, calibration, test = folds(positive, negative, settings.heldout, settings.seed)
    weights, bias, losses = _fit(training, settings, progress)
    slope, offset = fit_platt(_logits(calibration, weights, bias, settings.features), calibration.labels)
    told_for, told_against = _telling(training, weights, settings.features)
    card = Card(
        features=settings.features,
        bias=bias,
        calibration=Calibration(slope=_short(slope), offset=_short(offset)),
        weights_sha256=weights_digest(weights),
        training={
            "positive": positive.facts(),
            "negative": negative.facts(),
            "settings": settings.model_dump(mode="json", exclude={"features"}),
        },
        telling_for=told_for,
        telling_against=told_against,
    )
    classifier = LinearClassifier(card, weights)
    scores = _logits(test, weights, bias, settings.features)
    scores = np.array([kernels.sigmoid(card.calibration.slope * z + card.calibration.offset) for z in scores])
    metrics = measure(scores, test.labels, settings.seed)
    metrics["losses"] = [round(loss, 6) for loss in losses]
    metrics["folds"] = {"training": len(training), "calibration": len(calibration), "test": len(test)}
    return Trained(classifier, metrics)


def _short(value: float) -> float:
    """Nine digits: what differs behind them is the linear algebra of the machine."""
    return float(f"{value:.9g}")


def _fit(
    fold: Fold, settings: TrainingSettings, progress: Progress | None
) -> tuple[kernels.Float32s, float, list[float]]:
    weights = np.zeros(1 << settings.features.bits, np.float32)
    squares = np.zeros_like(weights)
    bias = np.zeros(2)
    labels = fold.labels.astype(np.float64)
    importance = balanced(fold.labels)
    rng = np.random.default_rng(settings.seed)
    losses: list[float] = []
    for epoch in range(settings.epochs):
        order = rng.permutation(len(fold))
        loss = kernels.train_epoch(
            fold.symbols,
            fold.offsets,
            order,
            labels,
            importance,
            weights,
            squares,
            bias,
            settings.learning_rate,
            settings.decay,
            settings.features.shape,
        )
        losses.append(float(loss))
        if progress is not None:
            progress(epoch + 1, settings.epochs, losses[-1])
    return weights, float(bias[0]), losses


def _logits(
    fold: Fold, weights: kernels.Float32s, bias: float, features: FeatureSettings
) -> npt.NDArray[np.float64]:
    found = [kernels.logit(fold.text(i), weights, bias, features.shape) for i in range(len(fold))]
    return np.array(found, np.float64)


def _telling(
    fold: Fold, weights: kernels.Float32s, features: FeatureSettings
) -> tuple[tuple[TellingNgram, ...], tuple[TellingNgram, ...]]:
    """The n-grams that move the score most, up in the positive set and down in the negative one."""
    found = []
    for label, sign in ((True, 1.0), (False, -1.0)):
        rows = np.flatnonzero(fold.labels == label)[:_TELLING_DOCUMENTS].tolist()
        sums = np.zeros(weights.size)
        for row in rows:
            kernels.add_features(fold.text(row), sums, features.shape)
        effects = weights * sums / len(rows)
        best = np.argsort(-sign * effects, kind="stable")[:_TELLING]
        names = _names(fold, rows, best, features)
        found.append(
            tuple(
                TellingNgram(ngram=names[bucket], effect=round(float(effects[bucket]), 6))
                for bucket in best.tolist()
                if bucket in names and sign * effects[bucket] > 0
            )
        )
    return found[0], found[1]


def _names(
    fold: Fold, rows: list[int], buckets: npt.NDArray[np.int64], features: FeatureSettings
) -> dict[int, str]:
    """The most frequent n-gram in each of some buckets."""
    seen: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for row in rows:
        symbols = fold.text(row)
        spans = _spans(symbols, features)
        found = kernels.buckets_of(symbols, features.shape)
        text = symbols.tobytes().decode("utf-32-le")
        for place in np.flatnonzero(np.isin(found, buckets)).tolist():
            start, stop = spans[place]
            seen[int(found[place])][text[start:stop]] += 1
    return {
        bucket: min(counts, key=lambda name: (-counts[name], name)) for bucket, counts in sorted(seen.items())
    }


def _spans(symbols: kernels.UInt32s, features: FeatureSettings) -> npt.NDArray[np.int64]:
    """Where each n-gram of `kernels.buckets_of` stands, in its order; shape (n-grams, 2)."""
    first, last, words, _ = features.shape
    starts = np.arange(symbols.size)[:, None]
    stops = starts + np.arange(first, last + 1)[None, :]
    pairs = np.stack(np.broadcast_arrays(starts, stops), axis=-1).reshape(-1, 2)
    pairs = pairs[pairs[:, 1] <= symbols.size]
    if not words:
        return pairs
    spans = kernels.word_spans(symbols)
    grams = [
        (spans[k, 0], spans[k + n, 1]) for k in range(len(spans)) for n in range(min(words, len(spans) - k))
    ]
    return np.concatenate([pairs, np.array(grams, np.int64).reshape(-1, 2)])
