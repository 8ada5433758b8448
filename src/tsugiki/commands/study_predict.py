"""`tsugiki study predict`: a benchmark from the factors of the others, tried on larger models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tsugiki.commands import study_tables as tables_of
from tsugiki.commands.study_inputs import Reading, amount, asked_table
from tsugiki.commands.terminal import Json, print_json
from tsugiki.errors import InputError


def predict(
    *tables: Path,
    target: Annotated[list[str] | None, Parameter(negative="")] = None,
    cutoff: str | None = None,
    components: int = 3,
    seed: int = 0,
    reading: Annotated[Reading | None, Parameter(name="*")] = None,
    html: Path | None = None,
    json: Json = False,
) -> None:
    """Observational scaling: predict benchmarks of larger models from the factors of the others.

    After Ruan, Maddison and Hashimoto (2024): a sigmoid of the first factors of the other benchmarks, found
    and fitted on models up to a cutoff of compute (Huber, several starts), tried on those beyond it; beside
    it the errors of compute alone and of the mean.

    Example: `tsugiki study predict --example --target MMLU --cutoff 2e23`

    Args:
        tables: As for `tsugiki study`.
        target: The benchmark to predict; repeatable; unless given, each in turn.
        cutoff: FLOPs (6ND) up to which models are fitted; unless given, the median.
        components: Factors.
        seed: Of the starts.
        reading: How to read the tables; --budgets is needed.
        html: Write a page with figures to this file.
        json: Print JSON.
    """
    import numpy as np

    from tsugiki.study.budgets import TOTAL
    from tsugiki.study.observational import predict_all
    from tsugiki.study.plain import prediction_as_dict

    name, table, budgets = asked_table(tables, reading or Reading())
    if budgets is None or TOTAL not in budgets.tokens:
        raise InputError(
            "no budgets with all tokens are given, and a cutoff of compute needs them",
            hint="give --budgets FILE with name, N_billion, D_total_B",
        )
    if components < 1:
        raise InputError(f"--components {components}", hint="give 1 or more")
    compute = budgets.compute(TOTAL)
    known = compute[np.isfinite(compute)]
    at = amount("--cutoff", cutoff) if cutoff is not None else float(np.median(known)) if len(known) else 0.0
    found, failed = predict_all(
        table, compute, target or table.benchmarks, cutoff=at, components=components, seed=seed
    )
    if html is not None:
        from tsugiki.report.study_predictions import write_prediction_page

        write_prediction_page(html, name, found, failed)
    if json:
        print_json({"predictions": [prediction_as_dict(one) for one in found], "not_predicted": failed})
    else:
        print("\n".join(tables_of.predictions(found, failed)))
        if html is not None:
            print(f"\nPage: {html}")
