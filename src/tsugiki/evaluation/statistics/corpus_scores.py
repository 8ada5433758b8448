"""Intervals and paired tests for metrics of a whole corpus (BLEU, chrF), by the studentised bootstrap.

Such a metric is a function of sums over the items (`metrics.corpus.CORPUS_METRICS`), not a mean of scores.
Clusters are resampled whole, their sums added up and the metric computed again. The error of a value is that
of the delta method: with g the gradient of the metric by its sums and s_c the sums of cluster c,

    V = C / (C - 1) sum_c (g . (s_c - mean s))^2,

and so in every draw, with the draw's own gradient and its own clusters (the infinitesimal jackknife of Efron
1982, chapter 6). Two models on the same items are one function of both their sums.

Axis letters: C clusters, M models, S sums of a metric, R draws, K = M S.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from tsugiki.errors import DataError
from tsugiki.evaluation.statistics.estimates import (
    BOOTSTRAP,
    Array,
    Estimate,
    resampled_sums,
    studentised_estimates,
)

Value = Callable[[Array], Array]
"""Sums (..., S) to the metric (...): `CorpusMetric.value`."""
_STEP = 1e-4
"""Step of the numerical gradient, as a share of the sum (at least of 1): the metrics are smooth beyond it."""


def corpus_cluster_sums(sums_IMS: ArrayLike, cluster_I: Sequence[str]) -> Array:
    """Sums of each cluster, clusters in sorted order: (C, M, S). Raises DataError where one is not finite."""
    sums_IMS = np.asarray(sums_IMS, dtype=np.float64)
    if not np.isfinite(sums_IMS).all():
        raise DataError(
            "the sums of an item are missing or not finite", hint="score the task anew: its rows lack `sums`"
        )
    names, index_I = np.unique(np.asarray(cluster_I, dtype=object).astype(str), return_inverse=True)
    total_CMS = np.zeros((len(names), *sums_IMS.shape[1:]))
    np.add.at(total_CMS, index_I, sums_IMS)
    return total_CMS


def corpus_draws(
    value: Value, sums_CMS: Array, pairs: Sequence[tuple[int, int]], *, draws: int, seed: int
) -> tuple[Array, Array, Array, Array]:
    """Values and errors of the M models and then of all pairs (b minus a), observed and in each draw.

    Gives value (N,), error (N,), drawn values (R, N) and drawn errors (R, N), N = M + pairs.
    """
    clusters, models, size = sums_CMS.shape
    flat_CK = sums_CMS.reshape(clusters, models * size)
    # second moments within each model, and between the two of each pair
    crossed = [(a, a) for a in range(models)] + list(pairs)
    moments = [
        np.einsum("cs,ct->cst", sums_CMS[:, a], sums_CMS[:, b]).reshape(clusters, -1) for a, b in crossed
    ]
    values_C = np.concatenate([flat_CK, *moments], axis=1)
    drawn = resampled_sums(values_C, draws=draws, seed=seed)
    observed = values_C.sum(axis=0, keepdims=True)
    found = [_with_errors(value, part, clusters, (models, size), crossed) for part in (observed, drawn)]
    (value_N, error_N), (value_RN, error_RN) = found
    return value_N[0], error_N[0], value_RN, error_RN


def _with_errors(
    value: Value,
    total_R: Array,
    clusters: int,
    shape: tuple[int, int],
    crossed: Sequence[tuple[int, int]],
) -> tuple[Array, Array]:
    models, size = shape
    total_RMS = total_R[:, : models * size].reshape(len(total_R), models, size)
    gradient_RMS = _gradient(value, total_RMS)
    products = total_R[:, models * size :].reshape(len(total_R), len(crossed), size, size)
    covariance = []
    for index, (a, b) in enumerate(crossed):
        mean = np.einsum("rs,rt->rst", total_RMS[:, a], total_RMS[:, b]) / clusters
        centred = products[:, index] - mean
        covariance.append(np.einsum("rs,rst,rt->r", gradient_RMS[:, a], centred, gradient_RMS[:, b]))
    own_RM = np.stack(covariance[:models], axis=1)
    value_RM = value(total_RMS)
    values, variances = [value_RM], [own_RM]
    for index, (a, b) in enumerate(crossed[models:], start=models):
        values.append((value_RM[:, b] - value_RM[:, a])[:, None])
        variances.append((own_RM[:, a] + own_RM[:, b] - 2 * covariance[index])[:, None])
    correction = clusters / max(clusters - 1, 1)
    variance_RN = np.clip(np.concatenate(variances, axis=1), 0, None)
    scale_RN = np.concatenate(
        [own_RM, *([own_RM.sum(axis=1, keepdims=True)] * (len(crossed) - models))], axis=1
    )
    variance_RN[variance_RN <= 1e-9 * scale_RN] = 0  # what a subtraction leaves of rounding
    error_RN = np.sqrt(correction * variance_RN)
    if clusters < 2:  # noqa: PLR2004 (a variance needs two)
        error_RN = np.full_like(error_RN, np.inf)
    return np.concatenate(values, axis=1), error_RN


def _gradient(value: Value, total_RMS: Array) -> Array:
    """The value's derivative by each sum, from central differences; one call computes them all."""
    size = total_RMS.shape[-1]
    one_SS = np.eye(size).reshape(size, *([1] * (total_RMS.ndim - 1)), size)
    step_SRMS = one_SS * (_STEP * np.maximum(1.0, np.abs(total_RMS)))
    above_SRMS, below_SRMS = total_RMS + step_SRMS, np.maximum(total_RMS - step_SRMS, 0.0)
    width_SRM = (above_SRMS - below_SRMS).sum(axis=-1)
    change_SRM = np.subtract(*value(np.stack([above_SRMS, below_SRMS])))
    return np.asarray(np.moveaxis(change_SRM / width_SRM, 0, -1))


def corpus_estimates(
    value: Value,
    sums_CMS: Array,
    pairs: Sequence[tuple[int, int]] = (),
    *,
    draws: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[list[Estimate], list[Estimate]]:
    """Estimates of the models and of the pairs (b minus a), all from the same draws."""
    value_N, error_N, value_RN, error_RN = corpus_draws(value, sums_CMS, pairs, draws=draws, seed=seed)
    found = studentised_estimates(
        value_N, error_N, (value_RN, error_RN), clusters=len(sums_CMS), confidence=confidence
    )
    models = sums_CMS.shape[1]
    of_pairs = [replace(one, method=f"paired {BOOTSTRAP}") for one in found[models:]]
    return found[:models], of_pairs
