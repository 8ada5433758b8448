"""`tsugiki study law` and `tsugiki study mixture`: scaling laws of your own runs, and what to mix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tsugiki.commands import study_tables as tables_of
from tsugiki.commands.study_inputs import amount
from tsugiki.commands.terminal import Flag, Json, print_json
from tsugiki.errors import DataError, InputError

if TYPE_CHECKING:
    from tsugiki.study.heldout import Checked
    from tsugiki.study.laws import Law, Runs
    from tsugiki.study.runs import RunTable

Form = Literal["dcpt", "chinchilla", "cross-domain"]


def law(
    runs: Path,
    *,
    form: Form = "dcpt",
    loss: str | None = None,
    other: Flag = False,
    cutoff: str | None = None,
    delta: float = 1e-3,
    starts: int = 24,
    draws: int = 200,
    seed: int = 0,
    html: Path | None = None,
    json: Json = False,
) -> None:
    """Fit a scaling law to losses of runs, and try it on ratios and compute that it has not seen.

    `dcpt`: L = E + A/N^alpha + B r^eta/D^beta + C/(r+epsilon)^gamma (arXiv 2406.01375), r the share of the
    language; `chinchilla`: L = E + A/N^alpha + B/D^beta; `cross-domain`: `dcpt` with a floor of its own for
    each domain (a column `domain`), each domain told from the others' law and three of its cheapest runs.
    Huber's loss on log loss, L-BFGS from many starts; intervals by a bootstrap over runs (size and ratio).

    Three sizes x four ratios x several checkpoints are a good grid. Fit bits per byte, not token losses.

    Example: `tsugiki study law runs.csv --loss bpb_ja --html law.html`

    Args:
        runs: A table: parameters (or N_billion), tokens (or D_B), ratio, and losses.
        form: Which law.
        loss: The column of losses; unless given, the only one.
        other: The loss is of the language with the rest of the mixture, 1 - ratio.
        cutoff: Also fit up to so many FLOPs (6ND) and predict beyond; unless given, the 70th percentile.
        delta: Huber's threshold on log loss.
        starts: Starting points.
        draws: Draws of the bootstrap; 0 for none.
        seed: Of everything random.
        html: Write a page with figures to this file.
        json: Print JSON.
    """
    from tsugiki.study.heldout import bootstrap_laws, intervals
    from tsugiki.study.laws import fit_law
    from tsugiki.study.plain import checked_as_dict, findings_as_list, law_as_dict
    from tsugiki.study.runs import read_runs

    _check(starts, draws, delta, seed)
    table = read_runs(runs, need_share=form != "chinchilla")
    column = _loss(table, loss, runs)
    seen = table.runs(column, other=other)
    if form == "cross-domain":
        from tsugiki.commands.study_domains import print_domains

        print_domains(table, column, seen, (delta, starts, seed), html, json=json)
        return
    fitted = fit_law(form, seen, delta=delta, starts=starts, seed=seed)
    drawn = bootstrap_laws(fitted, seen, table.groups_of(column), draws=draws, seed=seed)
    ends = intervals(drawn)
    checks, failed = _checks(fitted, seen, None if cutoff is None else amount("--cutoff", cutoff), seed)
    if html is not None:
        from tsugiki.report.study_laws import said_findings, write_law_page

        notes = said_findings(table.findings, failed)
        write_law_page(html, column, fitted, drawn, seen, ends, checks, notes)
    if json:
        print_json({
            "loss": column, "n": len(seen), "law": law_as_dict(fitted, ends),
            "held_out": [checked_as_dict(one) for one in checks], "not_checked": failed,
            "findings": findings_as_list(table.findings),
        })  # fmt: skip
        return
    for line in tables_of.findings(table.findings):
        print(line)
    print("\n".join(tables_of.law(column, fitted, ends, len(seen))))
    print("\nHeld out:")
    print("\n".join([*tables_of.held_out(checks), *(f"  not checked: {one}" for one in failed)]))
    if html is not None:
        print(f"\nPage: {html}")


def mixture(
    runs: Path,
    *,
    target: str,
    other: str,
    parameters: str,
    tokens: str,
    allow: float | None = None,
    budget: float | None = None,
    extrapolate: Flag = False,
    starts: int = 24,
    draws: int = 200,
    seed: int = 0,
    html: Path | None = None,
    json: Json = False,
) -> None:
    """Choose the share of a language that gains most on it while the other loses no more than you allow.

    Fits the D-CPT law to both losses, and searches the share r with the lowest target loss at N and D whose
    other loss, at 1 - r, stays within the budget; with a bootstrap interval over runs.

    Example: `tsugiki study mixture runs.csv --target bpb_ja --other bpb_en --parameters 7B --tokens 100B
    --allow 0.02`

    Args:
        runs: A table as for `tsugiki study law`; ratio is the share of the target language.
        target: The column of the target language's losses.
        other: The column of the other language's losses.
        parameters: Of the model that is planned.
        tokens: Of the run that is planned.
        allow: How much the other loss may be above its lowest possible, as a share: 0.02 for 2 %.
        budget: Or the highest other loss itself.
        extrapolate: Also look at shares outside of those that were run.
        starts: Starting points of each fit.
        draws: Draws of the bootstrap; 0 for none.
        seed: Of everything random.
        html: Write a page with figures to this file.
        json: Print JSON.
    """
    import numpy as np

    from tsugiki.study.heldout import bootstrap_laws
    from tsugiki.study.laws import fit_law
    from tsugiki.study.mixture import choose_mixture
    from tsugiki.study.plain import findings_as_list, law_as_dict, mixture_as_dict
    from tsugiki.study.runs import read_runs

    _check(starts, draws, 1e-3, seed)
    if (allow is None) == (budget is None):
        raise InputError(
            "give --allow or --budget", hint="--allow 0.02 lets the other loss be 2 % above its lowest"
        )
    if target == other:
        raise InputError(f"--target and --other are both {target}", hint="name the losses of two languages")
    if allow is not None and not allow >= 0:
        raise InputError(f"--allow {allow:g} is below 0", hint="0.02 lets the other loss be 2 % higher")
    size, amount_of = amount("--parameters", parameters), amount("--tokens", tokens)
    table = read_runs(runs)
    laws: list[Law] = []
    drawn: list[tuple[Law, ...]] = []
    for column, rest in ((target, False), (other, True)):
        seen = table.runs(column, other=rest)
        laws.append(fit_law("dcpt", seen, starts=starts, seed=seed))
        drawn.append(bootstrap_laws(laws[-1], seen, table.groups_of(column), draws=draws, seed=seed))
    ends = (float(table.share.min()), float(table.share.max()))
    if budget is None:
        shares = np.linspace(*((0.0, 1.0) if extrapolate else ends), 201)
        budget = float(laws[1].loss(size, amount_of, 1 - shares).min()) * (1 + (allow or 0.0))
    found = choose_mixture(
        (laws[0], laws[1]), (drawn[0], drawn[1]), size, amount_of, budget, ends, extrapolate=extrapolate
    )
    if html is not None:
        from tsugiki.report.study_laws import said_findings, write_mixture_page

        write_mixture_page(html, found, (target, other), (size, amount_of), said_findings(table.findings))
    if json:
        print_json({
            **mixture_as_dict(found), "findings": findings_as_list(table.findings),
            "laws": {target: law_as_dict(laws[0], {}), other: law_as_dict(laws[1], {})},
        })  # fmt: skip
        return
    for line in tables_of.findings(table.findings):
        print(line)
    print("\n".join(tables_of.mixture(found, (target, other))))
    if html is not None:
        print(f"\nPage: {html}")


def _check(starts: int, draws: int, delta: float, seed: int) -> None:
    if starts < 1 or draws < 0 or not delta > 0 or seed < 0:
        raise InputError(
            f"--starts {starts}, --draws {draws}, --delta {delta:g}, --seed {seed}",
            hint="starts from 1, draws and seed from 0, delta above 0",
        )


def _loss(table: RunTable, asked: str | None, path: Path) -> str:
    if asked is not None:
        return asked
    names = list(table.losses)
    if len(names) > 1:
        raise InputError(f"{path} has several losses: {', '.join(names)}", hint="choose one with --loss")
    return names[0]


def _checks(fitted: Law, seen: Runs, cutoff: float | None, seed: int) -> tuple[list[Checked], list[str]]:
    """The checks that the runs allow, and why others are not."""
    from tsugiki.study.heldout import compute_cutoff, leave_one_ratio_out

    done: list[Checked] = []
    failed: list[str] = []
    checks: list[Any] = [lambda: compute_cutoff(fitted, seen, cutoff, seed=seed)]
    if fitted.form == "dcpt":
        checks.insert(0, lambda: leave_one_ratio_out(fitted, seen, seed=seed))
    for check in checks:
        try:
            done.append(check())
        except DataError as error:
            if cutoff is not None and "FLOPs" in error.message:
                raise
            failed.append(error.message)
    return done, failed
