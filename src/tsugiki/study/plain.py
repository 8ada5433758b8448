"""A study as plain data for --json: names beside every number, None where a number is not known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tsugiki.study.analysis import FactorStudy, ScalingStudy
from tsugiki.study.factors import Array
from tsugiki.study.findings import Finding
from tsugiki.study.heldout import Checked
from tsugiki.study.laws import Law
from tsugiki.study.mixture import Mixture
from tsugiki.study.observational import Prediction
from tsugiki.study.regression import Fit


def number(value: float) -> float | None:
    """Rounded to ten significant digits, beyond which lies rounding; None for NaN and infinity."""
    value = float(value)
    return float(f"{value:.10g}") if math.isfinite(value) else None


def numbers(values: Array | Sequence[float]) -> list[float | None]:
    """`number` of each."""
    return [number(value) for value in values]


def _by(names: Sequence[str], values: Array) -> dict[str, float | None]:
    return dict(zip(names, numbers(values), strict=True))


def findings_as_list(findings: Sequence[Finding]) -> list[dict[str, object]]:
    """Findings as dicts."""
    return [{**one.as_dict(), "value": None if one.value is None else number(one.value)} for one in findings]


def factors_as_dict(study: FactorStudy) -> dict[str, Any]:
    """Checks, correlations and factors."""
    factors, stability, names = study.factors, study.stability, study.names
    benchmarks, models = study.table.benchmarks, study.table.models
    components = [
        {
            "name": name,
            "eigenvalue": number(factors.eigenvalues_B[k]),
            "share": number(factors.explained_B[k]),
            "share_95": numbers([stability.share_low_K[k], stability.share_high_K[k]]),
            "cosine_median": number(stability.cosine_median_K[k]),
            "cosine_2.5": number(stability.cosine_low_K[k]),
            "noise_95": number(study.parallel.threshold_B[k]),
            "kept": k < study.parallel.kept,
            "loadings": _by(benchmarks, factors.loadings_BK[:, k]),
            "loadings_95": {
                benchmark: numbers([stability.loading_low_BK[b, k], stability.loading_high_BK[b, k]])
                for b, benchmark in enumerate(benchmarks)
            },
            "scores": _by(models, factors.scores_MK[:, k]),
        }
        for k, name in enumerate(names)
    ]
    return {
        "models": list(models),
        "benchmarks": list(benchmarks),
        "missing": study.table.missing,
        "findings": findings_as_list(study.findings),
        "explained": numbers(factors.explained_B),
        "eigenvalues": numbers(factors.eigenvalues_B),
        "noise_95": numbers(study.parallel.threshold_B),
        "kept": study.parallel.kept,
        "draws": {
            "bootstrap": stability.draws,
            "left_out": stability.left_out,
            "noise": study.parallel.draws,
        },
        "components": components,
        "rotated": _rotated(study),
        "correlations": _correlations(study),
    }


def _rotated(study: FactorStudy) -> dict[str, Any] | None:
    one = study.rotated
    if one is None:
        return None
    return {
        "method": one.method,
        "share": numbers(one.variance_K),
        "factor_correlations": [numbers(row) for row in one.factors_KK],
        "loadings": {
            name: numbers(row) for name, row in zip(study.table.benchmarks, one.loadings_BK, strict=True)
        },
        "scores": {name: numbers(row) for name, row in zip(study.table.models, one.scores_MK, strict=True)},
    }


def _correlations(study: FactorStudy) -> dict[str, Any]:
    found = study.correlations
    pairs = []
    for a, first in enumerate(found.benchmarks):
        for second in found.benchmarks[:a]:
            r, low, high, n = found.pair(first, second)
            pairs.append({"a": first, "b": second, "r": number(r), "interval": numbers([low, high]), "n": n})
    return {"confidence": found.confidence, "pairs": pairs}


def _fit(fit: Fit) -> dict[str, Any]:
    return {
        "n": fit.n,
        "families": fit.clusters,
        "r2": number(fit.r2),
        "coefficients": {
            name: {
                "value": number(fit.coefficient_P[p]),
                "error": number(fit.error_P[p]),
                "p": number(fit.p_P[p]),
                "clustered_error": number(fit.clustered_P[p]),
                "clustered_p": number(fit.clustered_p_P[p]),
                "wild_p": number(fit.wild_p_P[p]),
            }
            for p, name in enumerate(fit.names)
        },
    }


def scaling_as_dict(study: ScalingStudy) -> dict[str, Any]:
    """Scaling, families left out, sensitivity."""
    fitted = study.scaling
    singles = [
        {
            "outcome": one.outcome,
            "language": one.language,
            "r": number(one.r),
            "r_95": numbers([one.low, one.high]),
            **_fit(one.fit),
        }
        for one in (*fitted.singles, *fitted.totals)
    ]
    joints = [
        {
            "outcome": one.outcome,
            "model": one.model,
            **_fit(one.fit),
            "sufficiency_of_6ND": None
            if one.sufficiency is None
            else dict(zip(("difference", "clustered_error", "p"), numbers(one.sufficiency), strict=True)),
        }
        for one in fitted.joints
    ]
    left = [{**vars(one), "r": number(one.r), "slope": number(one.slope)} for one in fitted.left]
    return {
        "models": list(fitted.models),
        "families": list(fitted.families),
        "languages": list(fitted.languages),
        "errors": "CR1, t with G - 1 degrees of freedom; wild: restricted wild cluster bootstrap (Webb)",
        "single": singles,
        "joint": joints,
        "left_out": left,
        "sensitivity": _sensitivity(study),
        "findings": findings_as_list(study.findings),
    }


def _sensitivity(study: ScalingStudy) -> dict[str, Any] | None:
    tested = study.sensitivity
    if tested is None:
        return None
    spreads = [
        {name: number(value) if isinstance(value, float) else value for name, value in vars(one).items()}
        for one in tested.spreads
    ]
    return {
        "draws": tested.draws, "source": tested.source, "models": list(tested.models), "correlations": spreads
    }  # fmt: skip


def law_as_dict(law: Law, intervals: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """A law with its intervals."""
    return {
        "form": law.form,
        "parameters": {
            name: {"value": number(value), "95": numbers(intervals[name]) if name in intervals else None}
            for name, value in law.parameters.items()
        },
        "terms_left_out": list(law.left_out),
        "objective": number(law.objective),
        "starts": law.starts,
        "starts_that_agree": law.found_again,
        "at_bounds": list(law.at_bounds),
    }


def checked_as_dict(checked: Checked) -> dict[str, Any]:
    """A held-out check."""
    parts = [
        {
            "what": one.what,
            "n": one.n,
            "r2": number(one.r2),
            "error": number(one.error),
            "baseline": number(one.baseline),
            "observations": [
                {"seen": number(seen), "predicted": number(predicted)}
                for seen, predicted in zip(one.seen, one.predicted, strict=True)
            ],
        }
        for one in checked.parts
    ]
    return {
        "kind": checked.kind,
        "r2": number(checked.r2),
        "error": number(checked.error),
        "parts": parts,
        "not_fitted": list(checked.not_fitted),
    }


def mixture_as_dict(found: Mixture) -> dict[str, Any]:
    """The best share and its interval."""
    choice = found.choice
    return {
        "share": number(choice.share),
        "share_95": numbers([found.low, found.high]),
        "target_loss": number(choice.target),
        "other_loss": number(choice.other),
        "budget": number(choice.budget),
        "budget_binds": choice.binding,
        "extrapolated": choice.extrapolated,
        "draws": found.draws,
        "infeasible_draws": found.infeasible,
    }


def prediction_as_dict(one: Prediction) -> dict[str, Any]:
    """A benchmark's prediction, model by model."""
    names = (
        "r2_train",
        "r2_held",
        "r_held",
        "error_train",
        "error_held",
        "baseline",
        "compute_error",
        "cutoff",
    )
    return {
        "target": one.target,
        "components": one.components,
        "filled": one.filled,
        **{name: number(getattr(one, name)) for name in names},
        "models": [
            {"model": model, "held": not train, "seen": number(seen), "predicted": number(predicted)}
            for model, train, seen, predicted in zip(
                one.models, one.train.tolist(), one.seen.tolist(), one.predicted.tolist(), strict=True
            )
        ],
    }
