"""The distribution of a measured value in two parts (kept and rejected), with the thresholds drawn in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from tsugiki.report.figures.scales import Scale, nice_ticks, tick_labels
from tsugiki.report.figures.svg import (
    TICK_SIZE,
    Canvas,
    decimal,
    element,
    frame,
    label,
    line,
    text_width,
)

_TOP: Final = 24.0
_BOTTOM: Final = 22.0
_RIGHT: Final = 6.0
_BREAK_FROM: Final = 3.0
"""A bar that is so many times as high as the next one is drawn broken, or the others could not be seen."""
_BROKEN_HEADROOM: Final = 1.35
_TICK_SPACE: Final = 46.0


@dataclass(frozen=True)
class StackedBin:
    """Values from `low` to `high` (None: no bound): how many, and how many are in the bar's lower part."""

    low: float | None
    high: float | None
    total: float
    part: float


@dataclass(frozen=True)
class Threshold:
    """A line at `value`; the values on the side of `sign` ("<" or ">", also "<=" and ">=") are refused."""

    sign: str
    value: float

    @property
    def text(self) -> str:
        """As it is written above the line; the space in it does not break."""
        return f"{self.sign.replace('<=', '≤').replace('>=', '≥')}\u00a0{self.value:g}"


def distribution(
    canvas: Canvas, bins: Sequence[StackedBin], thresholds: Sequence[Threshold], height: float
) -> Markup:
    """Stacked columns of equal width, one a bin; `bins` must rise and not be empty."""
    top, broken = _highest([one.total for one in bins])
    y_ticks = [tick for tick in nice_ticks(0.0, top, 3) if tick == int(tick)]
    y_labels = tick_labels(y_ticks)
    left = max(text_width(text, TICK_SIZE) for text in y_labels) + 8
    y = Scale(0.0, top, height - _BOTTOM, _TOP)
    place = _Places(bins, left, canvas.width - _RIGHT)
    parts = [_refused(one, place, y) for one in thresholds]
    parts += [line(left, y(tick), canvas.width - _RIGHT, y(tick), "grid") for tick in y_ticks]
    parts += [label(t, left - 6, y(v) + 4, "tick", "end") for v, t in zip(y_ticks, y_labels, strict=True)]
    for index, one in enumerate(bins):
        parts += _column(one, *place.slot(index), y, broken)
    parts.append(line(left, y(0), canvas.width - _RIGHT, y(0), "rule"))
    parts += _ticks(bins, place, y(0))
    parts += [mark for one in thresholds for mark in _marked(one, place, y, canvas.width)]
    return frame(canvas, height, parts)


def _highest(totals: Sequence[float]) -> tuple[float, float | None]:
    """The top of the vertical axis, and from where on a bar is broken (None: none is)."""
    first, *others = sorted(totals, reverse=True)
    second = others[0] if others else 0.0
    if second > 0 and first > _BREAK_FROM * second:
        return second * _BROKEN_HEADROOM, second * _BROKEN_HEADROOM
    return first or 1.0, None


class _Places:
    """Horizontal places: a slot of equal width a bin, and values inside of a bin in proportion."""

    def __init__(self, bins: Sequence[StackedBin], start: float, stop: float) -> None:
        self._bins = bins
        self._start = start
        self._width = (stop - start) / len(bins)

    def slot(self, index: int) -> tuple[float, float]:
        """Left end and width of a bin's slot."""
        return self._start + index * self._width, self._width

    def __call__(self, value: float) -> float:
        """Where a value lies; beyond the bins, at their end."""
        for index, one in enumerate(self._bins):
            low = -math.inf if one.low is None else one.low
            high = math.inf if one.high is None else one.high
            if value <= low:
                return self.slot(index)[0]
            if value < high:
                finite = math.isfinite(low) and math.isfinite(high)
                share = (value - low) / (high - low) if finite else 0.5
                return self._start + (index + share) * self._width
        return self._start + len(self._bins) * self._width

    @property
    def ends(self) -> tuple[float, float]:
        """Left and right end of all slots."""
        return self._start, self._start + len(self._bins) * self._width


def _column(one: StackedBin, x: float, width: float, y: Scale, broken: float | None) -> list[Markup]:
    if one.total <= 0:
        return []
    gap = min(1.0, width * 0.12)
    cut = broken is not None and one.total > broken
    factor = broken / one.total if cut and broken is not None else 1.0
    full, part = y(one.total * factor), y(min(one.part, one.total) * factor)
    size = {"x": x + gap / 2, "width": max(width - gap, 0.5)}
    bars = []
    if one.total > one.part:
        # at least a hair, so that a bin with one document can be seen
        visible = max(part - full, 0.8)
        bars.append(element("rect", y=part - visible, height=visible, class_="bar pale", **size))
    if one.part > 0:
        visible = max(y(0) - part, 0.8)
        bars.append(element("rect", y=y(0) - visible, height=visible, class_="bar ink", **size))
    if cut:
        bars += _break(one, x, width, full)
    return bars


def _break(one: StackedBin, x: float, width: float, top: float) -> list[Markup]:
    """Two strokes across the bar, and beside it how high it really is."""
    strokes = " ".join(
        f"M{decimal(x - 2)},{decimal(top + dy + 3)} L{decimal(x + width + 2)},{decimal(top + dy - 3)}"
        for dy in (11.0, 15.0)
    )
    text = tick_labels([one.total])[0]
    return [
        element("path", d=strokes, class_="break"),
        label(text, x + width + 4, top + 17, "tick"),
    ]


def _refused(one: Threshold, place: _Places, y: Scale) -> Markup:
    """The side of the threshold on which documents are rejected, in a pale tone."""
    start, stop = place.ends
    at = place(one.value)
    x, end = (start, at) if one.sign.startswith("<") else (at, stop)
    return element("rect", x=x, y=_TOP, width=max(end - x, 0.0), height=y(0) - _TOP, class_="refused")


def _marked(one: Threshold, place: _Places, y: Scale, width: float) -> list[Markup]:
    """The line and its words: on the refused side where there is room for them."""
    at, room = place(one.value), text_width(one.text, TICK_SIZE) + 4
    before = at - room > 0 if one.sign.startswith("<") else at + room > width
    words = label(one.text, at + (-3 if before else 3), _TOP - 8, "limit", "end" if before else "start")
    return [line(at, _TOP - 5, at, y(0), "threshold"), words]


def _ticks(bins: Sequence[StackedBin], place: _Places, base: float) -> list[Markup]:
    """Round numbers on an even scale, powers of ten on one whose steps grow."""
    bounds = [
        b for b in dict.fromkeys(bound for one in bins for bound in (one.low, one.high)) if b is not None
    ]
    if not bounds:
        return []
    steps = [high - low for low, high in pairwise(bounds)]
    even = not steps or max(steps) - min(steps) < 1e-9 * max(steps)
    start, stop = place.ends
    if even:
        values = nice_ticks(bounds[0], bounds[-1], max(2, int((stop - start) // _TICK_SPACE)))
    else:
        powers = [0.0, *(10.0**n for n in range(13))]
        values = [v for v in powers if bounds[0] <= v <= bounds[-1]]
        values = values if len(values) > 1 else [bounds[0], bounds[-1]]
    labels = tick_labels(values) if even else [tick_labels([value])[0] for value in values]
    return _spaced([(place(v), t) for v, t in zip(values, labels, strict=True)], base, stop)


def _spaced(ticks: Sequence[tuple[float, str]], base: float, stop: float) -> list[Markup]:
    """Labels that neither touch each other nor leave the drawing; the others are left out."""
    parts: list[Markup] = []
    free = -math.inf
    for x, text in ticks:
        half = text_width(text, TICK_SIZE) / 2
        middle = min(x, stop + _RIGHT - half)
        if middle - half < free:
            continue
        parts += [line(x, base, x, base + 4, "rule"), label(text, middle, base + 16, "tick", "middle")]
        free = middle + half + 8
    return parts
