"""Relative scores: 100 times the mean of the model's scores over the mean of the reference's, by category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsugiki.errors import DataError, StageError
from tsugiki.evaluation.judge.judging import Judgment, failures, parse_scores_as_published

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Relative:
    """A relative score with its interval, and the questions that it rests on."""

    value: float
    low: float
    high: float
    questions: int


@dataclass(frozen=True)
class Summary:
    """Scores of a model. total: the plain mean of the categories, as published.

    counts: judgments scored, unparsed, failed. inconsistent: share of the questions judged in both orders of
    which the better answer changes with the order, None without a swap. published: the categories and the
    total as the published script has them, only from the unswapped order, with -1 for what can't be read.
    """

    categories: dict[str, Relative]
    total: Relative
    counts: dict[str, int]
    inconsistent: float | None
    published: dict[str, float] | None


@dataclass(frozen=True)
class _Table:
    """Scores of questions: model's and reference's, the category's number, the image's name."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    category_I: NDArray[np.int64]
    images: tuple[str, ...]
    model_I: Array
    reference_I: Array


def summarise(
    judgments: Sequence[Judgment],
    *,
    maximum_errors: float = 0.05,
    draws: int = 2000,
    seed: int = 0,
    published: bool = False,
) -> Summary:
    """Score a model by what the judge said.

    A question counts by the mean over its orders that could be read; without any it is left out and counted.
    Intervals: 95 % percentiles of a bootstrap over images, whose questions are not independent; both scores
    of a question stay together. Raises StageError where more than `maximum_errors` of the judgments have no
    score, DataError where none has.
    """
    counts = failures(judgments)
    wrong = counts["unparsed"] + counts["failed"]
    if not judgments or wrong > maximum_errors * len(judgments):
        first = next((one for one in judgments if one.outcome != "scored"), None)
        example = f"; question {first.question}: {first.detail}" if first else ""
        raise StageError(
            f"{wrong} of {len(judgments)} judgments have no score ({counts['unparsed']} could not be read, "
            f"{counts['failed']} not asked); at most {maximum_errors:.0%} may{example}",
            hint="look at the stored reviews; the same command asks again for what failed; or --max-errors",
        )
    table = _table(judgments)
    values_K, total = _relative(table, np.ones(len(table.ids)))
    draws_RK = _bootstrap([table], draws, seed)[0]
    categories = {
        name: Relative(float(values_K[k]), *_interval(draws_RK[:, k]), int((table.category_I == k).sum()))
        for k, name in enumerate(table.names)
    }
    whole = Relative(total, *_interval(draws_RK.mean(axis=1)), len(table.ids))
    return Summary(
        categories, whole, counts, _inconsistent(judgments), _as_published(judgments) if published else None
    )


def difference(
    first: Sequence[Judgment], second: Sequence[Judgment], *, draws: int = 2000, seed: int = 0
) -> Relative:
    """Total of `second` minus that of `first`, on the questions that both have, with the same draws for both.

    Raises DataError where they share no question.
    """
    tables = [_table(one) for one in (first, second)]
    common = set(tables[0].ids) & set(tables[1].ids)
    if not common:
        raise DataError(
            "the two models were judged on different questions", hint="judge both on the same file"
        )
    tables = [_table([one for one in judgments if one.question in common]) for judgments in (first, second)]
    totals = [_relative(table, np.ones(len(table.ids)))[1] for table in tables]
    drawn = _bootstrap(tables, draws, seed)
    spread_R = drawn[1].mean(axis=1) - drawn[0].mean(axis=1)
    return Relative(totals[1] - totals[0], *_interval(spread_R), len(common))


def _table(judgments: Sequence[Judgment]) -> _Table:
    pairs: dict[str, list[tuple[float, float]]] = {}
    about: dict[str, Judgment] = {}
    for one in judgments:
        if one.scores is not None:
            pairs.setdefault(one.question, []).append(one.scores)
            about[one.question] = one
    if not pairs:
        raise DataError("no judgment has a score", hint="look at the stored reviews")
    ids = tuple(sorted(pairs))
    names = tuple(sorted({about[name].category for name in ids}))
    mean_I2 = np.array([np.mean(pairs[name], axis=0) for name in ids])
    category_I = np.array([names.index(about[name].category) for name in ids])
    images = tuple(about[name].image for name in ids)
    return _Table(ids, names, category_I, images, mean_I2[:, 1], mean_I2[:, 0])


def _relative(table: _Table, weight_I: Array) -> tuple[Array, float]:
    """The relative scores (K,) and their mean, with questions counted `weight_I` times."""
    size = len(table.names)
    model_K = np.bincount(table.category_I, weight_I * table.model_I, size)
    reference_K = np.bincount(table.category_I, weight_I * table.reference_I, size)
    values_K = 100 * model_K / reference_K
    return values_K, float(values_K.mean())


def _bootstrap(tables: Sequence[_Table], draws: int, seed: int) -> list[Array]:
    """Resample images; the relative scores (R, K) of each table. A draw that lacks a category is repeated."""
    images = sorted({image for table in tables for image in table.images})
    index = {image: place for place, image in enumerate(images)}
    places = [np.array([index[image] for image in table.images]) for table in tables]
    generator = np.random.default_rng(seed)
    found: list[list[Array]] = [[] for _ in tables]
    tried = 0
    while len(found[0]) < draws and tried < 100 * draws:
        tried += 1
        count_C = generator.multinomial(len(images), np.full(len(images), 1 / len(images)))
        weights = [count_C[place].astype(np.float64) for place in places]
        whole = all(
            np.bincount(table.category_I, weight, len(table.names)).all()
            for table, weight in zip(tables, weights, strict=True)
        )
        if whole:
            for kept, table, weight in zip(found, tables, weights, strict=True):
                kept.append(_relative(table, weight)[0])
    return [np.array(kept).reshape(-1, len(table.names)) for kept, table in zip(found, tables, strict=True)]


def _interval(values_R: Array) -> tuple[float, float]:
    if len(values_R) < 2:  # noqa: PLR2004 (no spread can be seen)
        return float("-inf"), float("inf")
    low, high = np.percentile(values_R, [2.5, 97.5])
    return float(low), float(high)


def _inconsistent(judgments: Sequence[Judgment]) -> float | None:
    """Of the questions scored in both orders, the share whose better side is another after the swap."""
    signs: dict[str, dict[bool, float]] = {}
    for one in judgments:
        if one.scores is not None:
            signs.setdefault(one.question, {})[one.swapped] = float(np.sign(one.scores[1] - one.scores[0]))
    both = [pair for pair in signs.values() if len(pair) == 2]  # noqa: PLR2004
    return sum(pair[False] != pair[True] for pair in both) / len(both) if both else None


def _as_published(judgments: Sequence[Judgment]) -> dict[str, float]:
    pairs: dict[str, list[tuple[float, float]]] = {}
    for one in judgments:
        if not one.swapped:
            pairs.setdefault(one.category, []).append(parse_scores_as_published(one.review))
    found = {}
    for category, scores in sorted(pairs.items()):
        reference, model = np.mean(scores, axis=0)
        found[category] = float(100 * model / reference) if reference else float("nan")
    found["total"] = float(np.mean(list(found.values())))
    return found
