"""Pearson correlations between benchmarks with Fisher's intervals, over the models that have both scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tsugiki.study.table import Array, ScoreTable

_FEWEST: Final = 4
"""Models of a pair: Fisher's z has the standard error 1 / sqrt(n - 3)."""


@dataclass(frozen=True)
class Correlations:
    """B x B matrices: r, the ends of its interval (NaN where fewer than four models have both), and n."""

    benchmarks: tuple[str, ...]
    confidence: float
    r_BB: Array
    low_BB: Array
    high_BB: Array
    n_BB: NDArray[np.int64]

    def pair(self, first: str, second: str) -> tuple[float, float, float, int]:
        """(r, low, high, n) of two benchmarks."""
        a, b = self.benchmarks.index(first), self.benchmarks.index(second)
        return (
            float(self.r_BB[a, b]),
            float(self.low_BB[a, b]),
            float(self.high_BB[a, b]),
            int(self.n_BB[a, b]),
        )


def fisher_interval(r: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """tanh(artanh(r) ± z / sqrt(n - 3)), Fisher (1921); (NaN, NaN) for fewer than four pairs.

    It takes models for independent; those of one family are not, so it is too narrow for most tables.
    """
    if n < _FEWEST or not math.isfinite(r):
        return math.nan, math.nan
    if abs(r) >= 1:
        return r, r
    half = NormalDist().inv_cdf(0.5 + confidence / 2) / math.sqrt(n - 3)
    centre = math.atanh(r)
    return math.tanh(centre - half), math.tanh(centre + half)


def pearson(x: Array, y: Array) -> tuple[float, int]:
    """Pearson's r and the number of pairs without a gap; NaN for fewer than two, or without spread."""
    both = np.isfinite(x) & np.isfinite(y)
    n = int(both.sum())
    if n < 2:  # noqa: PLR2004 - no spread
        return math.nan, n
    a, b = x[both] - x[both].mean(), y[both] - y[both].mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return (min(1.0, max(-1.0, float(a @ b) / scale)) if scale > 0 else math.nan), n


def correlations(table: ScoreTable, confidence: float = 0.95) -> Correlations:
    """Every pair of benchmarks over the models that have both (pairwise deletion: n says how many)."""
    size = len(table.benchmarks)
    r, low, high = (np.full((size, size), np.nan) for _ in range(3))
    n = np.zeros((size, size), dtype=np.int64)
    for a in range(size):
        for b in range(a + 1):
            value, count = pearson(table.scores_MB[:, a], table.scores_MB[:, b])
            ends = fisher_interval(value, count, confidence)
            r[a, b] = r[b, a] = 1.0 if a == b else value
            n[a, b] = n[b, a] = count
            low[a, b] = low[b, a] = 1.0 if a == b else ends[0]
            high[a, b] = high[b, a] = 1.0 if a == b else ends[1]
    return Correlations(table.benchmarks, confidence, r, low, high, n)
