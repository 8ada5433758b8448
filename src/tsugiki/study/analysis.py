"""The whole study of a table: checks, correlations, factors, and with budgets scaling and sensitivity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tsugiki.errors import DataError, InputError
from tsugiki.study.benchmarks import known_benchmarks
from tsugiki.study.budgets import TOTAL, Budgets, read_budgets
from tsugiki.study.checks import check_scores, outliers
from tsugiki.study.correlations import Correlations, correlations
from tsugiki.study.factors import (
    Array,
    Factors,
    Parallel,
    Stability,
    bootstrap,
    parallel_analysis,
    principal_components,
    stability_of_tables,
)
from tsugiki.study.findings import Finding
from tsugiki.study.imputation import imputation_findings, impute
from tsugiki.study.item_noise import Items, drawn_tables, item_findings
from tsugiki.study.rotation import Rotated, rotate
from tsugiki.study.scaling import Scaling, scaling, usable_models
from tsugiki.study.sensitivity import Sensitivity, assumed_shares, read_shares, sensitivity
from tsugiki.study.table import ScoreTable

EXAMPLE: Final = Path(__file__).with_name("example")
"""35 base models x 19 benchmarks with budgets and assumed shares; its README says where they are from."""
ROTATIONS: Final = ("none", "varimax", "promax")
_LEAST_COMPONENTS: Final = 3


@dataclass(frozen=True)
class Asked:
    """How to study.

    components: 0 for as many as parallel analysis keeps, three at least where there are so many.

    resample: what the bootstrap of the factors draws, `models`, `families` (which needs budgets with
    families) or `items` (of evaluate artifacts, the models fixed). imputing: components that fill gaps in.
    factor: how far tokens of rows flagged X may be off where there is no file of shares. draws, noise_draws,
    share_draws, wild_draws: of the bootstrap, parallel analysis, sensitivity, and tests.
    """

    components: int = 0
    rotation: str = "none"
    resample: str = "models"
    imputing: int = 1
    confidence: float = 0.95
    factor: float = 3.0
    draws: int = 2000
    noise_draws: int = 1000
    share_draws: int = 5000
    wild_draws: int = 9999
    seed: int = 0


@dataclass(frozen=True)
class FactorStudy:
    """A table's checks, correlations and factors; `languages` of the benchmarks that are known."""

    table: ScoreTable
    filled: Array
    correlations: Correlations
    factors: Factors
    parallel: Parallel
    stability: Stability
    rotated: Rotated | None
    findings: tuple[Finding, ...]
    languages: Mapping[str, str]

    @property
    def shown(self) -> int:
        """How many components are reported."""
        return len(self.stability.share_low_K)

    @property
    def names(self) -> tuple[str, ...]:
        """PC1, PC2 and so on."""
        return tuple(f"PC{number}" for number in range(1, self.shown + 1))

    def outcomes(self) -> dict[str, Array]:
        """What is set against compute: components, rotated factors if there are any, every benchmark."""
        found = {name: self.factors.scores_MK[:, place] for place, name in enumerate(self.names)}
        if self.rotated is not None:
            scores = self.rotated.scores_MK
            found |= {
                f"{self.rotated.method} {place + 1}": scores[:, place] for place in range(scores.shape[1])
            }
        return found | {name: self.table.column(name) for name in self.table.benchmarks}


@dataclass(frozen=True)
class ScalingStudy:
    """Scaling of a factor study's outcomes, and its sensitivity (None where nothing is assumed)."""

    budgets: Budgets
    scaling: Scaling
    sensitivity: Sensitivity | None
    findings: tuple[Finding, ...]


def study_factors(
    table: ScoreTable,
    asked: Asked,
    *,
    benchmarks: Path | None = None,
    budgets: Budgets | None = None,
    items: Mapping[str, Items] | None = None,
) -> FactorStudy:
    """Checks, correlations, components, rotation.

    benchmarks: a file of facts of one's own (languages, chance). budgets: for --resample families; items: for
    --resample items (`item_noise.items_of`). Raises InputError for options that don't fit, DataError
    for gaps that can't be filled.
    """
    _check_asked(table, asked, budgets)
    known = known_benchmarks(table.benchmarks, benchmarks)
    findings = [*table.findings, *check_scores(table, known)]
    imputed = impute(table.scores_MB, asked.imputing)
    findings += imputation_findings(table, imputed)
    factors = principal_components(imputed.scores_MB)
    parallel = parallel_analysis(
        len(table.models), factors.eigenvalues_B, draws=asked.noise_draws, seed=asked.seed
    )
    most = min(len(table.benchmarks), len(table.models) - 1)
    components = min(asked.components or max(parallel.kept, _LEAST_COMPONENTS), most)
    clusters = budgets.families if budgets is not None and asked.resample == "families" else None
    if asked.resample == "items":
        if not items:
            raise InputError("no items are known", hint="name directories that tsugiki evaluate made")
        tables = drawn_tables(imputed.scores_MB, table, items, asked.draws, asked.seed)
        stability = stability_of_tables(tables, factors, components)
        findings += item_findings(table, items)
    else:
        stability = bootstrap(
            imputed.scores_MB, factors, components, draws=asked.draws, seed=asked.seed, clusters=clusters
        )
    if stability.left_out:
        said = f"{stability.left_out} of {stability.draws} draws had no spread on some benchmark: left out"
        findings.append(Finding("bootstrap", said))
    findings += outliers(table, factors.rebuilt(max(parallel.kept, 1)))
    rotated = None
    if asked.rotation != "none":
        turned = asked.components or max(parallel.kept, 2)
        turned = min(turned, most)
        rotated = rotate(asked.rotation, factors.loadings_BK[:, :turned], factors.scores_MK[:, :turned])
    return FactorStudy(
        table,
        imputed.scores_MB,
        correlations(table, asked.confidence),
        factors,
        parallel,
        stability,
        rotated,
        tuple(findings),
        {name: facts.language for name, facts in known.items() if facts.language is not None},
    )


def _check_asked(table: ScoreTable, asked: Asked, budgets: Budgets | None) -> None:
    most = min(len(table.benchmarks), len(table.models) - 1)
    if not 0 <= asked.components <= most:
        raise InputError(
            f"{asked.components} components; models {len(table.models)}, benchmarks {len(table.benchmarks)}",
            hint=f"ask for 1 to {most}, or leave --components out",
        )
    if not 0 < asked.confidence < 1:
        raise InputError(f"a confidence of {asked.confidence:g}", hint="give a share such as 0.95")
    if asked.draws < 1 or asked.noise_draws < 1:
        raise InputError("draws have to be 1 or more", hint="leave --draws out for 2,000")
    if asked.resample == "families" and (budgets is None or not budgets.has_families):
        raise InputError("families are not known", hint="give --budgets with a column family")


def study_scaling(
    factors: FactorStudy, budgets: Budgets, asked: Asked, *, shares: Path | None = None
) -> ScalingStudy:
    """Scaling with compute, families left out, and sensitivity to assumed shares.

    shares: a file (see `sensitivity.read_shares`); without one, rows flagged X are varied by `asked.factor`.
    Raises DataError where too few models have budgets.
    """
    outcomes = factors.outcomes()
    table = factors.table
    fitted = scaling(table.models, outcomes, budgets, wild_draws=asked.wild_draws, seed=asked.seed)
    findings = [*budgets.findings, *_cluster_findings(fitted)]
    findings += [Finding("not fitted", said) for said in fitted.not_fitted]
    if asked.factor < 1:
        raise InputError(
            f"a factor of {asked.factor:g}", hint="1 assumes nothing wrong, 3 allows a third to three times"
        )
    drawn = read_shares(shares, table) if shares is not None else assumed_shares(budgets, asked.factor)
    usable = usable_models(budgets, budgets.languages or (TOTAL,))
    drawn = [share for share in drawn if usable[share.place]]
    if shares is not None and not drawn:
        raise DataError(
            f"{shares} names no model that has a budget", hint="write the names of the models as in the table"
        )
    tested = None
    if any(share.low < share.high for share in drawn):
        tested = sensitivity(
            table.models, outcomes, budgets, drawn, draws=asked.share_draws, seed=asked.seed,
            source="file" if shares is not None else "factor",
        )  # fmt: skip
        findings += tested.findings
    return ScalingStudy(budgets, fitted, tested, tuple(findings))


def _cluster_findings(fitted: Scaling) -> list[Finding]:
    families = len(set(fitted.families))
    if families < 3:  # noqa: PLR2004 - as regression.least_squares
        said = f"{families} families: no clustered errors; the classical ones take kin for independent"
        return [Finding("clusters", said)]
    if families < 12:  # noqa: PLR2004 - MacKinnon and Webb: few
        said = f"{families} families are few: clustered errors are too small; trust the wild bootstrap's p"
        return [Finding("clusters", said)]
    return []


def example_budgets(table: ScoreTable) -> Budgets:
    """The budgets of the shipped example."""
    return read_budgets(EXAMPLE / "budgets.csv", table)
