"""The curve of tokens against new pieces: how the size of an extension was, or could be, chosen."""

from __future__ import annotations

from collections.abc import Sequence

from tsugiki.report import facts
from tsugiki.report.figures.figure import Draw, Figure, Words, full_width
from tsugiki.report.figures.lines import Series, line_chart
from tsugiki.report.formatting import exact, fixed
from tsugiki.report.run import Stage

_HEIGHT = 230.0
_FEWEST_POINTS = 3


def savings_curve(stage: Stage, css: str) -> Figure | None:
    """Tokens per character of held-out text by the number of new tokens; None where no curve was recorded."""
    points = [
        (pieces, tokens / characters)
        for row in facts.rows(stage.facts, "curve")
        if (pieces := facts.number(row, "pieces")) is not None
        and (tokens := facts.number(row, "tokens")) is not None
        and (characters := facts.number(row, "characters"))
    ]
    if len(points) < _FEWEST_POINTS:
        return None
    description = "; ".join(
        f"{exact(pieces)} new tokens: {fixed(rate, 3)} tokens per character" for pieces, rate in points
    )
    return full_width(
        f"savings-curve-{stage.index}",
        Words(
            "What the size of the extension buys",
            "Tokens per character of held-out text for smaller extensions of the same kind. Where the line "
            "is flat, more tokens cost memory and training and save little.",
            description,
        ),
        _drawer(points, css),
    )


def _drawer(points: Sequence[tuple[float, float]], css: str) -> Draw:
    series = [Series("tokens per character", css, tuple(points), marked=True)]
    return lambda canvas: line_chart(canvas, series, ("new tokens", "tokens per character"), _HEIGHT)
