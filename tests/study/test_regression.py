"""Least squares against statsmodels; the wild bootstrap against its definition; its level by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import statsmodels.api as sm

from tsugiki.errors import DataError
from tsugiki.study.regression import (
    WEBB,
    clustered_covariance,
    least_squares,
    wald_p,
    wild_p,
    wild_weights,
)


def data(seed, n=24, clusters=6, predictors=2, effect=0.0):
    rng = np.random.default_rng(seed)
    names = [f"family {one}" for one in rng.integers(0, clusters, n - clusters)] + [
        f"family {one}" for one in range(clusters)
    ]
    codes = np.array([int(name.split()[1]) for name in names])
    x = np.column_stack(
        [np.ones(n), rng.standard_normal((n, predictors)) + 2 * rng.standard_normal(clusters)[codes, None]]
    )
    y = (
        x @ np.array([0.3, effect, *[0.5] * (predictors - 1)])
        + rng.standard_normal(clusters)[codes]
        + rng.standard_normal(n)
    )
    return x, y, names


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_is_that_of_statsmodels(seed) -> None:
    x, y, clusters = data(seed)
    ours = least_squares(("constant", "a", "b"), x, y, clusters, wild_draws=0)
    plain = sm.OLS(y, x).fit()
    assert ours.coefficient_P == pytest.approx(plain.params, rel=1e-9)
    assert ours.error_P == pytest.approx(plain.bse, rel=1e-9)
    assert ours.p_P == pytest.approx(plain.pvalues, rel=1e-8)
    assert ours.r2 == pytest.approx(plain.rsquared, rel=1e-9)
    codes = np.unique(clusters, return_inverse=True)[1]
    robust = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    assert ours.clustered_P == pytest.approx(robust.bse, rel=1e-9)
    assert ours.clustered_p_P == pytest.approx(robust.pvalues, rel=1e-8)
    assert ours.clusters == 6
    test = robust.t_test(np.array([0.0, 1.0, -1.0]))
    value, error, p = wald_p(ours, np.array([0.0, 1.0, -1.0]))
    assert (value, error, p) == pytest.approx(
        (float(test.effect[0]), float(np.ravel(test.sd)[0]), float(np.ravel(test.pvalue)[0])), rel=1e-8
    )


def test_wild_p_is_that_of_its_definition() -> None:
    """Cameron, Gelbach and Miller (2008), written out draw by draw."""
    x, y, names = data(3, n=12, clusters=4)
    labels = list(dict.fromkeys(names))
    member = np.array([[float(one == label) for one in names] for label in labels])
    bread = np.linalg.inv(x.T @ x)

    def t_of(outcome, place):
        beta = bread @ x.T @ outcome
        covariance = clustered_covariance(x, outcome - x @ beta, member, bread)
        return abs(beta[place]) / np.sqrt(covariance[place, place])

    others = np.delete(x, 1, axis=1)
    fitted = others @ np.linalg.solve(others.T @ others, others.T @ y)
    draws = [
        t_of(fitted + (np.array(weights) @ member) * (y - fitted), 1)
        for weights in itertools.product(WEBB, repeat=4)
    ]
    expected = np.mean(np.array(draws) >= t_of(y, 1) * (1 - 1e-9))
    assert wild_p(x, y, member, 1, wild_weights(4, 9999)) == pytest.approx(expected, abs=1e-12)


def test_wild_weights_are_all_combinations_where_these_are_few() -> None:
    few = wild_weights(4, 9999)
    assert few.shape == (6**4, 4)
    assert len(np.unique(few, axis=0)) == 6**4
    many = wild_weights(12, 999, seed=1)
    assert many.shape == (999, 12)
    assert np.array_equal(many, wild_weights(12, 999, seed=1))
    assert (few**2).mean() == pytest.approx(1)
    assert few.mean() == pytest.approx(0, abs=1e-12)


def test_wild_bootstrap_holds_its_level_where_clustered_errors_do_not() -> None:
    """Six clusters of unequal size with effects of their own, no effect of the predictor, 300 tables."""
    trials = 300
    rejected = np.zeros(3)
    for seed in range(trials):
        x, y, clusters = data(1000 + seed, predictors=1)
        fit = least_squares(("constant", "a"), x, y, clusters, wild_draws=399, seed=seed)
        rejected += [fit.p_P[1] < 0.05, fit.clustered_p_P[1] < 0.05, fit.wild_p_P[1] < 0.05]
    classical, clustered, wild = rejected / trials
    assert classical > 0.15  # kin taken for independent: three times too many findings
    assert wild < clustered
    assert wild < 0.09  # 5 % and three standard errors of 300 tables


def test_wild_bootstrap_finds_a_large_effect() -> None:
    x, y, clusters = data(5, n=40, clusters=8, predictors=1, effect=5.0)
    assert least_squares(("constant", "a"), x, y, clusters).wild_p_P[1] < 0.02


@pytest.mark.parametrize("clusters", [["a"] * 24, ["a", "b"] * 12])
def test_least_squares_of_one_or_two_families_has_no_clustered_errors(clusters) -> None:
    x, y, _ = data(0)
    fit = least_squares(("constant", "a", "b"), x, y, clusters)
    assert np.isnan(fit.clustered_P).all()
    assert np.isnan(fit.wild_p_P).all()
    assert np.isfinite(fit.error_P).all()


def test_least_squares_refuses_predictors_that_say_the_same() -> None:
    x, y, clusters = data(0)
    x[:, 2] = 3 * x[:, 1] + 1
    with pytest.raises(DataError, match="say the same of these 24 models"):
        least_squares(("constant", "a", "b"), x, y, clusters)
    with pytest.raises(DataError, match="3 models for 3 coefficients"):
        least_squares(("constant", "a", "b"), x[:3], y[:3], clusters[:3])
