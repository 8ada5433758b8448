"""Scores that can't be what they seem: zeros, chance, bounds, averages that are none, outliers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from tsugiki.study.benchmarks import Benchmark
from tsugiki.study.findings import Finding
from tsugiki.study.table import Array, ScoreTable

_CHANCE_MARGIN: Final = 0.02
"""Scores up to so much above guessing are called at chance: about one standard error of 600 questions."""
_NORMAL_MAD: Final = 0.6744897501960817
"""The 75th percentile of the standard normal: its median absolute deviation."""
_OUTLIER: Final = 3.5
"""Iglewicz and Hoaglin (1993), "How to detect and handle outliers": of modified z-scores."""
_AGREE: Final = 0.5
"""A group of columns is what an average is of if at least this share of the models agree."""


def check_scores(table: ScoreTable, known: Mapping[str, Benchmark]) -> tuple[Finding, ...]:
    """Everything about the scores that a reader should know; no score is changed.

    known: facts of benchmarks by the table's names (`benchmarks.known_benchmarks`).
    """
    return (*_missing(table), *_impossible(table), *_against_facts(table, known), *check_averages(table))


def _missing(table: ScoreTable) -> list[Finding]:
    places = np.argwhere(np.isnan(table.scores_MB)).tolist()
    return [Finding("missing", "no score", table.models[m], table.benchmarks[b]) for m, b in places]


def _impossible(table: ScoreTable) -> list[Finding]:
    found = []
    for (m, b), score in np.ndenumerate(table.scores_MB):
        model, name = table.models[m], table.benchmarks[b]
        if score == 0:
            said = "exactly 0: more often a harness that failed than a model that can't"
            found.append(Finding("zero", said, model, name, 0.0))
        elif score < 0 or score > 1:
            found.append(Finding("range", "outside of [0, 1]", model, name, float(score)))
        elif score == 1:
            found.append(Finding("range", "exactly 1", model, name, 1.0))
    return found


def _against_facts(table: ScoreTable, known: Mapping[str, Benchmark]) -> list[Finding]:
    found = []
    for name, facts in known.items():
        if facts.note:
            found.append(Finding("note", facts.note, "", name))
        for model, score in zip(table.models, table.column(name).tolist(), strict=True):
            if facts.chance is not None and 0 < score <= facts.chance + _CHANCE_MARGIN:
                place = "below" if score < facts.chance else "at"
                said = f"{place} the {facts.chance:g} of guessing"
                found.append(Finding("chance", said, model, name, score))
            if facts.highest is not None and score > facts.highest:
                said = f"above the highest score that can be reached, {facts.highest:g}"
                found.append(Finding("range", said, model, name, score))
    return found


def check_averages(table: ScoreTable) -> list[Finding]:
    """Stated averages that are not the means of the columns that they are averages of.

    Which columns these are is found out: the run of neighbouring columns whose mean agrees with most models'
    stated average, to the decimals in which it is stated.
    """
    found = []
    for name, stated in table.averages.items():
        tolerance = _tolerance(stated)
        first, last, agree, compared = _averaged(table, stated, tolerance)
        if agree < _AGREE * compared or agree < 2:  # noqa: PLR2004 - one agreement may be chance
            said = "no run of columns has this as its mean: the stated averages were not checked"
            found.append(Finding("average", said, "", name))
            continue
        mean = table.scores_MB[:, first:last].mean(axis=1)
        for row in np.flatnonzero(np.abs(mean - stated) > tolerance).tolist():
            said = f"stated {stated[row]:.4f}; the mean of its {last - first} benchmarks is {mean[row]:.4f}"
            found.append(Finding("average", said, table.models[row], name, float(mean[row])))
    return found


def _tolerance(stated: Array) -> float:
    """A unit of the last stated decimal: half of it is rounding, half for rounded summands."""
    values = stated[np.isfinite(stated)]
    decimals = next(
        (d for d in range(1, 7) if np.allclose(values, np.round(values, d), rtol=0, atol=1e-9)), 7
    )
    return 10.0**-decimals + 1e-9


def _averaged(table: ScoreTable, stated: Array, tolerance: float) -> tuple[int, int, int, int]:
    """The run of columns that agrees best: first, one past last, agreeing and compared models.

    Models with a gap in the run are not compared.
    """
    absent_MB = np.isnan(table.scores_MB)
    start = np.zeros((len(table.models), 1))
    sums = np.hstack([start, np.cumsum(np.where(absent_MB, 0.0, table.scores_MB), axis=1)])
    gaps = np.hstack([start, np.cumsum(absent_MB, axis=1)])
    best = (0, 0, 0, 0)
    for first in range(len(table.benchmarks)):
        for last in range(first + 2, len(table.benchmarks) + 1):
            mean = (sums[:, last] - sums[:, first]) / (last - first)
            whole = gaps[:, last] == gaps[:, first]
            agree = int((whole & (np.abs(mean - stated) <= tolerance)).sum())
            if agree > best[2]:
                best = (first, last, agree, int((whole & np.isfinite(stated)).sum()))
    return best


def outliers(table: ScoreTable, fitted_MB: Array) -> list[Finding]:
    """Scores far from what the common factors say of the model.

    fitted_MB: the scores as the kept factors give them back. A residual is far beyond 3.5 modified z-scores
    of its benchmark, and by at least 0.05.
    """
    residual_MB = table.scores_MB - fitted_MB
    found = []
    for place, name in enumerate(table.benchmarks):
        residual = residual_MB[:, place]
        middle = np.nanmedian(residual)
        spread = np.nanmedian(np.abs(residual - middle))
        if not spread > 0:
            continue
        score = _NORMAL_MAD * (residual - middle) / spread
        for row in np.flatnonzero((np.abs(score) > _OUTLIER) & (np.abs(residual) > 0.05)).tolist():  # noqa: PLR2004
            said = f"{residual[row]:+.3f} from what the common factors say ({score[row]:+.1f} modified z)"
            found.append(
                Finding("outlier", said, table.models[row], name, float(table.scores_MB[row, place]))
            )
    return found
