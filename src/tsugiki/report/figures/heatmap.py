"""A matrix of values from -1 to 1 as coloured cells: correlations and loadings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from tsugiki.report.figures.svg import Canvas, decimal, element, fit, frame, label, text_width
from tsugiki.report.formatting import MINUS

_TALLEST: Final = 30.0
_SHORTEST: Final = 13.0
_TEXT_FROM: Final = 27.0
"""Cells as wide as this have room for two decimals."""
_STEEP: Final = 0.87  # the sine of 60 degrees, at which the names of columns stand
_SHIFT: Final = 0.5


@dataclass(frozen=True)
class Matrix:
    """Names of rows and columns and the values (None where there is none). More than 1 is drawn as 1.

    triangle: only cells below and on the diagonal. says: what a reader is told who points at a cell, after
    its value.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    triangle: bool = False
    says: tuple[tuple[str, ...], ...] = ()


def heat_map(canvas: Canvas, matrix: Matrix) -> Markup:
    """Cells in two colours, as strong as the value; the number in each where there is room."""
    longest = max((text_width(name) for name in matrix.rows), default=0.0)
    left = min(longest + 12, canvas.width * 0.32)
    names = [fit(name, 110.0) for name in matrix.columns]
    top = max((text_width(name) for name in names), default=0.0) * _STEEP + 14
    right = max((text_width(name) for name in names[-3:]), default=0.0) * _SHIFT
    width = min((canvas.width - left - min(right, 60.0)) / max(len(names), 1), 64.0)
    height = min(max(width, _SHORTEST), _TALLEST)
    parts = []
    for column, name in enumerate(names):
        x, y = left + (column + 0.5) * width + 3, top - 6
        turn = f"rotate(-60 {decimal(x)} {decimal(y)})"
        parts.append(element("text", name, x=x, y=y, class_="tick", transform=turn))
    for row, name in enumerate(matrix.rows):
        y = top + row * height
        parts.append(label(fit(name, left - 10), left - 8, y + height / 2 + 4, "label", "end"))
        for column in range(row + 1 if matrix.triangle else len(names)):
            parts += _cell(matrix, (row, column), (left + column * width, y), (width, height))
    return frame(canvas, top + len(matrix.rows) * height + 8, parts)


def _cell(
    matrix: Matrix, place: tuple[int, int], at: tuple[float, float], size: tuple[float, float]
) -> list[Markup]:
    row, column = place
    value = matrix.values[row][column]
    if value is None or not math.isfinite(value):
        return []
    text = f"{value:.2f}".replace("-", MINUS)
    says = f"; {matrix.says[row][column]}" if matrix.says else ""
    title = element("title", f"{matrix.rows[row]}, {matrix.columns[column]}: {text}{says}")
    strength = min(abs(value), 1.0)
    parts = [
        element(
            "rect", title, x=at[0] + 0.5, y=at[1] + 0.5,
            width=max(size[0] - 1, 1.0), height=max(size[1] - 1, 1.0),
            class_=f"bar {'m0' if value >= 0 else 'm1'}", fill_opacity=round(0.06 + 0.5 * strength, 3),
        )
    ]  # fmt: skip
    if size[0] >= _TEXT_FROM:
        parts.append(label(text, at[0] + size[0] / 2, at[1] + size[1] / 2 + 4, "value", "middle"))
    return parts


def shown_values(values: Sequence[Sequence[float]]) -> tuple[tuple[float | None, ...], ...]:
    """Rows of numbers as a matrix holds them: NaN becomes None."""
    return tuple(tuple(value if math.isfinite(value) else None for value in row) for row in values)
