"""The page of a study: what the table says, how far to believe it, with figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from tsugiki.artifacts.files import write_text
from tsugiki.report.figures.bands import Arrow, Spot, biplot
from tsugiki.report.figures.figure import Figure, Key, Words, full_width, model_legend
from tsugiki.report.figures.heatmap import Matrix, heat_map, shown_values
from tsugiki.report.figures.lines import Series, line_chart
from tsugiki.report.figures.svg import Canvas
from tsugiki.report.formatting import fixed, interval, percent, plural
from tsugiki.report.study_scaling import robustness_part, scaling_part
from tsugiki.report.study_sheet import Part, Sheet, Table, render_sheet
from tsugiki.study.analysis import FactorStudy, ScalingStudy
from tsugiki.study.findings import Finding

_COLOURS: Final = 5
_OTHERS: Final = "m5"
_FINDINGS: Final = 40
_ROWS: Final = 60
_FIGURES: Final = 6


def write_study_page(path: Path, name: str, factors: FactorStudy, scaling: ScalingStudy | None) -> None:
    """Write the page atomically; the same study gives the same bytes."""
    write_text(path, study_page(name, factors, scaling))


def study_page(name: str, factors: FactorStudy, scaling: ScalingStudy | None) -> str:
    """The page as HTML text."""
    groups = _groups(factors, scaling)
    parts = [_findings(factors, scaling), _components(factors, groups), _correlations(factors)]
    if scaling is not None:
        parts += [scaling_part(factors, scaling, groups, _legend(groups[1])), robustness_part(scaling)]
    table = factors.table
    meta = f"{plural(len(table.models), 'model')} · {plural(len(table.benchmarks), 'benchmark')}"
    meta += f" · {plural(table.missing, 'missing score')}" if table.missing else ""
    return render_sheet(Sheet(name, meta, _headline(factors, scaling), _tiles(factors), tuple(parts)))


def _headline(factors: FactorStudy, scaling: ScalingStudy | None) -> str:
    kept = factors.parallel.kept
    share = percent(float(factors.factors.explained_B[:kept].sum()))
    every = len(factors.table.benchmarks)
    said = f"{plural(kept, 'component')} of {every} exceed noise: {share} of variance."
    if scaling is None:
        return said
    for name in factors.names[: max(kept, 1)]:
        best = max(
            (one for one in scaling.scaling.singles if one.outcome == name),
            key=lambda one: abs(one.r),
            default=None,
        )
        if best is not None:
            ends = interval(best.low, best.high, 2)
            said += f" {name} goes with compute of {best.language} (r {fixed(best.r, 2)}, {ends})."
    return said


def _tiles(factors: FactorStudy) -> tuple[tuple[str, str, str], ...]:
    found, stable = factors.factors, factors.stability
    return tuple(
        (
            name,
            percent(float(found.explained_B[k])),
            f"{percent(float(stable.share_low_K[k]))} to {percent(float(stable.share_high_K[k]))}; "
            + ("more than noise" if k < factors.parallel.kept else "not told from noise"),
        )
        for k, name in enumerate(factors.names[:4])
    )


def _groups(factors: FactorStudy, scaling: ScalingStudy | None) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """The group of each model, and the colour of each group; the largest have their own."""
    if scaling is None:
        return ("",) * len(factors.table.models), {"": "m0"}
    budgets = scaling.budgets
    groups = budgets.groups if any(budgets.groups) else budgets.families
    ordered = [name for name, _ in sorted(Counter(groups).items(), key=lambda one: (-one[1], one[0]))]
    few = ordered if len(ordered) <= _COLOURS + 1 else ordered[:_COLOURS]
    colours = {name: f"m{place}" for place, name in enumerate(few)}
    return tuple(groups), {name: colours.get(name, _OTHERS) for name in ordered}


def _legend(colours: Mapping[str, str]) -> tuple[Key, ...]:
    entries: dict[str, list[str]] = {}
    for name, css in colours.items():
        entries.setdefault(css, []).append(name or "not known")
    if len(entries) < 2:  # noqa: PLR2004 - one colour needs no legend
        return ()
    return model_legend([(names[0] if len(names) == 1 else "others", css) for css, names in entries.items()])


def _said(one: Finding) -> str:
    where = " · ".join(part for part in (one.model, one.benchmark) if part)
    value = "" if one.value is None or one.kind == "average" else f" ({one.value:.4g})"
    return f"{where}{value}: {one.message}" if where else one.message


def _findings(factors: FactorStudy, scaling: ScalingStudy | None) -> Part:
    every = (*factors.findings, *(scaling.findings if scaling is not None else ()))
    notes = [_said(one) for one in every[:_FINDINGS]]
    if len(every) > _FINDINGS:
        notes.append(f"and {len(every) - _FINDINGS} more (--json has all)")
    lead = "Nothing was mended or left out but what is named here." if every else "Nothing was found."
    return Part("findings", "What the table has to answer for", lead, notes=tuple(notes))


def _components(factors: FactorStudy, groups: tuple[tuple[str, ...], Mapping[str, str]]) -> Part:
    figures = [_scree(factors), _loadings(factors)]
    if factors.shown > 1:
        figures.append(_biplot(factors, groups))
    stable = factors.stability
    rows = tuple(
        (
            name,
            fixed(float(factors.factors.eigenvalues_B[k]), 2),
            fixed(float(factors.parallel.threshold_B[k]), 2),
            percent(float(factors.factors.explained_B[k])),
            f"{percent(float(stable.share_low_K[k]))} to {percent(float(stable.share_high_K[k]))}",
            fixed(float(stable.cosine_median_K[k]), 3),
            fixed(float(stable.cosine_low_K[k]), 3),
        )
        for k, name in enumerate(factors.names)
    )
    titles = ("", "eigenvalue", "noise, 95th percentile", "share", "95 %", "cosine, median", "cosine, 2.5 %")
    caption = f"{stable.draws} draws; the cosine is that of a draw's component with the one of all models."
    lead = (
        "Principal components of standardised scores. One counts where its eigenvalue exceeds that of noise "
        "(Horn's parallel analysis), and is to be believed where it stays when models are drawn again."
    )
    tables = [Table(caption, titles, rows)]
    if factors.rotated is not None:
        tables.append(_rotated(factors))
    return Part("components", "Components", lead, tuple(figures), tuple(tables))


def _rotated(factors: FactorStudy) -> Table:
    one = factors.rotated
    if one is None:
        return Table("", (), ())
    titles = ("", *(f"{one.method} {k + 1}" for k in range(one.loadings_BK.shape[1])))
    rows = tuple(
        (name, *(fixed(float(value), 2) for value in row))
        for name, row in zip(factors.table.benchmarks, one.loadings_BK, strict=True)
    )
    correlated = "; ".join(
        f"{a + 1} and {b + 1}: {fixed(float(one.factors_KK[a, b]), 2)}"
        for a in range(len(one.factors_KK))
        for b in range(a)
    )
    return Table(f"Loadings after {one.method}; factors correlate {correlated}.", titles, rows)


def _scree(factors: FactorStudy) -> Figure:
    values = factors.factors.eigenvalues_B.tolist()
    noise = factors.parallel.threshold_B.tolist()
    series = [
        Series("of the table", "m0", tuple((k + 1.0, value) for k, value in enumerate(values)), marked=True),
        Series("of noise", "m1", tuple((k + 1.0, value) for k, value in enumerate(noise))),
    ]
    words = Words(
        "Eigenvalues",
        "How much each component explains, in benchmarks, and the 95th percentile for noise of this size.",
        "; ".join(f"{k + 1}: {value:.2f} against {noise[k]:.2f}" for k, value in enumerate(values[:6])),
    )

    def draw(canvas: Canvas) -> Any:
        return line_chart(canvas, series, ("component", "eigenvalue"), 280.0)

    return full_width("scree", words, draw, model_legend([("of the table", "m0"), ("of noise", "m1")]))


def _loadings(factors: FactorStudy) -> Figure:
    stable, shown = factors.stability, factors.shown
    loadings = factors.factors.loadings_BK[:, :shown]
    ends = [
        tuple(
            f"95 % {low:.2f} to {high:.2f}"
            for low, high in zip(stable.loading_low_BK[b], stable.loading_high_BK[b], strict=True)
        )
        for b in range(len(loadings))
    ]
    matrix = Matrix(
        factors.table.benchmarks, factors.names, shown_values(loadings.tolist()), says=tuple(ends)
    )
    words = Words(
        "Loadings",
        "The correlation of each benchmark with each component; point at a cell for its bootstrap interval.",
        "; ".join(
            f"{name} {', '.join(f'{value:.2f}' for value in row)}"
            for name, row in zip(factors.table.benchmarks, loadings.tolist(), strict=True)
        ),
    )
    return full_width("loadings", words, lambda canvas: heat_map(canvas, matrix))


def _biplot(factors: FactorStudy, groups: tuple[tuple[str, ...], Mapping[str, str]]) -> Figure:
    scores, loadings = factors.factors.scores_MK, factors.factors.loadings_BK
    spots = [
        Spot(float(x), float(y), groups[1][group], model, f"{model}: {x:.2f}, {y:.2f}")
        for model, group, x, y in zip(
            factors.table.models, groups[0], scores[:, 0], scores[:, 1], strict=True
        )
    ]
    arrows = [
        Arrow(float(x), float(y), name)
        for name, x, y in zip(factors.table.benchmarks, loadings[:, 0], loadings[:, 1], strict=True)
    ]
    words = Words(
        "Models and benchmarks",
        "Each mark is a model at its scores on two components; the lines are the benchmarks' loadings.",
        "; ".join(one.title for one in spots),
    )
    axes = tuple(
        f"{name} ({percent(float(factors.factors.explained_B[k]), 0)})"
        for k, name in enumerate(factors.names[:2])
    )

    def draw(canvas: Canvas) -> Any:
        return biplot(canvas, spots, arrows, (axes[0], axes[1]))

    return full_width("biplot", words, draw, _legend(groups[1]))


def _correlations(factors: FactorStudy) -> Part:
    found = factors.correlations
    share = f"{found.confidence:.0%}"
    says = tuple(
        tuple(
            f"{share} {found.low_BB[a, b]:.2f} to {found.high_BB[a, b]:.2f}, n = {found.n_BB[a, b]}"
            for b in range(len(found.benchmarks))
        )
        for a in range(len(found.benchmarks))
    )
    matrix = Matrix(
        found.benchmarks, found.benchmarks, shown_values(found.r_BB.tolist()), triangle=True, says=says
    )
    pairs = [
        (found.pair(first, second), first, second)
        for place, first in enumerate(found.benchmarks)
        for second in found.benchmarks[:place]
    ]
    known = sorted((one for one in pairs if np.isfinite(one[0][0])), key=lambda one: -one[0][0])
    ends = known if len(known) <= 20 else [*known[:10], *known[-10:]]  # noqa: PLR2004 - the ends of the list
    words = Words(
        "Correlations",
        "Pearson's r over the models that have both scores; point at a cell for its interval.",
        "; ".join(f"{a} and {b} {one[0]:.2f}" for one, a, b in ends),
    )
    rows = tuple(
        (f"{second} – {first}", fixed(one[0]), interval(one[1], one[2], 2), str(one[3]))
        for one, first, second in ends
    )
    table = Table("The highest and the lowest.", ("", "r", f"{found.confidence:.0%}", "n"), rows)
    lead = (
        "Intervals are Fisher's. They take models for independent, which models of one family are not: "
        "read them as too narrow."
    )
    figure = full_width("correlations", words, lambda canvas: heat_map(canvas, matrix))
    return Part("correlations", "Correlations", lead, (figure,), (table,))
