"""Missing scores filled in by the components of the others, in rounds: said in findings, never silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tsugiki.errors import DataError
from tsugiki.study.findings import Finding
from tsugiki.study.table import Array, ScoreTable

ROUNDS: Final = 1000
TOLERANCE: Final = 1e-4
"""Both as in ryoungj/ObsScaling, whose default is one component, too."""
_MOST_MISSING: Final = 0.5


@dataclass(frozen=True)
class Imputed:
    """scores_MB without gaps, which cells were gaps, and how many rounds it took to settle."""

    scores_MB: Array
    filled_MB: NDArray[np.bool_]
    rounds: int
    settled: bool


def impute(scores_MB: Array, components: int = 1) -> Imputed:
    """Fill gaps with what the first components say, until cells move by less than 1e-4 deviations.

    Columns are standardised by their known scores first, so that a benchmark with little spread counts as
    much as one with a lot (ObsScaling centres only). Raises DataError for a benchmark that less than half of
    the models have.
    """
    gaps_MB = np.isnan(scores_MB)
    if not gaps_MB.any():
        return Imputed(scores_MB, gaps_MB, 0, settled=True)
    if (gaps_MB.mean(axis=0) > _MOST_MISSING).any():
        raise DataError(
            "more than half of the models lack a score on some benchmark",
            hint="drop such benchmarks (--drop) or models: most of that column would be invented",
        )
    mean_B, deviation_B = np.nanmean(scores_MB, axis=0), np.nanstd(scores_MB, axis=0)
    filled = np.where(gaps_MB, 0.0, (scores_MB - mean_B) / deviation_B)
    components = min(components, min(filled.shape) - 1)
    for rounds in range(1, ROUNDS + 1):
        centre_B = filled.mean(axis=0)
        left, values, right = np.linalg.svd(filled - centre_B, full_matrices=False)
        rebuilt = (left[:, :components] * values[:components]) @ right[:components] + centre_B
        moved = float(np.sqrt(((rebuilt - filled)[gaps_MB] ** 2).mean()))
        filled = np.where(gaps_MB, rebuilt, filled)
        if moved < TOLERANCE:
            return Imputed(_scores(scores_MB, filled, mean_B, deviation_B), gaps_MB, rounds, settled=True)
    return Imputed(_scores(scores_MB, filled, mean_B, deviation_B), gaps_MB, ROUNDS, settled=False)


def _scores(scores_MB: Array, filled_MB: Array, mean_B: Array, deviation_B: Array) -> Array:
    return np.where(np.isnan(scores_MB), filled_MB * deviation_B + mean_B, scores_MB)


def imputation_findings(table: ScoreTable, imputed: Imputed) -> list[Finding]:
    """One finding a filled cell, and one where the rounds did not settle."""
    found = [
        Finding(
            "imputed",
            "filled in from the other scores",
            table.models[m],
            table.benchmarks[b],
            float(imputed.scores_MB[m, b]),
        )
        for m, b in np.argwhere(imputed.filled_MB).tolist()
    ]
    if not imputed.settled:
        found.append(Finding("imputed", f"the filled-in scores still moved after {imputed.rounds} rounds"))
    return found
