"""Least squares with errors for few clusters: CR1, and the wild cluster bootstrap.

Models of one family share data, architecture and tokenizer, so their residuals do too. With G clusters:

    CR0 = (X'X)^-1 [sum_g X_g' e_g e_g' X_g] (X'X)^-1
    CR1 = CR0 x G/(G-1) x (n-1)/(n-p)             (Stata's and statsmodels' default; the one used here)

With few clusters both are too small. The wild cluster bootstrap (Cameron, Gelbach and Miller 2008) imposes
the null hypothesis, flips residuals by cluster and compares t statistics; with fewer than about a dozen
clusters weights of Webb (2014) have six values instead of two. Where there are at most as many combinations
as draws are asked for, all are used: the p-value has no randomness then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from tsugiki.errors import DataError
from tsugiki.student import t_tests
from tsugiki.study.table import Array

WEBB: Final = tuple(sign * math.sqrt(size) for size in (0.5, 1.0, 1.5) for sign in (-1.0, 1.0))
_TIE: Final = 1e-9
_FEWEST_CLUSTERS: Final = 3


@dataclass(frozen=True)
class Fit:
    """A regression of N observations on P predictors (the constant among them, first).

    error_P: classical. p_P: two-sided, t with N - P degrees of freedom. clustered_P: CR1. clustered_p_P: t
    with G - 1. wild_p_P: wild cluster bootstrap. All NaN where there are fewer than 3 clusters.
    """

    names: tuple[str, ...]
    n: int
    clusters: int
    coefficient_P: Array
    error_P: Array
    p_P: Array
    clustered_P: Array
    clustered_p_P: Array
    wild_p_P: Array
    r2: float
    covariance_PP: Array
    """CR1; classical where there are too few clusters."""
    residual_N: Array

    def place(self, name: str) -> int:
        """The position of a predictor."""
        return self.names.index(name)


def least_squares(
    names: Sequence[str],
    x_NP: Array,
    y_N: Array,
    clusters: Sequence[str],
    *,
    wild_draws: int = 9999,
    seed: int = 0,
) -> Fit:
    """Fit y on the columns of x, which are called `names`; the caller puts the constant in.

    wild_draws: 0 leaves the wild bootstrap out. Raises DataError where there are no more observations than
    predictors, or predictors depend on each other.
    """
    n, p = x_NP.shape
    if n <= p:
        raise DataError(
            f"{n} models for {p} coefficients ({', '.join(names)})", hint="add models with known budgets"
        )
    scale_P = np.sqrt((x_NP**2).mean(axis=0))
    if not (scale_P > 0).all() or np.linalg.matrix_rank(x_NP / scale_P) < p:
        raise DataError(
            f"the predictors {', '.join(names[1:])} say the same of these {n} models",
            hint="leave one out, or add models that tell them apart",
        )
    member_GN = _members(clusters)
    bread: Array = np.asarray(np.linalg.inv(x_NP.T @ x_NP), dtype=np.float64)
    coefficient = bread @ (x_NP.T @ y_N)
    residual = y_N - x_NP @ coefficient
    freedom = n - p
    classical = bread * float(residual @ residual) / freedom
    error = np.sqrt(np.diag(classical))
    spread = float(((y_N - y_N.mean()) ** 2).sum())
    r2 = 1 - float(residual @ residual) / spread if spread > 0 else math.nan
    unknown = np.full(p, np.nan)
    clustered, clustered_p, wild, covariance = unknown, unknown, unknown, classical
    if len(member_GN) >= _FEWEST_CLUSTERS:
        covariance = clustered_covariance(x_NP, residual, member_GN, bread)
        clustered = np.sqrt(np.maximum(np.diag(covariance), 0))
        clustered_p = t_tests(_ratio(coefficient, clustered), len(member_GN) - 1)
        if wild_draws:
            weights = wild_weights(len(member_GN), wild_draws, seed)
            wild = np.array([wild_p(x_NP, y_N, member_GN, place, weights) for place in range(p)])
    return Fit(
        tuple(names), n, len(member_GN), coefficient, error, t_tests(_ratio(coefficient, error), freedom),
        clustered, clustered_p, wild, r2, covariance, residual,
    )  # fmt: skip


def _ratio(value: Array, error: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return value / error


def _members(clusters: Sequence[str]) -> Array:
    """G x N: 1 where an observation is of a cluster."""
    names = list(dict.fromkeys(clusters))
    return np.array([[float(one == name) for one in clusters] for name in names])


def clustered_covariance(x_NP: Array, residual_N: Array, member_GN: Array, bread_PP: Array) -> Array:
    """CR1."""
    n, p = x_NP.shape
    groups = len(member_GN)
    score_GP = member_GN @ (x_NP * residual_N[:, None])
    correction = groups / (groups - 1) * (n - 1) / (n - p)
    return bread_PP @ (score_GP.T @ score_GP) @ bread_PP * correction


def wild_weights(clusters: int, draws: int, seed: int = 0) -> Array:
    """R x G of Webb's weights: all combinations where there are no more than `draws`, else drawn."""
    if len(WEBB) ** clusters <= draws:
        return np.array(list(product(WEBB, repeat=clusters)))
    rng = np.random.default_rng(seed)
    return np.array(WEBB)[rng.integers(0, len(WEBB), (draws, clusters))]


def wild_p(x_NP: Array, y_N: Array, member_GN: Array, place: int, weights_RG: Array) -> float:
    """P-value of "this coefficient is 0": the share of draws whose |t| is at least the observed."""
    bread = np.linalg.inv(x_NP.T @ x_NP)
    others = np.delete(x_NP, place, axis=1)
    restricted = others @ np.linalg.lstsq(others, y_N, rcond=None)[0] if others.size else np.zeros_like(y_N)
    drawn_RN = restricted + (weights_RG @ member_GN) * (y_N - restricted)
    every_RN = np.vstack([y_N, drawn_RN])
    project_PN = bread @ x_NP.T
    coefficient_RP = every_RN @ project_PN.T
    residual_RN = every_RN - coefficient_RP @ x_NP.T
    # the clustered variance of one coefficient: the sum over clusters of its squared influence
    influence_RG = (residual_RN * project_PN[place]) @ member_GN.T
    with np.errstate(divide="ignore", invalid="ignore"):
        t_R = np.abs(coefficient_RP[:, place]) / np.sqrt((influence_RG**2).sum(axis=1))
    observed, drawn = t_R[0], t_R[1:]
    if not np.isfinite(observed):
        return math.nan
    return float(np.mean(~(drawn < observed * (1 - _TIE))))


def wald_p(fit: Fit, contrast_P: Array) -> tuple[float, float, float]:
    """(value, error, p) of a sum of coefficients: CR1 and t with G - 1; classical for few clusters."""
    value = float(contrast_P @ fit.coefficient_P)
    error = math.sqrt(max(float(contrast_P @ fit.covariance_PP @ contrast_P), 0.0))
    freedom = fit.clusters - 1 if fit.clusters >= _FEWEST_CLUSTERS else fit.n - len(fit.names)
    return value, error, float(t_tests(np.array(value / error if error else math.nan), freedom))
