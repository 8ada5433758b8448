"""The shipped example, read once: 35 base models x 19 benchmarks."""

from __future__ import annotations

import pytest

from tsugiki.study.analysis import EXAMPLE, Asked, example_budgets, study_factors, study_scaling
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
