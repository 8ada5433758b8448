"""Intervals for mean scores of items in clusters: the method that fits the data is chosen and named.

right or wrong, every item a cluster   Wilson's interval
right or wrong, in clusters            Wilson's interval with the effective number of items
other scores                           mean and its cluster-robust error (CLT), with Student's t
other scores, very skewed              studentised cluster bootstrap (`statistics`)

The cluster-robust error is Bell and McCaffrey's (2002, "Bias reduction in standard errors for linear
regression with multi-stage samples", Survey Methodology 28), which for a mean has a closed form: with e_c the
sum of the residuals of cluster c and w_c its share of all items,

    V = sum_c e_c^2 / (1 - w_c) / n^2.

For clusters of one item it is sd^2 / n. Its degrees of freedom (Satterthwaite) say how few and how unequal
the clusters are: C - 1 for equal ones, near 1 where one cluster holds most items. Without them intervals from
few clusters are too narrow (Imbens and Kolesar 2016, Review of Economics and Statistics 98).

Axis letters: I items, C clusters, M columns (models, pairs of models, or simulated data sets).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import Final

import numpy as np

from tsugiki.evaluation.statistics.estimates import (
    BOOTSTRAP,
    Array,
    ClusterSums,
    Estimate,
    bootstrap_estimates,
    check_confidence,
    ratio_of_sums,
    wilson_interval,
)
from tsugiki.evaluation.statistics.student import t_quantile, t_two_sided

WILSON: Final = "Wilson"
CLUSTERED_WILSON: Final = "Wilson, effective items"
CLT: Final = "CLT"
CLUSTERED_CLT: Final = "clustered CLT"
COCHRAN: Final = 25.0
"""A mean of n draws is normal enough for an interval where n > 25 G^2, G the skewness of a draw (Cochran
1977, Sampling Techniques, section 2.15)."""
_JUDGED_FROM: Final = 10
"""Below, the skewness of the clusters can't be judged, and a bootstrap of so few is no better than t."""
_NO_SPREAD: Final = 1e-12


@dataclass(frozen=True)
class Robust:
    """Means with their cluster-robust errors; degrees of freedom are the same for all columns."""

    value_M: Array
    error_M: Array
    degrees: float


def robust_means(sums: ClusterSums) -> Robust:
    """Mean score, Bell and McCaffrey's standard error and its degrees of freedom, for each of the M columns.

    The error is infinite, with 0 degrees, for one cluster.
    """
    value_M = ratio_of_sums(sums)
    if len(sums) < 2:  # noqa: PLR2004 (a variance needs two)
        return Robust(value_M, np.full(len(value_M), inf), 0.0)
    items = sums.denominator_C.sum()
    share_C = sums.denominator_C / items
    residual_CM = sums.numerator_CM - value_M * sums.denominator_C[:, None]
    variance_M = (residual_CM**2 / (1 - share_C)[:, None]).sum(axis=0) / items**2
    return Robust(value_M, np.sqrt(variance_M), satterthwaite_degrees(share_C))


def satterthwaite_degrees(share_C: Array) -> float:
    """Degrees of freedom of the robust variance of a mean, were the items independent.

    The eigenvalues of Bell and McCaffrey's matrix have sum 1 and sum of squares
    sum w^2 + (sum b)^2 - sum b^2, with b = w^2 / (1 - w).
    """
    spread_C = share_C**2 / (1 - share_C)
    return float(1 / ((share_C**2).sum() + spread_C.sum() ** 2 - (spread_C**2).sum()))


def mean_estimates(
    sums: ClusterSums, *, draws: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> list[Estimate]:
    """Estimates of mean scores of any kind, each by the CLT or, where it is very skewed, by the bootstrap.

    p is that of "the mean is 0".
    """
    check_confidence(confidence)
    found = clt_estimates(sums, confidence)
    skewed = [column for column, enough in enumerate(normal_enough(sums)) if not enough]
    if skewed:
        part = ClusterSums(sums.numerator_CM[:, skewed], sums.denominator_C)
        again = bootstrap_estimates(part, draws=draws, confidence=confidence, seed=seed)
        for column, one in zip(skewed, again, strict=True):
            found[column] = one
    return found


def clt_estimates(sums: ClusterSums, confidence: float = 0.95) -> list[Estimate]:
    """Mean +- t times the robust error; no interval (infinite ends) for one cluster."""
    robust = robust_means(sums)
    width_M = t_quantile(0.5 + confidence / 2, robust.degrees) * np.where(
        np.isfinite(robust.error_M), robust.error_M, 1.0
    )
    single = bool((sums.denominator_C == 1).all())
    method = CLT if single else CLUSTERED_CLT
    estimates = []
    for value, error, width in zip(robust.value_M, robust.error_M, width_M, strict=True):
        p = 1.0
        if value != 0 and isfinite(error):
            # the same difference in every cluster: what the signs of so few could show at most
            p = t_two_sided(value / error, robust.degrees) if error > 0 else 2.0 ** (1 - len(sums))
        estimates.append(
            Estimate(
                value=float(value),
                low=float(value - width),
                high=float(value + width),
                standard_error=float(error),
                p=p,
                method=method,
                degrees=robust.degrees,
            )
        )
    return estimates


def normal_enough(sums: ClusterSums) -> list[bool]:
    """Cochran's rule for each column, with the residual sums of the clusters as the draws."""
    clusters = len(sums)
    residual_CM = sums.numerator_CM - ratio_of_sums(sums) * sums.denominator_C[:, None]
    spread_M = np.sqrt((residual_CM**2).mean(axis=0))
    third_M = (residual_CM**3).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness_M = np.where(spread_M > _NO_SPREAD, third_M / spread_M**3, 0.0)
    enough_M = clusters >= COCHRAN * skewness_M**2
    return [bool(enough) or clusters < _JUDGED_FROM for enough in enough_M]


def share_estimates(sums: ClusterSums, confidence: float = 0.95) -> list[Estimate]:
    """Wilson's interval for the share of right answers; numerators count them.

    In clusters, the items are as informative as n_e = p (1 - p) / V independent ones, V the robust variance
    (Korn and Graubard 1998, Survey Methodology 24; n_e is never more than the items, as Dean and Pagano 2015
    advise), and the normal quantile becomes Student's. All right, or all wrong, shows no spread to judge by:
    there the clusters count as that many independent answers.
    """
    check_confidence(confidence)
    robust = robust_means(sums)
    items, clusters = int(sums.denominator_C.sum()), len(sums)
    single = clusters == items
    estimates = []
    for value, error in zip(robust.value_M.tolist(), robust.error_M.tolist(), strict=True):
        if single:
            low, high = wilson_interval(round(value * items), items, confidence)
        elif not 0 < value < 1 or error <= _NO_SPREAD or not isfinite(error):
            low, high = wilson_interval(round(value * clusters), clusters, confidence)
        else:
            # one less, as the robust variance of independent items divides by n - 1
            effective = min(1 + value * (1 - value) / error**2, float(items))
            low, high = score_interval(value, effective, t_quantile(0.5 + confidence / 2, robust.degrees))
        method = WILSON if single else CLUSTERED_WILSON
        estimates.append(Estimate(value, low, high, error, 1.0, method, inf if single else robust.degrees))
    return estimates


def score_interval(share: float, trials: float, quantile: float) -> tuple[float, float]:
    """Wilson's formula for any share, number of trials (need not be whole) and quantile."""
    square = quantile * quantile
    centre = share + square / (2 * trials)
    spread = quantile * sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    scale = 1 + square / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def bounded(estimate: Estimate, low: float, high: float) -> Estimate:
    """The estimate with an interval that stays within the scores that are possible."""
    if not isfinite(estimate.low):
        return estimate
    return replace(estimate, low=max(low, estimate.low), high=min(high, estimate.high))


__all__ = [
    "BOOTSTRAP",
    "CLT",
    "CLUSTERED_CLT",
    "CLUSTERED_WILSON",
    "WILSON",
    "Robust",
    "bounded",
    "clt_estimates",
    "mean_estimates",
    "normal_enough",
    "robust_means",
    "satterthwaite_degrees",
    "score_interval",
    "share_estimates",
]
