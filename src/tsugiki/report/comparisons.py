"""`comparison.json` of the evaluate stages, as typed rows: estimates of models, and pairs of models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from tsugiki.artifacts.files import read_json
from tsugiki.artifacts.scores import COMPARISON
from tsugiki.errors import InputError
from tsugiki.report import facts
from tsugiki.report.facts import Row
from tsugiki.report.run import Run, Stage

BITS_PER_BYTE: Final = "bits-per-byte"
_CONFIDENCE: Final = 0.95
_OPPOSITE: Final = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Estimate:
    """A model's score with the ends of its confidence interval (None where not known)."""

    model: str
    value: float
    low: float | None
    high: float | None
    method: str = ""


@dataclass(frozen=True)
class Pair:
    """`difference` = score of `model` minus score of `baseline` on the same items, with its interval.

    relative is the difference as a share of the baseline's score; detectable is the smallest difference
    that the items could have shown; verdict is "better", "worse" or "no difference seen". test names the
    test; needed is how many items a difference of `interest` would need, where it is known.
    """

    baseline: str
    model: str
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    relative: float | None
    detectable: float | None
    verdict: str
    test: str = ""
    interest: float | None = None
    needed: float | None = None

    def flipped(self, baseline_score: float | None) -> Pair:
        """The same comparison with the parts exchanged; `baseline_score` is that of the new baseline."""
        return replace(
            self,
            baseline=self.model,
            model=self.baseline,
            difference=-self.difference,
            low=None if self.high is None else -self.high,
            high=None if self.low is None else -self.low,
            relative=facts.ratio(-self.difference, baseline_score),
            verdict=_OPPOSITE.get(self.verdict, self.verdict),
        )

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Task:
    """One task on one dataset: who scored what, and who differs from whom."""

    row: Row
    name: str
    dataset: str
    language: str
    metric: str
    lower_is_better: bool
    items: float | None
    clusters: float | None
    chance: float | None
    estimates: tuple[Estimate, ...]
    pairs: tuple[Pair, ...]
    other_scores: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()

    @property
    def in_bits(self) -> bool:
        """Whether the score counts bits; all others are shares of 1, shown as per cent."""
        return self.name == BITS_PER_BYTE or self.lower_is_better

    @property
    def label(self) -> str:
        """The task, and its dataset where that is something else."""
        return self.name if self.dataset in {"", self.name} else f"{self.name}, {self.dataset}"

    def estimate(self, model: str) -> Estimate | None:
        """The score of `model`, or None where it was not scored."""
        return next((one for one in self.estimates if one.model == model), None)

    def pair(self, model: str, baseline: str) -> Pair | None:
        """The comparison of `model` with `baseline`, whichever way round it was stored."""
        for one in self.pairs:
            if (one.model, one.baseline) == (model, baseline):
                return one
            if (one.model, one.baseline) == (baseline, model):
                estimate = self.estimate(baseline)
                return one.flipped(estimate.value if estimate else None)
        return None


@dataclass(frozen=True)
class Average:
    """The mean over the tasks of a language, or of all where `language` is empty."""

    language: str
    tasks: int
    estimates: tuple[Estimate, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Comparison:
    """All that one evaluate stage found; `fault` says why there is nothing."""

    stage: Stage
    baseline: str
    models: tuple[str, ...]
    confidence: float
    method: str
    tasks: tuple[Task, ...]
    generations: tuple[Row, ...]
    alarms: tuple[Any, ...]
    fault: str = ""
    averages: tuple[Average, ...] = ()
    regressions: tuple[Row, ...] = ()


def read_comparisons(run: Run) -> list[Comparison]:
    """The comparisons of all finished evaluate stages, in the order of the graph."""
    return [_read(stage) for stage in run.of_kind("evaluate")]


def _read(stage: Stage) -> Comparison:
    try:
        data, fault = read_json(stage.directory / COMPARISON), ""
    except InputError as error:
        data, fault = {}, error.message.replace(str(stage.directory), stage.name)
    if stage.changed(COMPARISON):
        data, fault = {}, f"{stage.name}/{COMPARISON} was changed after the stage had finished"
    return comparison_of(data, stage, fault)


def comparison_of(data: Any, stage: Stage, fault: str = "") -> Comparison:
    """The contents of a comparison.json, of whatever shape; what has the wrong type counts as absent."""
    alarms = facts.section({"data": data}, "data").get("alarms")
    tasks = tuple(_task(row) for row in facts.rows(data, "tasks"))
    return Comparison(
        stage=stage,
        baseline=facts.text(data, "baseline"),
        models=tuple(facts.texts(data, "models")),
        confidence=facts.number(data, "confidence") or _CONFIDENCE,
        method=facts.text(data, "method"),
        tasks=tasks,
        generations=tuple(facts.rows(data, "generations")),
        alarms=tuple(alarms) if isinstance(alarms, list) else (),
        fault=fault,
        averages=tuple(_average(row) for row in facts.rows(data, "averages")),
        regressions=tuple(facts.rows(data, "regressions")),
    )


def _average(row: Row) -> Average:
    tasks = row.get("tasks")
    return Average(
        language=facts.text(row, "language"),
        tasks=len(tasks) if isinstance(tasks, list) else 0,
        estimates=estimates_of(facts.section(row, "by_model")),
        pairs=tuple(pair for entry in facts.rows(row, "pairs") if (pair := _pair(entry)) is not None),
    )


def estimates_of(by_model: Row) -> tuple[Estimate, ...]:
    """The entries of a `by_model` mapping that hold a value, in stored order."""
    found: list[Estimate] = []
    for model in by_model:
        # where there are too few items for an interval, the entry is a plain number
        plain, value = facts.number(by_model, model), facts.number(by_model, model, "value")
        low, high = facts.number(by_model, model, "low"), facts.number(by_model, model, "high")
        score = plain if value is None else value
        if score is not None:
            found.append(Estimate(model, score, low, high, facts.text(by_model, model, "method")))
    return tuple(found)


def _task(row: Row) -> Task:
    name = facts.text(row, "task")
    return Task(
        row=row,
        name=name,
        dataset=facts.text(row, "dataset"),
        language=facts.text(row, "language"),
        metric=facts.text(row, "metric") or name,
        lower_is_better=bool(row.get("lower_is_better", name == BITS_PER_BYTE)),
        items=facts.number(row, "items"),
        clusters=facts.number(row, "clusters"),
        chance=facts.number(row, "chance"),
        estimates=estimates_of(facts.section(row, "by_model")),
        pairs=tuple(pair for entry in facts.rows(row, "pairs") if (pair := _pair(entry)) is not None),
        other_scores=tuple(
            (name, tuple(facts.pairs(row, "other_scores", name)))
            for name in sorted(facts.section(row, "other_scores"))
        ),
    )


def _pair(row: Row) -> Pair | None:
    difference = facts.number(row, "difference")
    if difference is None:
        return None
    return Pair(
        baseline=facts.text(row, "baseline"),
        model=facts.text(row, "model"),
        difference=difference,
        low=facts.number(row, "low"),
        high=facts.number(row, "high"),
        p=facts.number(row, "p"),
        p_adjusted=facts.number(row, "p_adjusted"),
        relative=facts.number(row, "relative"),
        detectable=facts.number(row, "detectable"),
        verdict=facts.text(row, "verdict") or "no difference seen",
        test=facts.text(row, "test"),
        interest=facts.number(row, "interest"),
        needed=facts.number(row, "needed"),
    )
