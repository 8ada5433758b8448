"""Two models on the same items: tests and intervals of the difference, for items alone and in clusters.

McNemar's test asks whether the discordant answers fall on both sides like coins. For independent items it is
the mid-p one, which counts half of the outcomes that are as far as the one seen: it holds its level and,
unlike the exact test, comes near it (Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology
13). Its interval is Tango's (1998, Statistics in Medicine 17), which inverts the score test: it has a width
where no answer is discordant, and covers 95 % where mean +- t errors covers half of that.

Where items share a passage, the coin is tossed for a passage and not for an item: under "no difference"
every cluster's difference is as likely with the other sign. All 2^C signs are counted without drawing any,
since the differences are whole numbers; of few clusters the exact p-value is taken, not mid-p. Its variance
is that of Obuchowski's test (1998, Statistics in Medicine 17; in this form Yang, Sun and Hardin 2010,
Statistics in Medicine 29), which is its normal approximation.

Axis letters: C clusters, M columns (pairs).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from tsugiki.evaluation.statistics.estimates import (
    Array,
    ClusterSums,
    Estimate,
    check_confidence,
    ratio_of_sums,
)
from tsugiki.evaluation.statistics.means import clt_estimates, robust_means
from tsugiki.student import t_quantile

MCNEMAR: Final = "mid-p McNemar"
CLUSTERED_MCNEMAR: Final = "exact clustered McNemar"
_COUNTED: Final = 4e9
"""Most additions for the exact distribution (about 4 s); beyond, clusters are enough for the normal one."""
_HALVINGS: Final = 60
"""Steps of the search for Tango's ends: more change no digit of a float64."""


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


def mcnemar_mid_p(won: ArrayLike, lost: ArrayLike) -> Array:
    """Two-sided mid-p values of McNemar's test, for M pairs of counts of discordant items.

    The exact p-value less the chance of the counts seen; 1 where both are equal.
    """
    from scipy.special import bdtr

    won, lost = np.asarray(won, dtype=np.int64), np.asarray(lost, dtype=np.int64)
    fewer, discordant = np.minimum(won, lost), won + lost
    up_to = bdtr(fewer.astype(float), discordant, 0.5)
    below = np.where(fewer > 0, bdtr(np.maximum(fewer - 1, 0).astype(float), discordant, 0.5), 0.0)
    return np.asarray(np.where(won == lost, 1.0, np.minimum(1.0, up_to + below)))


def _lattice(steps: np.ndarray) -> float:
    """Half the distance of neighbouring sums, for the continuity correction."""
    return 2.0 * float(np.gcd.reduce(steps))


def _normal_tail(statistic: float) -> float:
    from statistics import NormalDist

    return min(1.0, 2 * NormalDist().cdf(-max(0.0, statistic)))


def tango_interval(won: Array, lost: Array, items: int, quantile: float) -> tuple[Array, Array]:
    """Tango's score interval of the difference of two shares on the same independent items, for M columns.

    won, lost: items that the second, and the first, alone got right. The ends are the differences d at which
    |won - lost - n d| is `quantile` times its standard deviation, with q, the chance of a lost item, at its
    most likely value under d: the root of 2 n q^2 + B q + C = 0.
    """

    def statistic(d: Array) -> Array:
        b = -won - lost + (2 * items - won + lost) * d
        c = -lost * d * (1 - d)
        q = (np.sqrt(np.maximum(b * b - 8 * items * c, 0.0)) - b) / (4 * items)
        variance = items * np.maximum(2 * q + d * (1 - d), 1e-300)
        return np.asarray((won - lost - items * d) / np.sqrt(variance))

    seen = (won - lost) / items
    ends = []
    for far, sign in ((-1.0, 1.0), (1.0, -1.0)):
        outside, inside = np.full_like(seen, far), seen.copy()
        for _ in range(_HALVINGS):
            middle = (outside + inside) / 2
            beyond = sign * statistic(middle) > quantile
            outside, inside = np.where(beyond, middle, outside), np.where(beyond, inside, middle)
        ends.append(inside)
    return ends[0], ends[1]


def answer_differences(sums: ClusterSums, confidence: float = 0.95) -> list[Estimate]:
    """Differences of right-or-wrong scores; numerators are answers won minus lost in each cluster.

    Independent items: mid-p McNemar and Tango's interval. In clusters: the exact test of signs, and the
    robust interval of the items and two made-up ones, one won and one lost, each a cluster (Bonett and Price
    2012, Journal of Educational and Behavioral Statistics 37, for independent items): with few discordant
    answers the plain one is too narrow, and of no width at all where there are none.
    """
    check_confidence(confidence)
    if bool((sums.denominator_C == 1).all()) and len(sums) > 1:
        return _of_items(sums, confidence)
    values = ratio_of_sums(sums).tolist()
    # where few answers are discordant the made-up ones carry the spread, and are known to be two
    with_made_up = clt_estimates(_with_made_up(sums), confidence, concentration=False)
    return [
        replace(
            one,
            value=value,
            low=max(-1.0, one.low),
            high=min(1.0, one.high),
            p=mcnemar_clustered(sums.numerator_CM[:, column]),
            method=CLUSTERED_MCNEMAR,
        )
        for column, (one, value) in enumerate(zip(with_made_up, values, strict=True))
    ]


def _of_items(sums: ClusterSums, confidence: float) -> list[Estimate]:
    won, lost = (sums.numerator_CM > 0).sum(axis=0), (sums.numerator_CM < 0).sum(axis=0)
    # Student's quantile: with the normal one, 60 items cover 93 % where few answers are discordant
    quantile = t_quantile(0.5 + confidence / 2, len(sums) - 1)
    low_M, high_M = tango_interval(won.astype(float), lost.astype(float), len(sums), quantile)
    errors = robust_means(_with_made_up(sums)).error_M.tolist()
    p_values = mcnemar_mid_p(won, lost).tolist()
    return [
        Estimate(value, low, high, error, p, MCNEMAR)
        for value, low, high, error, p in zip(
            ratio_of_sums(sums).tolist(), low_M.tolist(), high_M.tolist(), errors, p_values, strict=True
        )
    ]


def _with_made_up(sums: ClusterSums) -> ClusterSums:
    """The clusters and two more of one item each, one won and one lost."""
    one = np.ones((1, sums.numerator_CM.shape[1]))
    squares = None if sums.square_CM is None else np.concatenate([sums.square_CM, one, one])
    return ClusterSums(
        np.concatenate([sums.numerator_CM, one, -one]), np.append(sums.denominator_C, [1.0, 1.0]), squares
    )


def score_differences(sums: ClusterSums, confidence: float = 0.95) -> list[Estimate]:
    """Differences of other scores: a paired t test with the robust error."""
    return [replace(one, method=f"paired {one.method}") for one in clt_estimates(sums, confidence)]
