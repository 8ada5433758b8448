"""Points of several groups: with a fitted line and its band, or with arrows through the origin (a biplot)."""

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
    fit,
    frame,
    horizontal_axis,
    label,
    line,
    marker,
    text_width,
)

_TOP: Final = 26.0
_BOTTOM: Final = 46.0
_RIGHT: Final = 18.0
_LONGEST_NAME: Final = 170.0
_ARROWS_REACH: Final = 0.92
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Spot:
    """A point: its group's class, its name (written where there is room) and its tooltip."""

    x: float
    y: float
    css: str
    name: str
    title: str


@dataclass(frozen=True)
class Band:
    """A line with a band, drawn behind the points. points: x, middle, low, high, by rising x."""

    css: str
    points: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Arrow:
    """A direction from the origin, in a unit of its own: the longest reaches nearly as far as the points."""

    x: float
    y: float
    name: str


class _Plane:
    """Axes, grid and the places of points."""

    def __init__(
        self, canvas: Canvas, x: tuple[float, float], y: tuple[float, float], axes: tuple[str, str]
    ) -> None:
        self.width = canvas.width
        self.height = max(min(canvas.width * 0.62, 480.0), 250.0)
        y_ticks = nice_ticks(*y, 6)
        y_labels = tick_labels(y_ticks)
        left = max(text_width(text, TICK_SIZE) for text in y_labels) + 10
        self.x = Scale(*x, left, canvas.width - _RIGHT)
        self.y = Scale(*y, self.height - _BOTTOM, _TOP)
        x_ticks = nice_ticks(*x, max(2, int(canvas.width // 110)))
        placed = [(self.x(tick), text) for tick, text in zip(x_ticks, tick_labels(x_ticks), strict=True)]
        middle = (left + canvas.width - _RIGHT) / 2
        self.parts = horizontal_axis(placed, _TOP, self.height - _BOTTOM, axes[0], middle)
        for tick, text in zip(y_ticks, y_labels, strict=True):
            self.parts.append(line(left, self.y(tick), canvas.width - _RIGHT, self.y(tick), "grid"))
            self.parts.append(label(text, left - 7, self.y(tick) + 4, "tick", "end"))
        self.parts.append(label(axes[1], 0, 13, "axis"))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Drawing units."""
        return self.x(x), self.y(y)


def band_chart(canvas: Canvas, spots: Sequence[Spot], bands: Sequence[Band], axes: tuple[str, str]) -> Markup:
    """Points with fitted lines and their bands."""
    x = extent([one.x for one in spots] + [point[0] for band in bands for point in band.points])
    y = extent(
        [one.y for one in spots] + [end for band in bands for point in band.points for end in point[1:]]
    )
    plane = _Plane(canvas, x, y, axes)
    for band in bands:
        upper = [plane.at(point[0], point[3]) for point in band.points]
        lower = [plane.at(point[0], point[2]) for point in reversed(band.points)]
        outline = " ".join(f"{decimal(px)},{decimal(py)}" for px, py in (*upper, *lower))
        middle = " ".join(
            "{},{}".format(*map(decimal, plane.at(point[0], point[1]))) for point in band.points
        )
        plane.parts.append(element("polygon", points=outline, class_=f"bar {band.css}", fill_opacity="0.14"))
        plane.parts.append(element("polyline", points=middle, class_=f"curve {band.css}"))
    plane.parts += _spots(plane, spots, [])
    return frame(canvas, plane.height, plane.parts)


def biplot(canvas: Canvas, spots: Sequence[Spot], arrows: Sequence[Arrow], axes: tuple[str, str]) -> Markup:
    """Points and directions over the same origin: models and what each benchmark pulls to."""
    reach_x = max((abs(one.x) for one in spots), default=1.0) or 1.0
    reach_y = max((abs(one.y) for one in spots), default=1.0) or 1.0
    plane = _Plane(canvas, (-reach_x * 1.08, reach_x * 1.08), (-reach_y * 1.12, reach_y * 1.12), axes)
    long_x = max((abs(one.x) for one in arrows), default=1.0) or 1.0
    long_y = max((abs(one.y) for one in arrows), default=1.0) or 1.0
    stretch = _ARROWS_REACH * min(reach_x / long_x, reach_y / long_y)
    origin = plane.at(0, 0)
    boxes: list[Box] = []
    names: list[Markup] = []
    for one in sorted(arrows, key=lambda arrow: (-(arrow.x**2 + arrow.y**2), arrow.name)):
        end = plane.at(one.x * stretch, one.y * stretch)
        stroke = element(
            "line", element("title", f"{one.name}: {one.x:.2f}, {one.y:.2f}"),
            x1=origin[0], y1=origin[1], x2=end[0], y2=end[1], class_="rule",
        )  # fmt: skip
        plane.parts.append(stroke)
        names += _name(plane, one.name, end, boxes, "axis", 4.0)
    plane.parts += names
    plane.parts += _spots(plane, spots, boxes)
    return frame(canvas, plane.height, plane.parts)


def _spots(plane: _Plane, spots: Sequence[Spot], boxes: list[Box]) -> list[Markup]:
    """Markers, and the names of those for which there is room: those far from the middle first."""
    parts = []
    for one in spots:
        x, y = plane.at(one.x, one.y)
        boxes.append((x - 4, y - 4, x + 4, y + 4))
        parts.append(element("g", element("title", one.title), marker(one.css, x, y, 4.5)))
    middle_x = sum(one.x for one in spots) / max(len(spots), 1)
    middle_y = sum(one.y for one in spots) / max(len(spots), 1)

    def far(one: Spot) -> tuple[float, str]:
        x, y = plane.at(one.x, one.y)
        mx, my = plane.at(middle_x, middle_y)
        return -((x - mx) ** 2 + (y - my) ** 2), one.name

    for one in sorted(spots, key=far):
        parts += _name(plane, one.name, plane.at(one.x, one.y), boxes, "value", 8.0)
    return parts


def _name(  # noqa: PLR0917 - each is a plain fact
    plane: _Plane, name: str, at: tuple[float, float], boxes: list[Box], css: str, gap: float
) -> list[Markup]:
    """A name beside its point, right or left of it, where it covers nothing; none where it would."""
    if not name:
        return []
    shown = fit(name, _LONGEST_NAME, TICK_SIZE)
    wide = text_width(shown, TICK_SIZE)
    x, y = at
    for side in (1, -1):
        start = x + gap if side > 0 else x - gap - wide
        box = (start, y - 7, start + wide, y + 6)
        outside = (
            box[0] < plane.x.start or box[2] > plane.width or box[1] < _TOP or box[3] > plane.height - _BOTTOM
        )
        covers = any(
            box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
            for other in boxes
        )
        if not outside and not covers:
            boxes.append(box)
            return [label(shown, x + side * gap, y + 4, css, "start" if side > 0 else "end")]
    return []
