"""How good a classifier is: on held-out documents, each figure with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tsugiki.corpus.classifier import kernels

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

RESAMPLES = 1000
_TOP = 0.1  # Swallow v2 keeps the top 10 % (corpus.md §1.11)
_BINS = 10
_LEVEL = (2.5, 97.5)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_NEWTON_STEPS = 100


def auc(scores: Floats, labels: Bools) -> float:
    """The probability that a positive document outscores a negative one; ties count half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive = int(labels.sum())
    negative = labels.size - positive
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def f1(scores: Floats, labels: Bools) -> float:
    """The harmonic mean of precision and recall where a score of 0.5 or more counts as positive."""
    chosen = scores >= 0.5  # noqa: PLR2004
    right = int((chosen & labels).sum())
    return 2 * right / max(1, int(chosen.sum()) + int(labels.sum()))


def precision_at_top(scores: Floats, labels: Bools) -> float:
    """The share of positives in the 10 % with the highest scores; at a tie, that of the tied ones."""
    size = max(1, round(_TOP * scores.size))
    edge = np.partition(scores, scores.size - size)[scores.size - size]
    above, tied = scores > edge, scores == edge
    return float((labels[above].sum() + labels[tied].mean() * (size - above.sum())) / size)


def calibration_error(scores: Floats, labels: Bools) -> float:
    """Expected calibration error over 10 bins of equal width, both sets weighted to be equally frequent."""
    weights = balanced(labels)
    bins = np.minimum((scores * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights * (labels - scores), _BINS)
    return float(np.abs(gaps).sum() / weights.sum())


METRICS: dict[str, Callable[[Floats, Bools], float]] = {
    "auc": auc,
    "f1": f1,
    "precision_at_top_10_percent": precision_at_top,
    "calibration_error": calibration_error,
}


def balanced(labels: Bools) -> Floats:
    """A weight for each document, so that both sets have the same sum and the mean is 1."""
    share = np.where(labels, labels.mean(), 1 - labels.mean())
    return np.asarray(0.5 / share, np.float64)


def measure(scores: Floats, labels: Bools, seed: int) -> dict[str, Any]:
    """Every metric as {value, low, high}: 95 % by bootstrap, resampling each set by itself."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in METRICS}
    sets = (np.flatnonzero(labels), np.flatnonzero(~labels))
    for _ in range(RESAMPLES):
        rows = np.concatenate([rng.choice(rows, rows.size) for rows in sets])
        for name, metric in METRICS.items():
            drawn[name].append(metric(scores[rows], labels[rows]))
    found: dict[str, Any] = {}
    for name, metric in METRICS.items():
        low, high = np.percentile(drawn[name], _LEVEL)
        found[name] = {
            "value": round(metric(scores, labels), 6),
            "low": round(float(low), 6),
            "high": round(float(high), 6),
        }
    return {
        **found,
        "documents": {"positive": int(labels.sum()), "negative": int((~labels).sum())},
        "quantiles": {
            name: {f"{q:g}": round(float(np.quantile(part, q)), 6) for q in _QUANTILES}
            for name, part in (("positive", scores[labels]), ("negative", scores[~labels]))
        },
    }


def fit_platt(logits: Floats, labels: Bools) -> tuple[float, float]:
    """Slope and offset of Platt's calibration (Platt 1999; targets and Newton steps of Lin et al. 2007).

    Both sets weigh the same. A slope that is not above 0 (the classifier knows nothing) becomes 1e-6.
    """
    positive = int(labels.sum())
    negative = labels.size - positive
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))
    weights = balanced(labels)
    spread = float(logits.std()) or 1.0
    x = logits / spread
    inputs = np.stack([x, np.ones_like(x)])
    parameters = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        chances = np.array([kernels.sigmoid(z) for z in parameters @ inputs])
        gradient = inputs @ (weights * (chances - targets))
        hessian = (inputs * (weights * chances * (1 - chances))) @ inputs.T + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        parameters -= step * min(1.0, 5.0 / max(1e-12, float(np.abs(step).max())))
        if float(np.abs(step).max()) < 1e-10:  # noqa: PLR2004
            break
    return max(1e-6, float(parameters[0]) / spread), float(parameters[1])
