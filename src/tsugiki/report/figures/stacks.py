"""Horizontal bars of several parts, with limits across all of them: memory by pipeline stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from tsugiki.report.figures.scales import Scale, nice_ticks, tick_labels
from tsugiki.report.figures.svg import (
    LABEL_SIZE,
    Canvas,
    element,
    fit,
    frame,
    horizontal_axis,
    label,
    line,
    text_width,
)

_THICK: Final = 17.0
_GAP: Final = 8.0
_ABOVE: Final = 24.0
_AXIS_HEIGHT: Final = 44.0


@dataclass(frozen=True)
class StackRow:
    """A labelled bar: its parts from left to right as (length in the unit of the axis, CSS class)."""

    label: str
    parts: tuple[tuple[float, str], ...]
    text: str


@dataclass(frozen=True)
class Limit:
    """A line across all bars, with its name above."""

    value: float
    name: str


def stack_chart(canvas: Canvas, rows: Sequence[StackRow], limits: Sequence[Limit], axis: str) -> Markup:
    """Stacked bars from zero; the axis holds the longest bar and every limit."""
    longest = max((text_width(row.label) for row in rows), default=0.0)
    left = min(longest + 14, canvas.width * (0.42 if canvas.stacked else 0.3))
    right = max((text_width(row.text) for row in rows), default=0.0) + 14
    ends = [sum(length for length, _ in row.parts) for row in rows]
    top_value = max([*ends, *(limit.value for limit in limits)], default=0.0) or 1.0
    scale = Scale(0.0, top_value, left, max(canvas.width - right, left + 40))
    base = _ABOVE + len(rows) * (_THICK + _GAP)
    parts: list[Markup] = []
    for index, (row, end) in enumerate(zip(rows, ends, strict=True)):
        top = _ABOVE + index * (_THICK + _GAP)
        middle = top + _THICK / 2 + LABEL_SIZE / 3
        parts.append(label(fit(row.label, left - 14), left - 12, middle, anchor="end"))
        parts += _bar(row, scale, top)
        parts.append(label(row.text, scale(end) + 6, middle, "value"))
    ticks = nice_ticks(0.0, top_value, max(2, int((scale.stop - scale.start) // 80)))
    placed = [(scale(tick), text) for tick, text in zip(ticks, tick_labels(ticks), strict=True)]
    grid = horizontal_axis(placed, _ABOVE, base, axis, (scale.start + scale.stop) / 2)
    return frame(canvas, base + _AXIS_HEIGHT, [*grid, *parts, *_limits(limits, scale, base, canvas.stacked)])


def _bar(row: StackRow, scale: Scale, top: float) -> list[Markup]:
    drawn, start = [], 0.0
    for length, css in row.parts:
        x, width = scale(start), scale(start + length) - scale(start)
        if width > 0:
            drawn.append(element("rect", x=x, y=top, width=width, height=_THICK, class_=f"bar {css}"))
        start += length
    return drawn


def _limits(limits: Sequence[Limit], scale: Scale, base: float, narrow: bool) -> list[Markup]:  # noqa: FBT001
    """Lines and their names, which are left out where they would overlap on a narrow drawing."""
    drawn, free = [], -1e9
    for limit in limits:
        x = scale(limit.value)
        drawn.append(line(x, _ABOVE - 4, x, base, "threshold"))
        width = text_width(limit.name)
        if not narrow or x - width / 2 > free:
            drawn.append(label(limit.name, x, 12, "limit", "middle"))
            free = x + width / 2 + 4
    return drawn
