"""Methods against independent oracles: scipy, statsmodels, matrices, counting of all cases."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint

from tsugiki.errors import DataError
from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS
from tsugiki.evaluation.statistics.averages import average_estimates, task_draws
from tsugiki.evaluation.statistics.corpus_scores import corpus_cluster_sums, corpus_draws, corpus_estimates
from tsugiki.evaluation.statistics.estimates import (
    ClusterSums,
    benjamini_hochberg,
    cluster_sums,
    holm,
    mcnemar_exact,
    resampled_sums,
)
from tsugiki.evaluation.statistics.freedom import (
    carrying_clusters,
    concentration_degrees,
    correlated_degrees,
    correlation_within,
    satterthwaite_degrees,
)
from tsugiki.evaluation.statistics.means import clt_estimates, mean_estimates, robust_means, share_estimates
from tsugiki.evaluation.statistics.paired import (
    answer_differences,
    mcnemar_clustered,
    mcnemar_mid_p,
    tango_interval,
)
from tsugiki.evaluation.statistics.power import (
    detectable_difference,
    more_items,
    paired_variance,
    power_of,
    required_items,
)
from tsugiki.student import t_quantile, t_quantiles, t_tests, t_two_sided


def singles(values):
    values = np.asarray(values, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    return ClusterSums(values, np.ones(len(values)))


@pytest.mark.parametrize("degrees", [0.7, 1, 2.5, 9.3, 56, 1000.5, 9e5])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.9995])
def test_t_quantile_and_tail_equal_scipy(degrees, probability):
    quantile = stats.t.ppf(probability, degrees)
    assert t_quantile(probability, degrees) == pytest.approx(quantile, rel=1e-7)
    assert t_two_sided(-quantile, degrees) == pytest.approx(2 * stats.t.sf(quantile, degrees), rel=1e-8)


def test_t_of_arrays_is_that_of_each_and_that_of_the_tables():
    degrees = np.array([[4.0, 0.0], [1e9, math.inf]])
    assert t_quantiles(0.975, degrees) == pytest.approx(
        np.array([[2.7764, math.inf], [1.96, 1.96]]), abs=5e-4
    )
    assert t_tests(np.array([2.7764, math.nan]), 4.0) == pytest.approx(
        [0.05, math.nan], abs=5e-5, nan_ok=True
    )


def test_t_without_degrees_claims_nothing_and_with_many_is_normal():
    assert (t_quantile(0.975, 0), t_two_sided(9.0, 0)) == (math.inf, 1.0)
    assert t_quantile(0.975, 1e7) == pytest.approx(1.959964, abs=1e-6)
    assert t_two_sided(1.959964, 1e7) == pytest.approx(0.05, abs=1e-6)


@given(st.lists(st.tuples(st.integers(1, 6), st.floats(-3, 3)), min_size=2, max_size=12))
def test_robust_error_and_degrees_equal_bell_and_mccaffreys_matrices(clusters):
    """CR2 with its matrices: A_g = (I - H_gg)^(-1/2), degrees from the eigenvalues of G'G."""
    generator = np.random.default_rng(0)
    sizes = np.array([size for size, _ in clusters])
    index = np.repeat(np.arange(len(sizes)), sizes)
    values = np.array([shift for _, shift in clusters])[index] + generator.normal(size=len(index))
    n = len(index)
    residual_maker = np.eye(n) - np.full((n, n), 1 / n)
    residuals, columns, variance = residual_maker @ values, [], 0.0
    for cluster in range(len(sizes)):
        member = index == cluster
        eigenvalues, vectors = np.linalg.eigh(residual_maker[np.ix_(member, member)])
        root = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T
        columns.append(residual_maker[:, member] @ root @ np.ones(member.sum()) / n)
        variance += (np.ones(member.sum()) @ root @ residuals[member] / n) ** 2
    eigenvalues = np.linalg.eigvalsh(np.array(columns) @ np.array(columns).T)
    sums = cluster_sums(values, np.ones(n), [f"{c:03}" for c in index])
    assert robust_means(sums).error_M[0] == pytest.approx(math.sqrt(variance), rel=1e-6, abs=1e-12)
    expected = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    assert satterthwaite_degrees(sizes / n) == pytest.approx(expected, rel=1e-6)
    assert correlated_degrees(sizes.astype(float), np.zeros(1))[0] == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=15), st.floats(0, 1))
def test_correlated_degrees_equal_the_traces_of_the_whole_matrix(sizes, correlation):
    n = np.array(sizes, dtype=float)
    w = n / n.sum()
    residual_maker = np.eye(len(n)) - np.outer(w, np.ones(len(n)))
    covariance = residual_maker @ np.diag(n * (1 + correlation * (n - 1))) @ residual_maker.T
    form = np.diag(1 / (1 - w)) @ covariance
    expected = np.trace(form) ** 2 / np.trace(form @ form)
    assert correlated_degrees(n, np.array([correlation]))[0] == pytest.approx(expected, rel=1e-6)


def test_concentration_degrees_are_many_for_normal_clusters_and_two_a_cluster_that_carries_the_spread():
    normal = np.random.default_rng(0).normal(size=(4000, 1))
    assert concentration_degrees(normal)[0] == pytest.approx(4000, rel=0.15)
    few = np.zeros((4000, 2))
    few[:8, 0], few[:1, 1] = 1.0, 1.0
    eight, one = concentration_degrees(few)
    assert (eight, one) == (pytest.approx(2 * 8 - 3, abs=0.1), 1.0)
    assert concentration_degrees(np.zeros((5, 1)))[0] == 1.0
    found = carrying_clusters(ClusterSums(few, np.full(4000, 10.0)), np.zeros(2))
    assert found == pytest.approx([8, 1])


def test_correlation_within_is_that_of_the_simulation_and_one_where_items_are_unknown():
    generator = np.random.default_rng(1)
    for correlation in (0.0, 0.2, 0.7):
        shared = generator.normal(0, math.sqrt(correlation), 3000)
        values = np.repeat(shared, 5) + generator.normal(0, math.sqrt(1 - correlation), 15_000)
        sums = cluster_sums(values, np.ones(15_000), np.repeat([f"{i:04}" for i in range(3000)], 5))
        robust = robust_means(sums)
        found = correlation_within(sums, robust.value_M, robust.error_M)
        assert found[0] == pytest.approx(correlation, abs=0.04)
        unknown = ClusterSums(sums.numerator_CM, sums.denominator_C)
        assert correlation_within(unknown, robust.value_M, robust.error_M)[0] == 1.0


def test_satterthwaite_degrees_equal_clusters_is_one_less_and_unequal_fewer():
    assert satterthwaite_degrees(np.full(8, 1 / 8)) == pytest.approx(7)
    assert satterthwaite_degrees(np.array([0.9, 0.05, 0.05])) < 1.6


def test_clt_of_independent_scores_equals_scipys_t_interval_and_test():
    scores = np.random.default_rng(2).normal(0.1, 1, 25)
    [one] = clt_estimates(singles(scores))
    expected = stats.ttest_1samp(scores, 0)
    low, high = expected.confidence_interval(0.95)
    assert (one.low, one.high, one.p) == pytest.approx((low, high, expected.pvalue))
    assert (one.method, one.degrees) == ("CLT", pytest.approx(24))


@pytest.mark.parametrize(("right", "items"), [(0, 12), (3, 40), (100, 120), (12, 12)])
def test_shares_of_independent_items_equal_statsmodels_wilson(right, items):
    [one] = share_estimates(singles(np.arange(items) < right))
    low, high = proportion_confint(right, items, method="wilson")
    assert (one.low, one.high) == pytest.approx((low, high), abs=1e-12)
    assert one.method == "Wilson"


def test_shares_of_copied_items_count_them_once():
    """Three copies of every item in its cluster say no more than the item."""
    right = (np.arange(80) % 4 == 0).astype(float)
    [once] = share_estimates(singles(right))
    copied = cluster_sums(np.repeat(right, 3), np.ones(240), np.repeat([f"{i:02}" for i in range(80)], 3))
    [clustered] = share_estimates(copied)
    assert clustered.method == "Wilson, effective items"
    assert (clustered.low, clustered.high) == pytest.approx((once.low, once.high), abs=0.004)


def test_mean_of_skewed_scores_has_fewer_degrees_and_the_longer_side_to_the_middle():
    skewed = (np.arange(60) < 2) * 0.7
    even = np.random.default_rng(0).random(60)
    one, other = mean_estimates(singles(np.stack([skewed, even], axis=1)))
    assert (one.degrees, other.degrees) == (pytest.approx(1.439, abs=0.001), 59)
    assert 0 < one.low < one.value < one.high < 1
    assert one.high - one.value > 3 * (one.value - one.low)
    [plain] = clt_estimates(singles(even))
    assert (other.low, other.high) == (
        pytest.approx(plain.low, abs=0.003),
        pytest.approx(plain.high, abs=0.003),
    )


def test_mean_of_equal_scores_counts_clusters_and_unequal_ones_as_fewer():
    [same] = mean_estimates(singles(np.full(12, 1.0)))
    assert (same.low, same.high) == pytest.approx(proportion_confint(12, 12, method="wilson"))
    unequal = ClusterSums(np.array([[90.0], [5.0], [5.0]]), np.array([90.0, 5.0, 5.0]))
    [few] = share_estimates(unequal)
    assert few.low < proportion_confint(3, 3, method="wilson")[0]


@given(st.integers(0, 12), st.integers(0, 12))
def test_clustered_mcnemar_of_single_items_is_mcnemar_and_statsmodels(lost, won):
    differences = [-1] * lost + [1] * won + [0] * 3
    p = mcnemar_clustered(differences)
    assert p == pytest.approx(mcnemar_exact(lost, won))
    if lost + won:
        assert p == pytest.approx(min(1.0, mcnemar([[5, lost], [won, 5]], exact=True).pvalue))


@given(st.lists(st.integers(-7, 7), min_size=1, max_size=10))
def test_clustered_mcnemar_counts_all_signs(differences):
    observed = abs(sum(differences))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
            for signs in product((1, -1), repeat=len(differences))]  # fmt: skip
    assert mcnemar_clustered(differences) == pytest.approx(np.mean([one >= observed for one in sums]))


def test_clustered_mcnemar_many_clusters_agrees_with_obuchowski():
    differences = np.random.default_rng(2).integers(-4, 6, 400)
    statistic = differences.sum() / math.sqrt((differences**2).sum())
    assert mcnemar_clustered(differences) == pytest.approx(2 * stats.norm.sf(abs(statistic)), rel=0.2)


def test_clustered_mcnemar_too_large_to_count_uses_the_normal_one(monkeypatch):
    differences = np.random.default_rng(2).integers(-4, 6, 400)
    exact = mcnemar_clustered(differences)
    monkeypatch.setattr("tsugiki.evaluation.statistics.paired._COUNTED", 10.0)
    assert mcnemar_clustered(differences) == pytest.approx(exact, rel=0.1)


def test_answer_differences_without_any_discordant_item_keep_a_width():
    for sums in (singles(np.zeros(30)), ClusterSums(np.zeros((10, 1)), np.full(10, 3.0))):
        [one] = answer_differences(sums)
        assert (one.value, one.p) == (0, 1)
        assert -0.35 < one.low < 0 < one.high < 0.35


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 12))
def test_mid_p_mcnemar_of_items_is_the_binomial_one(lost, won):
    """Fagerland, Lydersen and Laake: the exact p-value less the chance of the counts themselves."""
    expected = 1.0
    if lost != won:
        expected = mcnemar_exact(lost, won) - stats.binom.pmf(won, won + lost, 0.5)
    assert mcnemar_mid_p(won, lost) == pytest.approx(expected)
    [one] = answer_differences(singles([-1.0] * lost + [1.0] * won + [0.0] * 3))
    assert (one.p, one.method) == (pytest.approx(expected), "mid-p McNemar")


def test_tangos_interval_equals_published_examples_and_its_score_test():
    # Tango 1998, table III: 44 pairs, 1 against 0 discordant; and the score at an end is the quantile
    low, high = tango_interval(np.array([1.0]), np.array([0.0]), 44, 1.959964)
    assert (low[0], high[0]) == (pytest.approx(-0.0600, abs=2e-3), pytest.approx(0.1185, abs=2e-3))
    statistic = (9 - 2) / math.sqrt(9 + 2)  # at a difference of 0 the score test is McNemar's
    low, _ = tango_interval(np.array([9.0]), np.array([2.0]), 50, statistic)
    assert low[0] == pytest.approx(0.0, abs=1e-9)
    low, high = tango_interval(np.array([0.0]), np.array([0.0]), 30, 1.959964)
    assert -low[0] == pytest.approx(high[0])
    assert high[0] == pytest.approx(1.959964**2 / (30 + 1.959964**2), abs=1e-6)


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=15))
def test_benjamini_hochberg_equals_scipy(p_values):
    assert benjamini_hochberg(p_values) == pytest.approx(stats.false_discovery_control(p_values))


def test_adjustments_equal_statsmodels():
    p_values = np.random.default_rng(0).random(19) ** 3
    assert holm(list(p_values)) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert benjamini_hochberg(list(p_values)) == pytest.approx(multipletests(p_values, method="fdr_bh")[1])


@pytest.mark.parametrize(
    ("task", "items", "half_width", "unpaired", "paired"),
    [  # worst case, p = 0.5 and correlation 0.5, in points of 100; the table's own rounding is to 0.06
        ("JEMHopQA", 120, 9.0, 18.1, 12.8),
        ("HumanEval", 164, 7.7, 15.5, 10.9),
        ("NIILC", 198, 7.0, 14.1, 10.0),
        ("MGSM", 250, 6.2, 12.5, 8.9),
        ("OpenBookQA", 500, 4.4, 8.9, 6.3),
        ("JCom", 1119, 2.9, 5.9, 4.2),
        ("GSM8K", 1319, 2.7, 5.5, 3.9),
        ("XWINO", 2325, 2.0, 4.1, 2.9),
        ("JMMLU half", 3541, 1.7, 3.3, 2.4),
        ("JSQuAD", 4442, 1.5, 3.0, 2.1),
        ("BBH", 6511, 1.2, 2.5, 1.7),
        ("HellaSwag", 10042, 1.0, 2.0, 1.4),
        ("SQuAD2", 11873, 0.9, 1.8, 1.3),
        ("MMLU", 14042, 0.8, 1.7, 1.2),
        ("TriviaQA", 17944, 0.7, 1.5, 1.1),
    ],
)
def test_power_what_the_tasks_can_resolve_is_the_published_table(task, items, half_width, unpaired, paired):
    assert 100 * 1.959964 * math.sqrt(0.25 / items) == pytest.approx(half_width, abs=0.06), task
    assert 100 * detectable_difference(items, paired_variance(0.25, 0.25, 0.0)) == pytest.approx(
        unpaired, abs=0.06
    )
    assert 100 * detectable_difference(items, paired_variance(0.25, 0.25, 0.5)) == pytest.approx(
        paired, abs=0.06
    )


def test_power_millers_worked_example_needs_969_items():
    assert required_items(0.03, 1 / 9) == 969
    assert required_items(0.03, 1 / 9 + 0.1 / 4 + 0.1 / 4) > 969


def test_power_is_that_of_statsmodels():
    expected = NormalIndPower(ddof=0).power(0.05 / 0.4, 500, 0.05, ratio=0)
    assert power_of(0.05, 0.4 / math.sqrt(500)) == pytest.approx(expected, abs=1e-9)
    assert power_of(0.05, 0.0) == 1.0
    assert power_of(0.05, math.inf) is None


def test_power_as_many_items_as_needed_find_the_difference():
    needed = more_items(120, 0.03, 0.05)
    assert power_of(0.05, 0.03 * math.sqrt(120 / needed)) == pytest.approx(0.8, abs=0.003)
    assert more_items(120, math.inf, 0.05) is None


@pytest.mark.parametrize(("difference", "power"), [(0.0, 0.8), (math.nan, 0.8), (0.05, 1.0)])
def test_power_impossible_plan_raises(difference, power):
    with pytest.raises(DataError):
        required_items(difference, 0.1, power=power)


def test_resampled_sums_of_few_kinds_have_the_moments_of_plain_resampling():
    values = (np.arange(300) % 3 == 0).astype(float)[:, None]
    drawn = resampled_sums(values, draws=20_000, seed=1)[:, 0]
    assert drawn.mean() == pytest.approx(100, abs=0.3)
    assert drawn.std() == pytest.approx(math.sqrt(300 * (1 / 3) * (2 / 3)), rel=0.02)


def test_corpus_scores_of_a_ratio_equal_the_delta_method():
    """A ratio of sums has a closed-form error (Cochran), and its bootstrap is that of `statistics`."""
    generator = np.random.default_rng(0)
    y = generator.integers(1, 9, (60, 1)).astype(float) * np.ones((1, 2))
    x = y * generator.random((60, 2))
    sums = corpus_cluster_sums(np.stack([x, y], axis=2), [str(i) for i in range(60)])
    metric = CORPUS_METRICS["ratio"]
    value, error, _, _ = corpus_draws(metric.value, sums, [(0, 1)], draws=10, seed=0)
    ratio = x.sum(axis=0) / y.sum(axis=0)
    assert value[:2] == pytest.approx(ratio)
    assert value[2] == pytest.approx(ratio[1] - ratio[0])
    residual = x - ratio * y
    residual = np.concatenate([residual, (residual[:, 1] - residual[:, 0])[:, None]], axis=1)
    expected = np.sqrt(60 / 59 * (residual**2).sum(axis=0)) / y[:, 0].sum()
    assert error == pytest.approx(expected, rel=1e-5)


def test_corpus_scores_of_bleu_equal_the_metric_and_its_resampled_spread():
    generator = np.random.default_rng(3)
    metric = CORPUS_METRICS["bleu"]
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "looked", "at", "its", "own", "long", "tail"]
    texts = [" ".join(generator.permutation(words)) for _ in range(80)]
    answers = [
        [" ".join(w for w in t.split() if generator.random() > cut) for t in texts] for cut in (0.1, 0.2)
    ]
    sums_IMS = np.array([[metric.sums(a[i], [t]) for a in answers] for i, t in enumerate(texts)])
    sums = corpus_cluster_sums(sums_IMS, [f"{i:02}" for i in range(80)])
    models, [pair] = corpus_estimates(metric.value, sums, [(0, 1)], draws=400)
    assert [one.value for one in models] == pytest.approx(metric.value(sums_IMS.sum(axis=0)))
    assert pair.value == pytest.approx(models[1].value - models[0].value)
    _, error, drawn, _ = corpus_draws(metric.value, sums, [(0, 1)], draws=2000, seed=5)
    assert error == pytest.approx(drawn.std(axis=0), rel=0.1)
    assert pair.low < pair.value < pair.high < 0
    assert pair.p < 0.01


def test_corpus_scores_missing_sums_raise():
    with pytest.raises(DataError, match="sums"):
        corpus_cluster_sums([[[1.0, math.nan]]], ["a"])


def test_averages_of_independent_tasks_have_the_pooled_error():
    generator = np.random.default_rng(4)
    tasks = [singles(generator.random((n, 2))) for n in (50, 200, 400)]
    draws = [task_draws(one, [(0, 1)], draws=800, seed=i) for i, one in enumerate(tasks)]
    first, _, pair = average_estimates(draws)
    means = [one.numerator_CM.mean(axis=0) for one in tasks]
    assert first.value == pytest.approx(np.mean([m[0] for m in means]))
    assert pair.value == pytest.approx(np.mean([m[1] - m[0] for m in means]))
    error = math.sqrt(sum(one.numerator_CM[:, 0].var(ddof=1) / len(one) for one in tasks)) / 3
    assert first.standard_error == pytest.approx(error, rel=0.1)
    assert first.high - first.value == pytest.approx(1.96 * error, rel=0.15)
