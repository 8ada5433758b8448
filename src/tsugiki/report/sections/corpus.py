"""From crawl to documents: the funnel, every reason, what was thrown away, and the split."""

from __future__ import annotations

from dataclasses import dataclass

from tsugiki.report import facts
from tsugiki.report.facts import Row
from tsugiki.report.figures.bars import Bar, BarRow, bar_chart
from tsugiki.report.figures.figure import Figure, Key, Words, bar_legend, full_width, half_width
from tsugiki.report.figures.histogram import Bin, histogram
from tsugiki.report.figures.intervals import Reference
from tsugiki.report.formatting import exact, percent
from tsugiki.report.run import Run, Stage
from tsugiki.report.sections.corpus_duplicates import duplicate_figures
from tsugiki.report.sections.corpus_features import LEGEND, Distributions, distributions
from tsugiki.report.sections.corpus_hosts import Hosts, hosts
from tsugiki.report.sections.corpus_pages import FunnelRow, Listing, funnel_rows, listings, most_first
from tsugiki.report.text import clip

_SAMPLE_CHARACTERS = 260
_SAMPLE_LINES = 7
_SAMPLES_PER_REASON = 3
_MOST_WARNINGS = 20
_MOST_REASONS = 60
_MOST_LANGUAGES = 14
_MOST_BARS = 30


@dataclass(frozen=True)
class Reason:
    """Why documents were rejected, with samples of them."""

    name: str
    documents: float | None
    alone: float | None
    samples: tuple[Row, ...]


@dataclass(frozen=True)
class CorpusView:
    """One corpus stage."""

    stage: Stage
    language: str
    funnel: Figure | None
    reasons: tuple[Reason, ...]
    reasons_figure: Figure | None
    funnel_rows: tuple[FunnelRow, ...]
    more_reasons: int
    distributions: Distributions
    legend: tuple[Key, ...]
    skipped: tuple[tuple[str, float], ...]
    listings: tuple[Listing, ...]
    warnings: tuple[Row, ...]
    more_warnings: int
    hosts: Hosts
    near_duplicates: Row
    duplicate_figures: tuple[Figure, ...]
    languages: tuple[tuple[str, float], ...]
    split: Row
    similarity: Figure | None


def corpora(run: Run) -> list[CorpusView]:
    """A view of every finished corpus stage."""
    return [_view(stage) for stage in run.of_kind("corpus")]


def stage_language(stage: Stage) -> str:
    """The language that a corpus stage was told to look for."""
    return facts.text(stage.manifest.config, "language") if stage.manifest else ""


def _view(stage: Stage) -> CorpusView:
    warnings = facts.rows(stage.facts, "warnings")
    reasons = _reasons(stage)
    return CorpusView(
        stage=stage,
        language=stage_language(stage),
        funnel=_funnel(stage),
        funnel_rows=funnel_rows(stage),
        reasons=reasons[:_MOST_REASONS],
        more_reasons=max(0, len(reasons) - _MOST_REASONS),
        reasons_figure=_reasons_figure(stage, reasons),
        skipped=tuple(facts.pairs(stage.facts, "skipped_records")),
        listings=listings(stage),
        languages=tuple(most_first(stage.facts, "languages")[:_MOST_LANGUAGES]),
        warnings=tuple(warnings[:_MOST_WARNINGS]),
        more_warnings=max(0, len(warnings) - _MOST_WARNINGS),
        distributions=distributions(stage),
        legend=LEGEND,
        hosts=hosts(stage),
        duplicate_figures=duplicate_figures(stage),
        near_duplicates=facts.section(stage.facts, "near_duplicates"),
        split=facts.section(stage.facts, "split"),
        similarity=_similarity(stage),
    )


def _excerpt(text: str) -> str:
    """The beginning of a rejected page: a few lines of it, and not too long."""
    lines = text.strip().splitlines()
    start = "\n".join(lines[:_SAMPLE_LINES])
    return clip(start + ("…" if len(lines) > _SAMPLE_LINES else ""), _SAMPLE_CHARACTERS)


def _similarity(stage: Stage) -> Figure | None:
    """How near each held-out page comes to the training pages: the picture of the split's proof."""
    bins = [
        Bin(low, high, documents)
        for row in facts.rows(stage.facts, "similarity_histogram")
        if (low := facts.number(row, "from")) is not None
        and (high := facts.number(row, "to")) is not None
        and (documents := facts.number(row, "documents")) is not None
    ]
    threshold = facts.number(stage.facts, "split", "threshold")
    if not bins or threshold is None:
        return None
    filled = (f"{one.low:g} to {one.high:g}: {exact(one.count)}" for one in bins if one.count)
    return half_width(
        f"similarity-{stage.index}",
        Words(
            f"{stage.name}: held-out pages and their nearest training page",
            "Jaccard similarity of the two pages' character n-grams: 0 means nothing in common, 1 the same "
            "text. Every held-out page has to stay to the left of the limit.",
            "; ".join(filled),
        ),
        lambda canvas: histogram(
            canvas,
            bins,
            ("similarity to the nearest training page", "held-out pages"),
            Reference(threshold, f"limit {threshold:g}"),
            230,
        ),
    )


def _funnel(stage: Stage) -> Figure | None:
    steps = [
        (facts.text(row, "step"), documents)
        for row in facts.rows(stage.facts, "funnel")
        if (documents := facts.number(row, "documents")) is not None
    ]
    if not steps:
        return None
    first = steps[0][1]
    rows = [
        BarRow(name, (Bar(n, "ink", f"{exact(n)} ({percent(n / first)})" if first else exact(n)),))
        for name, n in steps
    ]
    return full_width(
        f"funnel-{stage.index}",
        Words(
            f"{stage.name}: from the crawl to the documents kept",
            "What is left after each step. The share in brackets is of the first bar.",
            "; ".join(f"{name}: {exact(n)}" for name, n in steps),
        ),
        lambda canvas: bar_chart(canvas, rows, "pages"),
    )


def _reasons(stage: Stage) -> tuple[Reason, ...]:
    samples: dict[str, list[Row]] = {}
    for sample in facts.rows(stage.facts, "rejected_samples"):
        shown = {
            "url": clip(facts.text(sample, "url"), 160),
            "text": _excerpt(facts.text(sample, "text")),
        }
        samples.setdefault(facts.text(sample, "reason"), []).append(shown)
    reasons = [
        Reason(
            facts.text(row, "reason"),
            facts.number(row, "documents"),
            facts.number(row, "alone"),
            tuple(samples.pop(facts.text(row, "reason"), [])[:_SAMPLES_PER_REASON]),
        )
        for row in facts.rows(stage.facts, "reasons")
    ]
    reasons.sort(key=lambda reason: (-(reason.documents or 0), reason.name))
    # samples of a reason that was not counted are shown all the same
    reasons += [Reason(n, None, None, tuple(s[:_SAMPLES_PER_REASON])) for n, s in sorted(samples.items())]
    return tuple(reasons)


def _reasons_figure(stage: Stage, reasons: tuple[Reason, ...]) -> Figure | None:
    counted = [reason for reason in reasons if reason.documents][:_MOST_BARS]
    if not counted:
        return None
    rows = [
        BarRow(
            reason.name,
            (
                Bar(reason.documents or 0, "pale", exact(reason.documents)),
                *([Bar(reason.alone, "ink", "")] if reason.alone is not None else []),
            ),
        )
        for reason in counted
    ]
    description = "; ".join(
        f"{reason.name}: {exact(reason.documents)}, alone {exact(reason.alone)}" for reason in counted
    )
    return full_width(
        f"reasons-{stage.index}",
        Words(
            f"{stage.name}: why pages were rejected",
            "A page that breaks several rules counts under each of them. "
            "The inner bar is what this rule alone rejected: without it, those pages would have gone on.",
            description,
        ),
        lambda canvas: bar_chart(canvas, rows, "pages", overlay=True),
        bar_legend([("rejected, also for this reason", "pale"), ("rejected for this reason alone", "ink")]),
    )
