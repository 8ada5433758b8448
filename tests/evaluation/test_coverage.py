"""Simulations: intervals cover 95 % +- 1, tests hold their level (benchmarks/interval_coverage.py has more).

Where the exact distribution can be summed over, it is; else thousands of data sets are columns of one call,
so many that 1 point is three standard errors of the simulation or more (0.28 points for 6,000). Intervals of
right or wrong answers in few clusters, or of few discordant answers, can't be exact: there they have to cover
94 % or more, and may cover more than 96. Truths are drawn near the share that is named, as coverage is a
sawtooth in it (Brown, Cai and DasGupta 2001).
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS
from tsugiki.evaluation.statistics.averages import average_estimates, task_draws
from tsugiki.evaluation.statistics.corpus_scores import corpus_estimates
from tsugiki.evaluation.statistics.estimates import ClusterSums, wilson_interval
from tsugiki.evaluation.statistics.means import mean_estimates, score_interval, share_estimates
from tsugiki.evaluation.statistics.paired import answer_differences, mcnemar_clustered, score_differences

REPEATS = 6000
KINDS = ("equal", "geometric")


def sizes_of(kind, clusters, generator):
    """Twenty items in each cluster, or geometric with mean ten (one in ten has more than 20)."""
    return np.full(clusters, 20) if kind == "equal" else generator.geometric(0.1, clusters)


def covered(estimates, truth):
    low, high = np.array([[one.low, one.high] for one in estimates]).T
    return np.mean((low <= truth + 1e-12) & (truth - 1e-12 <= high))


def rejected(estimates):
    return np.mean([one.p < 0.05 for one in estimates])


def singles(values):
    return ClusterSums(np.asarray(values, dtype=float), np.ones(len(values)))


def answers_in_clusters(share, correlation, sizes, generator, repeats=REPEATS):
    """Right answers of each cluster, beta-binomial, and the truths: within a fifth of the share."""
    beyond, near = 1 / correlation - 1, 0.2 * min(share, 1 - share)
    truths = generator.uniform(share - near, share + near, repeats)
    chances = generator.beta(truths * beyond, (1 - truths) * beyond, (len(sizes), repeats))
    right = generator.binomial(sizes[:, None], chances).astype(float)
    return ClusterSums(right, sizes.astype(float)), truths


@pytest.mark.parametrize("items", [20, 60, 120, 500])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.95])
def test_wilson_covers_95_percent_exactly_summed_over_counts(items, share):
    """Averaged over truths near the share: for a single one, coverage is a sawtooth (Brown et al. 2001)."""
    counts = np.arange(items + 1)
    ends = np.array([wilson_interval(int(count), items) for count in counts])
    near = 0.3 * min(share, 1 - share)
    coverage = []
    for truth in np.linspace(share - near, share + near, 101):
        inside = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
        coverage.append(stats.binom.pmf(counts, items, truth)[inside].sum())
    assert np.mean(coverage) == pytest.approx(0.955, abs=0.015 if items > 20 else 0.025)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("clusters", "share"), [(57, 0.5), (200, 0.1), (200, 0.9), (200, 0.5)])
def test_shares_in_many_clusters_cover_95_percent_where_wilson_of_items_does_not(kind, clusters, share):
    generator = np.random.default_rng(clusters)
    sums, truths = answers_in_clusters(share, 0.2, sizes_of(kind, clusters, generator), generator)
    assert covered(share_estimates(sums), truths) == pytest.approx(0.953, abs=0.01)
    items = sums.denominator_C.sum()
    naive = [score_interval(count / items, items, 1.96) for count in sums.numerator_CM.sum(axis=0)[:500]]
    assert np.mean([low <= t <= high for t, (low, high) in zip(truths[:500], naive, strict=True)]) < 0.85


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("correlation", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("clusters", [10, 20, 57])
def test_rare_answers_in_few_clusters_never_cover_less_than_94_percent(clusters, share, correlation, kind):
    """The plain degrees of freedom give 84 to 89 % here: the spread rests on two or three clusters."""
    generator = np.random.default_rng([clusters, round(100 * share), round(10 * correlation)])
    coverage = []
    for _ in range(4):
        sizes = sizes_of(kind, clusters, generator)
        sums, truths = answers_in_clusters(share, correlation, sizes, generator, REPEATS // 6)
        coverage.append(covered(share_estimates(sums), truths))
    # 0.35 points are the simulation's standard error
    assert np.mean(coverage) >= 0.94 - 0.0035


@pytest.mark.parametrize("clusters", [5, 12, 40])
def test_few_unequal_clusters_paired_t_covers_95_percent_and_holds_its_level(clusters):
    generator = np.random.default_rng(clusters)
    sizes = generator.geometric(0.1, clusters).astype(float)
    own = np.sqrt(sizes)[:, None] * generator.normal(0, 0.3, (clusters, REPEATS))
    shared = sizes[:, None] * generator.normal(0, 0.05, (clusters, REPEATS))
    squares = np.broadcast_to(sizes[:, None] * (0.3**2 + 0.05**2), own.shape)
    found = score_differences(ClusterSums(own + shared, sizes, squares))
    assert covered(found, 0) >= 0.94
    assert rejected(found) <= 0.06
    if clusters > 10:
        assert covered(found, 0) == pytest.approx(0.955, abs=0.01)


@pytest.mark.parametrize(
    ("items", "won", "lost"), [(120, 0.15, 0.15), (500, 0.05, 0.05), (60, 0.3, 0.1), (250, 0.1, 0.02)]
)
def test_answer_differences_cover_95_percent_and_mid_p_mcnemar_holds_its_level(items, won, lost):
    coverage, level = [], []
    for factor in np.linspace(0.85, 1.15, 7):
        generator = np.random.default_rng(round(1000 * factor))
        counts = generator.multinomial(items, [won * factor, lost * factor, 1 - (won + lost) * factor], 1200)
        sums = singles(np.zeros((items, len(counts))))
        for column, (up, down, _) in enumerate(counts):
            sums.numerator_CM[:up, column] = 1
            sums.numerator_CM[up : up + down, column] = -1
        found = answer_differences(sums)
        coverage.append(covered(found, factor * (won - lost)))
        level.append(rejected(found))
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.01)
    if won == lost:
        assert 0.035 < np.mean(level) <= 0.052


@pytest.mark.parametrize(("items", "won", "lost"), [(60, 0.015, 0.005), (120, 0.01, 0.01), (30, 0.02, 0.0)])
def test_few_discordant_answers_never_cover_too_seldom(items, won, lost):
    generator = np.random.default_rng(3)
    values = generator.choice([1.0, -1.0, 0.0], p=[won, lost, 1 - won - lost], size=(items, REPEATS))
    found = answer_differences(singles(values))
    assert covered(found, won - lost) >= 0.95
    assert rejected(found) <= 0.05
    if won != lost:
        plain = (
            values.mean(axis=0),
            values.std(axis=0, ddof=1) / np.sqrt(items) * stats.t.ppf(0.975, items - 1),
        )
        assert np.mean(np.abs(plain[0] - won + lost) <= plain[1]) < 0.8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clusters", [6, 20, 57])
@pytest.mark.parametrize(("discordant", "spread"), [(0.02, 0.8), (0.3, 0.3), (0.3, 0.8)])
def test_answer_differences_in_clusters_cover_95_percent_or_more(kind, clusters, discordant, spread):
    generator = np.random.default_rng([clusters, round(100 * discordant), round(10 * spread)])
    coverage, level = [], []
    for _ in range(3):
        sizes = sizes_of(kind, clusters, generator)
        lean = np.clip(generator.normal(0, spread, (clusters, 800)), -1, 1)
        apart = generator.binomial(sizes[:, None], np.full(lean.shape, discordant))
        won = generator.binomial(apart, (1 + lean) / 2)
        found = answer_differences(ClusterSums((2.0 * won - apart), sizes.astype(float), apart.astype(float)))
        coverage.append(covered(found, 0))
        level.append(rejected(found))
    assert np.mean(coverage) >= 0.94 - 0.005
    assert np.mean(level) <= 0.05 + 0.009
    if clusters >= 57 and discordant * clusters > 10:
        assert np.mean(coverage) == pytest.approx(0.952, abs=0.014)


def test_clustered_mcnemar_holds_its_level_where_the_test_of_items_does_not():
    generator = np.random.default_rng(4)
    clusters, per_cluster, repeats = 40, 10, 2500
    lean = np.clip(generator.normal(0, 0.8, (clusters, repeats)), -1, 1)
    discordant = generator.binomial(per_cluster, 0.4, (clusters, repeats))
    won = generator.binomial(discordant, (1 + lean) / 2)
    difference = 2 * won - discordant
    p_clustered = [mcnemar_clustered(difference[:, i]) for i in range(repeats)]
    p_items = [stats.binomtest(int(won[:, i].sum()), int(discordant[:, i].sum())).pvalue for i in range(300)]
    assert 0.03 < np.mean(np.array(p_clustered) < 0.05) <= 0.059
    assert np.mean(np.array(p_items) < 0.05) > 0.12


@pytest.mark.parametrize(("zeros", "items"), [(0.0, 60), (0.3, 120), (0.8, 400), (0.95, 1000)])
def test_f1_scores_cover_95_percent(zeros, items):
    generator = np.random.default_rng(items)
    values = generator.beta(2, 1, (items, REPEATS)) * (generator.random((items, REPEATS)) >= zeros)
    found = mean_estimates(singles(values))
    assert covered(found, (1 - zeros) * 2 / 3) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(("zeros", "items"), [(0.95, 30), (0.8, 30), (0.95, 60)])
def test_rare_scores_above_zero_cover_95_percent_or_more_where_mean_and_errors_do_not(zeros, items):
    generator = np.random.default_rng(items)
    values = generator.beta(2, 1, (items, REPEATS)) * (generator.random((items, REPEATS)) >= zeros)
    assert covered(mean_estimates(singles(values)), (1 - zeros) * 2 / 3) >= 0.94
    errors = values.std(axis=0, ddof=1) / np.sqrt(items) * 1.96
    assert np.mean(np.abs(values.mean(axis=0) - (1 - zeros) * 2 / 3) <= errors) < 0.93


@pytest.mark.parametrize(("zeros", "items"), [(0.3, 60), (0.9, 120)])
def test_differences_of_f1_scores_cover_95_percent_and_hold_their_level(zeros, items):
    generator = np.random.default_rng(items)
    both = [
        generator.beta(2, 1, (items, REPEATS)) * (generator.random((items, REPEATS)) >= zeros)
        for _ in range(2)
    ]
    found = score_differences(singles(both[1] - both[0]))
    assert covered(found, 0) == pytest.approx(0.95, abs=0.012)
    assert rejected(found) <= 0.06


def test_samples_of_an_item_averaged_first_cover_95_percent_and_taken_as_items_do_not():
    generator = np.random.default_rng(5)
    chances = generator.beta(0.6, 0.9, (164, REPEATS))
    right = generator.binomial(10, chances)
    assert covered(mean_estimates(singles(right / 10)), 0.4) == pytest.approx(0.95, abs=0.01)
    naive = [wilson_interval(int(count), 1640) for count in right.sum(axis=0)[:500]]
    assert np.mean([low <= 0.4 <= high for low, high in naive]) < 0.75


def bleu_sums(items, generator, skill_I):
    """(items, 2, 10) counts of two models of equal skill."""
    length = generator.poisson(18, items) + 5
    found = []
    for _ in range(2):
        skill = np.clip(skill_I + generator.normal(0, 0.1, items), 0.05, 0.95)
        mine = length + generator.integers(-2, 3, items)
        matches = [generator.binomial(mine - n, skill ** (n + 1)) for n in range(4)]
        found.append(np.stack([mine, length, *matches, *(mine - n for n in range(4))], axis=1))
    return np.stack(found, axis=1).astype(float)


def test_corpus_bleu_covers_95_percent_and_its_paired_test_holds_its_level():
    generator = np.random.default_rng(6)
    metric = CORPUS_METRICS["bleu"]
    large = bleu_sums(400_000, generator, 0.6 + generator.normal(0, 0.12, 400_000))
    truth = float(metric.value(large[:, 0].sum(axis=0)))
    alone, pairs = [], []
    for repeat in range(200):
        skill = 0.6 + np.repeat(generator.normal(0, 0.12, 40), 6)
        sums_CMS = bleu_sums(240, generator, skill).reshape(40, 6, 2, 10).sum(axis=1)
        models, [pair] = corpus_estimates(metric.value, sums_CMS, [(0, 1)], draws=150, seed=repeat)
        alone.append(models[0])
        pairs.append(pair)
    # every repeat is a bootstrap of its own: 1.5 points are the simulation's standard error here
    assert covered(alone, truth) == pytest.approx(0.95, abs=0.032)
    assert rejected(pairs) == pytest.approx(0.05, abs=0.032)


def test_averages_over_tasks_cover_95_percent_and_hold_their_level():
    generator = np.random.default_rng(7)
    shares, alone, pairs = (0.1, 0.5, 0.8), [], []
    for repeat in range(500):
        tasks = []
        for share, items in zip(shares, (60, 150, 300), strict=True):
            chances = generator.beta(share * 2, (1 - share) * 2, items)[:, None]
            right = (generator.random((items, 2)) < chances).astype(float)
            tasks.append(task_draws(singles(right), [(0, 1)], draws=200, seed=repeat))
        first, _, pair = average_estimates(tasks)
        alone.append(first)
        pairs.append(pair)
    assert covered(alone, np.mean(shares)) == pytest.approx(0.95, abs=0.02)
    assert rejected(pairs) == pytest.approx(0.05, abs=0.02)
