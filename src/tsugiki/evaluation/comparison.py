"""From rows to comparison.json: every figure of it can be computed again from scores.parquet alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import isfinite, log
from typing import Any

import numpy as np
import pyarrow as pa

from tsugiki.errors import DataError, InputError
from tsugiki.evaluation.alarms import alarms_of
from tsugiki.evaluation.items import stable_integer
from tsugiki.evaluation.statistics import (
    Array,
    ClusterSums,
    Estimate,
    bootstrap_estimates,
    cluster_sums,
    holm,
    mcnemar_exact,
    minimum_detectable_difference,
    paired_differences,
    ratio_of_sums,
    wilson_interval,
)
from tsugiki.evaluation.tasks.base import Measure, Row
from tsugiki.evaluation.wording import Sides, pair_sentence

SCHEMA_VERSION = 1
DIGITS = 6
"""Figures are rounded to this many decimals: beyond them lies the noise of float32."""
_NO_SPREAD = 1e-12
"""A standard error up to this is rounding."""


@dataclass(frozen=True)
class Settings:
    """How to compare. models, datasets: in the order of display; the baseline's differences come first.

    Datasets that are not named follow in the order of their names.
    """

    models: tuple[str, ...]
    baseline: str
    draws: int = 10_000
    confidence: float = 0.95
    seed: int = 0
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """The answers of all models to one task on one dataset. Axes: I items (sorted by id), M models.

    numerator_IM and denominator_I: value of a model = sum of its numerators / sum of the denominators.
    """

    task: str
    dataset: str
    language: str
    measure: Measure
    clusters: tuple[str, ...]
    domains: tuple[str, ...]
    numerator_IM: Array
    denominator_I: Array

    @property
    def independent_answers(self) -> bool:
        """Whether the scores are right or wrong and every item is a cluster of its own."""
        binary = not self.measure.by_byte and bool(np.isin(self.numerator_IM, (0.0, 1.0)).all())
        return binary and len(set(self.clusters)) == len(self.clusters)


def compare(table: pa.Table, measures: Mapping[str, Measure], settings: Settings) -> dict[str, Any]:
    """The contents of comparison.json.

    table: rows of scores.parquet. measures: how to read each scored task, in the order of display; answers
    to other tasks are shown. Raises InputError for a model without rows, DataError where models answered
    different items.
    """
    rows: list[Row] = table.to_pylist()
    _check_models(rows, settings)
    groups = [_group(part, measure, settings) for part, measure in _parts(rows, measures, settings)]
    tasks = [_task_summary(group, settings) for group in groups]
    _adjust(tasks, settings)
    return {
        "schema": SCHEMA_VERSION,
        "confidence": settings.confidence,
        "method": _method(settings),
        "baseline": settings.baseline,
        "models": list(settings.models),
        "tasks": tasks,
        "generations": _generations([row for row in rows if row["task"] not in measures], settings),
        "alarms": alarms_of(rows, tasks, settings.models),
    }


def _method(settings: Settings) -> str:
    share = f"{settings.confidence:.0%}"
    return (
        f"Values are ratios of sums over items; {share} intervals by the symmetric bootstrap-t over clusters "
        f"of near-duplicate pages ({settings.draws} draws, seed {settings.seed}); models are compared on the "
        "same items with the same draws (paired). Where right-or-wrong items are all independent: Wilson "
        "intervals and exact McNemar tests. p-values are adjusted by Holm over all pairs in all tasks. "
        "Standard errors are standard deviations of the bootstrap. Detectable: the difference found with "
        "power 0.8."
    )


def _check_models(rows: Sequence[Row], settings: Settings) -> None:
    present = {row["model"] for row in rows}
    missing = [model for model in (*settings.models, settings.baseline) if model not in present]
    if missing or settings.baseline not in settings.models:
        raise InputError(
            f"there are no scores of {', '.join(missing) or settings.baseline}; the rows hold "
            f"{', '.join(sorted(present)) or 'nothing'}",
            hint="name models that were scored, the baseline among them",
        )


def _parts(
    rows: Sequence[Row], measures: Mapping[str, Measure], settings: Settings
) -> list[tuple[list[Row], Measure]]:
    """Rows by task and dataset, in the order of display."""
    parts: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        parts.setdefault((row["task"], row["dataset"]), []).append(row)
    tasks = {task: number for number, task in enumerate(measures)}
    datasets = {dataset: number for number, dataset in enumerate(settings.datasets)}
    known = sorted(
        (key for key in parts if key[0] in tasks),
        key=lambda key: (tasks[key[0]], datasets.get(key[1], len(datasets)), key[1]),
    )
    return [(parts[key], measures[key[0]]) for key in known]


def _group(rows: Sequence[Row], measure: Measure, settings: Settings) -> Group:
    by_model: dict[str, dict[str, Row]] = {model: {} for model in settings.models}
    for row in rows:
        if row["model"] in by_model:
            by_model[row["model"]][row["item"]] = row
    first = by_model[settings.baseline]
    items = sorted(first)
    for model, answers in by_model.items():
        same = sorted(answers) == items and all(
            answers[item]["bytes"] == first[item]["bytes"] for item in items
        )
        if not same and (measure.by_byte or sorted(answers) != items):
            task, dataset = rows[0]["task"], rows[0]["dataset"]
            raise DataError(
                f'{task} on "{dataset}": {model} and {settings.baseline} did not answer the same items '
                f"({len(answers)} and {len(items)}, {len(answers.keys() & first.keys())} in common)",
                hint="score all models in one evaluate stage",
            )
    return Group(
        task=rows[0]["task"],
        dataset=rows[0]["dataset"],
        language=", ".join(sorted({row["language"] for row in rows if row["language"]})),
        measure=measure,
        clusters=tuple(first[item]["cluster"] or item for item in items),
        domains=tuple(first[item]["domain"] or "" for item in items),
        numerator_IM=_numerators(by_model, items, measure),
        denominator_I=_denominators(first, items, measure),
    )


def _numerators(by_model: Mapping[str, Mapping[str, Row]], items: Sequence[str], measure: Measure) -> Array:
    """Bits, or scores, of each item and model; a missing score becomes NaN, which the statistics refuse."""
    field, scale = ("nll_nats", log(2)) if measure.by_byte else ("score", 1.0)
    columns = [[answers[item][field] for item in items] for answers in by_model.values()]
    return np.array(columns, dtype=np.float64).T / scale


def _denominators(first: Mapping[str, Row], items: Sequence[str], measure: Measure) -> Array:
    if measure.by_byte:
        return np.array([first[item]["bytes"] for item in items], dtype=np.float64)
    return np.ones(len(items))


def _task_summary(group: Group, settings: Settings) -> dict[str, Any]:
    sums = cluster_sums(group.numerator_IM, group.denominator_I, group.clusters)
    seed = stable_integer(settings.seed, group.task, group.dataset)
    estimates = bootstrap_estimates(sums, draws=settings.draws, confidence=settings.confidence, seed=seed)
    if not group.measure.by_byte:
        estimates = [_bounded_accuracy(group, one, settings) for one in estimates]
    by_model = {
        model: {
            "value": _rounded(one.value),
            "low": _rounded(one.low),
            "high": _rounded(one.high),
            "standard_error": _rounded(one.standard_error),
        }
        for model, one in zip(settings.models, estimates, strict=True)
    }
    return {
        "task": group.task,
        "dataset": group.dataset,
        "language": group.language,
        "metric": group.measure.name,
        "lower_is_better": group.measure.lower_is_better,
        "items": len(group.clusters),
        "clusters": len(sums),
        "chance": group.measure.chance,
        "by_model": by_model,
        "pairs": _pairs(group, sums, seed, settings),
        "by_domain": _by_domain(group, settings),
    }


def _bounded_accuracy(group: Group, estimate: Estimate, settings: Settings) -> Estimate:
    """Wilson's interval where items are independent; in any case nothing outside of 0 to 1.

    Clusters that are all alike (every answer right, say) have no spread to resample. There the clusters count
    as that many independent answers: an interval of no width would claim certainty.
    """
    clusters = len(set(group.clusters))
    no_spread = isfinite(estimate.low) and estimate.standard_error <= _NO_SPREAD
    if group.independent_answers or no_spread:
        low, high = wilson_interval(round(estimate.value * clusters), clusters, settings.confidence)
        return replace(estimate, low=low, high=high)
    if not isfinite(estimate.low):
        return estimate
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


def _pairs(group: Group, sums: ClusterSums, seed: int, settings: Settings) -> list[dict[str, Any]]:
    """All pairs of models, the baseline's first, each as (second minus first)."""
    others = [model for model in settings.models if model != settings.baseline]
    named = list(combinations([settings.baseline, *others], 2))
    if not named:
        return []
    columns = [(settings.models.index(first), settings.models.index(second)) for first, second in named]
    found = paired_differences(sums, columns, draws=settings.draws, confidence=settings.confidence, seed=seed)
    values = ratio_of_sums(sums)
    pairs = []
    for (first, second), (a, b), one in zip(named, columns, found, strict=True):
        p = one.p
        if group.independent_answers:
            difference_I = group.numerator_IM[:, b] - group.numerator_IM[:, a]
            p = mcnemar_exact(int((difference_I < 0).sum()), int((difference_I > 0).sum()))
        detectable = minimum_detectable_difference(one.standard_error, confidence=settings.confidence)
        pairs.append(
            {
                "baseline": first,
                "model": second,
                "difference": _rounded(one.value),
                "low": _rounded(one.low),
                "high": _rounded(one.high),
                "p": _rounded(p),
                "relative": _rounded(one.value / values[a]) if values[a] else None,
                "detectable": _rounded(detectable) if len(sums) > 1 else None,
            }
        )
    return pairs


def _adjust(tasks: Sequence[dict[str, Any]], settings: Settings) -> None:
    """Holm over every pair of every task, then the verdicts, which depend on it."""
    pairs = [(task, pair) for task in tasks for pair in task["pairs"]]
    for (task, pair), p in zip(pairs, holm([pair["p"] for _, pair in pairs]), strict=True):
        pair["p_adjusted"] = _rounded(p)
        pair["verdict"] = _verdict(
            pair, lower_is_better=task["lower_is_better"], level=1 - settings.confidence
        )
        sides = Sides(task["by_model"][pair["baseline"]]["value"], task["by_model"][pair["model"]]["value"])
        pair["sentence"] = pair_sentence(task, pair, sides, confidence=settings.confidence)


def _verdict(pair: Mapping[str, Any], *, lower_is_better: bool, level: float) -> str:
    if pair["p_adjusted"] >= level or pair["difference"] == 0:
        return "no difference seen"
    return "better" if (pair["difference"] < 0) == lower_is_better else "worse"


def _by_domain(group: Group, settings: Settings) -> list[dict[str, Any]]:
    """Plain values by host, hosts with the most items first; too few items each for intervals."""
    domains = np.array(group.domains, dtype=object)
    summary = []
    for domain in sorted(set(group.domains)):
        chosen = domains == domain
        value_M = group.numerator_IM[chosen].sum(axis=0) / group.denominator_I[chosen].sum()
        by_model = {model: _rounded(value) for model, value in zip(settings.models, value_M, strict=True)}
        summary.append({"domain": domain, "items": int(chosen.sum()), "by_model": by_model})
    return sorted(summary, key=lambda entry: (-entry["items"], entry["domain"]))


def _generations(rows: Sequence[Row], settings: Settings) -> list[dict[str, Any]]:
    """What the models wrote, prompt by prompt; `gold` is how the page itself goes on."""
    by_item: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["dataset"], row["item"])):
        entry = by_item.setdefault(
            (row["dataset"], row["item"]),
            {
                "dataset": row["dataset"],
                "language": row["language"],
                "item": row["item"],
                "prompt": row["prompt"],
                "gold": row["gold"],
                "outputs": {},
            },
        )
        entry["outputs"][row["model"]] = row["output"]
    for entry in by_item.values():
        entry["outputs"] = {model: entry["outputs"].get(model, "") for model in settings.models}
    return list(by_item.values())


def _rounded(value: float) -> float | None:
    """Six decimals, never minus zero; None for what is not finite (JSON has no infinity)."""
    return round(float(value), DIGITS) + 0.0 if isfinite(value) else None
