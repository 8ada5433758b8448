"""One task on one dataset: the models' scores and their paired differences, each by the method that fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tsugiki.errors import InputError, did_you_mean
from tsugiki.evaluation.comparing.groups import Group
from tsugiki.evaluation.items import stable_integer
from tsugiki.evaluation.statistics.averages import TaskDraws, task_draws
from tsugiki.evaluation.statistics.corpus_scores import corpus_cluster_sums, corpus_draws
from tsugiki.evaluation.statistics.estimates import (
    BOOTSTRAP,
    ClusterSums,
    Estimate,
    bootstrap_estimates,
    cluster_sums,
    minimum_detectable_difference,
    paired_differences,
    studentised_estimates,
)
from tsugiki.evaluation.statistics.means import bounded, mean_estimates, share_estimates
from tsugiki.evaluation.statistics.paired import answer_differences, score_differences
from tsugiki.evaluation.statistics.power import more_items, power_of
from tsugiki.evaluation.tasks.base import Measure

if TYPE_CHECKING:
    from tsugiki.evaluation.metrics.corpus import CorpusMetric

DIGITS = 6
"""Figures are rounded to this many decimals: beyond them lies the noise of float32."""
MOST_DRAWS = 2_000
"""Draws for corpus metrics and averages, at most: a value in each draw is dear, and more change no digit."""
BITS_OF_INTEREST = 0.01
"""For bits per byte, the difference of interest and the margin are this share of the baseline's."""


@dataclass(frozen=True)
class Settings:
    """How to compare. models, datasets: in the order of display; the baseline's differences come first.

    Datasets that are not named follow in the order of their names. level: of the tests, after `correction`
    over all pairs and tasks; 1 - confidence unless given. power, difference: a plan for which it is said how
    many items would be needed; difference and margin (of "not worse") are shares of 1, for bits per byte
    BITS_OF_INTEREST of the baseline's.
    """

    models: tuple[str, ...]
    baseline: str
    draws: int = 10_000
    confidence: float = 0.95
    seed: int = 0
    datasets: tuple[str, ...] = ()
    correction: Literal["holm", "benjamini-hochberg"] = "holm"
    level: float | None = None
    power: float = 0.8
    difference: float = 0.05
    margin: float = 0.02

    @property
    def alpha(self) -> float:
        """The level of the tests."""
        return 1 - self.confidence if self.level is None else self.level

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs of models, the baseline's first, each to be read as (second minus first)."""
        others = [model for model in self.models if model != self.baseline]
        return list(combinations([self.baseline, *others], 2))

    @property
    def columns(self) -> list[tuple[int, int]]:
        """The pairs by the models' places."""
        return [(self.models.index(a), self.models.index(b)) for a, b in self.pairs]


@dataclass(frozen=True)
class Judged:
    """A group with its estimates, and what averages need of it: draws, and the sums that they are of."""

    group: Group
    summary: dict[str, Any]
    draws: TaskDraws | None
    sums: ClusterSums | None = None


def judge(group: Group, settings: Settings) -> Judged:
    """The summary of a group for comparison.json, without what depends on the other tasks."""
    seed = stable_integer(settings.seed, group.task, group.dataset)
    few = min(settings.draws, MOST_DRAWS)
    draws = sums = None
    if group.sums_IMS is not None and group.measure.corpus:
        models, pairs, draws = _of_corpus(group, settings, few, seed)
        clusters = draws.clusters
    else:
        sums = cluster_sums(group.numerator_IM, group.denominator_I, group.clusters)
        models, pairs = _of_items(group, sums, settings, seed)
        clusters = len(sums)
        if group.mean and not group.measure.lower_is_better:
            draws = task_draws(sums, settings.columns, draws=few, seed=seed)
    summary = {
        "task": group.task,
        "dataset": group.dataset,
        "language": group.language,
        "metric": group.measure.name,
        "lower_is_better": group.measure.lower_is_better,
        "by_byte": group.measure.by_byte,
        "corpus": group.measure.corpus,
        "cluster": group.measure.cluster,
        "items": len(group.clusters),
        "clusters": clusters,
        "samples": group.samples,
        "chance": group.measure.chance,
        "by_model": {name: entry(one) for name, one in zip(settings.models, models, strict=True)},
        "other_scores": _other_scores(group, settings),
        "pairs": _pairs(group, models, pairs, clusters, settings),
        "by_domain": _by_domain(group, settings),
    }
    return Judged(group, summary, None if group.measure.lower_is_better else draws, sums)


def entry(one: Estimate) -> dict[str, Any]:
    """A model's value in comparison.json."""
    return {
        "value": rounded(one.value),
        "low": rounded(one.low),
        "high": rounded(one.high),
        "standard_error": rounded(one.standard_error),
        "method": one.method,
    }


def _of_items(
    group: Group, sums: ClusterSums, settings: Settings, seed: int
) -> tuple[list[Estimate], list[Estimate]]:
    """Estimates of the models and of the pairs, each by the method that fits the scores."""
    columns, confidence, draws = settings.columns, settings.confidence, settings.draws
    if group.measure.by_byte:
        models = bootstrap_estimates(sums, draws=draws, confidence=confidence, seed=seed)
        if not columns:
            return models, []
        return models, [
            replace(one, method=f"paired {BOOTSTRAP}")
            for one in paired_differences(sums, columns, draws=draws, confidence=confidence, seed=seed)
        ]
    estimated, compared = (
        (share_estimates, answer_differences) if group.right_or_wrong else (mean_estimates, score_differences)
    )
    models = estimated(sums, confidence)
    return models, compared(_differences(group, columns), confidence) if columns else []


def _differences(group: Group, columns: Sequence[tuple[int, int]]) -> ClusterSums:
    """The pairs' differences (second minus first), summed over the items of each cluster."""
    score_IM = group.numerator_IM
    difference_IN = np.stack([score_IM[:, b] - score_IM[:, a] for a, b in columns], axis=1)
    return cluster_sums(difference_IN, group.denominator_I, group.clusters)


def _of_corpus(
    group: Group, settings: Settings, draws: int, seed: int
) -> tuple[list[Estimate], list[Estimate], TaskDraws]:
    metric = _corpus_metric(group.measure.corpus or "")
    sums_CMS = corpus_cluster_sums(group.sums_IMS if group.sums_IMS is not None else [], group.clusters)
    found = corpus_draws(metric.value, sums_CMS, settings.columns, draws=draws, seed=seed)
    estimates = studentised_estimates(
        *found[:2], found[2:], clusters=len(sums_CMS), confidence=settings.confidence
    )
    count = len(settings.models)
    models = [bounded(one, 0.0, inf if metric.lower_is_better else 1.0) for one in estimates[:count]]
    pairs = [replace(one, method=f"paired {BOOTSTRAP}") for one in estimates[count:]]
    return models, pairs, TaskDraws(*found, clusters=len(sums_CMS))


def _corpus_metric(name: str) -> CorpusMetric:
    from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS

    if name not in CORPUS_METRICS:
        raise InputError(f'there is no corpus metric "{name}"', hint=did_you_mean(name, list(CORPUS_METRICS)))
    return CORPUS_METRICS[name]


def _other_scores(group: Group, settings: Settings) -> dict[str, Any]:
    """Other ways to score the same answers ("published"), where all items of a model have them."""
    found: dict[str, Any] = {}
    for name, score_IM in group.other_IM.items():
        values = {
            model: rounded(score_IM[:, column].mean())
            for column, model in enumerate(settings.models)
            if np.isfinite(score_IM[:, column]).all()
        }
        if values:
            found[name] = values
    return found


def _pairs(
    group: Group,
    models: Sequence[Estimate],
    pairs: Sequence[Estimate],
    clusters: int,
    settings: Settings,
) -> list[dict[str, Any]]:
    found = []
    for (first, second), (a, b), one in zip(settings.pairs, settings.columns, pairs, strict=True):
        baseline = models[a].value
        interest = of_interest(group.measure, baseline, settings.difference)
        items = len(group.clusters)
        known = clusters > 1 and isfinite(one.standard_error)
        detectable = minimum_detectable_difference(
            one.standard_error, confidence=1 - settings.alpha, power=settings.power
        )
        found.append(
            {
                "baseline": first,
                "model": second,
                "difference": rounded(one.value),
                "low": rounded(one.low),
                "high": rounded(one.high),
                "p": rounded(one.p),
                "relative": rounded(one.value / baseline) if baseline else None,
                "detectable": rounded(detectable) if known else None,
                "standard_error": rounded(one.standard_error),
                "test": one.method,
                "unequal": _unequal(group, a, b),
                "interest": rounded(interest),
                "power": rounded(power_of(interest, one.standard_error, level=settings.alpha) or 0.0)
                if known
                else None,
                "needed": more_items(
                    items, one.standard_error, interest, level=settings.alpha, power=settings.power
                )
                if known and interest
                else None,
            }
        )
    return found


def of_interest(measure: Measure, baseline: float, difference: float) -> float:
    """The difference that matters; for bits per byte a share of the baseline's."""
    return abs(baseline) * BITS_OF_INTEREST if measure.lower_is_better else difference


def _unequal(group: Group, a: int, b: int) -> int:
    """Items on which the two models' scores differ."""
    if group.sums_IMS is not None:
        return int((group.sums_IMS[:, a] != group.sums_IMS[:, b]).any(axis=1).sum())
    return int((group.numerator_IM[:, a] != group.numerator_IM[:, b]).sum())


def _by_domain(group: Group, settings: Settings) -> list[dict[str, Any]]:
    """Plain values by host, hosts with the most items first; too few items each for intervals.

    None for a corpus metric, and where no item has a host.
    """
    if group.sums_IMS is not None or not any(group.domains):
        return []
    domains = np.array(group.domains, dtype=object)
    summary = []
    for domain in sorted(set(group.domains)):
        chosen = domains == domain
        value_M = group.numerator_IM[chosen].sum(axis=0) / group.denominator_I[chosen].sum()
        by_model = {model: rounded(value) for model, value in zip(settings.models, value_M, strict=True)}
        summary.append({"domain": domain, "items": int(chosen.sum()), "by_model": by_model})
    return sorted(summary, key=lambda entry: (-entry["items"], entry["domain"]))


def rounded(value: float) -> float | None:
    """Six decimals, never minus zero; None for what is not finite (JSON has no infinity)."""
    return round(float(value), DIGITS) + 0.0 if isfinite(value) else None
