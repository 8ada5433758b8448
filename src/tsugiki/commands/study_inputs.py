"""What the study's commands are given: tables, budgets, and how to read them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tsugiki.errors import InputError

if TYPE_CHECKING:
    from tsugiki.study.analysis import Asked
    from tsugiki.study.budgets import Budgets
    from tsugiki.study.table import Columns, ScoreTable

_AMOUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:[eE]([+-]?\d+))?\s*([kMBT]?)", re.ASCII)
_UNITS = {"": 1.0, "k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read the tables."""

    example: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Study the shipped table: 35 models x 19 benchmarks."
        ),
    ] = False
    model_column: Annotated[str | None, Parameter(help="The column with the models' names.")] = None
    only: Annotated[
        list[str] | None,
        Parameter(help="Take this column for a benchmark and no other; repeatable.", negative=""),
    ] = None
    drop: Annotated[list[str] | None, Parameter(help="Leave this column out; repeatable.", negative="")] = (
        None
    )
    percent: Annotated[
        bool, Parameter(negative="", show_default=False, help="Scores are per cent: divide them by 100.")
    ] = False
    any_range: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Take scores outside of [0, 1], such as losses, with a warning.",
        ),
    ] = False
    benchmarks: Annotated[
        Path | None,
        Parameter(
            help="A table of facts: benchmark, language, chance (the score of guessing), highest, note."
        ),
    ] = None
    budgets: Annotated[
        Path | None,
        Parameter(
            help="A table: name, N_billion, D_total_B, D_ja_B, D_en_B ..., family, continued, provenance."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Method:
    """How to compute."""

    components: Annotated[
        int, Parameter(help="Components to report; unless given, those that exceed noise, three at least.")
    ] = 0
    rotation: Annotated[Literal["none", "varimax", "promax"], Parameter(help="Rotate the components.")] = (
        "none"
    )
    resample: Annotated[
        Literal["models", "families", "items"],
        Parameter(help="What the bootstrap draws; items: of evaluate artifacts, the models fixed."),
    ] = "models"
    impute: Annotated[int, Parameter(help="Components that fill missing scores in.")] = 1
    confidence: Annotated[float, Parameter(help="Of the intervals of correlations.")] = 0.95
    draws: Annotated[int, Parameter(help="Draws of the bootstrap.")] = 2000
    seed: Annotated[int, Parameter(help="Of everything random.")] = 0


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How to set scores against compute."""

    shares: Annotated[
        Path | None,
        Parameter(
            help="A table of assumed shares to vary: name, tokens_B, language, share, low, high, scale, draw."
        ),
    ] = None
    factor: Annotated[
        float, Parameter(help="Without --shares: how far tokens in rows flagged X may be off, times and by.")
    ] = 3.0
    share_draws: Annotated[int, Parameter(help="Draws of assumed shares.")] = 5000
    wild_draws: Annotated[int, Parameter(help="Draws of the wild cluster bootstrap; 0 leaves it out.")] = 9999


def columns_of(reading: Reading) -> Columns:
    """The options that the table's reader knows."""
    from tsugiki.study.table import Columns

    return Columns(
        reading.model_column,
        tuple(reading.drop or ()),
        tuple(reading.only or ()),
        percent=reading.percent,
        any_range=reading.any_range,
    )


def asked_of(method: Method, compute: Compute | None = None) -> Asked:
    """The options that the analysis knows. Raises InputError for counts of draws that are none."""
    from tsugiki.study.analysis import Asked

    compute = compute or Compute()
    for name, value, least in (
        ("--draws", method.draws, 1), ("--share-draws", compute.share_draws, 1),
        ("--wild-draws", compute.wild_draws, 0), ("--impute", method.impute, 1), ("--seed", method.seed, 0),
    ):  # fmt: skip
        if value < least:
            raise InputError(f"{name} {value} is too small", hint=f"give {least} or more")
    return Asked(
        components=method.components, rotation=method.rotation, resample=method.resample,
        imputing=method.impute, confidence=method.confidence, factor=compute.factor, draws=method.draws,
        share_draws=compute.share_draws, wild_draws=compute.wild_draws, seed=method.seed,
    )  # fmt: skip


def asked_table(tables: tuple[Path, ...], reading: Reading) -> tuple[str, ScoreTable, Budgets | None]:
    """A name for the study, its table, and the budgets where there are any.

    Raises InputError for no table, or a table and --example.
    """
    from tsugiki.study.analysis import EXAMPLE
    from tsugiki.study.budgets import read_budgets
    from tsugiki.study.table import read_table

    if reading.example and tables:
        raise InputError("--example has a table of its own", hint="leave the tables out, or --example")
    if not reading.example and not tables:
        raise InputError(
            "no table is given",
            hint="name a CSV, TSV, JSON or Parquet file, or evaluate artifacts; or try --example",
        )
    table = read_table([EXAMPLE / "scores.csv"] if reading.example else tables, columns_of(reading))
    path = reading.budgets or (EXAMPLE / "budgets.csv" if reading.example else None)
    name = "35 base models" if reading.example else ", ".join(path.stem for path in tables[:3])
    return name, table, None if path is None else read_budgets(path, table)


def asked_shares(compute: Compute, reading: Reading) -> Path | None:
    """The file of shares: the one named, or the example's with the example's budgets."""
    from tsugiki.study.analysis import EXAMPLE

    if compute.shares is None and reading.example and reading.budgets is None:
        return EXAMPLE / "shares.csv"
    return compute.shares


def amount(option: str, text: str) -> float:
    """`7B`, `1.5e9` or `100B` as a number; raises InputError that names the option."""
    match = _AMOUNT.fullmatch(text.strip())
    value = 0.0 if match is None else float(f"{match[1]}e{match[2] or 0}") * _UNITS[match[3]]
    if not 0 < value < float("inf"):
        raise InputError(f'{option} "{text}" is no amount above 0', hint="write 7e9, or 7B (k, M, B, T)")
    return value
