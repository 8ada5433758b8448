"""Many tasks on one page: forest plot, radar, a table of all scores, averages and regression verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tsugiki.report import facts
from tsugiki.report.comparisons import BITS_PER_BYTE, Average, Comparison, Estimate, Pair, Task
from tsugiki.report.figures.figure import Figure, Words, full_width, model_legend
from tsugiki.report.figures.intervals import IntervalRow, Mark, Reference, interval_chart
from tsugiki.report.figures.radar import Outline, radar_chart
from tsugiki.report.formatting import fixed, interval, signed
from tsugiki.report.languages import language_name
from tsugiki.report.run import Palette

FROM_TASKS: Final = 3
"""Scored tasks from which there is an overview; a radar of two spokes is a line."""
_TONES: Final = {"better": "good", "not worse": "good", "worse": "bad"}


@dataclass(frozen=True)
class Cell:
    """A model's score in the table; tone says whether it differs from the baseline."""

    css: str
    value: str
    ends: str
    tone: str


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    name: str
    language: str
    metric: str
    items: str
    cells: tuple[Cell, ...]
    average: bool = False


@dataclass(frozen=True)
class Regression:
    """A language's verdict, with the tone of its badge."""

    language: str
    verdict: str
    tone: str
    sentence: str


@dataclass(frozen=True)
class Overview:
    """What stands before the tasks one by one."""

    figures: tuple[Figure, ...]
    models: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    regressions: tuple[Regression, ...]


def overview(comparison: Comparison, palette: Palette, language: str) -> Overview:
    """The overview; without figures and table where fewer than three tasks have scores."""
    found = tuple(
        Regression(
            language_name(facts.text(row, "language")),
            facts.text(row, "verdict"),
            _TONES.get(facts.text(row, "verdict"), "level"),
            facts.text(row, "sentence"),
        )
        for row in comparison.regressions
        if facts.text(row, "sentence")
    )
    scored = [task for task in comparison.tasks if not task.in_bits]
    models = (comparison.baseline, *(name for name in comparison.models if name != comparison.baseline))
    if len(scored) < FROM_TASKS:
        return Overview((), (), (), found)
    ordered = sorted(scored, key=lambda task: (task.language != language, task.language))
    draw = _Drawing(comparison, palette, ordered, models)
    figures = [figure for figure in (draw.forest(), draw.radar()) if figure is not None]
    lines = [draw.line(task) for task in ordered]
    lines += [draw.average(one) for one in comparison.averages]
    return Overview(tuple(figures), tuple((name, palette.css(name)) for name in models), tuple(lines), found)


@dataclass(frozen=True)
class _Drawing:
    comparison: Comparison
    palette: Palette
    tasks: Sequence[Task]
    models: tuple[str, ...]

    @property
    def key(self) -> int:
        return self.comparison.stage.index

    def forest(self) -> Figure | None:
        """Every task's paired differences from the baseline."""
        base, others = self.models[0], self.models[1:]
        rows = []
        for task in self.tasks:
            marks = [self._mark(pair) for name in others if (pair := task.pair(name, base)) is not None]
            if marks:
                rows.append(IntervalRow(f"{task.label}, {task.language}", tuple(marks)))
        for one in self.comparison.averages:
            marks = [self._mark(pair) for pair in one.pairs if pair.baseline == base]
            if marks:
                rows.append(IntervalRow(_average_name(one), tuple(marks)))
        if not rows:
            return None
        described = "; ".join(f"{row.label}: {', '.join(mark.text for mark in row.marks)}" for row in rows)
        words = Words(
            f"All tasks: differences from {base}",
            "Percentage points on the same questions, with intervals. An interval across the line shows "
            "no difference; with many tasks one in twenty misses it by chance, so the table's verdicts are "
            "adjusted for that.",
            described,
        )
        axis = "difference in percentage points"
        return full_width(
            f"forest-{self.key}",
            words,
            lambda canvas: interval_chart(canvas, rows, axis, Reference(0.0, "no difference")),
            model_legend([(name, self.palette.css(name)) for name in others]),
        )

    def _mark(self, pair: Pair) -> Mark:
        low = None if pair.low is None else 100 * pair.low
        high = None if pair.high is None else 100 * pair.high
        value = 100 * pair.difference
        return Mark(self.palette.css(pair.model), value, low, high, signed(value, 1))

    def radar(self) -> Figure | None:
        """All models' scores, one spoke a task."""
        outlines = []
        for name in self.models:
            estimates = [task.estimate(name) for task in self.tasks]
            values = tuple(None if one is None else 100 * one.value for one in estimates)
            outlines.append(Outline(self.palette.css(name), values))
        described = "; ".join(
            f"{task.label}: "
            + ", ".join(f"{one.model} {fixed(100 * one.value, 1)}" for one in task.estimates)
            for task in self.tasks
        )
        words = Words(
            "All tasks at a glance",
            "Scores of 100; outward is better. The shape shows where a model is strong. It hides intervals "
            "and its area means nothing: for differences, trust the figure above.",
            described,
        )
        labels = [task.label for task in self.tasks]
        return full_width(
            f"radar-{self.key}",
            words,
            lambda canvas: radar_chart(canvas, labels, outlines),
            model_legend([(name, self.palette.css(name)) for name in self.models]),
        )

    def line(self, task: Task) -> Line:
        """A task's row of the table."""
        cells = []
        for name in self.models:
            pair = task.pair(name, self.models[0])
            cells.append(self._cell(name, task.estimate(name), pair))
        items = "" if task.items is None else f"{task.items:,.0f}"
        return Line(task.label, language_name(task.language), task.metric, items, tuple(cells))

    def average(self, one: Average) -> Line:
        """An average's row."""
        cells = []
        for name in self.models:
            estimate = next((entry for entry in one.estimates if entry.model == name), None)
            pair = next((p for p in one.pairs if (p.baseline, p.model) == (self.models[0], name)), None)
            cells.append(self._cell(name, estimate, pair))
        return Line(_average_name(one), "", "", "", tuple(cells), average=True)

    def _cell(self, name: str, estimate: Estimate | None, pair: Pair | None) -> Cell:
        css = self.palette.css(name)
        if estimate is None:
            return Cell(css, "–", "", "")
        known = estimate.low is not None and estimate.high is not None
        ends = interval(100 * (estimate.low or 0), 100 * (estimate.high or 0), 1) if known else ""
        tone = pair.verdict if pair is not None and pair.verdict in {"better", "worse"} else ""
        return Cell(css, fixed(100 * estimate.value, 1), ends, tone)


def _average_name(one: Average) -> str:
    of = language_name(one.language) if one.language else "all languages"
    return f"average, {of}"


__all__ = ["BITS_PER_BYTE", "Cell", "Line", "Overview", "Regression", "overview"]
