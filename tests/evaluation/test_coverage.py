"""Simulations: intervals cover 95 %, tests hold their level (benchmarks/interval_coverage.py has more).

Where the exact distribution can be summed over, it is; else thousands of data sets are columns of one call.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS
from tsugiki.evaluation.statistics.averages import average_estimates, task_draws
from tsugiki.evaluation.statistics.corpus_scores import corpus_estimates
from tsugiki.evaluation.statistics.estimates import ClusterSums, wilson_interval
from tsugiki.evaluation.statistics.means import clt_estimates, mean_estimates, share_estimates
from tsugiki.evaluation.statistics.paired import answer_differences, mcnemar_clustered


def covered(estimates, truth):
    return np.mean([one.low <= truth <= one.high for one in estimates])


def rejected(estimates):
    return np.mean([one.p < 0.05 for one in estimates])


def singles(values):
    return ClusterSums(np.asarray(values, dtype=float), np.ones(len(values)))


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
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.012 if items > 20 else 0.025)


@pytest.mark.parametrize(("share", "clusters"), [(0.5, 57), (0.1, 200), (0.9, 200)])
def test_clustered_shares_cover_95_percent_where_wilson_of_items_does_not(share, clusters):
    generator = np.random.default_rng(clusters)
    sizes = generator.geometric(0.1, clusters)
    chances = generator.beta(share * 4, (1 - share) * 4, (clusters, 4000))
    right = generator.binomial(sizes[:, None], chances).astype(float)
    assert covered(share_estimates(ClusterSums(right, sizes.astype(float))), share) == pytest.approx(
        0.95, abs=0.015
    )
    items = int(sizes.sum())
    naive = [wilson_interval(int(count), items) for count in right.sum(axis=0)]
    assert np.mean([low <= share <= high for low, high in naive]) < 0.85


@pytest.mark.parametrize("clusters", [5, 12, 40])
def test_few_unequal_clusters_paired_t_covers_95_percent_and_holds_its_level(clusters):
    generator = np.random.default_rng(clusters)
    sizes = generator.geometric(0.1, clusters).astype(float)
    noise = np.sqrt(sizes)[:, None] * generator.normal(0, 0.3, (clusters, 6000))
    found = clt_estimates(ClusterSums(noise + sizes[:, None] * generator.normal(0, 0.05, noise.shape), sizes))
    assert covered(found, 0) == pytest.approx(0.95, abs=0.012)
    assert rejected(found) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(("items", "discordant"), [(120, 0.3), (500, 0.1), (600, 0.2)])
def test_answer_differences_cover_95_percent_and_mcnemar_holds_its_level(items, discordant):
    generator = np.random.default_rng(items)
    chances = [discordant / 2, discordant / 2, 1 - discordant]
    found = answer_differences(singles(generator.choice([1.0, -1.0, 0.0], p=chances, size=(items, 2500))))
    assert covered(found, 0) == pytest.approx(0.95, abs=0.015)
    assert 0.015 < rejected(found) <= 0.055


def test_answer_differences_few_discordant_answers_never_cover_too_seldom():
    generator = np.random.default_rng(3)
    values = generator.choice([1.0, -1.0, 0.0], p=[0.015, 0.005, 0.98], size=(60, 3000))
    assert covered(answer_differences(singles(values)), 0.01) >= 0.95
    assert covered(clt_estimates(singles(values)), 0.01) < 0.8


def test_clustered_mcnemar_holds_its_level_where_the_test_of_items_does_not():
    generator = np.random.default_rng(4)
    clusters, per_cluster, repeats = 40, 10, 1500
    lean = np.clip(generator.normal(0, 0.8, (clusters, repeats)), -1, 1)
    discordant = generator.binomial(per_cluster, 0.4, (clusters, repeats))
    won = generator.binomial(discordant, (1 + lean) / 2)
    difference = 2 * won - discordant
    p_clustered = [mcnemar_clustered(difference[:, i]) for i in range(repeats)]
    p_items = [stats.binomtest(int(won[:, i].sum()), int(discordant[:, i].sum())).pvalue for i in range(300)]
    assert 0.025 < np.mean(np.array(p_clustered) < 0.05) <= 0.062
    assert np.mean(np.array(p_items) < 0.05) > 0.12


@pytest.mark.parametrize(("zeros", "items"), [(0.3, 120), (0.8, 400)])
def test_f1_scores_cover_95_percent(zeros, items):
    generator = np.random.default_rng(items)
    values = generator.beta(2, 1, (items, 3000)) * (generator.random((items, 3000)) >= zeros)
    found = mean_estimates(singles(values), draws=200)
    assert covered(found, (1 - zeros) * 2 / 3) == pytest.approx(0.95, abs=0.012)


def test_samples_of_an_item_averaged_first_cover_95_percent_and_taken_as_items_do_not():
    generator = np.random.default_rng(5)
    chances = generator.beta(0.6, 0.9, (164, 3000))
    right = generator.binomial(10, chances)
    assert covered(mean_estimates(singles(right / 10), draws=200), 0.4) == pytest.approx(0.95, abs=0.012)
    naive = [wilson_interval(int(count), 1640) for count in right.sum(axis=0)]
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
    for repeat in range(300):
        skill = 0.6 + np.repeat(generator.normal(0, 0.12, 40), 6)
        sums_CMS = bleu_sums(240, generator, skill).reshape(40, 6, 2, 10).sum(axis=1)
        models, [pair] = corpus_estimates(metric.value, sums_CMS, [(0, 1)], draws=200, seed=repeat)
        alone.append(models[0])
        pairs.append(pair)
    assert covered(alone, truth) == pytest.approx(0.95, abs=0.03)
    assert rejected(pairs) == pytest.approx(0.05, abs=0.03)


def test_averages_over_tasks_cover_95_percent_and_hold_their_level():
    generator = np.random.default_rng(7)
    shares, alone, pairs = (0.1, 0.5, 0.8), [], []
    for repeat in range(600):
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
