"""Rotations of loadings: varimax (factors stay uncorrelated) and promax (they may correlate)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tsugiki.errors import DataError
from tsugiki.study.factors import Array

_ROUNDS: Final = 1000
_SETTLED: Final = 1e-12
_POWER: Final = 4
"""Hendrickson and White (1964), "Promax", take 4 for most data; so do R and SPSS."""


@dataclass(frozen=True)
class Rotated:
    """Rotated factors.

    loadings_BK: their pattern. factors_KK: their correlations, the identity for varimax.

    scores_MK: standardised factor scores of the models. variance_K: sums of squared loadings, as shares of B.
    """

    method: str
    loadings_BK: Array
    factors_KK: Array
    scores_MK: Array
    variance_K: Array


def varimax(loadings_BK: Array) -> tuple[Array, Array]:
    """Kaiser (1958): the orthogonal rotation T with the largest variance of squared loadings; (L T, T).

    Rows are scaled to length 1 while it is sought (Kaiser's normalisation), as in R's `varimax`.
    """
    length_B = np.sqrt((loadings_BK**2).sum(axis=1, keepdims=True))
    normal = loadings_BK / np.where(length_B > 0, length_B, 1.0)
    turn_KK = np.eye(loadings_BK.shape[1])
    before = 0.0
    for _ in range(_ROUNDS):
        turned = normal @ turn_KK
        target = turned**3 - turned * (turned**2).mean(axis=0)
        left, values, right = np.linalg.svd(normal.T @ target)
        turn_KK = left @ right
        if values.sum() <= before * (1 + _SETTLED):
            break
        before = values.sum()
    return loadings_BK @ turn_KK, turn_KK


def promax(loadings_BK: Array, power: int = _POWER) -> tuple[Array, Array, Array]:
    """The oblique rotation nearest to varimax loadings raised to a power: (pattern, U, factor correlations).

    pattern = L U. Factors have variance 1.
    """
    turned, turn_KK = varimax(loadings_BK)
    target = turned * np.abs(turned) ** (power - 1)
    fitted, *_ = np.linalg.lstsq(turned, target, rcond=None)
    scale_K = np.sqrt(np.diag(np.linalg.inv(fitted.T @ fitted)))
    fitted = fitted * scale_K
    whole = turn_KK @ fitted
    inverse = np.linalg.inv(whole)
    return loadings_BK @ whole, whole, inverse @ inverse.T


def rotate(method: str, loadings_BK: Array, scores_MK: Array) -> Rotated:
    """Rotate the first K components. scores_MK: their scores, which are scaled to variance 1 first.

    Factors are ordered by variance and signed as components are. Raises DataError for fewer than two.
    """
    if loadings_BK.shape[1] < 2:  # noqa: PLR2004 - one axis can't be turned
        raise DataError("one component can't be rotated", hint="ask for two or more with --components")
    standard_MK = scores_MK / np.sqrt((scores_MK**2).mean(axis=0))
    if method == "varimax":
        pattern, turn = varimax(loadings_BK)
        correlations = np.eye(turn.shape[1])
        scores = standard_MK @ turn
    else:
        pattern, turn, correlations = promax(loadings_BK)
        scores = standard_MK @ np.linalg.inv(turn).T
    variance_K = (pattern**2).sum(axis=0) / len(pattern)
    order = np.argsort(-variance_K, kind="stable")
    signs = np.where(pattern.sum(axis=0) < 0, -1.0, 1.0)[order]
    return Rotated(
        method,
        pattern[:, order] * signs,
        correlations[np.ix_(order, order)] * np.outer(signs, signs),
        scores[:, order] * signs,
        variance_K[order],
    )
