"""Before and after: scores with intervals, paired differences, domains, pages one by one, and samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tsugiki.artifacts.scores import SCORES, read_scores
from tsugiki.errors import InputError
from tsugiki.report import facts
from tsugiki.report.comparisons import BITS_PER_BYTE, Comparison, Estimate, Pair, Task, estimates_of
from tsugiki.report.figures.figure import Figure, Words, full_width, half_width, model_legend
from tsugiki.report.figures.intervals import IntervalRow, Mark, Reference, interval_chart
from tsugiki.report.figures.lines import Point, scatter
from tsugiki.report.formatting import exact, fixed, interval, percent, plural, signed
from tsugiki.report.languages import language_name
from tsugiki.report.run import Palette, Run
from tsugiki.report.sections.browser import COLUMNS, Browser, browsers
from tsugiki.report.sections.overview import Overview, overview
from tsugiki.report.sections.verdict import Roles, roles
from tsugiki.report.text import clip

_OPEN_TASKS = 6
_OPEN_GENERATIONS = 4
_MOST_GENERATIONS = 24
_MOST_DOMAINS = 12
_PROMPT_CHARACTERS = 600
_OUTPUT_CHARACTERS = 1200


@dataclass(frozen=True)
class TaskView:
    """One task on one dataset."""

    task: Task
    title: str
    unit: str
    figures: tuple[Figure, ...]
    domains: Figure | None
    browser: Browser | None
    scored: tuple[tuple[Estimate, str], ...]


@dataclass(frozen=True)
class Output:
    """What one model wrote."""

    model: str
    css: str
    text: str


@dataclass(frozen=True)
class Generation:
    """One prompt, what every model went on with, and how the page itself does (`gold`)."""

    language: str
    prompt: str
    outputs: tuple[Output, ...]
    gold: str


@dataclass(frozen=True)
class EvaluationView:
    """One evaluate stage."""

    comparison: Comparison
    tasks: tuple[TaskView, ...]
    generations: tuple[Generation, ...]
    more_generations: tuple[Generation, ...]
    alarms: tuple[str, ...]
    overview: Overview

    @property
    def folded(self) -> bool:
        """Whether the tasks are folded away behind the overview: with many, nobody finds anything."""
        return len(self.tasks) > _OPEN_TASKS


def evaluations(run: Run, comparisons: Sequence[Comparison], palette: Palette) -> list[EvaluationView]:
    """A view of every finished evaluate stage."""
    return [_view(run, comparison, palette) for comparison in comparisons]


def _view(run: Run, comparison: Comparison, palette: Palette) -> EvaluationView:
    rows = _stage_rows(comparison)
    found = roles(run, comparison)
    return comparison_view(comparison, palette, rows, found, run.language)


def comparison_view(
    comparison: Comparison,
    palette: Palette,
    rows: Sequence[facts.Row],
    found: Roles | None,
    language: str,
) -> EvaluationView:
    """The view of a comparison; rows: of its scores, for pages and items one by one; language: the target."""
    per_page = _per_page(comparison, rows, found, palette)
    items = browsers(rows, (found.baseline, found.adapted), palette) if found else {}
    # the target language first; within a language in the stage's own order
    ordered = sorted(
        comparison.tasks, key=lambda task: (task.name != BITS_PER_BYTE, task.language != language)
    )
    tasks = [
        _task_view(
            f"{comparison.stage.index}-{index}",
            _facing(task, found),
            palette,
            per_page.get((task.name, task.dataset), []),
            items.get((task.name, task.dataset)),
        )
        for index, task in enumerate(ordered)
    ]
    chosen = _by_turns(comparison.generations, language)[:_MOST_GENERATIONS]
    generations = [_generation(row, palette) for row in chosen]
    return EvaluationView(
        comparison=comparison,
        tasks=tuple(tasks),
        generations=tuple(generations[:_OPEN_GENERATIONS]),
        more_generations=tuple(generations[_OPEN_GENERATIONS:]),
        alarms=tuple(_alarm(alarm) for alarm in comparison.alarms),
        overview=overview(comparison, palette, language),
    )


def _facing(task: Task, found: Roles | None) -> Task:
    """The task with the pair of adapted model and control seen from the adapted model."""
    if found is None or not found.control:
        return task
    own = task.estimate(found.adapted)
    pairs = tuple(
        pair.flipped(None if (other := task.estimate(pair.model)) is None else other.value)
        if own is not None and (pair.baseline, pair.model) == (found.adapted, found.control)
        else pair
        for pair in task.pairs
    )
    return replace(task, pairs=pairs)


def _alarm(alarm: object) -> str:
    if isinstance(alarm, str):
        return alarm
    return facts.text(alarm, "message") or facts.text(alarm, "sentence") or str(alarm)


def _task_view(
    key: str, task: Task, palette: Palette, pages: Sequence[Figure], browser: Browser | None
) -> TaskView:
    bits = task.in_bits
    unit = task.metric if bits else f"{task.metric}, %"
    factor = 1.0 if bits else 100.0
    language = language_name(task.language)
    what = task.metric.capitalize() if bits else f"{_first_upper(task.name)} {task.metric}"
    of_pages = task.dataset != task.name
    draw = _Intervals(key, task, palette, factor, unit, what, language)
    figures = [figure for figure in (draw.scores(), draw.differences(), *pages) if figure is not None]
    return TaskView(
        task=task,
        title=f"{what} on held-out {language} pages" if of_pages else f"{what}, {language}",
        unit=unit,
        figures=tuple(figures),
        domains=draw.domains(),
        browser=browser,
        scored=tuple((estimate, palette.css(estimate.model)) for estimate in task.estimates),
    )


def _first_upper(name: str) -> str:
    """`cloze` -> `Cloze`; names with capitals of their own (JSQuAD) stay."""
    return name.capitalize() if name.islower() else name


@dataclass(frozen=True)
class _Intervals:
    key: str
    task: Task
    palette: Palette
    factor: float
    unit: str
    what: str
    language: str

    @property
    def digits(self) -> int:
        return 3 if self.factor == 1.0 else 1

    def _mark(self, estimate: Estimate, *, written: bool) -> Mark:
        low = None if estimate.low is None else estimate.low * self.factor
        high = None if estimate.high is None else estimate.high * self.factor
        text = fixed(estimate.value * self.factor, self.digits) if written else ""
        return Mark(self.palette.css(estimate.model), estimate.value * self.factor, low, high, text)

    def scores(self) -> Figure | None:
        """Each model's score with its interval, and chance where it is known."""
        if not self.task.estimates:
            return None
        rows = [IntervalRow(one.model, (self._mark(one, written=True),)) for one in self.task.estimates]
        title = f"{self.what}, {self.language}"
        better = "lower" if self.task.lower_is_better else "higher"
        described = "; ".join(
            f"{one.model}: {fixed(one.value * self.factor, self.digits)}" for one in self.task.estimates
        )
        chance = self.task.chance
        line = None if chance is None else Reference(chance * self.factor, f"chance {percent(chance, 0)}")
        explanation = (
            f"Each model alone on {plural(self.task.items or 0, 'item')}; {better} is better. The whiskers "
            "show how much the score would move with other pages; for differences, trust the paired figure."
        )
        return half_width(
            f"scores-{self.key}",
            Words(title, explanation, described),
            lambda canvas: interval_chart(canvas, rows, self.unit, line),
        )

    def differences(self) -> Figure | None:
        """Paired differences with their intervals around the line of no difference."""
        if not self.task.pairs:
            return None
        rows = [IntervalRow(f"{p.model} − {p.baseline}", (self._pair_mark(p),)) for p in self.task.pairs]
        title = f"Paired differences, {self.language}"
        described = "; ".join(
            f"{p.model} minus {p.baseline}: {signed(p.difference * self.factor, self.digits)}, {p.verdict}"
            for p in self.task.pairs
        )
        axis = f"difference in {self.unit}" if self.factor == 1.0 else "difference in percentage points"
        side = "left" if self.task.lower_is_better else "right"
        explanation = (
            f"The same items scored by two models, so that hard pages cancel out. To the {side} of zero the "
            "first model is better; an interval that crosses zero shows no difference. "
            "The table's verdicts are adjusted for the number of comparisons."
        )
        return half_width(
            f"differences-{self.key}",
            Words(title, explanation, described),
            lambda canvas: interval_chart(canvas, rows, axis, Reference(0.0, "no difference")),
        )

    def _pair_mark(self, pair: Pair) -> Mark:
        low = None if pair.low is None else pair.low * self.factor
        high = None if pair.high is None else pair.high * self.factor
        value = pair.difference * self.factor
        return Mark(self.palette.css(pair.model), value, low, high, signed(value, self.digits))

    def domains(self) -> Figure | None:
        """Scores by the site that the pages came from."""
        rows = []
        for row in facts.rows(self.task.row, "by_domain")[:_MOST_DOMAINS]:
            estimates = estimates_of(facts.section(row, "by_model"))
            items = facts.number(row, "items")
            if estimates:
                name = f"{facts.text(row, 'domain')} ({exact(items)})"
                rows.append(IntervalRow(name, tuple(self._mark(one, written=True) for one in estimates)))
        if not rows:
            return None
        title = f"{self.what} by site, {self.language}"
        described = "; ".join(f"{row.label}: {', '.join(mark.text for mark in row.marks)}" for row in rows)
        return full_width(
            f"domains-{self.key}",
            Words(
                title,
                "The number of items is in brackets: the fewer, the more chance is in the score of a site.",
                described,
            ),
            lambda canvas: interval_chart(canvas, rows, self.unit),
            model_legend([(one.model, self.palette.css(one.model)) for one in self.task.estimates]),
        )


def _per_page(
    comparison: Comparison, rows: Sequence[facts.Row], found: Roles | None, palette: Palette
) -> dict[tuple[str, str], list[Figure]]:
    """For each bits-per-byte dataset: every held-out page under the adapted model and under each rival."""
    figures: dict[tuple[str, str], list[Figure]] = {}
    if found is None:
        return figures
    for index, (dataset, by_model) in enumerate(sorted(_page_scores(rows).items())):
        after = by_model.get(found.adapted, {})
        for rival in (found.baseline, found.control):
            before = by_model.get(rival, {})
            points = [(before[item], after[item]) for item in sorted(before) if item in after]
            if points:
                key = f"pages-{comparison.stage.index}-{index}-{palette.css(rival)}"
                drawn = _page_figure(key, points, dataset, (found.adapted, rival), palette.css(found.adapted))
                figures.setdefault((BITS_PER_BYTE, dataset), []).append(drawn)
    return figures


def _stage_rows(comparison: Comparison) -> list[facts.Row]:
    """The rows of a stage's scores; empty where they are missing or not the stage's own."""
    if comparison.stage.changed(SCORES):
        return []
    try:
        table = read_scores(comparison.stage.directory)
    except InputError:
        return []
    rows: list[facts.Row] = table.select([n for n in COLUMNS if n in table.column_names]).to_pylist()
    return rows


def _page_scores(rows: Sequence[facts.Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Bits per byte by dataset, model and page."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        if row["task"] == BITS_PER_BYTE and facts.number(row, "score") is not None:
            scores.setdefault(row["dataset"], {}).setdefault(row["model"], {})[row["item"]] = row["score"]
    return scores


def _page_figure(
    key: str, points: Sequence[Point], dataset: str, models: tuple[str, str], css: str
) -> Figure:
    adapted, rival = models
    better = sum(after < before for before, after in points)
    share = f"{exact(better)} of {exact(len(points))} pages ({percent(better / len(points), 0)})"
    axes = (f"bits per byte of {rival}", f"bits per byte of {adapted}")
    return half_width(
        key,
        Words(
            f"Page by page against {rival}, {dataset}",
            f"Each dot is a held-out page. Below the line {adapted} is better than {rival}: {share}.",
            f"{adapted} is better on {share}",
        ),
        lambda canvas: scatter(canvas, points, axes, css),
    )


def _by_turns(rows: Sequence[facts.Row], language: str) -> list[facts.Row]:
    """The samples with the languages taking turns, the target language first; order within one is kept."""
    turns: dict[str, int] = {}
    keys = []
    for row in rows:
        own = facts.text(row, "language")
        turns[own] = turns.get(own, -1) + 1
        keys.append((turns[own], own != language, own))
    order = sorted(range(len(rows)), key=keys.__getitem__)
    return [rows[index] for index in order]


def _generation(row: facts.Row, palette: Palette) -> Generation:
    outputs = facts.section(row, "outputs")
    return Generation(
        language=facts.text(row, "language"),
        prompt=clip(facts.text(row, "prompt"), _PROMPT_CHARACTERS),
        outputs=tuple(
            Output(model, palette.css(model), clip(facts.text(outputs, model), _OUTPUT_CHARACTERS))
            for model in outputs
        ),
        gold=clip(facts.text(row, "gold"), _OUTPUT_CHARACTERS),
    )


def pair_interval(pair: Pair, factor: float, digits: int) -> str:
    """The interval of a paired difference in the unit of its table."""
    if pair.low is None or pair.high is None:
        return interval(None, None)
    return interval(pair.low * factor, pair.high * factor, digits)
