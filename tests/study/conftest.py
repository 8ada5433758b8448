"""The shipped example, read once: 35 base models x 19 benchmarks. And two laws of mixtures, planted."""

from __future__ import annotations

import pytest

from tsugiki.study.analysis import EXAMPLE, Asked, example_budgets, study_factors, study_scaling
from tsugiki.study.laws import Law
from tsugiki.study.table import read_table


@pytest.fixture(scope="session")
def table():
    return read_table([EXAMPLE / "scores.csv"])


@pytest.fixture(scope="session")
def budgets(table):
    return example_budgets(table)


@pytest.fixture(scope="session")
def factors(table):
    return study_factors(table, Asked())


@pytest.fixture(scope="session")
def scaled(factors, budgets):
    return study_scaling(factors, budgets, Asked(), shares=EXAMPLE / "shares.csv")


@pytest.fixture(scope="session")
def mixture_laws():
    """Two D-CPT laws: of the loss in the target language by its share, and of the other's by the rest."""
    target = {"E": 1.2, "A": 300.0, "alpha": 0.33, "B": 900.0, "beta": 0.3, "eta": 0.0, "C": 0.3}
    other = {"E": 1.5, "A": 200.0, "alpha": 0.33, "B": 500.0, "beta": 0.3, "eta": 0.0, "C": 0.05}
    return (
        Law("dcpt", {**target, "gamma": 0.6, "epsilon": 0.05}, (), 0, 0, 0),
        Law("dcpt", {**other, "gamma": 0.8, "epsilon": 0.08}, (), 0, 0, 0),
    )
