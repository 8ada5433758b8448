"""Horizontal bars: funnels, reasons, before and after, cost."""

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
    text_width,
)

_THICK: Final = 16.0
_THIN: Final = 14.0
_GAP: Final = 9.0
_AXIS_HEIGHT: Final = 44.0


@dataclass(frozen=True)
class Bar:
    """One bar: its length in the unit of the axis, its CSS class and the figure written after it."""

    value: float
    css: str
    text: str


@dataclass(frozen=True)
class BarRow:
    """A labelled row of one or several bars."""

    label: str
    bars: tuple[Bar, ...]


def bar_chart(
    canvas: Canvas,
    rows: Sequence[BarRow],
    axis: str,
    *,
    overlay: bool = False,
) -> Markup:
    """Bars from zero. With `overlay`, the later bars of a row are parts of the first and lie inside it."""
    stacked = canvas.stacked
    longest = max((text_width(row.label) for row in rows), default=0.0)
    named = min(longest, canvas.width * 0.34 - 14)  # fitting to left - 14 would cut a label by a rounding
    left = 2.0 if stacked else named + 14
    right = max((text_width(bar.text) for row in rows for bar in row.bars), default=0.0) + 14
    top_value = max((bar.value for row in rows for bar in row.bars), default=0.0) or 1.0
    scale = Scale(0.0, top_value, left, max(canvas.width - right, left + 40))
    thickness = _THIN if not overlay and any(len(row.bars) > 1 for row in rows) else _THICK
    parts: list[Markup] = []
    y = 6.0
    for row in rows:
        if stacked:
            parts.append(label(fit(row.label, canvas.width - 4), left, y + 11))
            y += 17
        height = thickness if overlay else thickness * len(row.bars)
        if not stacked:
            parts.append(label(fit(row.label, named), left - 12, y + height / 2 + 4.5, anchor="end"))
        parts += _draw_row(row, scale, y, thickness, overlay=overlay)
        y += height + _GAP
    ticks = nice_ticks(0.0, top_value, max(2, int((scale.stop - scale.start) // 80)))
    placed = [(scale(tick), text) for tick, text in zip(ticks, tick_labels(ticks), strict=True)]
    base = y - _GAP + 6
    grid = horizontal_axis(placed, 0.0, base, axis, (scale.start + scale.stop) / 2)
    return frame(canvas, base + _AXIS_HEIGHT, [*grid, *parts])


def _draw_row(row: BarRow, scale: Scale, y: float, thickness: float, *, overlay: bool) -> list[Markup]:
    parts = []
    for index, bar in enumerate(row.bars):
        top = y if overlay else y + index * thickness
        inset = 4.5 if overlay and index else 0.5
        length = scale(bar.value) - scale.start
        parts.append(
            element(
                "rect",
                x=scale.start,
                y=top + inset,
                width=max(length, 1.0 if bar.value > 0 else 0.0),
                height=thickness - 2 * inset,
                rx=1.5,
                class_=f"bar {bar.css}",
            )
        )
        if bar.text:
            parts.append(
                label(bar.text, scale.start + length + 6, top + thickness / 2 + LABEL_SIZE / 3, "value")
            )
    return parts
