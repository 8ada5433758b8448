"""The page of `tsugiki study predict`: what the factors of other benchmarks tell of larger models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from tsugiki.artifacts.files import write_text
from tsugiki.report.figures.bands import Band, Spot, band_chart
from tsugiki.report.figures.figure import Figure, Words, full_width, model_legend
from tsugiki.report.figures.svg import Canvas
from tsugiki.report.formatting import fixed, plural
from tsugiki.report.study_laws import predicted_against_seen
from tsugiki.report.study_sheet import Part, Sheet, Table, render_sheet
from tsugiki.study.observational import Prediction

_FIGURES: Final = 6
_COLOURS: Final = {True: "m0", False: "m1"}
"""Of fitted models, and of those held out."""
_LEGEND: Final = (("fitted", "m0"), ("held out", "m1"))


def write_prediction_page(
    path: Path, name: str, found: Sequence[Prediction], failed: Sequence[str], notes: Sequence[str] = ()
) -> None:
    """Write the page atomically; the same predictions give the same bytes.

    failed: targets left out, and why.
    """
    first = found[0]
    better = sum(one.error_held < min(one.compute_error, one.baseline) for one in found)
    headline = (
        f"The factors tell {better} of {plural(len(found), 'benchmark')} better than compute alone and the "
        "mean alone, on models beyond the cutoff."
    )
    meta = f"{int(first.train.sum())} models up to {first.cutoff:.3g} FLOPs fitted, "
    meta += f"{int((~first.train).sum())} beyond held out · {plural(first.components, 'factor')}"
    parts = [_table(found), _figures(found)]
    said = [*notes, *(f"Not predicted: {one}" for one in failed)]
    if said:
        parts.insert(0, Part("findings", "What is left out", "And why.", notes=tuple(said)))
    write_text(
        path,
        render_sheet(Sheet(name, meta, headline, _tiles(found), tuple(parts), "tsugiki study predict")),
    )


def _tiles(found: Sequence[Prediction]) -> tuple[tuple[str, str, str], ...]:
    def middle(values: Sequence[float]) -> str:
        known = [value for value in values if np.isfinite(value)]
        return fixed(float(np.median(known)) if known else None)

    return (
        ("by the factors", middle([one.error_held for one in found]), "mean absolute error held out, median"),
        ("by compute alone", middle([one.compute_error for one in found]), "the same sigmoid in log10 6ND"),
        ("by the mean", middle([one.baseline for one in found]), "of the models that were fitted"),
    )


def _table(found: Sequence[Prediction]) -> Part:
    titles = ("", "fitted", "held out", "r", "R²", "compute alone", "mean alone", "gaps filled")
    rows = tuple(
        (
            one.target,
            fixed(one.error_train),
            fixed(one.error_held),
            _known(one.r_held),
            _known(one.r2_held),
            _known(one.compute_error),
            fixed(one.baseline),
            str(one.filled),
        )
        for one in found
    )
    lead = (
        "A sigmoid of the first factors of the other benchmarks (arXiv 2405.10938), found and fitted on "
        "models up to the cutoff. Worse held out than the mean is no law: look before you quote it."
    )
    caption = "Mean absolute errors; r and R² of the models held out."
    return Part("predictions", "Predictions", lead, (), (Table(caption, titles, rows),))


def _known(value: float) -> str:
    return fixed(value if np.isfinite(value) else None)


def _figures(found: Sequence[Prediction]) -> Part:
    shown = found[:_FIGURES]
    figures: list[Figure] = []
    for place, one in enumerate(shown):
        figures += [_against(one, place), _residuals(one, place)]
    lead = "Predicted against seen, and what is left over compute."
    if len(found) > len(shown):
        lead += f" The first {len(shown)} of {len(found)}; --target chooses, and --json has all."
    return Part("models", "Model by model", lead, tuple(figures))


def _spots(one: Prediction, x: Sequence[float], y: Sequence[float]) -> list[Spot]:
    return [
        Spot(a, b, _COLOURS[train], "" if train else model, f"{model}: seen {seen:.3f}, predicted {told:.3f}")
        for a, b, train, model, seen, told in zip(
            x, y, one.train.tolist(), one.models, one.seen.tolist(), one.predicted.tolist(), strict=True
        )
    ]


def _against(one: Prediction, place: int) -> Figure:
    spots = _spots(one, one.seen.tolist(), one.predicted.tolist())
    return predicted_against_seen(f"told-{place}", one.target, spots, model_legend(_LEGEND))


def _residuals(one: Prediction, place: int) -> Figure:
    x, left = np.log10(one.compute), one.seen - one.predicted
    spots = _spots(one, x.tolist(), left.tolist())
    zero = Band("m5", ((float(x.min()), 0.0, 0.0, 0.0), (float(x.max()), 0.0, 0.0, 0.0)))
    words = Words(
        f"{one.target}: seen less predicted", f"The cutoff is at 10^{np.log10(one.cutoff):.2f} FLOPs.",
        "; ".join(spot.title for spot in spots),
    )  # fmt: skip

    def draw(canvas: Canvas) -> Any:
        return band_chart(canvas, spots, [zero], ("log10 FLOPs (6ND)", "residual"))

    return full_width(f"left-{place}", words, draw, model_legend(_LEGEND))
