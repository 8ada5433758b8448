"""Observational scaling: a benchmark from the factors of the others, through a sigmoid, held out by compute.

Ruan, Maddison and Hashimoto (2024), "Observational Scaling Laws", arXiv 2405.10938: factors of the other
benchmarks (found on the models that are fitted, gaps filled on these alone) predict a target through

    y = low + (high - low) / (1 + exp(-(b + w . factors)))

with low and high learned. Here by Huber's loss and L-BFGS-B from several starts; the target is never among
the benchmarks whose factors are taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tsugiki.errors import DataError
from tsugiki.study.correlations import pearson
from tsugiki.study.factors import principal_components
from tsugiki.study.heldout import r_squared
from tsugiki.study.imputation import impute
from tsugiki.study.table import Array, ScoreTable

LEAST_COMPUTE: Final = 84e21
"""The cutoff of the paper: Llama-2-7B's 6ND."""
_DELTA: Final = 0.02
_STARTS: Final = 12
_FEWEST: Final = 6


@dataclass(frozen=True)
class Sigmoid:
    """low + (high - low) x logistic(constant + weight_K . x)."""

    low: float
    high: float
    constant: float
    weight_K: Array

    def __call__(self, x_NK: Array) -> Array:
        inner = np.clip(self.constant + x_NK @ self.weight_K, -40, 40)
        return np.asarray(self.low + (self.high - self.low) / (1 + np.exp(-inner)))


@dataclass(frozen=True)
class Prediction:
    """How well a benchmark is told by the factors of the others.

    train: which models were fitted; the others were predicted. compute: 6ND of each. Errors are mean
    absolute. baseline: of the mean of the fitted models; compute_error: of a sigmoid in log10 compute alone
    (NaN where it can't be fitted).
    """

    target: str
    components: int
    cutoff: float
    models: tuple[str, ...]
    train: NDArray[np.bool_]
    seen: Array
    predicted: Array
    sigmoid: Sigmoid
    r2_train: float
    r2_held: float
    r_held: float
    error_train: float
    error_held: float
    baseline: float
    compute_error: float
    filled: int
    compute: Array


def predict(
    table: ScoreTable,
    target: str,
    compute_M: Array,
    *,
    cutoff: float = LEAST_COMPUTE,
    components: int = 3,
    seed: int = 0,
) -> Prediction:
    """Fit models up to `cutoff` FLOPs, predict those beyond.

    compute_M: 6ND of each model; those without are left out. Raises InputError for an unknown target,
    DataError where too few models lie on either side.
    """
    y_M = table.column(target)
    others = table.scores_MB[:, [name != target for name in table.benchmarks]]
    used = np.isfinite(y_M) & np.isfinite(compute_M)
    train_M, held_M = used & (compute_M <= cutoff), used & (compute_M > cutoff)
    if train_M.sum() < _FEWEST or not held_M.any():
        known = compute_M[used]
        ends = f"{known.min():.3g} to {known.max():.3g}" if len(known) else "none"
        raise DataError(
            f"{int(train_M.sum())} models up to {cutoff:.3g} FLOPs and {int(held_M.sum())} beyond; "
            f"{_FEWEST} and 1 are needed",
            hint=f"choose another --cutoff; compute is known from {ends}",
        )
    factors_MK, filled = _factors(others, train_M, components)
    sigmoid = fit_sigmoid(factors_MK[train_M], y_M[train_M], seed=seed)
    predicted = sigmoid(factors_MK)
    plain = _compute_only(np.log10(compute_M), y_M, train_M, held_M, seed)
    rows = np.flatnonzero(used)
    return Prediction(
        target, factors_MK.shape[1], cutoff, tuple(table.models[row] for row in rows.tolist()), train_M[rows],
        y_M[rows], predicted[rows], sigmoid,
        r_squared(y_M[train_M], predicted[train_M]), r_squared(y_M[held_M], predicted[held_M]),
        pearson(y_M[held_M], predicted[held_M])[0],
        _error(y_M[train_M], predicted[train_M]), _error(y_M[held_M], predicted[held_M]),
        float(np.abs(y_M[held_M] - y_M[train_M].mean()).mean()), plain, filled, compute_M[rows],
    )  # fmt: skip


def _error(seen: Array, predicted: Array) -> float:
    return float(np.abs(seen - predicted).mean())


def _factors(scores_MB: Array, train_M: NDArray[np.bool_], components: int) -> tuple[Array, int]:
    """Factor scores of all models by the components of the fitted ones, scaled to their deviation.

    Gaps of a model that is predicted are filled beside the fitted ones, one model at a time: none of them
    tells anything about another.
    """
    with np.errstate(invalid="ignore"):
        spread = np.array(
            [np.ptp(one[np.isfinite(one)]) if np.isfinite(one).any() else 0 for one in scores_MB[train_M].T]
        )
    scores_MB = scores_MB[:, spread > 0]
    known = impute(scores_MB[train_M])
    parts = principal_components(known.scores_MB)
    components = max(1, min(components, known.scores_MB.shape[1], int(train_M.sum()) // 4))
    whole = scores_MB.copy()
    whole[train_M] = known.scores_MB
    for row in np.flatnonzero(~train_M & np.isnan(scores_MB).any(axis=1)).tolist():
        whole[row] = impute(np.vstack([known.scores_MB, scores_MB[row]])).scores_MB[-1]
    z = (whole - parts.mean_B) / parts.deviation_B
    scores = z @ parts.vectors_BK[:, :components]
    return scores / scores[train_M].std(axis=0), int(np.isnan(scores_MB).sum())


def fit_sigmoid(x_NK: Array, y_N: Array, *, starts: int = _STARTS, seed: int = 0) -> Sigmoid:
    """Huber's loss, L-BFGS-B, several starts; low and high stay inside of [0, 1] where the scores do."""
    from scipy.optimize import minimize

    n, k = x_NK.shape
    bottom, top = min(0.0, float(y_N.min())), max(1.0, float(y_N.max()))
    bounds = [(bottom, float(y_N.mean())), (float(y_N.mean()), top), (-15.0, 15.0), *[(-15.0, 15.0)] * k]

    def objective(theta: Array) -> tuple[float, Array]:
        low, high, inner = theta[0], theta[1], np.clip(theta[2] + x_NK @ theta[3:], -40, 40)
        share = 1 / (1 + np.exp(-inner))
        residual = low + (high - low) * share - y_N
        inside = np.abs(residual) <= _DELTA
        huber = np.where(inside, 0.5 * residual**2, _DELTA * (np.abs(residual) - 0.5 * _DELTA))
        pull = np.clip(residual, -_DELTA, _DELTA) / n
        slope = pull * (high - low) * share * (1 - share)
        # a little weight decay: without it a sigmoid through few models may become a step
        decay = 1e-6 * theta[3:]
        gradient = np.concatenate(
            [[(pull * (1 - share)).sum(), (pull * share).sum(), slope.sum()], x_NK.T @ slope + decay]
        )
        value = float(huber.mean()) + 0.5e-6 * float(theta[3:] @ theta[3:])
        return value / _DELTA**2, gradient / _DELTA**2

    rng = np.random.default_rng(seed)
    linear = np.linalg.lstsq(np.column_stack([np.ones(n), x_NK]), y_N, rcond=None)[0]
    span = max(top - bottom, 1e-9)
    begin = np.concatenate([[bottom, top, 0.0], 4 * linear[1:] / span])
    best = None
    for number in range(starts):
        moved = begin if number == 0 else begin + np.concatenate([[0, 0], rng.normal(0, 1, k + 1)])
        found = minimize(
            objective, np.clip(moved, *np.array(bounds).T), jac=True, method="L-BFGS-B", bounds=bounds
        )
        if best is None or found.fun < best.fun - 1e-12:  # the first of equals
            best = found
    theta = best.x if best is not None else begin
    return Sigmoid(float(theta[0]), float(theta[1]), float(theta[2]), np.array(theta[3:]))


def _compute_only(
    log_M: Array, y_M: Array, train_M: NDArray[np.bool_], held_M: NDArray[np.bool_], seed: int
) -> float:
    x = log_M[:, None]
    centre, scale = x[train_M].mean(), x[train_M].std()
    if not scale > 0:
        return math.nan
    plain = fit_sigmoid((x[train_M] - centre) / scale, y_M[train_M], seed=seed)
    return _error(y_M[held_M], plain((x[held_M] - centre) / scale))


def predict_all(
    table: ScoreTable,
    compute_M: Array,
    targets: Sequence[str],
    *,
    cutoff: float,
    components: int,
    seed: int = 0,
) -> tuple[list[Prediction], list[str]]:
    """Every target in turn, and what could not be predicted and why."""
    found, failed = [], []
    for target in targets:
        try:
            found.append(predict(table, target, compute_M, cutoff=cutoff, components=components, seed=seed))
        except DataError as error:
            failed.append(f"{target}: {error.message}")
    if not found:
        raise DataError(failed[0] if failed else "no target", hint="choose another --cutoff, or add budgets")
    return found, failed
