"""The pages of `tsugiki study law` and `mixture`: curves with bands, points held out, residuals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from tsugiki.artifacts.files import write_text
from tsugiki.report.figures.bands import Band, Spot, band_chart
from tsugiki.report.figures.figure import Figure, Key, Words, full_width, model_legend
from tsugiki.report.figures.svg import Canvas
from tsugiki.report.formatting import count, fixed, percent, plural
from tsugiki.report.study_sheet import Part, Sheet, Table, render_sheet
from tsugiki.study.domains import DomainLaw
from tsugiki.study.findings import Finding
from tsugiki.study.heldout import Checked
from tsugiki.study.laws import Law, Runs
from tsugiki.study.mixture import Mixture

_SIZES: Final = 5
"""Curves on one figure; where there are more sizes, some of them, the smallest and largest always."""
_STEPS: Final = 41
_ENDS: Final = (0.025, 0.975)
_CAUTION: Final = "A law is a curve through your runs: believe it where it was tried, not beyond."


def write_law_page(  # noqa: PLR0917 - each is a plain fact
    path: Path,
    column: str,
    law: Law,
    drawn: Sequence[Law],
    runs: Runs,
    ends: Mapping[str, tuple[float, float]],
    checks: Sequence[Checked],
    notes: Sequence[str] = (),
) -> None:
    """Write the page of a law atomically; the same fit gives the same bytes.

    column: what the losses are called. drawn, ends: laws of the bootstrap, and the parameters' intervals.
    notes: findings of the table, and checks that could not be done.
    """
    parts = [_said(notes), _curves(column, law, drawn, runs), _parameters(law, ends), _checks(checks)]
    parts.append(_residuals(law, runs))
    meta = f"{law.form} law · {plural(len(runs), 'observation')} · "
    meta += f"{law.found_again} of {law.starts} starts agree"
    sheet = Sheet(
        f"{column} of the runs", meta, _headline(column, checks), _tiles(law, runs, checks),
        tuple(part for part in parts if part is not None), "tsugiki study law", _CAUTION,
    )  # fmt: skip
    write_text(path, render_sheet(sheet))


def write_domains_page(  # noqa: PLR0917 - each is a plain fact
    path: Path,
    column: str,
    found: DomainLaw,
    data: tuple[Runs, Sequence[str]],
    checks: Sequence[Checked],
    notes: Sequence[str] = (),
) -> None:
    """Write the page of a law over domains atomically. data: the runs, and the domain of each."""
    runs, domains = data
    rows = tuple((name, f"{value:.4g}") for name, value in found.floors.items())
    floors = Table("E + F/K^mu: what is left of the loss however large the run.", ("", "floor"), rows)
    lead = "One number a domain; all else is shared, and a new domain needs no more than a few cheap runs."
    parts = [
        _said(notes),
        Part(
            "floors",
            "Floors of the domains",
            lead,
            (_domain_figure(column, found, runs, domains),),
            (floors,),
        ),
        _parameters(found.law, {}),
        _checks(checks),
    ]
    meta = f"cross-domain law · {plural(len(found.floors), 'domain')} · {plural(len(runs), 'observation')}"
    sheet = Sheet(
        f"{column} of several domains", meta, _headline(column, checks), (),
        tuple(part for part in parts if part is not None), "tsugiki study law", _CAUTION,
    )  # fmt: skip
    write_text(path, render_sheet(sheet))


def _domain_figure(column: str, found: DomainLaw, runs: Runs, domains: Sequence[str]) -> Figure:
    spots, legend = [], []
    for place, name in enumerate(found.floors):
        css = f"m{place % 6}"
        legend.append((name, css))
        own = runs.pick(np.array([one == name for one in domains]))
        spots += [
            Spot(seen, told, css, "", f"{name}: seen {seen:.4f}, fitted {told:.4f}")
            for seen, told in zip(own.loss.tolist(), found.loss(name, own).tolist(), strict=True)
        ]
    return predicted_against_seen("domains", f"{column}, fitted", spots, model_legend(legend))


def write_mixture_page(
    path: Path, found: Mixture, names: tuple[str, str], plan: tuple[float, float], notes: Sequence[str] = ()
) -> None:
    """Write the page of a mixture atomically. names: of the losses; plan: parameters and tokens."""
    choice = found.choice
    headline = f"Best share of the target language: {percent(choice.share)}"
    if np.isfinite(found.low):
        headline += f" (95 % {percent(found.low)} to {percent(found.high)})"
    headline += (
        ", where the other language's budget stops it." if choice.binding else "; the budget is not reached."
    )
    warnings = list(notes)
    if choice.extrapolated:
        warnings.append("The share is outside of the ratios that were run: try it before you trust it.")
    if found.infeasible:
        said = f"In {found.infeasible} of {found.draws} draws no share met the budget: not in the interval."
        warnings.append(said)
    tiles = (
        ("share", percent(choice.share), "of the target language in the mixture"),
        (names[0], fixed(choice.target, 4), "predicted loss of the target"),
        (names[1], fixed(choice.other, 4), f"predicted loss of the other; allowed {fixed(choice.budget, 4)}"),
    )
    meta = f"{count(plan[0])} parameters · {count(plan[1])} tokens · {plural(found.draws, 'draw')}"
    parts = (_said(warnings), _mixture_curves(found, names))
    sheet = Sheet(
        f"What to mix: {names[0]} against {names[1]}", meta, headline, tiles,
        tuple(part for part in parts if part is not None), "tsugiki study mixture", _CAUTION,
    )  # fmt: skip
    write_text(path, render_sheet(sheet))


def _said(notes: Sequence[str]) -> Part | None:
    if not notes:
        return None
    return Part(
        "findings", "What the table has to answer for", "Left out, or not checked:", notes=tuple(notes)
    )


def said_findings(findings: Sequence[Finding], failed: Sequence[str] = ()) -> list[str]:
    """Findings as sentences, then the checks that could not be done."""
    return [*(one.message for one in findings), *(f"Not checked: {one}" for one in failed)]


def _headline(column: str, checks: Sequence[Checked]) -> str:
    if not checks:
        return f"A law of {column} is fitted, and nothing could be held out to try it on."
    said = "; ".join(f"{one.kind}: {percent(one.error, 2)} of the loss" for one in checks)
    return f"Mean error on what was not fitted. {said[:1].upper()}{said[1:]}."


def _tiles(law: Law, runs: Runs, checks: Sequence[Checked]) -> tuple[tuple[str, str, str], ...]:
    residual = np.abs(np.log(law.loss(runs.parameters, runs.tokens, runs.share) / runs.loss))
    tiles = [("fitted", percent(float(residual.mean()), 2), "mean error on the runs it was fitted to")]
    tiles += [
        (one.kind, percent(one.error, 2), f"mean error; R² {fixed(one.r2 if np.isfinite(one.r2) else None)}")
        for one in checks
    ]
    return tuple(tiles)


def _some(values: np.ndarray) -> list[float]:
    """The smallest, the largest and some between, in order."""
    every = np.unique(values)
    picked = np.unique(np.linspace(0, len(every) - 1, min(len(every), _SIZES)).round().astype(int))
    return [float(every[place]) for place in picked]


def _curves(column: str, law: Law, drawn: Sequence[Law], runs: Runs) -> Part:
    sizes = _some(runs.parameters)
    colours = {size: f"m{place % 6}" for place, size in enumerate(sizes)}
    ratio = _middle(runs.share)
    figures = [
        _over(
            "tokens", (column, "log10 tokens"), law, drawn, runs, colours,
            (runs.share == ratio, np.log10(runs.tokens)), lambda x: (10**x, np.full_like(x, ratio)),
            f"At a ratio of {ratio:g}." if len(np.unique(runs.share)) > 1 else "",
        )
    ]  # fmt: skip
    if len(np.unique(runs.share)) > 1:
        tokens = float(runs.tokens.max())
        figures.append(
            _over(
                "ratio", (column, "ratio in the mixture"), law, drawn, runs, colours,
                (runs.tokens == tokens, runs.share), lambda x: (np.full_like(x, tokens), x),
                f"After {count(tokens)} tokens, the most of any run.",
            )
        )  # fmt: skip
    lead = (
        "Lines are the law, bands its 95 % interval over whole runs drawn again, marks the losses that were "
        "seen."
    )
    if not drawn:
        lead = "Lines are the law, marks the losses that were seen. No bootstrap was asked for, so no bands."
    return Part("curves", "The law and the runs", lead, tuple(figures))


def _middle(share: np.ndarray) -> float:
    every = np.unique(share)
    return float(every[len(every) // 2])


def _over(  # noqa: PLR0917 - each is a plain fact
    key: str,
    axes: tuple[str, str],
    law: Law,
    drawn: Sequence[Law],
    runs: Runs,
    colours: Mapping[float, str],
    shown: tuple[np.ndarray, np.ndarray],
    at: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    where: str,
) -> Figure:
    """Loss over one variable, a curve for each size.

    shown: which runs are marked, and where on the axis; at: tokens and share of places on the axis.
    """
    rows, x = shown
    grid = np.linspace(float(x.min()), float(x.max()), _STEPS)
    tokens, share = at(grid)
    bands, spots, legend = [], [], []
    for size, css in colours.items():
        bands.append(Band(css, _band(law, drawn, grid, (size, tokens, share))))
        legend.append((f"{count(size)} parameters", css))
        for row in np.flatnonzero(rows & (runs.parameters == size)).tolist():
            title = f"{count(size)} parameters, {count(float(runs.tokens[row]))} tokens, "
            title += f"ratio {runs.share[row]:g}: {runs.loss[row]:.4f}"
            spots.append(Spot(float(x[row]), float(runs.loss[row]), css, "", title))
    words = Words(
        f"{axes[0]} over {axes[1].removeprefix('log10 ')}", where, "; ".join(one.title for one in spots[:60])
    )

    def draw(canvas: Canvas) -> Any:
        return band_chart(canvas, spots, bands, (axes[1], axes[0]))

    return full_width(f"law-{key}", words, draw, model_legend(legend))


def _band(
    law: Law, drawn: Sequence[Law], grid: np.ndarray, place: tuple[float, np.ndarray, np.ndarray]
) -> tuple[tuple[float, float, float, float], ...]:
    middle = law.loss(*place)
    low = high = middle
    if drawn:
        low, high = np.quantile([one.loss(*place) for one in drawn], _ENDS, axis=0)
    return tuple(zip(grid.tolist(), middle.tolist(), low.tolist(), high.tolist(), strict=True))


def _parameters(law: Law, ends: Mapping[str, tuple[float, float]]) -> Part:
    rows = tuple(
        (name, f"{value:.4g}", f"{ends[name][0]:.4g} to {ends[name][1]:.4g}" if name in ends else "–")
        for name, value in law.parameters.items()
    )
    lead = "Constants trade off against each other: their intervals may be wide where the losses' are not."
    notes = []
    if law.left_out:
        notes.append(f"{' and '.join(law.left_out)} does not vary in the runs: its term is part of E.")
    if law.at_bounds:
        notes.append(f"{', '.join(law.at_bounds)} at the bound of the search: the runs do not tell it.")
    table = Table("Parameters, with N and D in plain numbers.", ("", "value", "95 %"), rows)
    return Part("parameters", "Parameters", lead, (), (table,), tuple(notes))


def _checks(checks: Sequence[Checked]) -> Part | None:
    if not checks:
        return None
    figures, tables = [], []
    for place, one in enumerate(checks):
        figures.append(_held(one, place))
        rows = tuple(
            (part.what, str(part.n), fixed(part.r2 if np.isfinite(part.r2) else None), percent(part.error, 2),
             percent(part.baseline, 2))
            for part in one.parts
        )  # fmt: skip
        titles = ("", "n", "R²", "error", "of the mean of the others")
        tables.append(Table(f"{one.kind[:1].upper()}{one.kind[1:]}.", titles, rows))
    notes = tuple(f"Not fitted: {said}" for one in checks for said in one.not_fitted)
    lead = "The law was fitted without these runs, and predicts them. On the line it would be right."
    return Part("held-out", "Runs it has not seen", lead, tuple(figures), tuple(tables), notes)


def _held(one: Checked, place: int) -> Figure:
    spots, legend = [], []
    for number, part in enumerate(one.parts):
        css = f"m{number % 6}"
        legend.append((part.what, css))
        spots += [
            Spot(seen, predicted, css, "", f"{part.what}: seen {seen:.4f}, predicted {predicted:.4f}")
            for seen, predicted in zip(part.seen, part.predicted, strict=True)
        ]
    return predicted_against_seen(f"held-{place}", f"Predicted, {one.kind}", spots, model_legend(legend))


def predicted_against_seen(key: str, title: str, spots: Sequence[Spot], legend: tuple[Key, ...]) -> Figure:
    """Predictions over what was seen, with the line on which both are equal."""
    every = [end for one in spots for end in (one.x, one.y)]
    low, high = min(every, default=0.0), max(every, default=1.0)
    line = Band("m5", ((low, low, low, low), (high, high, high, high)))
    words = Words(title, "On the line a prediction is right.", "; ".join(one.title for one in spots[:60]))

    def draw(canvas: Canvas) -> Any:
        return band_chart(canvas, spots, [line], ("seen", "predicted"))

    return full_width(key, words, draw, legend)


def _residuals(law: Law, runs: Runs) -> Part:
    residual = 100 * np.log(runs.loss / law.loss(runs.parameters, runs.tokens, runs.share))
    x = np.log10(runs.flops)
    spots = [
        Spot(
            float(a), float(b), "m0", "",
            f"{count(n)} parameters, {count(d)} tokens, ratio {r:g}: {b:+.2f} %",
        )
        for a, b, n, d, r in zip(x, residual, runs.parameters, runs.tokens, runs.share, strict=True)
    ]  # fmt: skip
    ends = (float(x.min()), float(x.max()))
    zero = Band("m5", ((ends[0], 0.0, 0.0, 0.0), (ends[1], 0.0, 0.0, 0.0)))
    words = Words(
        "Residuals",
        "Seen above (+) or below (-) the law, over compute. A bend means that the form is wrong.",
        "; ".join(one.title for one in spots[:60]),
    )  # fmt: skip

    def draw(canvas: Canvas) -> Any:
        return band_chart(canvas, spots, [zero], ("log10 FLOPs (6ND)", "residual, % of the loss"))

    figures = (full_width("residuals", words, draw),)
    return Part("residuals", "What the law leaves", "Of the runs that it was fitted to.", figures)


def _mixture_curves(found: Mixture, names: tuple[str, str]) -> Part:
    curve, choice = found.curve, found.choice
    sides = (
        ("target", names[0], curve.target, curve.target_low, curve.target_high, choice.target, "m0"),
        ("other", names[1], curve.other, curve.other_low, curve.other_high, choice.other, "m1"),
    )
    figures = []
    for key, name, middle, low, high, at, css in sides:
        points = zip(curve.share.tolist(), middle.tolist(), low.tolist(), high.tolist(), strict=True)
        bands = [Band(css, tuple(points))]
        legend = [(name, css)]
        if key == "other":
            first, last = float(curve.share[0]), float(curve.share[-1])
            level = (choice.budget,) * 3
            bands.append(Band("m3", ((first, *level), (last, *level))))
            legend.append((f"allowed, {choice.budget:.4f}", "m3"))
        said = f"{percent(choice.share)}: {at:.4f}"
        spot = Spot(choice.share, at, css, "", f"{name} at a share of {said}")
        words = Words(f"{name} over the share", f"Chosen: {said}.", spot.title)
        figures.append(_mixture_figure(key, words, [spot], bands, model_legend(legend)))
    lead = (
        "Predicted losses of the planned model over the share of the target language, with 95 % bands over "
        "runs drawn again. The mark is the share chosen: the lowest target loss that the budget allows."
    )
    return Part("curves", "Losses over the share", lead, tuple(figures))


def _mixture_figure(
    key: str, words: Words, spots: Sequence[Spot], bands: Sequence[Band], legend: tuple[Key, ...]
) -> Figure:
    def draw(canvas: Canvas) -> Any:
        return band_chart(canvas, spots, bands, ("share of the target language", "loss"))

    return full_width(f"mixture-{key}", words, draw, legend)
