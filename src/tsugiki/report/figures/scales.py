"""From data to drawing units: linear scales and ticks on round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tsugiki.report.formatting import MINUS

_SI: Final = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_SI_FROM: Final = 10_000


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] of the data linearly to [start, stop] of the drawing."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def nice_step(span: float, count: int) -> float:
    """The step of 1, 2, 2.5 or 5 times a power of ten that cuts `span` into at most about `count` parts.

    After Heckbert, "Nice numbers for graph labels", Graphics Gems (1990).
    """
    raw = span / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    return next((step * power for step in (1, 2, 2.5, 5) if step * power >= raw * (1 - 1e-9)), 10 * power)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers inside [low, high]; at least one."""
    if high <= low:
        return [low]
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)] or [low]


def extent(
    values: Iterable[float], *, include: Sequence[float] = (), margin: float = 0.04
) -> tuple[float, float]:
    """The range of `values` and `include`, with a margin (share of the range) and never empty."""
    every = [*values, *include]
    if not every:
        return 0.0, 1.0
    low, high = min(every), max(every)
    if high - low <= 1e-12 * max(1.0, abs(high)):
        pad = abs(high) * 0.1 or 1.0
        return low - pad, high + pad
    pad = (high - low) * margin
    return low - pad, high + pad


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Labels with as many decimals as the step needs, and k, M, B, T where the numbers are large."""
    top = max((abs(tick) for tick in ticks), default=0.0)
    divisor, suffix = next(((size, name) for size, name in _SI if top >= max(size, _SI_FROM)), (1.0, ""))
    scaled = [tick / divisor for tick in ticks]
    decimals = next(
        (d for d in range(7) if all(abs(v - round(v, d)) < 1e-9 * max(1, top) for v in scaled)), 7
    )
    if 0 < top < 1e-3:  # noqa: PLR2004 - learning rates: 3e-4 reads better than 0.0003
        return [f"{tick:.2g}".replace("-", MINUS) if tick else "0" for tick in ticks]
    return [f"{v:,.{decimals}f}".replace("-", MINUS) + (suffix if v else "") for v in scaled]
