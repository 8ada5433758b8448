"""Averages over tasks: the tasks stay, the clusters within each are resampled whole (hierarchical bootstrap).

An average of 19 tasks is a statement on these 19 tasks, so they are no sample of tasks; the questions in each
are a sample. Every task counts the same, whatever the number of its questions. Draws are studentised as
elsewhere: the error of an average is sqrt(sum of the tasks' squared errors) / T, in each draw too.

Some tasks ask the same questions (MGSM's are translations of GSM8K's): a model that is lucky in one is lucky
in the other, and independent draws would give intervals that are too narrow. Their clusters are drawn
together (`joint_task_draws`). The error above leaves out what they have in common, observed and drawn alike,
so that the studentised draws put it back.

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
    bootstrap_moments,
    cluster_bootstrap,
    linearised_standard_error,
    ratio_of_sums,
    ratios_of_moments,
    resampled_sums,
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
    every = _with_pairs(sums, pairs)
    value_RN, error_RN = cluster_bootstrap(every, draws=draws, seed=seed)
    return TaskDraws(ratio_of_sums(every), linearised_standard_error(every), value_RN, error_RN, len(sums))


def _with_pairs(sums: ClusterSums, pairs: Sequence[tuple[int, int]]) -> ClusterSums:
    x_CM = sums.numerator_CM
    columns = [x_CM, *((x_CM[:, b] - x_CM[:, a])[:, None] for a, b in pairs)]
    return ClusterSums(np.concatenate(columns, axis=1), sums.denominator_C)


def joint_task_draws(
    tasks: Sequence[tuple[ClusterSums, Sequence[str]]],
    pairs: Sequence[tuple[int, int]],
    *,
    draws: int,
    seed: int,
) -> list[TaskDraws]:
    """`task_draws` of tasks that share clusters: one that several tasks have is drawn as often in each.

    tasks: sums and the name of each of their clusters, the same in all tasks that share it. The clusters of
    all tasks are resampled as one list, so that a task's number of clusters varies from draw to draw, as the
    number of items of a ratio does; a draw in which a task has none counts as the observed value.
    """
    names = {name: row for row, name in enumerate(sorted({name for _, own in tasks for name in own}))}
    parts = [(_with_pairs(sums, pairs), [names[name] for name in own]) for sums, own in tasks]
    moments = [bootstrap_moments(every) for every, _ in parts]
    values_UK = np.zeros((len(names), sum(one.shape[1] for one in moments)))
    ends = np.cumsum([one.shape[1] for one in moments]).tolist()
    for (_, rows), one, end in zip(parts, moments, ends, strict=True):
        values_UK[rows, end - one.shape[1] : end] = one
    drawn = np.split(resampled_sums(values_UK, draws=draws, seed=seed), ends[:-1], axis=1)
    found = []
    for (every, rows), total_R in zip(parts, drawn, strict=True):
        value_N, error_N = ratio_of_sums(every), linearised_standard_error(every)
        value_RN, error_RN = ratios_of_moments(total_R, len(rows))
        missing_R = ~np.isfinite(value_RN).all(axis=1)
        value_RN[missing_R], error_RN[missing_R] = value_N, error_N
        found.append(TaskDraws(value_N, error_N, value_RN, error_RN, len(rows)))
    return found


def average_estimates(tasks: Sequence[TaskDraws], *, confidence: float = 0.95) -> list[Estimate]:
    """Estimates of the N columns, averaged over at least one task.

    Draws of tasks are taken as they come: independent, or together by `joint_task_draws`.
    """
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
