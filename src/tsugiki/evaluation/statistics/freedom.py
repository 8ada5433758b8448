"""Degrees of freedom of a cluster-robust error: how well the clusters that there are tell their own spread.

Two things make an error unsure, and the smaller number of degrees is taken:

*The design.* Satterthwaite's degrees of Bell and McCaffrey's variance if the items of a cluster correlate as
much as they seem to (`correlation_within`; Imbens and Kolesar 2016, Review of Economics and Statistics 98,
section 4): few clusters, and clusters of very unequal size, have few degrees.

*The data.* The variance is a sum of squares e_c^2, and Satterthwaite's degrees are
2 (sum V_c)^2 / sum Var(V_c), here with the variance of the squares from the data themselves:
sum e_c^4 - (sum e_c^2)^2 / C. For normal residuals that is C; where a few clusters carry all of the spread
(shares near 0 of items that hang together) it is twice their number. There the plain degrees give intervals
that miss the truth twice or three times as often as they say (`benchmarks/interval_coverage.py`).

Axis letters: C clusters, M columns.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tsugiki.evaluation.statistics.estimates import Array, ClusterSums

ESTIMATED: Final = 3.0
"""Taken off the degrees from the data, since the kurtosis is estimated too. By simulation: with 0 to 2 the
intervals of shares near 0.1 in 20 clusters cover 93 to 94 %, with 3 at least 94 %; many clusters hardly feel
it."""
_SMALLEST: Final = 1e-9


def satterthwaite_degrees(share_C: Array) -> float:
    """Degrees of freedom of the robust variance of a mean, were the items independent.

    The eigenvalues of Bell and McCaffrey's matrix have sum 1 and sum of squares
    sum w^2 + (sum b)^2 - sum b^2, with b = w^2 / (1 - w).
    """
    spread_C = share_C**2 / (1 - share_C)
    return float(1 / ((share_C**2).sum() + spread_C.sum() ** 2 - (spread_C**2).sum()))


def correlated_degrees(size_C: Array, correlation_M: Array) -> Array:
    """The same where the items of a cluster have this correlation: (sum of eigenvalues)^2 / sum of squares.

    The clusters' sums have variances tau_c = n_c (1 + rho (n_c - 1)), their residuals the covariance
    K = (I - w 1') diag(tau) (I - w 1')', and the variance is a quadratic form with the matrix
    diag(1 / (1 - w)) K, whose traces are sums over clusters.
    """
    w_CM = (size_C / size_C.sum())[:, None]
    weight_CM = 1 / (1 - w_CM)
    tau_CM = size_C[:, None] * (1 + correlation_M * (size_C[:, None] - 1))
    total_M = tau_CM.sum(axis=0)
    off_CM = total_M * w_CM**2 - 2 * w_CM * tau_CM
    trace_M = (weight_CM * (tau_CM + off_CM)).sum(axis=0)
    ww_M = (weight_CM * w_CM**2).sum(axis=0)
    tt_M = (weight_CM * tau_CM**2).sum(axis=0)
    wt_M = (weight_CM * w_CM * tau_CM).sum(axis=0)
    crossed_M = 2 * ww_M * tt_M + (total_M * ww_M) ** 2 + 2 * wt_M**2 - 4 * total_M * ww_M * wt_M
    own_M = (weight_CM**2 * tau_CM * (tau_CM + 2 * off_CM)).sum(axis=0)
    return np.asarray(trace_M**2 / (own_M + crossed_M))


def correlation_within(sums: ClusterSums, value_M: Array, error_M: Array) -> Array:
    """The correlation of items in a cluster, from the variance of the mean against that of independent items.

    Kish's design effect, 1 + rho (sum n_c^2 / n - 1), solved for rho and kept within 0 to 1. Where the items'
    own spread is not known (`ClusterSums.square_CM`), 1, which gives the fewest degrees.
    """
    items = float(sums.denominator_C.sum())
    beyond = float((sums.denominator_C**2).sum()) / items - 1
    if sums.square_CM is None:
        return np.ones_like(value_M)
    if beyond <= _SMALLEST:
        return np.zeros_like(value_M)
    spread_M = sums.square_CM.sum(axis=0) / items - value_M**2
    with np.errstate(divide="ignore", invalid="ignore"):
        found_M = (error_M**2 * items / spread_M - 1) / beyond
    return np.where(np.isfinite(found_M), np.clip(found_M, 0, 1), 1.0)


def concentration_degrees(residual_CM: Array) -> Array:
    """Degrees from how the squared residuals are spread over the clusters; at least 1."""
    square_CM = residual_CM**2
    with np.errstate(divide="ignore", invalid="ignore"):
        share_M = (square_CM**2).sum(axis=0) / square_CM.sum(axis=0) ** 2
    found_M = 2 / np.maximum(share_M - 1 / len(residual_CM), _SMALLEST) - ESTIMATED
    return np.where(np.isfinite(found_M), np.maximum(found_M, 1.0), 1.0)


def carrying_clusters(sums: ClusterSums, value_M: Array) -> Array:
    """As how many equal clusters the spread is carried by: (sum e^2)^2 / sum e^4; 0 where there is none."""
    square_CM = (sums.numerator_CM - value_M * sums.denominator_C[:, None]) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        found_M = square_CM.sum(axis=0) ** 2 / (square_CM**2).sum(axis=0)
    return np.where(np.isfinite(found_M), found_M, 0.0)
