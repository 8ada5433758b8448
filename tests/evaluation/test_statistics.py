"""Statistics against hand-computed oracles, and simulations of what intervals and tests promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.errors import DataError
from tsugiki.evaluation.statistics.estimates import (
    bootstrap_estimates,
    cluster_bootstrap,
    cluster_sums,
    holm,
    linearised_standard_error,
    mcnemar_exact,
    minimum_detectable_difference,
    paired_differences,
    ratio_of_sums,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # by hand from Wilson's formula with z = 1.959964
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 20, 0.0089, 0.2361),
    ],
)
def test_wilson_interval_known_counts_gives_published_ends(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 10), (11, 10), (0, 0)])
def test_wilson_interval_impossible_counts_raises(successes, trials):
    with pytest.raises(DataError, match="impossible"):
        wilson_interval(successes, trials)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 2 / 32), (1, 9, 2 * 11 / 1024), (9, 1, 2 * 11 / 1024)],
)
def test_mcnemar_exact_discordant_counts_equals_binomial_tail(only_first, only_second, p):
    assert mcnemar_exact(only_first, only_second) == pytest.approx(p)


def test_mcnemar_exact_thousands_of_items_stays_a_probability():
    assert 0 < mcnemar_exact(2000, 2300) < 1e-5


def test_holm_textbook_example_adjusts_stepwise():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_any_p_values_keeps_order_and_bounds(p_values):
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_minimum_detectable_difference_unit_error_is_sum_of_quantiles():
    assert minimum_detectable_difference(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-5)
    # Miller 2024, section 5: variance 1/9 of the differences and 969 items resolve 3 points.
    assert minimum_detectable_difference(math.sqrt(1 / 9 / 969)) == pytest.approx(0.03, abs=1e-5)


def test_linearised_standard_error_of_a_mean_equals_sd_over_root_n():
    scores = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    sums = cluster_sums(scores, np.ones(7), [str(i) for i in range(7)])
    assert linearised_standard_error(sums)[0] == pytest.approx(scores.std(ddof=1) / math.sqrt(7))


def test_linearised_standard_error_repeated_items_in_clusters_ignores_copies():
    """Four copies of every item in its cluster are no new information (naive errors would halve)."""
    generator = np.random.default_rng(0)
    scores, names = generator.random(30), [f"c{i}" for i in range(30)]
    once = cluster_sums(scores, np.ones(30), names)
    copied = cluster_sums(np.repeat(scores, 4), np.ones(120), np.repeat(names, 4).tolist())
    assert linearised_standard_error(copied) == pytest.approx(linearised_standard_error(once))


def test_bootstrap_standard_error_agrees_with_delta_method():
    """The error is the draws' standard deviation; over sqrt(draws) it would be 44 times too small."""
    generator = np.random.default_rng(1)
    sizes = generator.integers(50, 150, 200).astype(float)
    bits = sizes * generator.normal(2, 0.3, 200)
    sums = cluster_sums(bits, sizes, [str(i) for i in range(200)])
    [estimate] = bootstrap_estimates(sums, draws=2000)
    assert estimate.standard_error == pytest.approx(linearised_standard_error(sums)[0], rel=0.08)
    assert estimate.low < estimate.value < estimate.high


def test_cluster_bootstrap_same_seed_repeats_and_other_seed_differs():
    sums = cluster_sums(np.arange(12.0), np.ones(12), list("aabbccddeeff"))
    first, again, other = (cluster_bootstrap(sums, draws=50, seed=seed)[0] for seed in (3, 3, 4))
    assert (first == again).all()
    assert not (first == other).all()


def test_cluster_bootstrap_many_clusters_in_blocks_equals_direct_resampling(monkeypatch):
    monkeypatch.setattr("tsugiki.evaluation.statistics.estimates._DRAWS_TIMES_CLUSTERS", 40)
    sums = cluster_sums(np.arange(10.0), np.full(10, 2.0), [str(i) for i in range(10)])
    ratio, error = cluster_bootstrap(sums, draws=11, seed=0)
    generator = np.random.default_rng(0)
    counts = np.concatenate([generator.multinomial(10, [0.1] * 10, size=n) for n in (4, 4, 3)])
    for draw, count in enumerate(counts):
        picked = np.repeat(np.arange(10.0), count)
        assert ratio[draw, 0] == pytest.approx(picked.sum() / 20)
        assert error[draw, 0] == pytest.approx(picked.std(ddof=1) / math.sqrt(10) / 2, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 50), st.integers(1, 500), st.integers(0, 5)), min_size=3, max_size=30),
    st.randoms(use_true_random=False),
)
def test_estimates_item_order_changes_nothing(items, random):
    def estimate(rows):
        bits, sizes, clusters = zip(*rows, strict=True)
        return bootstrap_estimates(cluster_sums(bits, sizes, [str(c) for c in clusters]), draws=20)

    shuffled = random.sample(items, len(items))
    [one], [two] = estimate(items), estimate(shuffled)
    assert two.value == pytest.approx(one.value)
    assert two.standard_error == pytest.approx(one.standard_error, rel=1e-6, abs=1e-9)


@given(
    st.lists(st.tuples(st.floats(0, 1e4), st.integers(1, 10**6)), min_size=1, max_size=20),
    st.lists(st.tuples(st.floats(0, 1e4), st.integers(1, 10**6)), min_size=1, max_size=20),
)
def test_ratio_of_sums_concatenated_items_is_byte_weighted_mean(left, right):
    def value(rows):
        bits, sizes = zip(*rows, strict=True)
        return ratio_of_sums(cluster_sums(bits, sizes, [str(i) for i in range(len(rows))]))[0]

    left_bytes, right_bytes = (sum(size for _, size in rows) for rows in (left, right))
    weighted = (value(left) * left_bytes + value(right) * right_bytes) / (left_bytes + right_bytes)
    assert value(left + right) == pytest.approx(weighted)


def test_paired_differences_constant_shift_has_no_uncertainty_left():
    generator = np.random.default_rng(2)
    base = generator.normal(3, 1, 40)
    sums = cluster_sums(np.stack([base, base - 0.5], axis=1), np.ones(40), [str(i) for i in range(40)])
    [pair] = paired_differences(sums, [(0, 1)], draws=500)
    assert (pair.value, pair.low, pair.high) == pytest.approx((-0.5, -0.5, -0.5))
    assert pair.p == pytest.approx(1 / 501)


def test_paired_differences_equal_models_has_p_one():
    same = np.arange(20.0)
    sums = cluster_sums(np.stack([same, same], axis=1), np.ones(20), [str(i) for i in range(20)])
    [pair] = paired_differences(sums, [(0, 1)], draws=200)
    assert (pair.value, pair.p, pair.standard_error) == (0, 1, 0)


@pytest.mark.parametrize("clusters", [1, 2, 3])
def test_estimates_three_clusters_or_fewer_gives_no_interval_and_no_significance(clusters):
    values = np.array([1.0, 1.2, 1.1])[:clusters]
    [estimate] = bootstrap_estimates(
        cluster_sums(values, np.ones(clusters), list("abc")[:clusters]), draws=2000
    )
    assert math.isinf(estimate.low)
    assert math.isinf(estimate.high)
    assert estimate.p >= 0.25


@pytest.mark.parametrize(
    ("numerator", "denominator", "clusters", "message"),
    [
        ([], [], [], "at least one item"),
        ([1.0], [1.0, 2.0], ["a", "b"], "1 scores, 2 sizes"),
        ([math.nan], [1.0], ["a"], "not finite"),
        ([math.inf], [1.0], ["a"], "not finite"),
        ([1.0], [0.0], ["a"], "size 0"),
    ],
)
def test_cluster_sums_bad_items_raises(numerator, denominator, clusters, message):
    with pytest.raises(DataError, match=message):
        cluster_sums(numerator, denominator, clusters)


def test_estimates_confidence_out_of_range_raises():
    with pytest.raises(DataError, match="confidence"):
        bootstrap_estimates(cluster_sums([1.0], [1.0], ["a"]), confidence=1.5)


def _pages(generator: np.random.Generator, clusters: int, effect: float) -> tuple:
    """Differences in bits of log-normally sized pages; one or two pages a cluster that deviate together."""
    pages = generator.integers(1, 3, clusters)
    cluster = np.repeat(np.arange(clusters), pages)
    sizes = np.exp(generator.normal(8, 1, len(cluster)))
    deviation = generator.normal(0, 0.1, clusters)[cluster] + generator.normal(0, 0.05, len(cluster))
    return sizes * (effect + deviation), sizes, [str(c) for c in cluster]


def _percentile_covers(sums, truth: float) -> bool:
    low, high = np.quantile(cluster_bootstrap(sums, draws=300, seed=0)[0][:, 0], [0.025, 0.975])
    return low <= truth <= high


def test_intervals_simulated_pages_cover_95_percent_where_percentile_ones_do_not():
    generator = np.random.default_rng(5)
    covered = percentile = 0
    repeats = 1000
    for repeat in range(repeats):
        sums = cluster_sums(*_pages(generator, 50, 0.2))
        [estimate] = bootstrap_estimates(sums, draws=300, seed=repeat)
        covered += estimate.low <= 0.2 <= estimate.high
        percentile += _percentile_covers(sums, 0.2)
    assert covered / repeats == pytest.approx(0.95, abs=0.02)
    assert percentile / repeats < 0.93


def test_accuracy_intervals_simulated_clustered_questions_cover_95_percent():
    generator = np.random.default_rng(6)
    covered, repeats = 0, 800
    for repeat in range(repeats):
        questions = generator.integers(1, 4, 60)
        cluster = np.repeat(np.arange(60), questions)
        right = generator.random(len(cluster)) < generator.beta(2, 3, 60)[cluster]
        [estimate] = bootstrap_estimates(
            cluster_sums(right.astype(float), np.ones(len(cluster)), [str(c) for c in cluster]),
            draws=300,
            seed=repeat,
        )
        covered += estimate.low <= 0.4 <= estimate.high
    assert covered / repeats == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("clusters", [15, 60])
def test_paired_test_models_without_difference_is_significant_in_5_percent(clusters):
    generator = np.random.default_rng(clusters)
    repeats = 1000
    p_values = []
    for repeat in range(repeats):
        sums = cluster_sums(*_pages(generator, clusters, 0.0))
        p_values.append(bootstrap_estimates(sums, draws=300, seed=repeat)[0].p)
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.02)


def test_estimates_p_below_level_exactly_where_interval_excludes_zero():
    """The verdict and the interval never disagree (before Holm's adjustment)."""
    generator = np.random.default_rng(9)
    for repeat in range(60):
        sums = cluster_sums(*_pages(generator, 30, 0.04))
        [one] = bootstrap_estimates(sums, draws=999, seed=repeat)
        if abs(one.p - 0.05) > 0.003:
            assert (one.p < 0.05) == (one.low > 0 or one.high < 0)
