"""The cross-domain D-CPT law: planted floors come back, new domains are told from three cheap runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import check_grad

from tsugiki.cli import app
from tsugiki.errors import DataError, InputError
from tsugiki.study.domains import fit_domains, learn_floor, leave_one_domain_out
from tsugiki.study.laws import Law, Runs, fit_law

SHARED = {
    "A": 300.0,
    "alpha": 0.33,
    "B": 900.0,
    "beta": 0.3,
    "eta": 0.2,
    "C": 0.08,
    "gamma": 0.6,
    "epsilon": 0.05,
}
FLOORS = {"code": 0.6, "law": 1.3, "medicine": 1.9}


def planted(noise=0.0, floors=FLOORS):
    truth = Law("dcpt", SHARED, (), 0, 0, 0)
    n, d, r = (
        axis.ravel() for axis in np.meshgrid([0.5e9, 1e9, 3e9], [2e9, 5e9, 2e10], [0.1, 0.33, 0.6, 0.9])
    )
    rng = np.random.default_rng(0)
    parts = [truth.loss(n, d, r) + floor for floor in floors.values()]
    loss = np.concatenate(parts) * np.exp(noise * rng.standard_normal(len(n) * len(floors)))
    several = [np.tile(axis, len(floors)) for axis in (n, d, r)]
    return Runs(*several, loss), [name for name in floors for _ in n]


def test_fit_domains_gives_planted_floors_and_the_shared_law_back() -> None:
    runs, domains = planted()
    found = fit_domains(runs, domains, starts=4)
    assert found.floors == pytest.approx(FLOORS, rel=1e-3)
    assert found.law.parameters == pytest.approx(SHARED, rel=2e-2)
    rows = np.array(domains) == "law"
    assert found.loss("law", runs.pick(rows)) == pytest.approx(runs.loss[rows], rel=1e-5)


def test_gradient_with_floors_is_that_of_differences() -> None:
    from dataclasses import replace

    from tsugiki.study.laws import _hypercube, _problem

    runs, domains = planted(noise=0.01)
    plain, *_ = _problem("dcpt", runs, 0.05)
    member = np.array([[float(one == name) for one in domains] for name in FLOORS])
    problem = replace(plain, names=("E0", "E1", "E2", *plain.names[1:]), floor_KN=member)
    for theta in _hypercube(problem.names, 3, 0):
        error = check_grad(lambda t: problem.value(t)[0], lambda t: problem.value(t)[1], theta)
        assert error < 1e-5 * max(1.0, float(np.linalg.norm(problem.value(theta)[1])))


def test_leave_one_domain_out_tells_a_new_domain_where_a_law_of_its_cheap_runs_can_not() -> None:
    runs, domains = planted(noise=0.003)
    found = leave_one_domain_out(runs, domains, starts=3)
    assert [part.what for part in found.parts] == ["code", "law", "medicine"]
    assert found.error < 0.01
    for part in found.parts:
        assert part.n == 33
        assert part.error < 0.15 * part.baseline
    with pytest.raises(DataError, match="3 observations for"):
        fit_law("dcpt", runs.pick(np.arange(3)))


def test_learn_floor_is_exact_without_noise_and_never_below_zero() -> None:
    runs, domains = planted()
    law = Law("dcpt", SHARED, (), 0, 0, 0)
    few = runs.pick(np.flatnonzero(np.array(domains) == "medicine")[:2])
    assert learn_floor(law, few) == pytest.approx(1.9, abs=1e-5)
    low = Runs(few.parameters, few.tokens, few.share, few.loss - 2.2)
    assert learn_floor(law, low) == pytest.approx(0, abs=1e-4)


def test_domains_of_one_kind_or_too_few_runs_raise() -> None:
    runs, domains = planted()
    with pytest.raises(DataError, match="1 domain"):
        fit_domains(runs, ["law"] * len(domains))
    with pytest.raises(DataError, match="parameters of a law over 9 domains"):
        fit_domains(runs.pick(np.arange(9)), [str(i) for i in range(9)])


def test_study_law_with_a_column_of_domains_says_floors_and_held_out_domains(capsys, tmp_path) -> None:
    runs, domains = planted(noise=0.002)
    lines = ["N,D,ratio,domain,loss"]
    lines += [
        f"{n},{d},{r},{name},{loss}"
        for n, d, r, name, loss in zip(
            runs.parameters, runs.tokens, runs.share, domains, runs.loss, strict=True
        )
    ]
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines) + "\n")
    words = ["study", "law", str(path), "--form", "cross-domain", "--starts", "3"]
    with pytest.raises(SystemExit) as ended:
        app([*words, "--json"])
    assert ended.value.code in {0, None}
    found = json.loads(capsys.readouterr().out)
    assert found["floors"] == pytest.approx(FLOORS, abs=0.2)
    assert found["held_out"][0]["kind"] == "leave one domain out"
    with pytest.raises(SystemExit):
        app([*words, "--html", str(tmp_path / "p.html")])
    said = capsys.readouterr().out
    assert "medicine" in said
    assert "leave one domain out" in said
    assert "medicine" in (tmp_path / "p.html").read_text()
    path.write_text("N,D,ratio,loss\n1e9,1e9,0.5,2.0\n")
    with pytest.raises(InputError, match="no column of domain"):
        app(words)
