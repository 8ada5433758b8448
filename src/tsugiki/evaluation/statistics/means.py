"""Intervals for mean scores of items in clusters: the method that fits the data is chosen and named.

right or wrong, every item a cluster   Wilson's interval
right or wrong, in clusters            Wilson's form, with the effective number of items and Student's t
other scores from 0 to 1               the same form, with the number of right-or-wrong items of their spread
differences, and any other numbers     mean and its cluster-robust error (CLT), with Student's t

Wilson's form keeps an interval within 0 and 1 and, near the ends, gives it the longer side where the rare
answers are that were not seen; the plain mean +- t errors misses there most of the time.

The cluster-robust error is Bell and McCaffrey's (2002, "Bias reduction in standard errors for linear
regression with multi-stage samples", Survey Methodology 28), which for a mean has a closed form: with e_c the
sum of the residuals of cluster c and w_c its share of all items,

    V = sum_c e_c^2 / (1 - w_c) / n^2.

For clusters of one item it is sd^2 / n. How many degrees of freedom it has is in `freedom`.

Axis letters: I items, C clusters, M columns (models, pairs of models, or simulated data sets).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import Final

import numpy as np

from tsugiki.evaluation.statistics.estimates import (
    Array,
    ClusterSums,
    Estimate,
    check_confidence,
    ratio_of_sums,
    wilson_interval,
)
from tsugiki.evaluation.statistics.freedom import (
    concentration_degrees,
    correlated_degrees,
    correlation_within,
)
from tsugiki.student import t_quantile, t_quantiles, t_two_sided

WILSON: Final = "Wilson"
CLUSTERED_WILSON: Final = "Wilson, effective items"
CLT: Final = "CLT"
CLUSTERED_CLT: Final = "clustered CLT"
COCHRAN: Final = 25.0
"""A mean of n draws is normal enough for an interval where n > 25 G^2, G the skewness of a draw (Cochran
1977, Sampling Techniques, section 2.15)."""
_NO_SPREAD: Final = 1e-12


@dataclass(frozen=True)
class Robust:
    """Means with their cluster-robust errors, and the degrees of freedom of each column's interval."""

    value_M: Array
    error_M: Array
    degrees_M: Array


def robust_means(sums: ClusterSums, *, concentration: bool = True) -> Robust:
    """Mean score, Bell and McCaffrey's standard error and its degrees of freedom, for each of the M columns.

    The error is infinite, with 0 degrees, for one cluster. For clusters of one item the degrees are one fewer
    than the items, unless the scores are very skewed (`normal_enough`). concentration: whether degrees are
    also judged by how few clusters carry the spread.
    """
    value_M = ratio_of_sums(sums)
    if len(sums) < 2:  # noqa: PLR2004 (a variance needs two)
        return Robust(value_M, np.full(len(value_M), inf), np.zeros(len(value_M)))
    items = sums.denominator_C.sum()
    share_C = sums.denominator_C / items
    residual_CM = sums.numerator_CM - value_M * sums.denominator_C[:, None]
    error_M = np.sqrt((residual_CM**2 / (1 - share_C)[:, None]).sum(axis=0)) / items
    concentrated_M = concentration_degrees(residual_CM) if concentration else np.full(len(value_M), inf)
    if _single(sums):
        whole = float(len(sums) - 1)
        degrees_M = np.where(normal_enough(sums), whole, np.minimum(whole, concentrated_M))
    else:
        correlation_M = correlation_within(sums, value_M, error_M)
        degrees_M = np.minimum(correlated_degrees(sums.denominator_C, correlation_M), concentrated_M)
    return Robust(value_M, error_M, degrees_M)


def _single(sums: ClusterSums) -> bool:
    """Whether every item is a cluster of its own."""
    return bool((sums.denominator_C == 1).all())


def normal_enough(sums: ClusterSums) -> Array:
    """Cochran's rule for each column, with the residual sums of the clusters as the draws."""
    residual_CM = sums.numerator_CM - ratio_of_sums(sums) * sums.denominator_C[:, None]
    spread_M = np.sqrt((residual_CM**2).mean(axis=0))
    third_M = (residual_CM**3).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness_M = np.where(spread_M > _NO_SPREAD, third_M / spread_M**3, 0.0)
    return np.asarray(len(sums) >= COCHRAN * skewness_M**2)


def clt_estimates(
    sums: ClusterSums, confidence: float = 0.95, *, concentration: bool = True
) -> list[Estimate]:
    """Mean +- t times the robust error; no interval (infinite ends) for one cluster.

    p is that of "the mean is 0". concentration: as for `robust_means`.
    """
    check_confidence(confidence)
    robust = robust_means(sums, concentration=concentration)
    width_M = t_quantiles(0.5 + confidence / 2, robust.degrees_M) * np.where(
        np.isfinite(robust.error_M), robust.error_M, 1.0
    )
    method = CLT if _single(sums) else CLUSTERED_CLT
    estimates = []
    for value, error, width, degrees in zip(
        robust.value_M.tolist(),
        robust.error_M.tolist(),
        width_M.tolist(),
        robust.degrees_M.tolist(),
        strict=True,
    ):
        p = 1.0
        if value != 0 and isfinite(error):
            # the same difference in every cluster: what the signs of so few could show at most
            p = t_two_sided(value / error, degrees) if error > 0 else 2.0 ** (1 - len(sums))
        estimates.append(Estimate(value, value - width, value + width, error, p, method, degrees))
    return estimates


def mean_estimates(sums: ClusterSums, confidence: float = 0.95) -> list[Estimate]:
    """Estimates of means of scores from 0 to 1, such as F1 or the mean of several samples: Wilson's form.

    Their spread is that of n_e = p (1 - p) / V right-or-wrong items, V the robust variance; n_e is more than
    the items where scores lie in the middle.
    """
    return _in_wilsons_form(sums, confidence, most=inf)


def share_estimates(sums: ClusterSums, confidence: float = 0.95) -> list[Estimate]:
    """Wilson's interval for the share of right answers; numerators count them.

    In clusters, the items are as informative as n_e = p (1 - p) / V independent ones, V the robust variance
    (Korn and Graubard 1998, Survey Methodology 24; n_e is never more than the items, as Dean and Pagano 2015
    advise), and the normal quantile becomes Student's, with the degrees of `freedom`.
    """
    check_confidence(confidence)
    items = float(sums.denominator_C.sum())
    if not _single(sums):
        # a right answer is its own square
        known = ClusterSums(sums.numerator_CM, sums.denominator_C, sums.numerator_CM)
        return _in_wilsons_form(known, confidence, most=items)
    errors = robust_means(sums).error_M.tolist()
    return [
        Estimate(value, *wilson_interval(round(value * items), round(items), confidence), error, 1.0, WILSON)
        for value, error in zip(ratio_of_sums(sums).tolist(), errors, strict=True)
    ]


def _in_wilsons_form(sums: ClusterSums, confidence: float, *, most: float) -> list[Estimate]:
    """Wilson's form with effective items, `most` at most.

    Where all scores are 0, or 1, or the same in every cluster, no spread is seen to judge by: there the
    clusters count as that many independent answers, unequal ones as fewer (Kish's sum^2 / sum of squares).
    """
    check_confidence(confidence)
    robust = robust_means(sums)
    clusters = float(sums.denominator_C.sum() ** 2 / (sums.denominator_C**2).sum())
    normal = t_quantile(0.5 + confidence / 2, inf)
    quantile_M = t_quantiles(0.5 + confidence / 2, robust.degrees_M)
    found = []
    for value, error, quantile, degrees in zip(
        robust.value_M.tolist(),
        robust.error_M.tolist(),
        quantile_M.tolist(),
        robust.degrees_M.tolist(),
        strict=True,
    ):
        share = min(max(value, 0.0), 1.0)
        if not 0 < share < 1 or error <= _NO_SPREAD or not isfinite(error):
            low, high = score_interval(share, clusters, normal)
        else:
            # one more, as the robust variance of independent items divides by n - 1
            low, high = score_interval(share, min(1 + share * (1 - share) / error**2, most), quantile)
        found.append(Estimate(value, low, high, error, 1.0, CLUSTERED_WILSON, degrees))
    return found


def score_interval(share: float, trials: float, quantile: float) -> tuple[float, float]:
    """Wilson's formula for any share, number of trials (need not be whole) and quantile."""
    square = quantile * quantile
    centre = share + square / (2 * trials)
    spread = quantile * sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    scale = 1 + square / trials
    # at the ends the bound is 0 or 1 in exact arithmetic
    low = 0.0 if share <= 0 else max(0.0, (centre - spread) / scale)
    high = 1.0 if share >= 1 else min(1.0, (centre + spread) / scale)
    return low, high


def bounded(estimate: Estimate, low: float, high: float) -> Estimate:
    """The estimate with an interval that stays within the scores that are possible."""
    if not isfinite(estimate.low):
        return estimate
    return replace(estimate, low=max(low, estimate.low), high=min(high, estimate.high))
