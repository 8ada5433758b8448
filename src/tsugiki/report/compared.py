"""The page of `tsugiki compare`: the evaluation section of a report, for scores from anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tsugiki.artifacts.files import write_text
from tsugiki.report import facts
from tsugiki.report.comparisons import Comparison, comparison_of
from tsugiki.report.page import environment
from tsugiki.report.run import Palette, Stage
from tsugiki.report.sections.evaluation import comparison_view
from tsugiki.report.sections.verdict import Roles

_HEADLINES: Final = 4
_TONES: Final = {"better": "better", "not worse": "better", "worse": "worse"}


@dataclass(frozen=True)
class Headline:
    """A sentence and its tone."""

    text: str
    tone: str


def write_comparison_page(path: Path, found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the page atomically; the same comparison gives the same bytes.

    found: what `evaluation.comparing.comparison.compare` gave, with `alignment`. rows: the aligned scores.
    """
    write_text(path, comparison_page(found, rows))


def comparison_page(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The page as HTML text."""
    stage = Stage("compared", "evaluate", (), Path(), 0, None)
    comparison = comparison_of(found, stage)
    models = (comparison.baseline, *(name for name in comparison.models if name != comparison.baseline))
    palette = Palette(tuple(dict.fromkeys(models)))
    # the items one by one are of the baseline and the model named after it
    found_roles = Roles(comparison.baseline, models[1], "", extended=False) if models[1:] else None
    language = next((task.language for task in comparison.tasks), "")
    view = comparison_view(comparison, palette, rows, found_roles, language)
    return environment().get_template("compared.html.j2").render(
        names=models,
        comparison=comparison,
        items=sum(int(task.items or 0) for task in comparison.tasks),
        headlines=_headlines(comparison)[:_HEADLINES],
        left_out=[said for row in facts.rows(found, "alignment") if (said := facts.text(row, "said"))],
        notes=[str(one) for one in found.get("notes", [])],
        evaluations=[view],
        palette=palette,
        compared=True,
    )  # fmt: skip


def _headlines(comparison: Comparison) -> list[Headline]:
    """The regression verdicts; without any, the sentences of the first task."""
    rows = [row for row in comparison.regressions if facts.text(row, "sentence")]
    if rows:
        return [
            Headline(facts.text(row, "sentence"), _TONES.get(facts.text(row, "verdict"), "level"))
            for row in rows
        ]
    pairs = [pair for task in comparison.tasks for pair in facts.rows(task.row, "pairs")]
    return [
        Headline(facts.text(pair, "sentence"), _TONES.get(facts.text(pair, "verdict"), "level"))
        for pair in pairs
        if facts.text(pair, "baseline") == comparison.baseline
    ]
