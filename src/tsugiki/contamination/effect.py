"""Scores with and without the items that were found: how much of a number may be memory.

delta = value of all items - value of the untouched ones; positive (for a score where more is better) means
that the touched items flattered the model. Its interval comes from a bootstrap of the clusters, in which both
values are computed from the same draw: they share most of their items. Items that were trained on may also
simply be easier, so compare a model with its base, which did not see the documents: `against` has the
difference between both models' deltas, over the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.reading import load_task, settings_of
from tsugiki.evaluation.benchmarks.schema import Variant
from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS, CorpusMetric

Floats = NDArray[np.float64]

DRAWS = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Effect:
    """One model on one task. clean: the value of untouched items; None where none is left or none touched.

    low, high: the interval of delta. against: delta minus that of the first model, with its interval.
    """

    model: str
    task: str
    items: int
    touched: int
    value: float
    clean: float | None
    delta: float | None
    low: float | None
    high: float | None
    against: tuple[float, float, float] | None


@dataclass(frozen=True)
class _Scored:
    """A model's numbers on a task, summed by cluster. sums_CS: last column counts items."""

    items: int
    touched: int
    all_CS: Floats
    clean_CS: Floats


def effects(table: pa.Table, touched: frozenset[str], *, draws: int = DRAWS, seed: int = 0) -> list[Effect]:
    """The effect on every model and every benchmark of a scores table.

    touched: keys `task#item` of the items that were found. Raises InputError where no task of the table is
    among those of `touched`, since then the wrong table was given.
    """
    names = {key.partition("#")[0] for key in touched}
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in table.to_pylist():
        if row["task"].partition("@")[0] in names and row["score"] is not None:
            rows.setdefault((row["task"], row["model"]), []).append(row)
    if touched and not rows:
        have = ", ".join(sorted(set(table["task"].to_pylist())))
        raise InputError(
            f"the scores are of {have or 'nothing'}; items were found of {', '.join(sorted(names))}",
            hint="name the evaluate stage that asked these benchmarks",
        )
    found = []
    first: dict[str, Floats] = {}
    for (task, model), answers in rows.items():
        metric = _metric(task)
        clusters = sorted({str(row["cluster"] or row["item"]) for row in answers})
        scored = _scored(answers, task, touched, metric, clusters)
        deltas = _deltas(metric, scored, draws, seed)
        found.append(_effect((model, task), metric, scored, deltas, first.get(task)))
        first.setdefault(task, np.append(deltas, found[-1].delta if found[-1].delta is not None else np.nan))
    return found


def _metric(task: str) -> CorpusMetric | None:
    """The corpus metric of a task's variant, None where the value is the mean of the scores."""
    name, _, variant = task.partition("@")
    wanted: Variant = "published" if variant == "published" else "corrected"
    corpus = settings_of(load_task(name), wanted).corpus
    return CORPUS_METRICS[corpus] if corpus else None


def _scored(
    rows: Sequence[Mapping[str, Any]],
    task: str,
    touched: frozenset[str],
    metric: CorpusMetric | None,
    clusters: Sequence[str],
) -> _Scored:
    """Sums by cluster, in the order of `clusters`; samples of an item are averaged within it."""
    place = {name: number for number, name in enumerate(clusters)}
    width = metric.width if metric else 1
    samples: dict[str, int] = {}
    for row in rows:
        samples[row["item"]] = samples.get(row["item"], 0) + 1
    both = np.zeros((2, len(clusters), width + 1))
    name = task.partition("@")[0]
    dirty = set()
    for row in rows:
        numbers = [*(row["sums"] if metric else [row["score"]]), 1.0]
        weighed = np.asarray(numbers, np.float64) / samples[row["item"]]
        cluster = place[str(row["cluster"] or row["item"])]
        both[0, cluster] += weighed
        if f"{name}#{row['item']}" in touched:
            dirty.add(row["item"])
        else:
            both[1, cluster] += weighed
    return _Scored(len(samples), len(dirty), both[0], both[1])


def _deltas(metric: CorpusMetric | None, scored: _Scored, draws: int, seed: int) -> Floats:
    """The delta of each draw of the bootstrap; the draws are the same for every model of a task."""
    clusters = len(scored.all_CS)
    generator = np.random.default_rng([seed, clusters])
    deltas = np.empty(draws)
    for draw in range(draws):
        counts_C = np.bincount(generator.integers(clusters, size=clusters), minlength=clusters)
        totals_2S = np.stack([counts_C @ scored.all_CS, counts_C @ scored.clean_CS])
        values = _value(metric, totals_2S)
        deltas[draw] = values[0] - values[1]
    return deltas


def _value(metric: CorpusMetric | None, totals_DS: Floats) -> Floats:
    """The task's value of added sums; NaN where no item is left."""
    if metric is not None:
        return np.where(totals_DS[..., -1] > 0, metric.value(totals_DS[..., :-1]), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return totals_DS[..., 0] / totals_DS[..., -1]


def _effect(
    name: tuple[str, str],
    metric: CorpusMetric | None,
    scored: _Scored,
    deltas: Floats,
    first: Floats | None,
) -> Effect:
    value = float(_value(metric, scored.all_CS.sum(0)))
    whole = Effect(*name, scored.items, scored.touched, value, None, None, None, None, None)
    if scored.touched in {0, scored.items}:
        return whole
    clean = float(_value(metric, scored.clean_CS.sum(0)))
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.nanquantile(deltas, tails)
    against = None
    if first is not None and np.isfinite(first[-1]):
        other_low, other_high = np.nanquantile(deltas - first[:-1], tails)
        against = (value - clean - float(first[-1]), float(other_low), float(other_high))
    return Effect(
        *name,
        scored.items,
        scored.touched,
        value,
        clean,
        value - clean,
        float(low),
        float(high),
        against,
    )
