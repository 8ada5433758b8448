"""All models' answers to one task on one dataset, as arrays: from rows of scores.parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

import numpy as np

from tsugiki.errors import DataError
from tsugiki.evaluation.statistics.estimates import Array
from tsugiki.evaluation.tasks.base import Measure, Row

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Group:
    """The answers of all models to one task on one dataset. Axes: I items (sorted by id), M models, S sums.

    numerator_IM and denominator_I: value of a model = sum of its numerators / sum of the denominators.
    sums_IMS: what a corpus metric adds up instead; None for other tasks. other_IM: other ways to score, by
    name; NaN where an item has none. Several samples of an item were averaged. clusters_known: whether any
    row says what items share; else each is a cluster of its own.
    """

    task: str
    dataset: str
    language: str
    measure: Measure
    clusters: tuple[str, ...]
    domains: tuple[str, ...]
    numerator_IM: Array
    denominator_I: Array
    sums_IMS: Array | None = None
    other_IM: Mapping[str, Array] = field(default_factory=dict)
    samples: int = 1
    clusters_known: bool = True

    @property
    def mean(self) -> bool:
        """Whether the task's value is the mean of its items' scores."""
        return not self.measure.by_byte and self.sums_IMS is None

    @property
    def right_or_wrong(self) -> bool:
        """Whether all scores are 0 or 1."""
        return self.mean and bool(np.isin(self.numerator_IM, (0.0, 1.0)).all())


def group_rows(rows: Sequence[Row], measure: Measure, models: Sequence[str], baseline: str) -> Group:
    """Arrays from the rows of one task and dataset.

    Raises DataError where models answered different items, where a score lies outside of 0 to 1, or where the
    rows of a corpus metric lack their sums.
    """
    by_model: dict[str, dict[str, list[Row]]] = {model: {} for model in models}
    for row in rows:
        if row["model"] in by_model:
            by_model[row["model"]].setdefault(row["item"], []).append(row)
    first = by_model[baseline]
    items = sorted(first)
    _check_same_items(by_model, baseline, measure)
    every = [[by_model[model][item] for model in by_model] for item in items]
    heads = [first[item][0] for item in items]
    numerator_IM = _numerators(every, measure)
    if not measure.corpus:
        _check_finite(numerator_IM, heads, tuple(by_model))
    _check_range(numerator_IM, measure, heads)
    return Group(
        task=rows[0]["task"],
        dataset=rows[0]["dataset"],
        language=", ".join(sorted({row["language"] for row in rows if row["language"]})),
        measure=measure,
        clusters=tuple(row["cluster"] or row["item"] for row in heads),
        domains=tuple(row["domain"] or "" for row in heads),
        numerator_IM=numerator_IM,
        denominator_I=_denominators(heads, measure),
        sums_IMS=_sums(every, measure),
        other_IM=_other_scores(every),
        samples=max((len(one) for item in every for one in item), default=1),
        clusters_known=any(row["cluster"] for row in heads),
    )


def _check_same_items(
    by_model: Mapping[str, Mapping[str, list[Row]]], baseline: str, measure: Measure
) -> None:
    first = by_model[baseline]
    for model, answers in by_model.items():
        same = answers.keys() == first.keys()
        if same and measure.by_byte:
            same = all(answers[item][0]["bytes"] == first[item][0]["bytes"] for item in first)
        if not same:
            head = next(iter((first or answers).values()))[0]
            raise DataError(
                f'{head["task"]} on "{head["dataset"]}": {model} and {baseline} did not answer the same '
                f"items ({len(answers)} and {len(first)}, {len(answers.keys() & first.keys())} in common)",
                hint="score all models in one evaluate stage, or let `tsugiki compare` align them",
            )


def _numerators(every: Sequence[Sequence[Sequence[Row]]], measure: Measure) -> Array:
    """Bits, or scores, of each item and model; a missing score becomes NaN, which the statistics refuse."""
    name, scale = ("nll_nats", log(2)) if measure.by_byte else ("score", 1.0)
    found = [[_mean([row[name] for row in samples]) for samples in item] for item in every]
    return np.array(found, dtype=np.float64) / scale


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else float("nan")


def _denominators(heads: Sequence[Row], measure: Measure) -> Array:
    if measure.by_byte:
        return np.array([row["bytes"] for row in heads], dtype=np.float64)
    return np.ones(len(heads))


def _check_finite(numerator_IM: Array, heads: Sequence[Row], models: Sequence[str]) -> None:
    if np.isfinite(numerator_IM).all():
        return
    item, model = np.argwhere(~np.isfinite(numerator_IM))[0].tolist()
    row = heads[item]
    raise DataError(
        f'{row["task"]} on "{row["dataset"]}": a score of {models[model]} is not finite, item {row["item"]}',
        hint="a model that gives NaN can't be compared: look at its training loss and its weights",
    )


def _check_range(numerator_IM: Array, measure: Measure, heads: Sequence[Row]) -> None:
    """Every metric of items goes from 0 to 1: a percentage among them would be read as 4,000 %."""
    if measure.by_byte or measure.corpus:
        return
    outside = (numerator_IM < -_ROUNDING) | (numerator_IM > 1 + _ROUNDING)
    if outside.any():
        place = int(outside.any(axis=1).argmax())
        row = heads[place]
        worst = numerator_IM[outside][0]
        raise DataError(
            f'{row["task"]} on "{row["dataset"]}": item {row["item"]} has the score {worst:g}, beyond 0 to 1',
            hint="scores are shares: divide percentages by 100",
        )


def _sums(every: Sequence[Sequence[Sequence[Row]]], measure: Measure) -> Array | None:
    if not measure.corpus:
        return None
    found = [[_mean_sums(samples) for samples in item] for item in every]
    width = max((len(one) for item in found for one in item), default=0)
    if any(len(one) != width or not width for item in found for one in item):
        raise DataError(
            f"{measure.corpus} is computed from sums, and rows lack them", hint="score the task anew"
        )
    return np.array(found, dtype=np.float64)


def _mean_sums(samples: Sequence[Row]) -> list[float]:
    if any(row["sums"] is None for row in samples):
        return []
    return [float(value) for value in np.mean([row["sums"] for row in samples], axis=0)]


def _other_scores(every: Sequence[Sequence[Sequence[Row]]]) -> dict[str, Array]:
    """(I, M) arrays of the other scores, names in sorted order."""
    dicts: list[list[list[dict[str, Any]]]] = [
        [[dict(row["other_scores"] or {}) for row in samples] for samples in item] for item in every
    ]
    names = sorted({name for item in dicts for samples in item for one in samples for name in one})
    return {
        name: np.array(
            [[_mean([one.get(name) for one in samples]) for samples in item] for item in dicts],
            dtype=np.float64,
        )
        for name in names
    }
