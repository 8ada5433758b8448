"""The part of a study's page about compute: fits, bands, families left out, assumed shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from tsugiki.report.figures.bands import Band, Spot, band_chart
from tsugiki.report.figures.figure import Figure, Key, Words, full_width
from tsugiki.report.figures.svg import Canvas
from tsugiki.report.formatting import fixed, interval, p_value, plural, signed
from tsugiki.report.study_sheet import Part, Table
from tsugiki.student import t_quantile
from tsugiki.study.analysis import FactorStudy, ScalingStudy
from tsugiki.study.regression import Fit
from tsugiki.study.scaling import Single

_ROWS: Final = 60
_FIGURES: Final = 6
Groups = tuple[tuple[str, ...], Mapping[str, str]]
"""The group of each model, and the colour of each group."""


def scaling_part(
    factors: FactorStudy, scaling: ScalingStudy, groups: Groups, legend: tuple[Key, ...]
) -> Part:
    """Each component against each language, and the tables of fits."""
    fitted = scaling.scaling
    colours = dict(zip(factors.table.models, (groups[1][group] for group in groups[0]), strict=True))
    shown = [one for one in fitted.singles if one.outcome in factors.names[:3]][:_FIGURES]
    figures = tuple(_band(scaling, one, colours, number, legend) for number, one in enumerate(shown))
    titles = ("", "n", "r", "95 %", "R²", "a decade", "error", "clustered", "p", "wild p")
    rows = tuple(
        (f"{one.outcome} on {one.language}", str(one.fit.n), fixed(one.r), interval(one.low, one.high, 2),
         fixed(one.fit.r2), *_coefficient(one.fit, 1))
        for one in (*fitted.singles, *fitted.totals)
    )[:_ROWS * 2]  # fmt: skip
    joint = []
    for one in fitted.joints:
        if one.model == "compute":
            for place, name in enumerate(one.fit.names[1:], start=1):
                joint.append(
                    (
                        f"{one.outcome}: {name}",
                        str(one.fit.n),
                        fixed(one.fit.r2),
                        *_coefficient(one.fit, place),
                    )
                )
    families = len(set(fitted.families))
    lead = (
        f"Least squares on log10 of 6ND, {len(fitted.models)} models of {families} families. Errors "
        "beside the classical ones are clustered by family (CR1); with few families trust the wild p."
    )
    tables = [Table("One language at a time.", titles, rows)]
    if joint:
        joint_titles = ("", "n", "R²", "a decade", "error", "clustered", "p", "wild p")
        tables.append(Table("All languages at once.", joint_titles, tuple(joint[: _ROWS * 2])))
    return Part("scaling", "Scaling with compute", lead, figures, tuple(tables))


def _coefficient(fit: Fit, place: int) -> tuple[str, ...]:
    return (
        signed(float(fit.coefficient_P[place])),
        fixed(float(fit.error_P[place])),
        _known(float(fit.clustered_P[place])),
        p_value(float(fit.p_P[place])),
        p_value(float(fit.wild_p_P[place])) if np.isfinite(fit.wild_p_P[place]) else "–",
    )


def _known(value: float) -> str:
    return fixed(value if np.isfinite(value) else None)


def _band(
    scaling: ScalingStudy, one: Single, colours: Mapping[str, str], number: int, legend: tuple[Key, ...]
) -> Figure:
    fitted = scaling.scaling
    x, y = fitted.log_compute[one.language], fitted.outcomes[one.outcome]
    spots = [
        Spot(float(a), float(b), colours[model], model, f"{model}: 10^{a:.2f} FLOPs, {b:.3f}")
        for model, a, b in zip(fitted.models, x, y, strict=True)
        if np.isfinite(b)
    ]
    freedom = one.fit.clusters - 1 if np.isfinite(one.fit.clustered_P[1]) else one.fit.n - 2
    width = t_quantile(0.975, freedom)
    points = []
    for at in np.linspace(float(x.min()), float(x.max()), 41).tolist():
        row = np.array([1.0, at])
        middle = float(row @ one.fit.coefficient_P)
        half = width * float(np.sqrt(max(float(row @ one.fit.covariance_PP @ row), 0.0)))
        points.append((at, middle, middle - half, middle + half))
    words = Words(
        f"{one.outcome} against compute of {one.language}",
        f"r {fixed(one.r)}, R² {fixed(one.fit.r2)}. The band is the 95 % interval of the line, by clustered "
        f"errors and t with {freedom} degrees of freedom.",
        "; ".join(spot.title for spot in spots),
    )

    def draw(canvas: Canvas) -> Any:
        axes = (f"log10 FLOPs of {one.language} (6ND)", one.outcome)
        return band_chart(canvas, spots, [Band("m5", tuple(points))], axes)

    return full_width(f"scaling-{number}", words, draw, legend)


def robustness_part(scaling: ScalingStudy) -> Part:
    """Without one family, parameters and tokens apart, and other shares than those assumed."""
    fitted, tested = scaling.scaling, scaling.sensitivity
    tables = []
    left = [one for one in fitted.left if one.outcome.startswith("PC")]
    rows = tuple(
        (
            f"{one.outcome} on {one.language}, {one.kind} {one.family}",
            str(one.n),
            fixed(one.r),
            signed(one.slope),
        )
        for one in left[:_ROWS]
    )
    if rows:
        tables.append(Table("Without one family, and inside of one.", ("", "n", "r", "a decade"), rows))
    apart = [one for one in fitted.joints if one.sufficiency is not None]
    rows = tuple(
        (one.outcome, signed(one.sufficiency[0]), fixed(one.sufficiency[1]), p_value(one.sufficiency[2]))
        for one in apart[:_ROWS]
        if one.sufficiency is not None
    )
    if rows:
        said = (
            "Parameters and tokens entered apart: the coefficient of N less those of the tokens (6ND says 0)."
        )
        tables.append(Table(said, ("", "difference", "clustered error", "p"), rows))
    lead = "Without a family, with parameters and tokens apart, and with other shares than those assumed."
    if tested is not None:
        rows = tuple(
            (
                f"{one.outcome} on {one.language}",
                fixed(one.stated),
                fixed(one.median),
                interval(one.low, one.high),
            )
            for one in tested.spreads[:_ROWS]
        )
        source = "a file of shares" if tested.source == "file" else "rows flagged X, tokens off by a factor"
        said = f"{tested.draws} draws of assumed shares ({source}; {plural(len(tested.models), 'model')})."
        tables.append(Table(said, ("", "r as stated", "median", "95 % of draws"), rows))
    return Part("robustness", "How robust this is", lead, (), tuple(tables))
