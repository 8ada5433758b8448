"""Scaling laws as sums of power laws, and their fit: Huber's loss on log loss, many starts, L-BFGS.

    chinchilla   L(N, D)    = E + A / N^alpha + B / D^beta
    dcpt         L(N, D, r) = E + A / N^alpha + B r^eta / D^beta + C / (r + epsilon)^gamma

(Hoffmann et al., arXiv 2203.15556; the D-CPT law, arXiv 2406.01375.)

N parameters, D tokens, r the share of the language (or domain) in the data mixture. Every term is the
exponential of something linear in its parameters, so log L is a log-sum-exp, whose gradient is the share of
each term. N and D are divided by their geometric means while the law is fitted: starts are then good for any
size of model and correlations between A and alpha stay small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tsugiki.errors import DataError, InputError
from tsugiki.study.table import Array

FORMS: Final = ("dcpt", "chinchilla")
HUBER: Final = 1e-3
"""Where Huber's loss on log loss turns linear, as in the Chinchilla paper's fit."""
STARTS: Final = 24
_SMALLEST_SHARE: Final = 1e-9
_BOUNDS: Final = {
    "E": (-12.0, 4.0), "A": (-14.0, 6.0), "B": (-14.0, 6.0), "C": (-14.0, 6.0),
    "alpha": (0.01, 3.0), "beta": (0.01, 3.0), "gamma": (0.01, 3.0), "eta": (0.0, 5.0),
    "epsilon": (math.log(1e-4), math.log(1.0)),
}  # fmt: skip
"""Of E, A, B and C the logarithms, with N and D in units of their means; of epsilon too."""
_STARTS: Final = {
    "E": (-2.0, 1.0), "A": (-5.0, 0.5), "B": (-5.0, 0.5), "C": (-6.0, 0.0),
    "alpha": (0.1, 0.8), "beta": (0.1, 0.8), "gamma": (0.1, 1.0), "eta": (0.05, 1.0),
    "epsilon": (math.log(0.01), math.log(0.5)),
}  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """Losses of N observations; share: of the language in the mixture, 1 where there is none."""

    parameters: Array
    tokens: Array
    share: Array
    loss: Array

    def __len__(self) -> int:
        return len(self.loss)

    def pick(self, rows: NDArray[Any]) -> Runs:
        """Some of them, by a mask or by numbers."""
        return Runs(self.parameters[rows], self.tokens[rows], self.share[rows], self.loss[rows])

    @property
    def flops(self) -> Array:
        """6 N D."""
        return 6 * self.parameters * self.tokens


@dataclass(frozen=True)
class Law:
    """A fitted law.

    parameters: by name (E, A, alpha ...), in the law's own units. left_out: terms that the data can't tell
    (of N where all runs have one size). objective: mean Huber loss. found_again: how many of the starts ended
    as low as the best. at_bounds: parameters at the bound of the search.
    """

    form: str
    parameters: Mapping[str, float]
    left_out: tuple[str, ...]
    objective: float
    starts: int
    found_again: int
    at_bounds: tuple[str, ...] = field(default=())

    def loss(self, parameters: Array | float, tokens: Array | float, share: Array | float = 1.0) -> Array:
        """The predicted loss; arrays are broadcast."""
        n, d, r = (np.asarray(one, dtype=np.float64) for one in (parameters, tokens, share))
        has = self.parameters
        total = np.zeros(np.broadcast_shapes(n.shape, d.shape, r.shape)) + has.get("E", 0.0)
        if "A" in has:
            total = total + has["A"] / n ** has["alpha"]
        if "B" in has:
            total = (
                total + has["B"] * np.maximum(r, _SMALLEST_SHARE) ** has.get("eta", 0.0) / d ** has["beta"]
            )
        if "C" in has:
            total = total + has["C"] / (r + has["epsilon"]) ** has["gamma"]
        return np.asarray(total)


@dataclass(frozen=True)
class _Problem:
    """The data in the units of the fit, and which terms and parameters there are."""

    names: tuple[str, ...]
    log_n: Array
    log_d: Array
    log_r: Array
    share: Array
    log_loss: Array
    delta: float
    floor_KN: Array | None = None
    """Which floor each observation has, 1 or 0, where there are several (E0, E1 ...); else all have E."""

    def terms(self, theta: Array) -> tuple[Array, list[dict[str, Any]]]:
        """Logarithms of the terms, T x N, and of each term the derivatives by its parameters."""
        at = dict(zip(self.names, theta.tolist(), strict=True))
        one = np.ones_like(self.log_loss)
        logs: list[Array] = [at["E"] * one] if self.floor_KN is None else []
        slopes: list[dict[str, Any]] = [{"E": 1.0}] if self.floor_KN is None else []
        if self.floor_KN is not None:
            logs.append(sum((at[f"E{k}"] * row for k, row in enumerate(self.floor_KN)), 0 * one))
            slopes.append({f"E{k}": row for k, row in enumerate(self.floor_KN)})
        if "A" in at:
            logs.append(at["A"] - at["alpha"] * self.log_n)
            slopes.append({"A": 1.0, "alpha": -self.log_n})
        if "B" in at:
            logs.append(at["B"] + at.get("eta", 0.0) * self.log_r - at["beta"] * self.log_d)
            slopes.append({"B": 1.0, "beta": -self.log_d, "eta": self.log_r})
        if "C" in at:
            shifted = self.share + math.exp(at["epsilon"])
            logs.append(at["C"] - at["gamma"] * np.log(shifted))
            slopes.append({
                "C": 1.0, "gamma": -np.log(shifted),
                "epsilon": -at["gamma"] * math.exp(at["epsilon"]) / shifted,
            })  # fmt: skip
        return np.array(logs), slopes

    def value(self, theta: Array) -> tuple[float, Array]:
        """The mean Huber loss of the residuals of log loss, and its gradient."""
        logs, slopes = self.terms(theta)
        top = logs.max(axis=0)
        parts = np.exp(logs - top)
        total = parts.sum(axis=0)
        residual = top + np.log(total) - self.log_loss
        inside = np.abs(residual) <= self.delta
        huber = np.where(inside, 0.5 * residual**2, self.delta * (np.abs(residual) - 0.5 * self.delta))
        pull = np.clip(residual, -self.delta, self.delta) / total / len(residual)
        gradient = dict.fromkeys(self.names, 0.0)
        for part, slope in zip(parts, slopes, strict=True):
            for name, by in slope.items():
                if name in gradient:
                    gradient[name] += float((pull * part * by).sum())
        # scaled so that the optimiser's tolerances, which are absolute, mean the same for every delta
        scale = 1 / self.delta**2
        return float(huber.mean()) * scale, np.array([gradient[name] for name in self.names]) * scale


def parameters_of(form: str, runs: Runs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parameters that the runs can tell, and the terms that they can't.

    A term of N needs two sizes, one of D two amounts. Raises InputError for an unknown form, DataError where
    a law of mixtures is asked of runs with one ratio.
    """
    if form not in FORMS:
        raise InputError(f'there is no law "{form}"', hint=f"known: {', '.join(FORMS)}")
    names, left = ["E"], []
    if len(np.unique(runs.parameters)) > 1:
        names += ["A", "alpha"]
    else:
        left.append("N")
    if len(np.unique(runs.tokens)) > 1:
        names += ["B", "beta"]
    else:
        left.append("D")
    if form == "dcpt":
        if len(np.unique(runs.share)) < 3:  # noqa: PLR2004 - a curve through two points
            raise DataError(
                f"{len(np.unique(runs.share))} mixture ratio(s); the D-CPT law needs at least 3, better 4",
                hint="train at more ratios, or fit --form chinchilla",
            )
        names += ["C", "gamma", "epsilon", *(["eta"] if "B" in names else [])]
    return tuple(names), tuple(left)


def _problem(form: str, runs: Runs, delta: float) -> tuple[_Problem, tuple[str, ...], float, float]:
    names, left = parameters_of(form, runs)
    if len(runs) <= len(names):
        raise DataError(
            f"{len(runs)} observations for the {len(names)} parameters of the {form} law",
            hint="3 sizes x 4 ratios x several checkpoints are a small but good grid",
        )
    mean_n, mean_d = float(np.log(runs.parameters).mean()), float(np.log(runs.tokens).mean())
    problem = _Problem(
        names,
        np.log(runs.parameters) - mean_n,
        np.log(runs.tokens) - mean_d,
        np.log(np.maximum(runs.share, _SMALLEST_SHARE)),
        runs.share,
        np.log(runs.loss),
        delta,
    )
    return problem, left, mean_n, mean_d


def check_runs(runs: Runs) -> None:
    """Raise DataError for losses, sizes, tokens or shares that can't be."""
    for name, values, right in (
        ("loss", runs.loss, runs.loss > 0),
        ("parameters", runs.parameters, runs.parameters > 0),
        ("tokens", runs.tokens, runs.tokens > 0),
        ("share", runs.share, (runs.share >= 0) & (runs.share <= 1)),
    ):
        wrong = ~(np.isfinite(values) & right)
        if wrong.any():
            bound = "between 0 and 1" if name == "share" else "above 0"
            raise DataError(
                f"{int(wrong.sum())} of {len(wrong)} observations with a {name} that is not {bound}: "
                f"{values[wrong][0]:g}",
                hint="leave them out, or mend them",
            )


def fit_law(
    form: str,
    runs: Runs,
    *,
    delta: float = HUBER,
    starts: int = STARTS,
    seed: int = 0,
    near: Law | None = None,
    tolerance: float = 1e-14,
) -> Law:
    """Fit a law to losses.

    delta: Huber's threshold on log loss. starts: points of a Latin hypercube from which L-BFGS-B goes; the
    best end is kept. near: a law to start from as well (a refit on nearly the same runs needs few other
    starts). tolerance: a fit ends where a step gains less than this share. Raises DataError for impossible
    observations, too few of them, or ratios for the D-CPT law that don't differ.
    """
    check_runs(runs)
    problem, left, mean_n, mean_d = _problem(form, runs, delta)
    points = _hypercube(problem.names, starts, seed)
    if near is not None:
        points.insert(0, _inner(near, problem.names, mean_n, mean_d))
    theta, ended = minimise(problem, points, tolerance)
    return _outer(form, problem, theta, left, (mean_n, mean_d), ended)


def minimise(
    problem: _Problem, points: Sequence[Array], tolerance: float
) -> tuple[Array, tuple[float, int, int]]:
    """The best end of L-BFGS-B from these points: parameters, then loss, starts and how many ended as low."""
    from scipy.optimize import minimize

    bounds = [_BOUNDS[_kind(name)] for name in problem.names]
    best, ends = None, []
    for point in points:
        # far from the data Huber's loss has no curvature: least squares leads to where it has
        for stage in (1.0, problem.delta):
            staged = replace(problem, delta=stage)
            found = minimize(
                staged.value, point, jac=True, method="L-BFGS-B", bounds=bounds,
                options={"maxiter": 2000, "maxfun": 4000, "ftol": tolerance, "gtol": 1e-9},
            )  # fmt: skip
            point = found.x  # noqa: PLW2901 - the second stage goes on from the first
        ends.append(float(found.fun))
        if best is None or found.fun < best.fun:
            best = found
    if best is None:
        raise InputError("a fit needs at least one start", hint="give --starts 1 or more")
    again = sum(end <= best.fun * 1.01 + 1e-9 for end in ends)
    return np.asarray(best.x), (float(best.fun) * problem.delta**2, len(ends), again)


def _kind(name: str) -> str:
    """E for E0, E1 and so on: floors of several domains have the same bounds."""
    return name.rstrip("0123456789")


def _hypercube(names: Sequence[str], starts: int, seed: int) -> list[Array]:
    """A Latin hypercube over the ranges of starts."""
    rng = np.random.default_rng(seed)
    columns = [
        low + (high - low) * (rng.permutation(starts) + rng.random(starts)) / starts
        for low, high in (_STARTS[_kind(name)] for name in names)
    ]
    return list(np.column_stack(columns)) if starts else []


def _inner(law: Law, names: Sequence[str], mean_n: float, mean_d: float) -> Array:
    """A law's parameters in the units of a fit, inside of its bounds."""
    has = law.parameters
    values = []
    for name in names:
        value = has.get(name, math.exp(_STARTS[name][0]) if name in "EABC" else _STARTS[name][0])
        if name in {"E", "A", "B", "C", "epsilon"}:
            value = math.log(max(value, 1e-300))
        if name == "A":
            value -= has["alpha"] * mean_n
        if name == "B":
            value -= has["beta"] * mean_d
        values.append(min(max(value, _BOUNDS[name][0]), _BOUNDS[name][1]))
    return np.array(values)


def _outer(  # noqa: PLR0917 - each is a plain fact
    form: str, problem: _Problem, theta: Array, left: tuple[str, ...], means: tuple[float, float],
    ended: tuple[float, int, int],
) -> Law:  # fmt: skip
    at = dict(zip(problem.names, theta.tolist(), strict=True))
    parameters = {}
    for name, value in at.items():
        if name == "A":
            parameters[name] = math.exp(value + at["alpha"] * means[0])
        elif name == "B":
            parameters[name] = math.exp(value + at["beta"] * means[1])
        elif _kind(name) in {"E", "C", "epsilon"}:
            parameters[name] = math.exp(value)
        else:
            parameters[name] = value
    bound = tuple(
        name
        for name, value in at.items()
        if min(value - _BOUNDS[_kind(name)][0], _BOUNDS[_kind(name)][1] - value) < 1e-6  # noqa: PLR2004
    )
    return Law(form, parameters, left, ended[0], ended[1], ended[2], bound)
