"""How far a law can be believed: ratios and compute that it has not seen, and a bootstrap over runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tsugiki.errors import DataError
from tsugiki.study.laws import Law, Runs, fit_law
from tsugiki.study.table import Array

_REFIT_STARTS: Final = 1
_REFIT_TOLERANCE: Final = 1e-9
_CONFIDENCE: Final = (0.025, 0.975)


@dataclass(frozen=True)
class Held:
    """Predictions of observations that were not fitted.

    what: the ratio or the cutoff. error: mean |log(predicted / seen)|. r2: against the mean of these
    observations. baseline: the error of the mean of what was fitted. seen, predicted: the losses, one by one.
    """

    what: str
    n: int
    r2: float
    error: float
    baseline: float
    seen: tuple[float, ...] = ()
    predicted: tuple[float, ...] = ()


@dataclass(frozen=True)
class Checked:
    """A check. parts: one a left-out ratio, or the cutoff. r2, error: over all. not_fitted: and why."""

    kind: str
    parts: tuple[Held, ...]
    r2: float
    error: float
    not_fitted: tuple[str, ...] = ()


def r_squared(seen: Array, predicted: Array) -> float:
    """1 - residual / total sum of squares; NaN where nothing varies."""
    total = float(((seen - seen.mean()) ** 2).sum())
    return 1 - float(((seen - predicted) ** 2).sum()) / total if total > 0 else float("nan")


def leave_one_ratio_out(law: Law, runs: Runs, *, seed: int = 0) -> Checked:
    """Predict each mixture ratio from the others. Raises DataError where no ratio can be left out."""
    parts, predicted, seen, failed = [], [], [], []
    for ratio in np.unique(runs.share).tolist():
        out = runs.share == ratio
        try:
            fitted = fit_law(
                law.form,
                runs.pick(~out),
                starts=_REFIT_STARTS,
                seed=seed,
                near=law,
                tolerance=_REFIT_TOLERANCE,
            )
        except DataError as error:
            failed.append(f"ratio {ratio:g}: {error.message}")
            continue
        parts.append(_held(f"ratio {ratio:g}", fitted, runs.pick(out), runs.pick(~out)))
        held = runs.pick(out)
        predicted.append(fitted.loss(held.parameters, held.tokens, held.share))
        seen.append(held.loss)
    if not parts:
        raise DataError("no ratio can be left out", hint="; ".join(failed) or "train at more ratios")
    return _checked("leave one ratio out", parts, np.concatenate(seen), np.concatenate(predicted), failed)


def compute_cutoff(law: Law, runs: Runs, cutoff: float | None = None, *, seed: int = 0) -> Checked:
    """Fit up to `cutoff` FLOPs (6ND), predict beyond; without one, at the 70th percentile.

    Raises DataError where nothing lies beyond it, or too little below.
    """
    at = float(np.quantile(runs.flops, 0.7)) if cutoff is None else cutoff
    below = runs.flops <= at
    if below.all() or not below.any():
        raise DataError(
            f"{int(below.sum())} of {len(runs)} observations have up to {at:.3g} FLOPs",
            hint=f"choose a cutoff between {runs.flops.min():.3g} and {runs.flops.max():.3g}",
        )
    fitted = fit_law(
        law.form, runs.pick(below), starts=_REFIT_STARTS, seed=seed, near=law, tolerance=_REFIT_TOLERANCE
    )
    held = runs.pick(~below)
    part = _held(f"above {at:.3g} FLOPs", fitted, held, runs.pick(below))
    predicted = fitted.loss(held.parameters, held.tokens, held.share)
    return _checked("compute cutoff", [part], held.loss, predicted, [])


def _held(what: str, fitted: Law, held: Runs, seen: Runs) -> Held:
    predicted = fitted.loss(held.parameters, held.tokens, held.share)
    error = float(np.abs(np.log(predicted / held.loss)).mean())
    baseline = float(np.abs(np.log(seen.loss.mean() / held.loss)).mean())
    return Held(
        what, len(held), r_squared(held.loss, predicted), error, baseline,
        tuple(held.loss.tolist()), tuple(predicted.tolist()),
    )  # fmt: skip


def _checked(
    kind: str, parts: Sequence[Held], seen: Array, predicted: Array, failed: Sequence[str]
) -> Checked:
    error = float(np.abs(np.log(predicted / seen)).mean())
    return Checked(kind, tuple(parts), r_squared(seen, predicted), error, tuple(failed))


def bootstrap_laws(
    law: Law, runs: Runs, groups: Sequence[str], *, draws: int = 200, seed: int = 0
) -> tuple[Law, ...]:
    """The law fitted anew on whole runs drawn with replacement: checkpoints of one are not independent.

    Draws from which the law can't be fitted are left out: the result may be shorter than `draws`.
    """
    names = list(dict.fromkeys(groups))
    rows = [np.flatnonzero(np.array(groups) == name) for name in names]
    found = []
    for draw in range(draws):
        rng = np.random.default_rng((seed, draw))
        picked = np.concatenate([rows[one] for one in rng.integers(0, len(names), len(names)).tolist()])
        try:
            fitted = fit_law(law.form, runs.pick(picked), starts=0, near=law, tolerance=1e-9)
        except DataError:
            continue
        if set(fitted.parameters) == set(law.parameters):
            found.append(fitted)
    return tuple(found)


def intervals(laws: Sequence[Law]) -> dict[str, tuple[float, float]]:
    """95 % intervals of each parameter over the laws of a bootstrap."""
    if not laws:
        return {}
    ends = {
        name: np.quantile([law.parameters[name] for law in laws], _CONFIDENCE).tolist()
        for name in laws[0].parameters
    }
    return {name: (low, high) for name, (low, high) in ends.items()}
