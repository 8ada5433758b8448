"""Scaling laws: planted parameters come back, gradients are right, held-out checks find bad laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from tsugiki.errors import DataError, InputError
from tsugiki.study.heldout import bootstrap_laws, compute_cutoff, intervals, leave_one_ratio_out, r_squared
from tsugiki.study.laws import Law, Runs, _hypercube, _problem, fit_law
from tsugiki.study.mixture import best_share, choose_mixture

DCPT = {
    "E": 1.2,
    "A": 300.0,
    "alpha": 0.33,
    "B": 900.0,
    "beta": 0.3,
    "eta": 0.2,
    "C": 0.08,
    "gamma": 0.6,
    "epsilon": 0.05,
}
CHINCHILLA = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}
N, D, R = (
    axis.ravel()
    for axis in np.meshgrid(
        [0.5e9, 1e9, 3e9, 7e9], [2e9, 5e9, 1e10, 2e10, 5e10], [0.1, 0.2, 0.33, 0.5, 0.7, 0.9]
    )
)
GROUPS = [f"{n} {r}" for n, r in zip(N, R, strict=True)]


def planted(form="dcpt", parameters=None, noise=0.0, seed=0, share=R):
    truth = Law(form, parameters or (DCPT if form == "dcpt" else CHINCHILLA), (), 0, 0, 0)
    loss = truth.loss(N, D, share) * np.exp(noise * np.random.default_rng(seed).standard_normal(len(N)))
    return truth, Runs(N, D, share, loss)


@pytest.mark.parametrize("form", ["dcpt", "chinchilla"])
def test_gradient_is_that_of_differences(form) -> None:
    problem, *_ = _problem(form, planted(form, noise=0.01)[1], 0.05)
    for theta in _hypercube(problem.names, 4, 0):
        error = check_grad(lambda t: problem.value(t)[0], lambda t: problem.value(t)[1], theta)
        assert error < 1e-5 * max(1.0, float(np.linalg.norm(problem.value(theta)[1])))


@pytest.mark.parametrize(("form", "truth"), [("dcpt", DCPT), ("chinchilla", CHINCHILLA)])
def test_fit_law_gives_planted_parameters_back(form, truth) -> None:
    found = fit_law(form, planted(form)[1], starts=4)
    assert found.parameters == pytest.approx(truth, rel=1e-4)
    assert found.at_bounds == ()
    assert found.left_out == ()


def test_fit_law_of_noisy_losses_is_near_in_what_is_identified() -> None:
    truth, runs = planted(noise=0.003, seed=1)
    found = fit_law("dcpt", runs, starts=6)
    for name in ("alpha", "beta"):
        assert found.parameters[name] == pytest.approx(truth.parameters[name], abs=0.04)
    assert np.abs(found.loss(N, D, R) / truth.loss(N, D, R) - 1).max() < 0.003
    assert found.found_again >= 3


def test_fit_law_of_chinchilla_shrugs_at_outliers() -> None:
    truth, runs = planted("chinchilla", noise=0.001)
    loss = runs.loss.copy()
    loss[::20] *= 1.5  # seven runs that diverged
    bad = Runs(runs.parameters, runs.tokens, runs.share, loss)
    robust, least = fit_law("chinchilla", bad, starts=4), fit_law("chinchilla", bad, starts=4, delta=10.0)
    error = [np.abs(np.log(one.loss(N, D) / truth.loss(N, D))).max() for one in (robust, least)]
    assert error[0] < 0.01 < error[1]


def test_fit_law_leaves_out_what_does_not_vary() -> None:
    one_size = planted()[1].pick(N == 1e9)
    found = fit_law("dcpt", one_size, starts=4)
    assert found.left_out == ("N",)
    assert "A" not in found.parameters
    assert np.abs(found.loss(1e9, one_size.tokens, one_size.share) / one_size.loss - 1).max() < 1e-3


def test_leave_one_ratio_out_predicts_a_ratio_that_was_not_seen() -> None:
    _, runs = planted(noise=0.002)
    checked = leave_one_ratio_out(fit_law("dcpt", runs, starts=2), runs)
    assert [part.what for part in checked.parts] == [f"ratio {r:g}" for r in (0.1, 0.2, 0.33, 0.5, 0.7, 0.9)]
    assert all(part.n == 20 for part in checked.parts)
    assert checked.r2 > 0.98
    assert all(part.error < part.baseline / 5 for part in checked.parts)


def test_leave_one_ratio_out_finds_a_ratio_that_follows_no_law() -> None:
    _, runs = planted(noise=0.002)
    loss = np.where(runs.share == 0.5, runs.loss * 1.2, runs.loss)
    odd = Runs(runs.parameters, runs.tokens, runs.share, loss)
    checked = leave_one_ratio_out(fit_law("dcpt", odd, starts=2), odd)
    worst = max(checked.parts, key=lambda part: part.error)
    assert worst.what == "ratio 0.5"
    assert worst.error > 0.1


def test_compute_cutoff_predicts_beyond_it_and_refuses_one_beyond_all() -> None:
    _, runs = planted("chinchilla", noise=0.002)
    law = fit_law("chinchilla", runs, starts=4)
    checked = compute_cutoff(law, runs)
    assert checked.r2 > 0.9
    assert checked.parts[0].n == pytest.approx(0.3 * len(runs), abs=10)
    with pytest.raises(DataError, match="of 120 observations have up to"):
        compute_cutoff(law, runs, 1e30)


def test_bootstrap_laws_covers_the_planted_parameters_and_repeats() -> None:
    truth, runs = planted("chinchilla", noise=0.004, seed=5)
    law = fit_law("chinchilla", runs, starts=4)
    one, again = (bootstrap_laws(law, runs, GROUPS, draws=60, seed=1) for _ in range(2))
    assert one == again
    ends = intervals(one)
    for name, value in truth.parameters.items():
        assert ends[name][0] <= value <= ends[name][1], name
    assert intervals(()) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [({"loss": -1.0}, "loss that is not above 0"), ({"share": 1.5}, "share that is not between 0 and 1"),
     ({"tokens": 0.0}, "tokens that is not above 0"),
     ({"parameters": np.nan}, "parameters that is not above 0")],
)  # fmt: skip
def test_fit_law_refuses_impossible_observations(change, said) -> None:
    _, runs = planted()
    fields = {name: values.copy() for name, values in vars(runs).items()}
    ((name, value),) = change.items()
    fields[name][3] = value
    with pytest.raises(DataError, match=said):
        fit_law("dcpt", Runs(**fields))


def test_fit_law_refuses_too_little() -> None:
    _, runs = planted()
    with pytest.raises(DataError, match="mixture ratio"):
        fit_law("dcpt", runs.pick(R == 0.5))
    with pytest.raises(DataError, match="observations for the 9 parameters"):
        fit_law("dcpt", runs.pick(np.arange(len(N)) % 17 == 0))
    with pytest.raises(InputError, match='no law "power"'):
        fit_law("power", runs)
    with pytest.raises(InputError, match="at least one start"):
        fit_law("dcpt", runs, starts=0)


def test_best_share_is_where_the_budget_is_used_up(mixture_laws) -> None:
    """Both losses fall with their own share: the best is the last one that the other language can afford."""
    target, other = mixture_laws
    budget = float(other.loss(7e9, 1e11, 1 - 0.637))
    found = best_share(target, other, 7e9, 1e11, budget, (0.1, 0.9))
    assert found.share == pytest.approx(0.637, abs=1e-6)
    assert found.binding
    assert found.other <= budget
    free = best_share(target, other, 7e9, 1e11, 99.0, (0.1, 0.9))
    assert (free.share, free.binding, free.extrapolated) == (pytest.approx(0.9), False, False)
    beyond = best_share(target, other, 7e9, 1e11, 99.0, (0.1, 0.9), extrapolate=True)
    assert (beyond.share, beyond.extrapolated) == (pytest.approx(1.0), True)
    with pytest.raises(DataError, match=r"no share from 0\.1 to 0\.9 keeps the other loss"):
        best_share(target, other, 7e9, 1e11, 0.5, (0.1, 0.9))


def test_choose_mixture_of_noisy_runs_covers_the_true_share(mixture_laws) -> None:
    of_target, of_other = (law.parameters for law in mixture_laws)
    _, seen = planted(parameters=of_target, noise=0.002, seed=3)
    other, unseen = planted(parameters=of_other, noise=0.002, seed=4, share=1 - R)
    budget = float(other.loss(7e9, 1e11, 1 - 0.6))
    laws = fit_law("dcpt", seen, starts=2), fit_law("dcpt", unseen, starts=2)
    draws = tuple(
        bootstrap_laws(law, runs, GROUPS, draws=25) for law, runs in zip(laws, (seen, unseen), strict=True)
    )
    found = choose_mixture(laws, draws, 7e9, 1e11, budget, (0.1, 0.9))
    assert found.low <= 0.6 <= found.high
    assert found.high - found.low < 0.3
    assert (found.draws, found.infeasible) == (25, 0)
    assert (found.curve.target_low <= found.curve.target_high).all()
    with pytest.raises(InputError, match="above 0"):
        choose_mixture(laws, draws, -1, 1e11, budget, (0.1, 0.9))


def test_r_squared_of_the_mean_is_zero() -> None:
    seen = np.array([1.0, 2.0, 3.0])
    assert r_squared(seen, seen) == 1
    assert r_squared(seen, np.full(3, 2.0)) == 0
    assert np.isnan(r_squared(np.ones(3), seen))
