"""Two models on the same items: tests and intervals of the difference, for items in clusters.

Right-or-wrong answers are tested exactly. McNemar's test asks whether the discordant answers fall on both
sides like coins; where items share a passage, the coin is tossed for a passage and not for an item: under "no
difference" every cluster's difference is as likely with the other sign. All 2^C signs are counted without
drawing any, since the differences are whole numbers. Its variance is that of Obuchowski's test (1998,
Statistics in Medicine 17; in this form Yang, Sun and Hardin 2010, Statistics in Medicine 29), which is
its normal approximation.

Axis letters: C clusters, M columns (pairs).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from tsugiki.evaluation.statistics.estimates import Array, ClusterSums, Estimate, ratio_of_sums
from tsugiki.evaluation.statistics.means import clt_estimates, mean_estimates

MCNEMAR: Final = "exact McNemar"
CLUSTERED_MCNEMAR: Final = "exact clustered McNemar"
_COUNTED: Final = 4e9
"""Most additions for the exact distribution (about 4 s); beyond, clusters are enough for the normal one."""


def mcnemar_clustered(difference_C: ArrayLike) -> float:
    """The two-sided p-value of "no difference" from each cluster's right answers won minus lost.

    The share of all ways to sign the clusters' differences whose sum is at least as far from zero. For
    clusters of one item it is the exact McNemar test. Differences have to be whole numbers.
    """
    steps = np.abs(np.rint(np.asarray(difference_C, dtype=np.float64)).astype(np.int64))
    observed = abs(int(np.rint(np.asarray(difference_C, dtype=np.float64)).sum()))
    steps = np.sort(steps[steps > 0])
    total = int(steps.sum())
    if observed == 0 or not total:
        return 1.0
    if float(total) * len(steps) > _COUNTED:
        return _normal_tail((observed - 0.5 * _lattice(steps)) / float(np.sqrt((steps**2.0).sum())))
    # chance_S[s]: that the clusters signed + sum to s; then the signed sum is 2 s - total
    chance_S = np.zeros(total + 1)
    chance_S[0] = 1.0
    reached = 0
    for step in steps.tolist():
        shifted = chance_S[: reached + 1] / 2
        chance_S[: reached + 1] = shifted
        chance_S[step : reached + step + 1] += shifted
        reached += step
    # the distribution is symmetric: twice the upper tail
    first = (total + observed) // 2
    return float(min(1.0, 2 * chance_S[first:].sum()))


def _lattice(steps: np.ndarray) -> float:
    """Half the distance of neighbouring sums, for the continuity correction."""
    return 2.0 * float(np.gcd.reduce(steps))


def _normal_tail(statistic: float) -> float:
    from statistics import NormalDist

    return min(1.0, 2 * NormalDist().cdf(-max(0.0, statistic)))


def answer_differences(sums: ClusterSums, confidence: float = 0.95) -> list[Estimate]:
    """Differences of right-or-wrong scores; numerators are answers won minus lost in each cluster.

    The interval is the robust one of the items and two made-up ones, one won and one lost, each a cluster
    (Bonett and Price 2012, Journal of Educational and Behavioral Statistics 37, for independent items): with
    few discordant answers the plain one is too narrow, and of no width at all where there are none.
    """
    values = ratio_of_sums(sums)
    columns = len(values)
    made_up = ClusterSums(
        np.concatenate([sums.numerator_CM, np.ones((1, columns)), -np.ones((1, columns))]),
        np.concatenate([sums.denominator_C, [1.0, 1.0]]),
    )
    independent = bool((sums.denominator_C == 1).all())
    method = MCNEMAR if independent else CLUSTERED_MCNEMAR
    return [
        replace(
            one,
            value=float(value),
            low=max(-1.0, one.low),
            high=min(1.0, one.high),
            p=mcnemar_clustered(sums.numerator_CM[:, column]),
            method=method,
        )
        for column, (one, value) in enumerate(zip(clt_estimates(made_up, confidence), values, strict=True))
    ]


def score_differences(
    sums: ClusterSums, *, draws: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> list[Estimate]:
    """Differences of other scores: a paired t test with robust error, or the bootstrap where skewed."""
    return [
        replace(one, method=f"paired {one.method}")
        for one in mean_estimates(sums, draws=draws, confidence=confidence, seed=seed)
    ]


def difference_sums(sums: ClusterSums, pairs: list[tuple[int, int]]) -> ClusterSums:
    """Columns numerator[b] - numerator[a] for pairs (a, b)."""
    difference_CM: Array = np.stack(
        [sums.numerator_CM[:, b] - sums.numerator_CM[:, a] for a, b in pairs], axis=1
    )
    return ClusterSums(difference_CM, sums.denominator_C)
