"""Do the intervals cover what they promise, and do the tests hold their level? Simulated, for many regimes.

    python benchmarks/interval_coverage.py [--repeats 4000]

Every row draws that many data sets of a known truth, and runs the functions that `tsugiki compare` runs. The
error of a coverage of 95 % from 4,000 data sets is 0.34 points. Seeds are fixed. docs/log.md has the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS
from tsugiki.evaluation.statistics.averages import average_estimates, task_draws
from tsugiki.evaluation.statistics.corpus_scores import corpus_estimates
from tsugiki.evaluation.statistics.estimates import ClusterSums, Estimate, bootstrap_estimates
from tsugiki.evaluation.statistics.means import clt_estimates, mean_estimates, share_estimates
from tsugiki.evaluation.statistics.paired import answer_differences, score_differences

Generator = np.random.Generator
LEVEL = 0.05
SUBJECTS = (100, 100, 112, 145, 171, 203, 265, 390, 783, 1534)
"""Sizes like those of MMLU's subjects."""


@dataclass(frozen=True)
class Result:
    """A regime: the share of intervals that hold the truth, and of tests with p < 0.05 where it is 0."""

    name: str
    coverage: float
    level: float | None = None
    plain: float | None = None


def covered(estimates: list[Estimate], truth: float | np.ndarray) -> float:
    """The share of estimates whose interval holds the truth."""
    truths = np.broadcast_to(truth, len(estimates))
    return float(np.mean([one.low <= t <= one.high for one, t in zip(estimates, truths, strict=True)]))


def rejected(estimates: list[Estimate]) -> float:
    """The share of tests that reject at 5 %."""
    return float(np.mean([one.p < LEVEL for one in estimates]))


def singles(values_CM: np.ndarray) -> ClusterSums:
    """Every item a cluster of its own; columns are data sets."""
    return ClusterSums(values_CM, np.ones(len(values_CM)))


def sizes_of(kind: str, clusters: int, generator: Generator) -> np.ndarray:
    """Items in each cluster: five, or geometric with mean ten (one in ten has more than 20), or as MMLU's."""
    if kind == "subjects":
        return generator.choice(SUBJECTS, clusters)
    return np.full(clusters, 5) if kind == "equal" else generator.geometric(0.1, clusters)


def binary(repeats: int, generator: Generator) -> Iterator[Result]:
    """Right or wrong, independent. The truth is drawn near the named share: coverage has a sawtooth in it."""
    for items in (20, 50, 120, 500):
        for share in (0.02, 0.1, 0.5, 0.9, 0.98):
            truth = np.clip(
                generator.uniform(share * 0.8, share + 0.2 * min(share, 1 - share), repeats), 0, 1
            )
            sums = singles((generator.random((items, repeats)) < truth).astype(float))
            plain = covered(clt_estimates(sums), truth)
            yield Result(
                f"share near {share}, {items} items", covered(share_estimates(sums), truth), None, plain
            )


def clustered(repeats: int, generator: Generator) -> Iterator[Result]:
    """Right or wrong in clusters: beta-binomial. Sizes are drawn four times, and truths near the share."""
    for clusters in (10, 20, 57, 200):
        for kind in ("equal", "unequal", "subjects"):
            for correlation in (0.1, 0.3, 0.6):
                for share in (0.02, 0.1, 0.5):
                    beyond, near = 1 / correlation - 1, 0.2 * share
                    found = []
                    for _ in range(4):
                        sizes = sizes_of(kind, clusters, generator)
                        truth = generator.uniform(share - near, share + near, repeats // 4)
                        chances = generator.beta(truth * beyond, (1 - truth) * beyond, (clusters, len(truth)))
                        right = generator.binomial(sizes[:, None], chances).astype(float)
                        sums = ClusterSums(right, sizes.astype(float), right)
                        plain = covered(clt_estimates(sums, concentration=False), truth)
                        found.append((covered(share_estimates(sums), truth), plain))
                    name = f"share {share}, correlation {correlation}, {clusters} {kind} clusters"
                    yield Result(
                        name, float(np.mean(found, axis=0)[0]), None, float(np.mean(found, axis=0)[1])
                    )


def paired(repeats: int, generator: Generator) -> Iterator[Result]:
    """Two models' right-or-wrong answers without a true difference, by share of discordant ones."""
    for items in (50, 120, 500):
        for discordant in (0.02, 0.1, 0.3):
            chances = [discordant / 2, discordant / 2, 1 - discordant]
            sums = singles(generator.choice([1.0, -1.0, 0.0], p=chances, size=(items, repeats)))
            found, plain = answer_differences(sums), clt_estimates(sums)
            name = f"paired, {discordant:.0%} discordant, {items} items"
            yield Result(name, covered(found, 0), rejected(found), covered(plain, 0))
    for clusters in (10, 57, 200):
        for kind in ("equal", "unequal", "subjects"):
            sizes = sizes_of(kind, clusters, generator)
            lean = np.clip(generator.normal(0, 0.3, (clusters, repeats)), -1, 1)
            discordant = generator.binomial(sizes[:, None], np.full((clusters, repeats), 0.25))
            won = generator.binomial(discordant, (1 + lean) / 2)
            sums = ClusterSums(
                (2 * won - discordant).astype(float), sizes.astype(float), discordant.astype(float)
            )
            found, plain = answer_differences(sums), clt_estimates(sums)
            yield Result(
                f"paired, {clusters} {kind} clusters", covered(found, 0), rejected(found), covered(plain, 0)
            )


def scores(repeats: int, generator: Generator) -> Iterator[Result]:
    """Scores between 0 and 1 with many zeros (F1), and the mean of K samples of an item."""
    for items in (60, 200, 1000):
        for zeros in (0.3, 0.8, 0.95):
            values = generator.beta(2, 1, (items, repeats)) * (generator.random((items, repeats)) >= zeros)
            sums = singles(values)
            truth = (1 - zeros) * 2 / 3
            found = mean_estimates(sums)
            yield Result(
                f"F1, {zeros:.0%} zeros, {items} items", covered(found, truth), None,
                covered(clt_estimates(sums), truth),
            )  # fmt: skip
    for items, samples in ((120, 5), (164, 10)):
        chances = generator.beta(0.6, 0.9, (items, repeats))
        both = [generator.binomial(samples, chances) / samples for _ in range(2)]
        alone, difference = (
            mean_estimates(singles(both[0])),
            score_differences(singles(both[1] - both[0])),
        )
        yield Result(f"{samples} samples, {items} items", covered(alone, 0.4))
        yield Result(
            f"paired, {samples} samples, {items} items", covered(difference, 0), rejected(difference)
        )
    for clusters in (6, 12, 30):
        sizes = sizes_of("unequal", clusters, generator).astype(float)
        sums = ClusterSums(
            sizes[:, None] * generator.normal(0, 0.1, (clusters, repeats))
            + np.sqrt(sizes)[:, None] * generator.normal(0, 0.3, (clusters, repeats)),
            sizes,
            np.broadcast_to(sizes[:, None] * (0.1**2 + 0.3**2), (clusters, repeats)),
        )
        found = clt_estimates(sums)
        boot = bootstrap_estimates(sums, draws=400)
        yield Result(f"paired t, {clusters} unequal clusters", covered(found, 0), rejected(found))
        yield Result(f"bootstrap, {clusters} unequal clusters", covered(boot, 0), rejected(boot))


def bleu_sums(items: int, generator: Generator, noise: np.ndarray) -> np.ndarray:
    """(items, 2, S) sums of BLEU for two models of equal skill: matches binomial, lengths Poisson."""
    length = generator.poisson(18, items) + 5
    found = []
    for _ in range(2):
        skill = np.clip(0.6 + noise + generator.normal(0, 0.1, items), 0.05, 0.95)
        hypothesis = np.maximum(5, length + generator.integers(-2, 3, items))
        matches = [generator.binomial(hypothesis - n, skill ** (n + 1)) for n in range(4)]
        totals = [hypothesis - n for n in range(4)]
        found.append(np.stack([hypothesis, length, *matches, *totals], axis=1))
    return np.stack(found, axis=1).astype(float)


def corpus(repeats: int, generator: Generator) -> Iterator[Result]:
    """BLEU of a corpus, whole documents as clusters; the truth is BLEU of two million sentences."""
    metric = CORPUS_METRICS["bleu"]
    large = bleu_sums(2_000_000, generator, generator.normal(0, 0.12, 2_000_000))
    truth = float(metric.value(large[:, 0].sum(axis=0)))
    for documents in (30, 100):
        alone, pairs = [], []
        for repeat in range(repeats):
            document = np.repeat(np.arange(documents), 8)
            sums = bleu_sums(len(document), generator, generator.normal(0, 0.12, documents)[document])
            sums_CMS = np.add.reduceat(sums, np.arange(0, len(document), 8))
            models, [pair] = corpus_estimates(metric.value, sums_CMS, [(0, 1)], draws=300, seed=repeat)
            alone.append(models[0])
            pairs.append(pair)
        yield Result(f"BLEU, {documents} documents of 8", covered(alone, truth))
        yield Result(f"paired BLEU, {documents} documents of 8", covered(pairs, 0), rejected(pairs))


def averages(repeats: int, generator: Generator) -> Iterator[Result]:
    """The average of five tasks of 50 to 500 items, and its paired difference."""
    shares = (0.1, 0.3, 0.5, 0.6, 0.8)
    alone, pairs = [], []
    for repeat in range(repeats):
        tasks = []
        for share, items in zip(shares, (50, 120, 200, 300, 500), strict=True):
            chances = generator.beta(share * 2, (1 - share) * 2, items)
            right = (generator.random((items, 2)) < chances[:, None]).astype(float)
            tasks.append(task_draws(singles(right), [(0, 1)], draws=300, seed=repeat))
        first, _, pair = average_estimates(tasks)
        alone.append(first)
        pairs.append(pair)
    yield Result("average of 5 tasks", covered(alone, float(np.mean(shares))))
    yield Result("paired average of 5 tasks", covered(pairs, 0), rejected(pairs))


REGIMES: dict[str, tuple[Callable[[int, Generator], Iterator[Result]], float]] = {
    "binary": (binary, 1),
    "clustered": (clustered, 1),
    "paired": (paired, 1),
    "scores": (scores, 0.25),
    "corpus": (corpus, 0.25),
    "averages": (averages, 0.25),
}
"""The simulations, and the share of the repeats that each gets: some bootstrap every data set."""


def main() -> None:
    """Print a table of all regimes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--only", choices=tuple(REGIMES))
    asked = parser.parse_args()
    print("| regime | coverage, % | level, % | plain mean +- t s, % |\n|---|---|---|---|")
    for seed, (name, (simulate, share)) in enumerate(REGIMES.items()):
        if asked.only in {None, name}:
            for one in simulate(int(asked.repeats * share), np.random.default_rng(seed)):
                numbers = (one.coverage, one.level, one.plain)
                cells = ["" if number is None else f"{100 * number:.1f}" for number in numbers]
                print(f"| {one.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
