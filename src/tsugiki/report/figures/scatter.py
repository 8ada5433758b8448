"""Points in two dimensions with a front through the best of them: memory against speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from tsugiki.report.figures.scales import Scale, extent, nice_ticks, tick_labels
from tsugiki.report.figures.svg import (
    Canvas,
    decimal,
    element,
    frame,
    horizontal_axis,
    label,
    line,
    text_width,
)

_LEFT: Final = 58.0
_TOP: Final = 24.0
_AXIS_HEIGHT: Final = 44.0


@dataclass(frozen=True)
class Dot:
    """A point. css: its class; title: what a reader is told who points at it; name: written beside it."""

    x: float
    y: float
    css: str
    title: str
    name: str = ""


@dataclass(frozen=True)
class Axes:
    """The names of the axes, and lines across at values of x with their names."""

    x: str
    y: str
    limits: tuple[tuple[float, str], ...] = ()


def scatter_chart(canvas: Canvas, dots: Sequence[Dot], front: Sequence[Dot], axes: Axes) -> Markup:
    """All dots, a line through the front, and the front's dots above the others."""
    height = min(canvas.width * 0.55, 420.0)
    low_x, high_x = extent([one.x for one in (*dots, *front)], include=[x for x, _ in axes.limits])
    low_y, high_y = extent([one.y for one in (*dots, *front)])
    across = Scale(low_x, high_x, _LEFT, canvas.width - 10)
    up = Scale(low_y, high_y, height, _TOP)
    x_ticks = nice_ticks(low_x, high_x, max(2, int(canvas.width // 110)))
    placed = [(across(tick), text) for tick, text in zip(x_ticks, tick_labels(x_ticks), strict=True)]
    parts = horizontal_axis(placed, _TOP, height, axes.x, (across.start + across.stop) / 2)
    y_ticks = nice_ticks(low_y, high_y, 6)
    for tick, text in zip(y_ticks, tick_labels(y_ticks), strict=True):
        parts.append(line(_LEFT, up(tick), canvas.width - 10, up(tick), "grid"))
        parts.append(label(text, _LEFT - 8, up(tick) + 4, "tick", "end"))
    parts.append(label(axes.y, 0, 12, "axis"))
    for value, name in axes.limits:
        parts.append(line(across(value), _TOP, across(value), height, "threshold"))
        parts.append(label(name, across(value), 12, "limit", "middle"))
    parts += [_dot(one, across, up, 3.0) for one in dots]
    if front:
        points = " ".join(f"{decimal(across(one.x))},{decimal(up(one.y))}" for one in front)
        parts.append(element("polyline", points=points, class_="curve m1", fill="none"))
    parts += [_dot(one, across, up, 5.0) for one in front]
    parts += [_name(one, across, up, canvas.width) for one in front if one.name]
    return frame(canvas, height + _AXIS_HEIGHT, parts)


def _dot(one: Dot, across: Scale, up: Scale, radius: float) -> Markup:
    return element(
        "circle",
        element("title", one.title),
        cx=across(one.x),
        cy=up(one.y),
        r=radius,
        class_=f"mark {one.css}",
    )


def _name(one: Dot, across: Scale, up: Scale, width: float) -> Markup:
    """Beside its dot, on the side where there is room."""
    x, y = across(one.x), up(one.y)
    if x + 10 + text_width(one.name) < width:
        return label(one.name, x + 10, y + 4, "value")
    return label(one.name, x - 10, y + 4, "value", "end")
