"""Columns over equal intervals of a measured value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from tsugiki.report.figures.intervals import Reference
from tsugiki.report.figures.scales import Scale, nice_ticks, tick_labels
from tsugiki.report.figures.svg import (
    TICK_SIZE,
    Canvas,
    element,
    frame,
    horizontal_axis,
    label,
    line,
    text_width,
)

_TOP: Final = 40.0
_BOTTOM: Final = 46.0
_RIGHT: Final = 14.0


@dataclass(frozen=True)
class Bin:
    """How many values lie between `low` and `high`."""

    low: float
    high: float
    count: float


def histogram(
    canvas: Canvas, bins: Sequence[Bin], axes: tuple[str, str], reference: Reference, height: float
) -> Markup:
    """Columns from zero, and a dashed line at a value to compare with; `bins` must not be empty."""
    most = max(one.count for one in bins) or 1.0
    y_ticks = [tick for tick in nice_ticks(0.0, most, 4) if tick == int(tick)]
    y_labels = tick_labels(y_ticks)
    left = max(text_width(text, TICK_SIZE) for text in y_labels) + 10
    x = Scale(bins[0].low, bins[-1].high, left, canvas.width - _RIGHT)
    y = Scale(0.0, most, height - _BOTTOM, _TOP)
    ticks = nice_ticks(x.low, x.high, max(2, int((canvas.width - left) // 80)))
    placed = [(x(tick), text) for tick, text in zip(ticks, tick_labels(ticks), strict=True)]
    parts = [line(left, y(tick), canvas.width - _RIGHT, y(tick), "grid") for tick in y_ticks]
    parts += [
        label(text, left - 7, y(tick) + 4, "tick", "end")
        for tick, text in zip(y_ticks, y_labels, strict=True)
    ]
    for one in bins:
        if one.count > 0:
            width = max(1.0, x(one.high) - x(one.low) - 1)
            top = y(one.count)
            parts.append(
                element("rect", x=x(one.low) + 0.5, y=top, width=width, height=y(0) - top, class_="bar ink")
            )
    parts += horizontal_axis(placed, y(0), y(0), axes[0], (left + canvas.width - _RIGHT) / 2)
    parts.append(line(left, y(0), canvas.width - _RIGHT, y(0), "rule"))
    parts.append(label(axes[1], 0, 13, "axis"))
    middle = x(reference.value)
    parts.append(line(middle, _TOP - 8, middle, y(0), "reference"))
    parts.append(label(reference.name, middle, _TOP - 12, "tick", "middle"))
    return frame(canvas, height, parts)
