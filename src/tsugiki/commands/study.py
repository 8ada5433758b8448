"""`tsugiki study`: what a table of models and benchmarks says, as one group of commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from tsugiki.commands import study_tables as tables_of
from tsugiki.commands.study_inputs import Compute, Method, Reading, asked_of, asked_shares, asked_table
from tsugiki.commands.study_laws import law, mixture
from tsugiki.commands.study_predict import predict
from tsugiki.commands.terminal import Json, print_json
from tsugiki.errors import InputError
from tsugiki.report.formatting import plural

if TYPE_CHECKING:
    from tsugiki.study.analysis import FactorStudy, ScalingStudy
    from tsugiki.study.findings import Finding

app = App(name="study", help_format="markdown")


@app.default
def study(
    *tables: Path,
    reading: Annotated[Reading | None, Parameter(name="*")] = None,
    method: Annotated[Method | None, Parameter(name="*")] = None,
    compute: Annotated[Compute | None, Parameter(name="*")] = None,
    html: Path | None = None,
    json: Json = False,
) -> None:
    """Study a table of models x benchmarks: checks, correlations, factors, and what compute buys.

    See `tsugiki study --help`.

    Args:
        tables: CSV, TSV, JSON, JSON lines or Parquet with a row a model and a column a benchmark; or
            directories that `tsugiki evaluate` made. Several are joined by the models' names.
        reading: How to read the tables.
        method: How to compute.
        compute: How to set scores against compute.
        html: Write a page with figures to this file.
        json: Print JSON.
    """
    _study(tables, reading or Reading(), method or Method(), compute or Compute(), html, json=json)


@app.command(sort_key=1)
def factors(
    *tables: Path,
    reading: Annotated[Reading | None, Parameter(name="*")] = None,
    method: Annotated[Method | None, Parameter(name="*")] = None,
    html: Path | None = None,
    json: Json = False,
) -> None:
    """Factors alone: principal components, their stability, how many exceed noise, rotations, correlations.

    Example: `tsugiki study factors scores.csv --rotation promax --html factors.html`

    Args:
        tables: As for `tsugiki study`.
        reading: How to read the tables.
        method: How to compute.
        html: Write a page with figures to this file.
        json: Print JSON.
    """
    _study(tables, reading or Reading(), method or Method(), None, html, json=json)


@app.command(sort_key=2)
def scaling(
    *tables: Path,
    reading: Annotated[Reading | None, Parameter(name="*")] = None,
    method: Annotated[Method | None, Parameter(name="*")] = None,
    compute: Annotated[Compute | None, Parameter(name="*")] = None,
    html: Path | None = None,
    json: Json = False,
) -> None:
    """Scaling alone: factors and benchmarks against the compute of each language, 6ND, with errors by family.

    One language at a time and all at once, with a dummy of continual pre-training, with parameters and tokens
    apart, without each family, and over assumed shares.

    Example: `tsugiki study scaling scores.csv --budgets budgets.csv --shares shares.csv`

    Args:
        tables: As for `tsugiki study`.
        reading: How to read the tables; --budgets is needed.
        method: How to compute.
        compute: How to set scores against compute.
        html: Write a page with figures to this file.
        json: Print JSON.
    """
    reading = reading or Reading()
    if reading.budgets is None and not reading.example:
        raise InputError(
            "no budgets are given, and scaling needs the models' parameters and tokens",
            hint="give --budgets FILE with the columns name, N_billion, D_<language>_B, family",
        )
    _study(tables, reading, method or Method(), compute or Compute(), html, json=json, factors=False)


app.command(predict, name="predict", sort_key=3)
app.command(law, name="law", sort_key=4)
app.command(mixture, name="mixture", sort_key=5)


def _study(
    tables: tuple[Path, ...], reading: Reading, method: Method, compute: Compute | None, html: Path | None,
    *, json: bool, factors: bool = True,
) -> None:  # fmt: skip
    from tsugiki.study.analysis import study_factors, study_scaling

    name, table, budgets = asked_table(tables, reading)
    asked = asked_of(method, compute)
    items = None
    if method.resample == "items":
        from tsugiki.study.item_noise import items_of

        items = items_of(tables, table)
    found = study_factors(table, asked, benchmarks=reading.benchmarks, budgets=budgets, items=items)
    scaled = None
    if budgets is not None and compute is not None:
        scaled = study_scaling(found, budgets, asked, shares=asked_shares(compute, reading))
    if html is not None:
        from tsugiki.report.study import write_study_page

        write_study_page(html, name, found, scaled)
    if json:
        print_json(_as_dict(found, scaled, factors=factors))
        return
    _print(name, found, scaled, factors=factors, hint=compute is not None)
    if html is not None:
        print(f"\nPage: {html}")


def _as_dict(found: FactorStudy, scaled: ScalingStudy | None, *, factors: bool) -> dict[str, Any]:
    from tsugiki.study.plain import factors_as_dict, findings_as_list, scaling_as_dict

    shown = factors_as_dict(found) if factors else {"findings": findings_as_list(found.findings)}
    return shown if scaled is None else {**shown, "scaling": scaling_as_dict(scaled)}


def _print(name: str, found: FactorStudy, scaled: ScalingStudy | None, *, factors: bool, hint: bool) -> None:
    table = found.table
    print(f"{name}: {plural(len(table.models), 'model')} x {plural(len(table.benchmarks), 'benchmark')}")
    every: list[Finding] = [*found.findings, *(scaled.findings if scaled is not None else ())]
    if every:
        print("\nTo be known of the table:")
        print("\n".join(tables_of.findings(every)))
    if factors:
        print()
        print("\n".join(tables_of.factors(found)))
        print()
        print("\n".join(tables_of.correlations(found)))
    if scaled is not None:
        print()
        print("\n".join(tables_of.scaling(scaled)))
    elif hint:
        print("\nNo --budgets: nothing is set against compute.")
