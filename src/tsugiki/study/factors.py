"""Principal components of standardised scores, how stable they are, and how many are more than noise.

The method of arXiv 2412.14471 as far as it is public: columns to mean 0 and standard deviation 1,
eigenvectors of their correlation matrix, loadings = eigenvector x sqrt(eigenvalue) (the correlation of a
benchmark with a component), scores = Z V. No rotation; `rotation` has some.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tsugiki.errors import DataError

Array = NDArray[np.float64]

_CELLS: Final = 4_000_000
"""Numbers of one block of draws: 32 MB."""
_WHOLE: Final = 1e-12
"""An eigenvalue below this share of the largest is zero but for rounding."""


@dataclass(frozen=True)
class Factors:
    """The principal components of M x B standardised scores, all of them, the largest first.

    eigenvalues_B: sum to B. vectors_BK, loadings_BK, scores_MK with K = B: columns are components. mean_B and
    deviation_B (population) are those of the scores. A component's sign is such that its loadings sum up to
    no less than 0: more of it is better on most benchmarks.
    """

    mean_B: Array
    deviation_B: Array
    eigenvalues_B: Array
    vectors_BK: Array
    loadings_BK: Array
    scores_MK: Array

    @property
    def explained_B(self) -> Array:  # noqa: N802 - the axis is part of the name
        """Share of the variance of all benchmarks, by component."""
        return self.eigenvalues_B / self.eigenvalues_B.sum()

    def rebuilt(self, components: int) -> Array:
        """The scores (M x B) as the first components alone give them."""
        standard = self.scores_MK[:, :components] @ self.vectors_BK[:, :components].T
        return standard * self.deviation_B + self.mean_B


@dataclass(frozen=True)
class Stability:
    """A bootstrap over models, by component: 95 % interval of its share, how near its direction stays.

    cosine: absolute cosine of a draw's component with that of all models; draws' components are matched to
    them in order and sign. left_out: draws in which some benchmark had no spread.
    """

    draws: int
    left_out: int
    share_low_K: Array
    share_high_K: Array
    cosine_median_K: Array
    cosine_low_K: Array
    loading_low_BK: Array
    loading_high_BK: Array


@dataclass(frozen=True)
class Parallel:
    """Horn's parallel analysis: 95th percentiles of noise, and how many components exceed them."""

    draws: int
    threshold_B: Array
    kept: int


def standardise(scores_MB: Array) -> tuple[Array, Array, Array]:
    """Columns to mean 0 and population standard deviation 1, with the means and the deviations.

    Raises DataError where a column has no spread or a score is missing.
    """
    if not np.isfinite(scores_MB).all():
        raise DataError(
            "some scores are missing", hint="fill them in first (imputation.impute), or drop models"
        )
    mean_B, deviation_B = scores_MB.mean(axis=0), scores_MB.std(axis=0)
    if (deviation_B <= _WHOLE * np.maximum(np.abs(mean_B), _WHOLE)).any():
        raise DataError("some benchmark has the same score for all models", hint="leave it out")
    return (scores_MB - mean_B) / deviation_B, mean_B, deviation_B


def principal_components(scores_MB: Array) -> Factors:
    """The components of a table without gaps; raises DataError as `standardise`."""
    z_MB, mean_B, deviation_B = standardise(scores_MB)
    values, vectors = np.linalg.eigh(z_MB.T @ z_MB / len(z_MB))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    signs = np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)
    vectors = vectors * signs
    return Factors(
        mean_B, deviation_B, values, vectors, vectors * np.sqrt(values), z_MB @ vectors
    )  # fmt: skip


def bootstrap(
    scores_MB: Array,
    factors: Factors,
    components: int,
    *,
    draws: int = 2000,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
) -> Stability:
    """How much the first components change when the models are drawn again with replacement.

    clusters: one a model; whole clusters are drawn then (models of one family are no independent evidence).
    """
    models, benchmarks = scores_MB.shape
    rng = np.random.default_rng(seed)
    weights_RM = _resampled(models, clusters, draws, rng)
    block = max(1, _CELLS // (benchmarks * max(models, benchmarks)))
    blocks = (
        _components_of(scores_MB[None], weights_RM[start : start + block]) for start in range(0, draws, block)
    )
    return _stability(blocks, factors, min(components, benchmarks), draws)


def stability_of_tables(tables_RMB: Array, factors: Factors, components: int) -> Stability:
    """The same over tables that were drawn otherwise (`item_noise.drawn_tables`), all models in each."""
    draws, models, benchmarks = tables_RMB.shape
    block = max(1, _CELLS // (benchmarks * max(models, benchmarks)))
    blocks = (
        _components_of(
            tables_RMB[start : start + block], np.ones((min(block, draws - start), models), dtype=np.int64)
        )
        for start in range(0, draws, block)
    )
    return _stability(blocks, factors, min(components, benchmarks), draws)


def _stability(
    blocks: Iterable[tuple[Array, Array, NDArray[np.bool_]]], factors: Factors, components: int, draws: int
) -> Stability:
    """Components of each draw matched to those of the table, in order and sign, and their spread."""
    from scipy.optimize import linear_sum_assignment

    shares, loadings, cosines = [], [], []
    left_out, benchmarks = 0, len(factors.eigenvalues_B)
    for values, vectors, usable in blocks:
        left_out += int((~usable).sum())
        for value_B, vector_BB in zip(values, vectors, strict=True):
            cosine = factors.vectors_BK[:, :components].T @ vector_BB[:, :components]
            rows, columns = linear_sum_assignment(-np.abs(cosine))
            found = cosine[rows, columns]
            cosines.append(np.abs(found))
            shares.append(value_B[columns] / benchmarks)
            sign = np.where(found < 0, -1.0, 1.0)
            loadings.append(vector_BB[:, columns] * np.sqrt(value_B[columns]) * sign)
    if not shares:
        raise DataError("no draw of models has spread on every benchmark", hint="add models")
    share_low, share_high = np.quantile(shares, [0.025, 0.975], axis=0)
    loading_low, loading_high = np.quantile(loadings, [0.025, 0.975], axis=0)
    cosine_low, cosine_median = np.quantile(cosines, [0.025, 0.5], axis=0)
    return Stability(
        draws, left_out, share_low, share_high, cosine_median, cosine_low, loading_low, loading_high
    )


def _resampled(
    models: int, clusters: Sequence[str] | None, draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """How often each model is in each draw, R x M."""
    names = list(dict.fromkeys(clusters)) if clusters is not None else []
    size = models if clusters is None else len(names)
    picked_RN = rng.integers(0, size, (draws, size))
    counts_RN = np.zeros((draws, size), dtype=np.int64)
    np.add.at(counts_RN, (np.arange(draws)[:, None], picked_RN), 1)
    if clusters is None:
        return counts_RN
    return counts_RN[:, [names.index(name) for name in clusters]]


def _components_of(
    scores_RMB: Array, weights_RM: NDArray[np.int64]
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Eigenvalues and vectors of each draw's correlation matrix, the largest first; which draws have any."""
    share_RM = weights_RM / weights_RM.sum(axis=1, keepdims=True)
    mean_RB = (share_RM[:, None] @ scores_RMB)[:, 0]
    centred_RMB = scores_RMB - mean_RB[:, None]
    covariance = np.matmul(centred_RMB.transpose(0, 2, 1) * share_RM[:, None], centred_RMB)
    variance_RB = np.einsum("rbb->rb", covariance)
    usable = (variance_RB > _WHOLE).all(axis=1)
    deviation = np.sqrt(variance_RB[usable])
    values, vectors = np.linalg.eigh(covariance[usable] / deviation[:, :, None] / deviation[:, None, :])
    return np.maximum(values[:, ::-1], 0.0), vectors[:, :, ::-1], usable


def parallel_analysis(models: int, eigenvalues_B: Array, *, draws: int = 1000, seed: int = 0) -> Parallel:
    """Horn (1965): keep leading components whose eigenvalues exceed the 95th percentile of noise.

    Noise is Gaussian of the same shape. The test is conservative after a large first eigenvalue.
    """
    rng = np.random.default_rng(seed)
    benchmarks = len(eigenvalues_B)
    found = []
    block = max(1, _CELLS // (benchmarks * max(models, benchmarks)))
    for start in range(0, draws, block):
        noise = rng.standard_normal((min(block, draws - start), models, benchmarks))
        noise -= noise.mean(axis=1, keepdims=True)
        noise /= noise.std(axis=1, keepdims=True)
        found.append(np.linalg.eigvalsh(noise.transpose(0, 2, 1) @ noise / models)[:, ::-1])
    threshold_B = np.quantile(np.concatenate(found), 0.95, axis=0)
    beaten = eigenvalues_B > threshold_B
    kept = int(np.argmin(beaten)) if not beaten.all() else benchmarks
    return Parallel(draws, threshold_B, kept)
