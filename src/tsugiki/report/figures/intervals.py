"""Dots with whiskers: estimates and their confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from tsugiki.report.figures.scales import Scale, extent, nice_ticks, tick_labels
from tsugiki.report.figures.svg import (
    LABEL_SIZE,
    TICK_SIZE,
    Canvas,
    fit,
    frame,
    horizontal_axis,
    label,
    line,
    marker,
    text_width,
)

_AXIS_HEIGHT: Final = 44.0
_SINGLE: Final = 30.0
_SEVERAL: Final = 17.0
_GAP: Final = 12.0


@dataclass(frozen=True)
class Mark:
    """An estimate; `low` and `high` are the ends of its interval, None where none is known."""

    css: str
    value: float
    low: float | None
    high: float | None
    text: str = ""


@dataclass(frozen=True)
class IntervalRow:
    """A labelled row with the estimates of one or several models."""

    label: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Reference:
    """A vertical line to compare with: no difference, or chance."""

    value: float
    name: str


def interval_chart(
    canvas: Canvas,
    rows: Sequence[IntervalRow],
    axis: str,
    reference: Reference | None = None,
) -> Markup:
    """One row of dots with whiskers a label; values are written at the right where marks carry a text."""
    stacked = canvas.stacked or any(text_width(row.label) > canvas.width * 0.34 for row in rows)
    longest = max((text_width(row.label) for row in rows), default=0.0)
    texts = max((text_width(mark.text) for row in rows for mark in row.marks), default=0.0)
    left = 8.0 if stacked else longest + 18
    right = texts + 14 if texts else 10.0
    ends = [
        v for row in rows for mark in row.marks for v in (mark.value, mark.low, mark.high) if v is not None
    ]
    low, high = extent(ends, include=[reference.value] if reference else [], margin=0.06)
    scale = Scale(low, high, left, max(canvas.width - right, left + 60))
    head = 18.0 if reference else 4.0
    parts: list[Markup] = []
    y = head
    for row in rows:
        drawn, y = _draw_row(row, scale, y, canvas.width, stacked=stacked)
        parts += drawn
    ticks = nice_ticks(low, high, max(2, int((scale.stop - scale.start) // 75)))
    placed = [(scale(tick), text) for tick, text in zip(ticks, tick_labels(ticks), strict=True)]
    back = horizontal_axis(placed, head, y, axis, (scale.start + scale.stop) / 2)
    if reference:
        back += _reference(reference, scale, head, y)
    return frame(canvas, y + _AXIS_HEIGHT, [*back, *parts])


def _reference(reference: Reference, scale: Scale, top: float, bottom: float) -> list[Markup]:
    x = scale(reference.value)
    half = text_width(reference.name, TICK_SIZE) / 2
    middle = min(max(x, half), scale.stop - half) if half < scale.stop / 2 else x
    return [
        line(x, top - 4, x, bottom, "reference"),
        label(reference.name, middle, top - 8, "tick", "middle"),
    ]


def _draw_row(
    row: IntervalRow, scale: Scale, y: float, width: float, *, stacked: bool
) -> tuple[list[Markup], float]:
    parts: list[Markup] = []
    if stacked:
        parts.append(label(fit(row.label, width - 8), 2, y + 13))
        y += 16
    step = _SINGLE if len(row.marks) == 1 and not stacked else _SEVERAL + (5 if stacked else 0)
    height = step * len(row.marks)
    if not stacked:
        parts.append(label(row.label, scale.start - 14, y + height / 2 + 4.5, anchor="end"))
    for index, mark in enumerate(row.marks):
        middle = y + step * (index + 0.5)
        if mark.low is not None and mark.high is not None:
            a, b = scale(mark.low), scale(mark.high)
            parts.append(line(a, middle, b, middle, f"whisker {mark.css}"))
            parts += [line(end, middle - 6, end, middle + 6, f"whisker {mark.css}") for end in (a, b)]
        parts.append(marker(mark.css, scale(mark.value), middle, 4.2))
        if mark.text:
            parts.append(label(mark.text, scale.stop + 10, middle + LABEL_SIZE / 3, "value"))
    return parts, y + height + (_GAP if stacked or len(row.marks) > 1 else 0)
