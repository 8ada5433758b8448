"""Averages over tasks: the tasks stay, the clusters within each are resampled whole (hierarchical bootstrap).

An average of 19 tasks is a statement on these 19 tasks, so they are no sample of tasks; the questions in each
are a sample. Every task counts the same, whatever the number of its questions. Draws are studentised as
elsewhere: the error of an average is sqrt(sum of the tasks' squared errors) / T, in each draw too.

Axis letters: N columns (models, then pairs), R draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tsugiki.evaluation.statistics.estimates import (
    Array,
    ClusterSums,
    Estimate,
    cluster_bootstrap,
    linearised_standard_error,
    ratio_of_sums,
    studentised_estimates,
)

METHOD = "hierarchical bootstrap"


@dataclass(frozen=True)
class TaskDraws:
    """One task's values and errors, observed (N) and in each draw (R, N), and how many clusters it has."""

    value_N: Array
    error_N: Array
    value_RN: Array
    error_RN: Array
    clusters: int


def task_draws(sums: ClusterSums, pairs: Sequence[tuple[int, int]], *, draws: int, seed: int) -> TaskDraws:
    """Draws of a task that is a mean: columns are the models, then b minus a for each of the pairs."""
    x_CM = sums.numerator_CM
    columns = [x_CM, *((x_CM[:, b] - x_CM[:, a])[:, None] for a, b in pairs)]
    every = ClusterSums(np.concatenate(columns, axis=1), sums.denominator_C)
    value_RN, error_RN = cluster_bootstrap(every, draws=draws, seed=seed)
    return TaskDraws(ratio_of_sums(every), linearised_standard_error(every), value_RN, error_RN, len(sums))


def average_estimates(tasks: Sequence[TaskDraws], *, confidence: float = 0.95) -> list[Estimate]:
    """Estimates of the N columns, averaged over at least one task; the draws of the tasks are independent."""
    count = len(tasks)

    def mean(parts: list[Array]) -> Array:
        return np.asarray(np.mean(parts, axis=0))

    def error(parts: list[Array]) -> Array:
        return np.asarray(np.sqrt(np.sum([part**2 for part in parts], axis=0)) / count)

    drawn = (mean([one.value_RN for one in tasks]), error([one.error_RN for one in tasks]))
    found = studentised_estimates(
        mean([one.value_N for one in tasks]),
        error([one.error_N for one in tasks]),
        drawn,
        clusters=sum(one.clusters for one in tasks),
        confidence=confidence,
    )
    return [replace(one, method=METHOD) for one in found]
