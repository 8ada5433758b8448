"""The cross-domain D-CPT law: one law for several domains, and a new domain from a few cheap runs.

    L(N, D, r, K) = E + A / N^alpha + B r^eta / D^beta + C / (r + epsilon)^gamma + F / K^mu

with K a coefficient that is learned for each domain (arXiv 2406.01375). Losses tell of a domain only
E + F / K^mu, its *floor*: F, mu and K trade off against each other without end. So a floor is fitted for each
domain and everything else is shared. A new domain needs its floor, one number, which its cheapest runs tell:
about a hundredth of what a whole grid costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tsugiki.errors import DataError
from tsugiki.study.heldout import Checked, Held, r_squared
from tsugiki.study.laws import HUBER, STARTS, Law, Runs, _hypercube, _outer, _problem, check_runs, minimise
from tsugiki.study.table import Array

CHEAP: Final = 3
"""Runs of a new domain from which its floor is learned: those of least compute."""
_FEWEST: Final = 2


@dataclass(frozen=True)
class DomainLaw:
    """A law whose E is left out, and the floor of each domain (E + F / K^mu)."""

    law: Law
    floors: Mapping[str, float]

    def loss(self, domain: str, runs: Runs) -> Array:
        """Predicted losses in one domain."""
        return self.law.loss(runs.parameters, runs.tokens, runs.share) + self.floors[domain]


def fit_domains(
    runs: Runs, domains: Sequence[str], *, delta: float = HUBER, starts: int = STARTS, seed: int = 0
) -> DomainLaw:
    """Fit the law to runs in several domains, Huber's loss on log loss from many starts.

    domains: of each observation. Raises DataError for one domain only, and as `laws.fit_law`.
    """
    check_runs(runs)
    names = sorted(set(domains))
    if len(names) < _FEWEST:
        raise DataError(
            f"{len(names)} domain(s); a law over domains needs two or more", hint="fit --form dcpt"
        )
    plain, left, mean_n, mean_d = _problem("dcpt", runs, delta)
    floors = tuple(f"E{place}" for place in range(len(names)))
    member_KN = np.array([[float(one == name) for one in domains] for name in names])
    problem = replace(plain, names=(*floors, *plain.names[1:]), floor_KN=member_KN)
    if len(runs) <= len(problem.names):
        raise DataError(
            f"{len(runs)} observations for the {len(problem.names)} parameters of a law over "
            f"{len(names)} domains",
            hint="3 sizes x 4 ratios x several checkpoints in each domain are a small but good grid",
        )
    theta, ended = minimise(problem, _hypercube(problem.names, starts, seed), 1e-14)
    law = _outer("dcpt", problem, theta, left, (mean_n, mean_d), ended)
    shared = {name: value for name, value in law.parameters.items() if name not in floors}
    found = dict(zip(names, (law.parameters[name] for name in floors), strict=True))
    return DomainLaw(replace(law, parameters=shared), found)


def learn_floor(law: Law, runs: Runs) -> float:
    """The floor of a new domain from some of its runs: least absolute error of log loss.

    0 at least: where the shared terms alone say more than was seen, nothing is left for a floor.
    """
    from scipy.optimize import minimize_scalar

    rest = law.loss(runs.parameters, runs.tokens, runs.share)
    best = minimize_scalar(
        lambda floor: float(np.abs(np.log(rest + floor) - np.log(runs.loss)).mean()),
        bounds=(0.0, float(runs.loss.max())),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return float(best.x)


def leave_one_domain_out(
    runs: Runs, domains: Sequence[str], *, cheap: int = CHEAP, starts: int = STARTS, seed: int = 0
) -> Checked:
    """Predict each domain by the law of the others and the floor that its cheapest runs tell.

    The error is on the other runs of the domain; `baseline` is that of the mean of its cheap runs. Raises
    DataError where no domain can be left out.
    """
    parts, seen, predicted, failed = [], [], [], []
    labels = np.array(domains)
    for domain in sorted(set(domains)):
        out = labels == domain
        own = runs.pick(out)
        order = np.argsort(own.flops, kind="stable")
        if len(own) <= cheap:
            failed.append(f"{domain}: {len(own)} runs, and {cheap} of them are for its floor")
            continue
        few, rest = own.pick(order[:cheap]), own.pick(order[cheap:])
        try:
            fitted = _others(runs, labels, out, starts, seed)
        except DataError as error:
            failed.append(f"{domain}: {error.message}")
            continue
        told = fitted.loss(rest.parameters, rest.tokens, rest.share) + learn_floor(fitted, few)
        baseline = float(np.abs(np.log(few.loss.mean() / rest.loss)).mean())
        error_of = float(np.abs(np.log(told / rest.loss)).mean())
        parts.append(
            Held(domain, len(rest), r_squared(rest.loss, told), error_of, baseline,
                 tuple(rest.loss.tolist()), tuple(told.tolist()))
        )  # fmt: skip
        seen.append(rest.loss)
        predicted.append(told)
    if not parts:
        raise DataError("no domain can be left out", hint="; ".join(failed) or "give more domains")
    every, all_told = np.concatenate(seen), np.concatenate(predicted)
    mean_error = float(np.abs(np.log(all_told / every)).mean())
    return Checked(
        "leave one domain out", tuple(parts), r_squared(every, all_told), mean_error, tuple(failed)
    )


def _others(runs: Runs, labels: np.ndarray, out: np.ndarray, starts: int, seed: int) -> Law:
    """The shared part of the law of the other domains; with one other, its law without the floor."""
    from tsugiki.study.laws import fit_law

    rest = labels[~out].tolist()
    if len(set(rest)) >= _FEWEST:
        return fit_domains(runs.pick(~out), rest, starts=starts, seed=seed).law
    law = fit_law("dcpt", runs.pick(~out), starts=starts, seed=seed)
    return replace(law, parameters={name: value for name, value in law.parameters.items() if name != "E"})
