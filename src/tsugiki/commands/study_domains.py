"""`tsugiki study law --form cross-domain`: one law for several domains, and new domains from cheap runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tsugiki.commands import study_tables as tables_of
from tsugiki.commands.terminal import columns, one_line, print_json
from tsugiki.errors import DataError

if TYPE_CHECKING:
    from tsugiki.study.laws import Runs
    from tsugiki.study.runs import RunTable


def print_domains(
    table: RunTable, column: str, seen: Runs, how: tuple[float, int, int], html: Path | None, *, json: bool
) -> None:
    """Fit, check and print. how: Huber's threshold, starts and seed."""
    from tsugiki.study.domains import fit_domains, leave_one_domain_out
    from tsugiki.study.plain import checked_as_dict, findings_as_list, law_as_dict, number

    delta, starts, seed = how
    domains = table.domains_of(column)
    found = fit_domains(seen, domains, delta=delta, starts=starts, seed=seed)
    checks, failed = [], []
    try:
        checks.append(leave_one_domain_out(seen, domains, starts=max(1, starts // 4), seed=seed))
    except DataError as error:
        failed.append(f"{error.message}: {error.hint}" if error.hint else error.message)
    if html is not None:
        from tsugiki.report.study_laws import said_findings, write_domains_page

        notes = said_findings(table.findings, failed)
        write_domains_page(html, column, found, (seen, domains), checks, notes)
    if json:
        print_json({
            "loss": column, "n": len(seen), "law": law_as_dict(found.law, {}),
            "floors": {name: number(value) for name, value in found.floors.items()},
            "held_out": [checked_as_dict(one) for one in checks], "not_checked": failed,
            "findings": findings_as_list(table.findings),
        })  # fmt: skip
        return
    print("\n".join(tables_of.findings(table.findings)))
    print("\n".join(tables_of.law(column, found.law, {}, len(seen))))
    print("\nFloors of the domains (E + F/K^mu):")
    rows = [(one_line(name), f"{value:.4g}") for name, value in found.floors.items()]
    print("\n".join(columns(rows, right=(1,), indent="  ")))
    print("\nHeld out:")
    print("\n".join([*tables_of.held_out(checks), *(f"  not checked: {one_line(one)}" for one in failed)]))
    if html is not None:
        print(f"\nPage: {html}")
