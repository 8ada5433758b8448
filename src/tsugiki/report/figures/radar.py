"""A radar chart: many tasks' scores at a glance, one outline a model. Differences: see the forest plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin
from typing import Final

from markupsafe import Markup

from tsugiki.report.figures.scales import nice_step
from tsugiki.report.figures.svg import Canvas, decimal, element, fit, frame, label, line, marker

_MOST_RADIUS: Final = 190.0
_LABEL_ROOM: Final = 118.0
_NARROW_ROOM: Final = 84.0
_RINGS: Final = 4
_SIDE: Final = 0.25
"""A label leans to one side where the cosine of its spoke is beyond this."""


@dataclass(frozen=True)
class Outline:
    """A model's values, one a spoke; None leaves a gap."""

    css: str
    values: tuple[float | None, ...]


def radar_chart(canvas: Canvas, spokes: Sequence[str], outlines: Sequence[Outline]) -> Markup:
    """Spokes clockwise from the top, rings at round values from 0; at least three spokes."""
    room = _NARROW_ROOM if canvas.stacked else _LABEL_ROOM
    radius = min(_MOST_RADIUS, canvas.width / 2 - room)
    centre = (canvas.width / 2, radius + 34)
    highest = max((value for one in outlines for value in one.values if value is not None), default=1.0)
    step = nice_step(max(highest, 1e-9), _RINGS)
    rings = [step * ring for ring in range(1, int(highest / step + 0.999) + 1)] or [step]
    top = rings[-1]

    def place(spoke: int, value: float) -> tuple[float, float]:
        angle = 2 * pi * spoke / len(spokes)
        distance = radius * max(0.0, value) / top
        return centre[0] + distance * sin(angle), centre[1] - distance * cos(angle)

    parts = [_ring([place(spoke, ring) for spoke in range(len(spokes))], "ring") for ring in rings]
    for spoke, name in enumerate(spokes):
        x, y = place(spoke, top)
        parts.append(line(centre[0], centre[1], x, y, "grid"))
        parts.append(_label(name, place(spoke, top * (1 + 12 / radius)), 2 * pi * spoke / len(spokes), room))
    parts += [
        label(f"{ring:g}", centre[0] + 3, place(0, ring)[1] - 2, "tick") for ring in rings[:-1] or rings
    ]
    for one in outlines:
        parts += _outline(one, [None if v is None else place(i, v) for i, v in enumerate(one.values)])
    return frame(canvas, centre[1] + radius + 34, parts)


def _ring(points: Sequence[tuple[float, float]], css: str) -> Markup:
    return element("polygon", points=" ".join(f"{decimal(x)},{decimal(y)}" for x, y in points), class_=css)


def _label(name: str, at: tuple[float, float], angle: float, room: float) -> Markup:
    side = sin(angle)
    anchor = "start" if side > _SIDE else "end" if side < -_SIDE else "middle"
    return label(fit(name, room - 14), at[0], at[1] + 4 - 4 * cos(angle), anchor=anchor)


def _outline(one: Outline, points: Sequence[tuple[float, float] | None]) -> list[Markup]:
    """A closed outline, or pieces of it where values are missing."""
    known = [point for point in points if point is not None]
    if len(known) == len(points):
        parts = [_ring(known, f"curve {one.css}")]
    else:
        neighbours = zip(points, [*points[1:], points[0]], strict=True)
        parts = [line(*a, *b, f"curve {one.css}") for a, b in neighbours if a is not None and b is not None]
    return [*parts, *(marker(one.css, x, y, 3.6) for x, y in known)]
