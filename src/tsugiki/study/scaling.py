"""How factors and benchmarks go with the compute of each language, and whether one family makes the result.

All predictors are log10, so a coefficient is the change of the outcome a decade of compute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tsugiki.errors import DataError
from tsugiki.study.budgets import TOTAL, Budgets
from tsugiki.study.correlations import fisher_interval, pearson
from tsugiki.study.regression import Fit, least_squares, wald_p
from tsugiki.study.table import Array

CONSTANT: Final = "constant"
CONTINUED: Final = "continued"
_FEWEST: Final = 4
_BALANCED: Final = 2


@dataclass(frozen=True)
class Single:
    """One outcome against log10 of one language's compute. low, high: Fisher's interval of r."""

    outcome: str
    language: str
    r: float
    low: float
    high: float
    fit: Fit


@dataclass(frozen=True)
class Joint:
    """One outcome against several predictors at once.

    model: `compute` (the languages' compute), `continued` (and a dummy of continual pre-training) or `apart`
    (N and the tokens of each language by themselves). sufficiency: for `apart`, how far the coefficient of N
    is from the sum of those of the tokens, with its error and p; 6ND says 0.
    """

    outcome: str
    model: str
    fit: Fit
    sufficiency: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Left:
    """r and slope of an outcome without one family (`without`) or inside of it (`within`)."""

    outcome: str
    language: str
    family: str
    kind: str
    n: int
    r: float
    slope: float


@dataclass(frozen=True)
class Scaling:
    """All fits, and what could not be fitted and why. models: those with budgets in all languages."""

    models: tuple[str, ...]
    families: tuple[str, ...]
    languages: tuple[str, ...]
    outcomes: Mapping[str, Array]
    log_compute: Mapping[str, Array]
    singles: tuple[Single, ...]
    totals: tuple[Single, ...]
    joints: tuple[Joint, ...]
    left: tuple[Left, ...]
    not_fitted: tuple[str, ...] = field(default=())


def usable_models(budgets: Budgets, languages: Sequence[str]) -> NDArray[np.bool_]:
    """Which models have the compute of all these languages."""
    return np.all([np.isfinite(budgets.compute(language)) for language in languages], axis=0)


def scaling(
    models: Sequence[str],
    outcomes: Mapping[str, Array],
    budgets: Budgets,
    *,
    wild_draws: int = 9999,
    seed: int = 0,
) -> Scaling:
    """Fit all outcomes (M each; NaN is left out) on the compute of all languages.

    Raises DataError where fewer than four models have the compute of every language.
    """
    languages = budgets.languages or (TOTAL,)
    usable = usable_models(budgets, languages)
    if usable.sum() < _FEWEST:
        raise DataError(
            f"{int(usable.sum())} models have tokens of {', '.join(languages)} and parameters; 4 are needed",
            hint="add budgets; tokens of a language that are not disclosed can be assumed and marked X",
        )
    not_fitted: list[str] = []
    asked = _Asked(budgets, languages, usable, wild_draws, seed, not_fitted)
    whole: list[Single] = []
    if TOTAL in budgets.tokens and TOTAL not in languages:
        known = usable_models(budgets, (TOTAL,))
        whole = _singles(outcomes, _Asked(budgets, (TOTAL,), known, wild_draws, seed, not_fitted))
    rows = np.flatnonzero(usable).tolist()
    return Scaling(
        tuple(models[row] for row in rows),
        tuple(budgets.families[row] for row in rows),
        tuple(languages),
        {name: values[usable] for name, values in outcomes.items()},
        {language: np.log10(budgets.compute(language)[usable]) for language in languages},
        tuple(_singles(outcomes, asked)),
        tuple(whole),
        tuple(_joints(outcomes, asked)),
        tuple(_leave_out(outcomes, asked)),
        tuple(dict.fromkeys(not_fitted)),
    )


@dataclass(frozen=True)
class _Asked:
    budgets: Budgets
    languages: tuple[str, ...]
    usable: NDArray[np.bool_]
    wild_draws: int
    seed: int
    not_fitted: list[str]

    def fit(
        self, outcome: str, values_M: Array, names: Sequence[str], predictors: Sequence[Array]
    ) -> Fit | None:
        """A fit over the models that have everything; where there is none, a word in `not_fitted`."""
        used = self.usable & np.isfinite(values_M) & np.all([np.isfinite(one) for one in predictors], axis=0)
        x_NP = np.column_stack([np.ones(int(used.sum())), *(one[used] for one in predictors)])
        clusters = [family for family, one in zip(self.budgets.families, used, strict=True) if one]
        try:
            return least_squares(
                (CONSTANT, *names), x_NP, values_M[used], clusters, wild_draws=self.wild_draws, seed=self.seed
            )
        except DataError as error:
            self.not_fitted.append(f"{outcome} on {', '.join(names)}: {error.message}")
            return None

    def log_compute(self, language: str) -> Array:
        return np.log10(self.budgets.compute(language))


def _singles(outcomes: Mapping[str, Array], asked: _Asked) -> list[Single]:
    found = []
    for outcome, values in outcomes.items():
        for language in asked.languages:
            log_compute = asked.log_compute(language)
            fit = asked.fit(outcome, values, (f"log10 C_{language}",), (log_compute,))
            if fit is not None:
                r, n = pearson(np.where(asked.usable, log_compute, np.nan), values)
                found.append(Single(outcome, language, r, *fisher_interval(r, n), fit))
    return found


def _joints(outcomes: Mapping[str, Array], asked: _Asked) -> list[Joint]:
    names = tuple(f"log10 C_{language}" for language in asked.languages)
    compute = tuple(asked.log_compute(language) for language in asked.languages)
    continued = asked.budgets.continued_M
    counts = np.unique(continued[asked.usable & np.isfinite(continued)])
    with np.errstate(divide="ignore", invalid="ignore"):
        parameters = np.log10(asked.budgets.parameters_M)
        tokens = tuple(np.log10(asked.budgets.tokens[language]) for language in asked.languages)
    found = []
    for outcome, values in outcomes.items():
        models = {"compute": (names, compute)} if len(names) > 1 else {}
        if len(counts) == _BALANCED:
            models["continued"] = ((*names, CONTINUED), (*compute, continued))
        apart = ("log10 N", *(f"log10 D_{language}" for language in asked.languages))
        models["apart"] = (apart, (parameters, *tokens))
        for model, (columns, predictors) in models.items():
            fit = asked.fit(outcome, values, columns, predictors)
            if fit is not None:
                found.append(Joint(outcome, model, fit, _sufficiency(fit) if model == "apart" else None))
    return found


def _sufficiency(fit: Fit) -> tuple[float, float, float]:
    """6ND makes the coefficient of N the sum of those of the tokens: their difference, its error and p."""
    contrast = np.array([0.0, 1.0, *(-1.0 for _ in fit.names[2:])])
    return wald_p(fit, contrast)


def _leave_out(outcomes: Mapping[str, Array], asked: _Asked) -> list[Left]:
    families = np.array(asked.budgets.families)
    names = list(dict.fromkeys(families[asked.usable].tolist()))
    found = []
    for outcome, values in outcomes.items():
        for language in asked.languages:
            log_compute = asked.log_compute(language)
            for family in names:
                inside = families == family
                for kind, part in (("without", ~inside), ("within", inside)):
                    used = asked.usable & part & np.isfinite(values)
                    if used.sum() < _FEWEST:
                        continue
                    x, y = log_compute[used], values[used]
                    r, n = pearson(x, y)
                    spread = float(((x - x.mean()) ** 2).sum())
                    slope = float((x - x.mean()) @ y) / spread if spread > 0 else float("nan")
                    found.append(Left(outcome, language, family, kind, n, r, slope))
    return found
