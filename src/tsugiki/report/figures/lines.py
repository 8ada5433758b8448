"""Curves over a common horizontal axis, and a scatter of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from tsugiki.report.figures.scales import Scale, extent, nice_ticks, tick_labels
from tsugiki.report.figures.svg import (
    TICK_SIZE,
    Canvas,
    decimal,
    element,
    frame,
    horizontal_axis,
    label,
    line,
    marker,
    text_width,
)

Point = tuple[float, float]
_TOP: Final = 26.0
_WHOLE: Final = 1e-9
_BOTTOM: Final = 46.0
_MOST_POINTS: Final = 500
_MOST_DOTS: Final = 1500


@dataclass(frozen=True)
class Series:
    """A curve. `faint` is drawn behind it (the raw values of a smoothed curve)."""

    name: str
    css: str
    points: tuple[Point, ...]
    faint: tuple[Point, ...] = ()
    marked: bool = False


def smooth(points: Sequence[Point], window: int) -> tuple[Point, ...]:
    """A centred moving average over `window` points; towards the ends, over those of them that there are."""
    half = window // 2
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smoothed = []
    for index, (x, _) in enumerate(points):
        first, last = max(0, index - half), min(len(points), index + half + 1)
        smoothed.append((x, (sums[last] - sums[first]) / (last - first)))
    return tuple(smoothed)


def thin(points: Sequence[Point], most: int = _MOST_POINTS) -> tuple[Point, ...]:
    """Every n-th point so that about `most` remain, the last one always among them."""
    step = -(-len(points) // most) if points else 1
    kept = list(points[::step])
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return tuple(kept)


def line_chart(
    canvas: Canvas,
    series: Sequence[Series],
    axes: tuple[str, str],
    height: float,
) -> Markup:
    """Curves with a grid; `axes` are the titles (with units) of the horizontal and the vertical axis."""
    every = [point for one in series for point in (*one.points, *one.faint)]
    x_low, x_high = extent((x for x, _ in every), margin=0.0)
    y_low, y_high = extent((y for _, y in every), margin=0.05)
    y_ticks = nice_ticks(y_low, y_high, max(4, int(height // 45)))
    y_labels = tick_labels(y_ticks)
    left = max(text_width(text, TICK_SIZE) for text in y_labels) + 10
    x = Scale(x_low, x_high, left, canvas.width - 18)
    y = Scale(y_low, y_high, height - _BOTTOM, _TOP)
    x_ticks = nice_ticks(x_low, x_high, max(2, int((canvas.width - left) // 90)))
    if all(px == int(px) for px, _ in every):  # there is no layer 0.5
        x_ticks = [tick for tick in x_ticks if abs(tick - round(tick)) < _WHOLE] or x_ticks
    parts = [line(left, y(tick), canvas.width - 18, y(tick), "grid") for tick in y_ticks]
    parts += [
        label(text, left - 7, y(tick) + 4, "tick", "end")
        for tick, text in zip(y_ticks, y_labels, strict=True)
    ]
    placed = [(x(tick), text) for tick, text in zip(x_ticks, tick_labels(x_ticks), strict=True)]
    parts += horizontal_axis(
        placed, height - _BOTTOM, height - _BOTTOM, axes[0], (left + canvas.width - 18) / 2
    )
    parts.append(label(axes[1], 0, 13, "axis"))
    parts.append(line(left, height - _BOTTOM, canvas.width - 18, height - _BOTTOM, "rule"))
    parts += [_curve(one.faint, one.css, x, y, "faint") for one in series if one.faint]
    parts += [_curve(one.points, one.css, x, y, "curve") for one in series]
    parts += [marker(one.css, x(px), y(py), 4) for one in series if one.marked for px, py in one.points]
    return frame(canvas, height, parts)


def _curve(points: Sequence[Point], css: str, x: Scale, y: Scale, style: str) -> Markup:
    path = " ".join(f"{decimal(x(px))},{decimal(y(py))}" for px, py in thin(points))
    return element("polyline", points=path, class_=f"{style} {css}")


def scatter(
    canvas: Canvas,
    points: Sequence[Point],
    axes: tuple[str, str],
    css: str,
) -> Markup:
    """Pairs of values in one unit, with the diagonal on which both are equal."""
    shown = thin(points, _MOST_DOTS)
    low, high = extent([value for point in points for value in point])
    ticks = nice_ticks(low, high, 5)
    texts = tick_labels(ticks)
    left = max(text_width(text, TICK_SIZE) for text in texts) + 10
    height = canvas.width * 0.82
    x, y = Scale(low, high, left, canvas.width - 18), Scale(low, high, height - _BOTTOM, _TOP)
    parts = [line(left, y(tick), canvas.width - 18, y(tick), "grid") for tick in ticks]
    parts += [
        label(text, left - 7, y(tick) + 4, "tick", "end") for tick, text in zip(ticks, texts, strict=True)
    ]
    placed = [(x(tick), text) for tick, text in zip(ticks, texts, strict=True)]
    parts += horizontal_axis(placed, _TOP, height - _BOTTOM, axes[0], (left + canvas.width - 18) / 2)
    parts.append(label(axes[1], 0, 13, "axis"))
    parts.append(line(x(low), y(low), x(high), y(high), "reference"))
    parts += [element("circle", cx=x(px), cy=y(py), r=3, class_=f"dot {css}") for px, py in shown]
    return frame(canvas, height, parts)
