"""Near-duplicates: how large the clusters are, and which pairs the parameters detect."""

from __future__ import annotations

from typing import Final

from tsugiki.report import facts
from tsugiki.report.figures.bars import Bar, BarRow, bar_chart
from tsugiki.report.figures.figure import Figure, Words, bar_legend, half_width
from tsugiki.report.figures.lines import Series, line_chart
from tsugiki.report.formatting import exact, percent
from tsugiki.report.run import Stage

_MOST_SIZES: Final = 24
_POINTS: Final = 101
_ENDLESS: Final = 1e12
_QUOTED: Final = (0.7, 0.8, 0.9)


def detection_probability(similarity: float, bands: float, rows: float) -> float:
    """How probable it is that two documents of a Jaccard similarity share a band: 1 - (1 - s^b)^r.

    b hashes a band (`rows`), r bands: corpus.md §1.6.
    """
    return 1.0 - (1.0 - similarity**rows) ** bands


def duplicate_figures(stage: Stage) -> tuple[Figure, ...]:
    """The figures that can be drawn from what was recorded."""
    return tuple(one for one in (_sizes(stage), _curve(stage)) if one is not None)


def _sizes(stage: Stage) -> Figure | None:
    found = []
    for row in facts.rows(stage.facts, "near_duplicates", "sizes")[:_MOST_SIZES]:
        low, high = facts.number(row, "from"), facts.number(row, "to")
        clusters, documents = facts.number(row, "clusters"), facts.number(row, "documents")
        # a page alone is no cluster, and there are so many of them that the others could not be seen
        if low is not None and low > 1 and clusters is not None and documents is not None:
            found.append((_span(low, high), clusters, documents))
    if not any(documents for _, _, documents in found):
        return None
    rows = [
        BarRow(name, (Bar(documents, "pale", exact(documents)), Bar(clusters, "ink", "")))
        for name, clusters, documents in found
    ]
    told = "; ".join(
        f"clusters of {name}: {exact(clusters)} with {exact(documents)} pages"
        for name, clusters, documents in found
    )
    return half_width(
        f"clusters-{stage.index}",
        Words(
            f"{stage.name}: sizes of the clusters",
            "Pages in clusters of so many near-duplicates. One page of each cluster is kept: the inner bar.",
            told,
        ),
        lambda canvas: bar_chart(canvas, rows, "pages", overlay=True),
        bar_legend([("pages", "pale"), ("kept", "ink")]),
    )


def _span(low: float, high: float | None) -> str:
    if high is None or high > _ENDLESS:
        return f"{exact(low)} or more"
    return exact(low) if low == high else f"{exact(low)} to {exact(high)}"


def _curve(stage: Stage) -> Figure | None:
    config = stage.manifest.config if stage.manifest else {}
    bands, rows = (
        facts.number(stage.facts, "near_duplicates", name) or facts.number(config, "near_duplicates", name)
        for name in ("bands", "rows")
    )
    if not bands or not rows or bands < 1 or rows < 1 or not facts.section(stage.facts, "near_duplicates"):
        return None
    xs = [index / (_POINTS - 1) for index in range(_POINTS)]
    points = tuple((x, detection_probability(x, bands, rows)) for x in xs)
    quoted = ", ".join(
        f"{percent(detection_probability(s, bands, rows))} of pairs alike to {s:g}" for s in _QUOTED
    )
    middle = (1 / bands) ** (1 / rows)
    ngram = facts.number(config, "near_duplicates", "ngram")
    grams = f" of character {exact(ngram)}-grams" if ngram else ""
    return half_width(
        f"detection-{stage.index}",
        Words(
            f"{stage.name}: which pairs are detected",
            f"{exact(bands)} bands of {exact(rows)} hashes{grams} find {quoted}; the curve is steepest near "
            f"{middle:.2f}. Groups join pairs, so chains find more.",
            f"Probability of detection by similarity: {quoted}.",
        ),
        lambda canvas: line_chart(
            canvas,
            [Series("detected", "plain", points)],
            ("similarity (Jaccard) of two pages", "detected"),
            230,
        ),
    )
