"""Components, rotations, imputation, correlations: by definition, and against statsmodels and numpy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.multivariate.factor_rotation import rotate_factors

from tsugiki.errors import DataError, InputError
from tsugiki.study.analysis import Asked, study_factors
from tsugiki.study.correlations import correlations, fisher_interval, pearson
from tsugiki.study.factors import bootstrap, parallel_analysis, principal_components
from tsugiki.study.imputation import impute
from tsugiki.study.rotation import promax, rotate, varimax
from tsugiki.study.table import ScoreTable


def planted(models=60, benchmarks=9, factors=2, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((factors, benchmarks))
    return rng.standard_normal((models, factors)) @ weights + noise * rng.standard_normal(
        (models, benchmarks)
    )


def test_principal_components_are_those_of_the_singular_values() -> None:
    scores = planted()
    z = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    _, values, right = np.linalg.svd(z, full_matrices=False)
    found = principal_components(scores)
    assert found.eigenvalues_B == pytest.approx(values**2 / len(z), abs=1e-10)
    assert np.abs((found.vectors_BK * right.T).sum(axis=0)) == pytest.approx(np.ones(9), abs=1e-9)
    for k in range(3):
        assert found.loadings_BK[4, k] == pytest.approx(
            np.corrcoef(scores[:, 4], found.scores_MK[:, k])[0, 1]
        )
    assert (found.loadings_BK.sum(axis=0) >= 0).all()
    assert found.rebuilt(9) == pytest.approx(scores)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-5, 5))
def test_principal_components_know_nothing_of_units(seed, factor, shift) -> None:
    scores = planted(20, 5, seed=seed)
    moved = scores.copy()
    moved[:, 1] = moved[:, 1] * factor + shift
    one, other = principal_components(scores), principal_components(moved)
    assert other.eigenvalues_B == pytest.approx(one.eigenvalues_B, abs=1e-8)


def test_principal_components_of_fewer_models_than_benchmarks() -> None:
    found = principal_components(planted(5, 9))
    assert found.eigenvalues_B[4:] == pytest.approx(np.zeros(5), abs=1e-12)
    assert found.explained_B.sum() == pytest.approx(1)


def test_parallel_analysis_counts_planted_factors() -> None:
    for factors in (1, 2, 3):
        scores = planted(80, 12, factors, seed=factors)
        assert parallel_analysis(80, principal_components(scores).eigenvalues_B, draws=200).kept == factors
    noise = np.random.default_rng(9).standard_normal((80, 12))
    assert parallel_analysis(80, principal_components(noise).eigenvalues_B, draws=200).kept == 0


def test_bootstrap_is_the_same_again_and_matches_swapped_components() -> None:
    """Two factors of equal strength swap places between draws; matched, their directions are still told."""
    rng = np.random.default_rng(0)
    strength = rng.standard_normal((50, 2))
    scores = np.repeat(strength, 4, axis=1) + 0.4 * rng.standard_normal((50, 8))
    found = principal_components(scores)
    one, again = (bootstrap(scores, found, 2, draws=300, seed=4) for _ in range(2))
    assert np.array_equal(one.cosine_low_K, again.cosine_low_K)
    assert (one.cosine_median_K > 0.7).all()
    assert (one.loading_low_BK <= one.loading_high_BK).all()


def test_bootstrap_leaves_out_draws_without_spread_and_counts_them() -> None:
    scores = planted(6, 3)
    scores[:, 0] = [0, 0, 0, 0, 0, 1]
    stable = bootstrap(scores, principal_components(scores), 1, draws=400)
    # a draw without the sixth model, or with it alone: (5/6)^6 = 0.335
    assert stable.left_out / 400 == pytest.approx(0.335, abs=0.08)


def test_varimax_is_that_of_statsmodels() -> None:
    loadings = principal_components(planted()).loadings_BK[:, :2]
    length = np.sqrt((loadings**2).sum(axis=1, keepdims=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, _ = rotate_factors(loadings / length, "varimax", max_tries=300, tol=1e-8)
    ours, turn = varimax(loadings)
    assert turn.T @ turn == pytest.approx(np.eye(2), abs=1e-10)
    overlap = np.abs((ours / length).T @ expected)
    norms = np.sqrt(((ours / length) ** 2).sum(axis=0))
    assert (overlap / norms[:, None] / np.sqrt((expected**2).sum(axis=0))).max(axis=1) == pytest.approx(
        np.ones(2), abs=1e-5
    )


def test_promax_finds_factors_that_correlate() -> None:
    rng = np.random.default_rng(1)
    common = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 4000)
    scores = np.repeat(common, 5, axis=1) + 0.5 * rng.standard_normal((4000, 10))
    found = principal_components(scores)
    turned = rotate("promax", found.loadings_BK[:, :2], found.scores_MK[:, :2])
    assert turned.factors_KK[0, 1] == pytest.approx(0.5, abs=0.08)
    # simple structure: each benchmark on one factor alone
    assert np.sort(np.abs(turned.loadings_BK), axis=1)[:, 0].max() < 0.08
    assert np.corrcoef(turned.scores_MK.T)[0, 1] == pytest.approx(turned.factors_KK[0, 1], abs=1e-6)
    assert turned.scores_MK.std(axis=0) == pytest.approx([1, 1])
    pattern, whole, correlated = promax(found.loadings_BK[:, :2])
    # pattern x correlations x pattern' is what the components gave, whatever the rotation
    assert pattern @ correlated @ pattern.T == pytest.approx(
        found.loadings_BK[:, :2] @ found.loadings_BK[:, :2].T, abs=1e-9
    )
    assert found.loadings_BK[:, :2] @ whole == pytest.approx(pattern)


def test_varimax_scores_stay_uncorrelated() -> None:
    found = principal_components(planted())
    turned = rotate("varimax", found.loadings_BK[:, :2], found.scores_MK[:, :2])
    assert np.corrcoef(turned.scores_MK.T)[0, 1] == pytest.approx(0, abs=1e-9)
    assert turned.variance_K.sum() == pytest.approx(found.explained_B[:2].sum())
    with pytest.raises(DataError, match="can't be rotated"):
        rotate("varimax", found.loadings_BK[:, :1], found.scores_MK[:, :1])


def test_impute_gives_a_planted_factor_back() -> None:
    rng = np.random.default_rng(2)
    whole = rng.standard_normal((40, 1)) @ rng.uniform(0.5, 2, (1, 8)) + 1.0
    gaps = rng.random(whole.shape) < 0.1
    found = impute(np.where(gaps, np.nan, whole))
    assert found.settled
    assert np.array_equal(found.filled_MB, gaps)
    assert np.array_equal(found.scores_MB[~gaps], whole[~gaps])
    assert np.abs((found.scores_MB - whole)[gaps]).max() < 0.02
    mean_error = np.abs((np.nanmean(np.where(gaps, np.nan, whole), axis=0) - whole)[gaps]).mean()
    assert np.abs((found.scores_MB - whole)[gaps]).mean() < 0.02 * mean_error


def test_impute_refuses_a_benchmark_that_most_models_lack() -> None:
    scores = planted(10, 4)
    scores[:6, 2] = np.nan
    with pytest.raises(DataError, match="more than half"):
        impute(scores)


def test_study_says_every_cell_that_it_fills_in() -> None:
    scores = 1 / (1 + np.exp(-planted(12, 5)))
    scores[3, 2] = scores[7, 0] = np.nan
    table = ScoreTable(tuple(f"m{i}" for i in range(12)), tuple("abcde"), scores)
    found = study_factors(table, Asked(draws=20, noise_draws=20))
    said = [
        (one.kind, one.model, one.benchmark) for one in found.findings if one.kind in {"imputed", "missing"}
    ]
    assert set(said) == {
        ("missing", "m3", "c"),
        ("missing", "m7", "a"),
        ("imputed", "m3", "c"),
        ("imputed", "m7", "a"),
    }
    # correlations are of scores that were there
    assert found.correlations.pair("c", "a")[3] == 10
    assert np.isnan(table.scores_MB[3, 2])


def test_correlations_are_those_of_numpy() -> None:
    scores = planted(15, 4)
    table = ScoreTable(tuple(f"m{i}" for i in range(15)), tuple("abcd"), scores)
    assert correlations(table).r_BB == pytest.approx(np.corrcoef(scores.T))
    assert pearson(np.ones(5), np.arange(5.0))[0] != pearson(np.ones(5), np.arange(5.0))[0]  # NaN


def test_fisher_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth, inside = 0.6, 0
    for _ in range(2000):
        x, y = rng.multivariate_normal([0, 0], [[1, truth], [truth, 1]], 20).T
        low, high = fisher_interval(pearson(x, y)[0], 20)
        inside += low <= truth <= high
    assert inside / 2000 == pytest.approx(0.95, abs=0.015)
    assert all(np.isnan(fisher_interval(0.5, 3)))
    assert fisher_interval(1.0, 30) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("asked", "said"),
    [(Asked(components=99), "99 components"), (Asked(components=-1), "components"),
     (Asked(confidence=1.5), "confidence"),
     (Asked(resample="families"), "families are not known"), (Asked(draws=0), "draws have to be")],
)  # fmt: skip
def test_study_refuses_what_does_not_fit_the_table(table, asked, said) -> None:
    with pytest.raises(InputError, match=said):
        study_factors(table, asked)
