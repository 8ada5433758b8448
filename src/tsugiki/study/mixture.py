"""The share of a language that gains most on it while the other language loses no more than is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tsugiki.errors import DataError, InputError
from tsugiki.study.laws import Law
from tsugiki.study.table import Array

_STEPS: Final = 2001


@dataclass(frozen=True)
class Choice:
    """The best share for N parameters and D tokens. target, other: predicted losses there.

    binding: whether the budget is what stops at this share. extrapolated: whether it lies outside of the
    ratios seen.
    """

    share: float
    target: float
    other: float
    budget: float
    binding: bool
    extrapolated: bool


@dataclass(frozen=True)
class Curve:
    """Predicted losses over shares, with 95 % bands of the bootstrap (equal to the curve without one)."""

    share: Array
    target: Array
    other: Array
    target_low: Array
    target_high: Array
    other_low: Array
    other_high: Array


@dataclass(frozen=True)
class Mixture:
    """The choice, its 95 % interval, in how many draws nothing met the budget, and the curves."""

    choice: Choice
    low: float
    high: float
    draws: int
    infeasible: int
    curve: Curve


def best_share(  # noqa: PLR0917 - each is a plain fact
    target: Law,
    other: Law,
    parameters: float,
    tokens: float,
    budget: float,
    seen: tuple[float, float],
    *,
    extrapolate: bool = False,
) -> Choice:
    """The share r with the lowest target loss L_t(N, D, r) under L_o(N, D, 1 - r) <= budget.

    seen: the smallest and largest share among the runs; outside of them only with `extrapolate`. Raises
    DataError where no share meets the budget, with the lowest loss that there is.
    """
    low, high = (0.0, 1.0) if extrapolate else seen
    share = np.linspace(low, high, _STEPS)
    target_loss = target.loss(parameters, tokens, share)
    other_loss = other.loss(parameters, tokens, 1 - share)
    allowed = other_loss <= budget
    if not allowed.any():
        raise DataError(
            f"no share from {low:g} to {high:g} keeps the other loss at {budget:.4g}; "
            f"the lowest is {other_loss.min():.4g}",
            hint="allow more, or plan fewer tokens",
        )
    place = int(np.argmin(np.where(allowed, target_loss, np.inf)))
    at = float(share[place])
    free = int(np.argmin(target_loss))
    if free != place and 0 < place < _STEPS - 1:
        step = 1 if free > place else -1
        if not allowed[place + step]:
            at = _edge(other, parameters, tokens, budget, (at, float(share[place + step])))
    return Choice(
        at,
        float(target.loss(parameters, tokens, at)),
        float(other.loss(parameters, tokens, 1 - at)),
        budget,
        free != place,
        not seen[0] - 1e-9 <= at <= seen[1] + 1e-9,
    )


def _edge(other: Law, parameters: float, tokens: float, budget: float, between: tuple[float, float]) -> float:
    """The last share that meets the budget, between one that does and one that does not."""
    inside, outside = between
    for _ in range(40):
        middle = (inside + outside) / 2
        if float(other.loss(parameters, tokens, 1 - middle)) <= budget:
            inside = middle
        else:
            outside = middle
    return inside


def choose_mixture(  # noqa: PLR0917 - each is a plain fact
    laws: tuple[Law, Law],
    draws: tuple[Sequence[Law], Sequence[Law]],
    parameters: float,
    tokens: float,
    budget: float,
    seen: tuple[float, float],
    *,
    extrapolate: bool = False,
) -> Mixture:
    """The best share with its bootstrap interval. laws, draws: of the target and of the other language.

    Raises InputError for sizes of 0 or less, DataError where the laws themselves meet no budget.
    """
    if parameters <= 0 or tokens <= 0:
        raise InputError(
            "parameters and tokens have to be above 0", hint="for example --parameters 7B --tokens 100B"
        )
    target, other = laws
    choice = best_share(target, other, parameters, tokens, budget, seen, extrapolate=extrapolate)
    shares, infeasible = [], 0
    for one, another in zip(*draws, strict=False):
        try:
            drawn = best_share(one, another, parameters, tokens, budget, seen, extrapolate=extrapolate)
            shares.append(drawn.share)
        except DataError:
            infeasible += 1
    low, high = np.quantile(shares, [0.025, 0.975]).tolist() if shares else (float("nan"), float("nan"))
    curve = _curve(laws, draws, parameters, tokens, (0.0, 1.0) if extrapolate else seen)
    return Mixture(choice, low, high, len(shares) + infeasible, infeasible, curve)


def _curve(
    laws: tuple[Law, Law],
    draws: tuple[Sequence[Law], Sequence[Law]],
    parameters: float,
    tokens: float,
    ends: tuple[float, float],
) -> Curve:
    share = np.linspace(*ends, 101)
    target = laws[0].loss(parameters, tokens, share)
    other = laws[1].loss(parameters, tokens, 1 - share)
    bands = []
    for middle, several, at in ((target, draws[0], share), (other, draws[1], 1 - share)):
        drawn = [law.loss(parameters, tokens, at) for law in several]
        bands += list(np.quantile(drawn, [0.025, 0.975], axis=0)) if drawn else [middle, middle]
    return Curve(share, target, other, *bands)
