"""The verdict: what the run shows, in sentences that follow from the paired comparisons and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tsugiki.report import facts
from tsugiki.report.comparisons import BITS_PER_BYTE, Comparison, Estimate, Pair, Task
from tsugiki.report.formatting import fixed, p_value, percent, plural, signed
from tsugiki.report.languages import language_name
from tsugiki.report.run import Palette, Run

TONES = {"better": "better", "worse": "worse"}


@dataclass(frozen=True)
class Part:
    """A piece of a sentence; `css` is a model's class, "figure" for the main number, or empty."""

    text: str
    css: str = ""


@dataclass(frozen=True)
class Sentence:
    """A statement with its tone: better, worse, or level where no difference was seen."""

    label: str
    tone: str
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The sentence without emphasis."""
        return "".join(part.text for part in self.parts)


@dataclass(frozen=True)
class Roles:
    """Which model plays which part: where the run began, what it made, and the arm without the extension."""

    baseline: str
    adapted: str
    control: str
    extended: bool
    equal_compute: bool = False
    """Whether the control arm was trained for the compute of the adapted one."""


def roles(run: Run, comparison: Comparison) -> Roles | None:
    """Find the roles: adapted models descend from a vocabulary stage, controls from the baseline only.

    Where there are several, trained models come before untrained ones and later before earlier. None where
    only the baseline was scored. Without any extended model, the last other model counts as adapted.
    """
    others = [model for model in comparison.models if model != comparison.baseline]
    if not others:
        return None
    extended = [model for model in others if run.extended(model)]
    plain = [m for m in others if not run.extended(m) and comparison.baseline in run.lineage(m)]
    adapted = _latest(run, extended) or _latest(run, others)
    control = _latest(run, [model for model in plain if model != adapted])
    stage = run.stage(control)
    config = stage.manifest.config if stage is not None and stage.manifest is not None else {}
    equal = config.get("equal_compute") == adapted
    return Roles(comparison.baseline, adapted, control if extended else "", bool(extended), equal)


def _latest(run: Run, models: Sequence[str]) -> str:
    order = [stage.name for stage in run.stages]
    trained = {stage.name for stage in run.stages if stage.kind == "train"}
    ranked = sorted(models, key=lambda name: (name in trained, order.index(name) if name in order else -1))
    return ranked[-1] if ranked else ""


def verdict(run: Run, comparisons: Sequence[Comparison], palette: Palette) -> list[Sentence]:
    """The sentences, the one on the target language first; empty where nothing was compared."""
    comparison = deciding(run, comparisons)
    found = roles(run, comparison) if comparison else None
    if comparison is None or found is None:
        return []
    tasks = [task for task in comparison.tasks if task.name == BITS_PER_BYTE]
    own = next(task for task in tasks if task.language == run.language)
    writer = _Writer(palette, comparison.confidence)
    sentences = [writer.against_baseline(own, found)]
    sentences += [writer.against_baseline(t, found) for t in tasks if t.language != run.language]
    sentences.append(writer.against_control(own, found))
    return [sentence for sentence in sentences if sentence is not None]


def deciding(run: Run, comparisons: Sequence[Comparison]) -> Comparison | None:
    """The comparison that verdict and key figures are read from.

    The first one with an adapted model and bits per byte of the target language; a run may have several
    evaluate stages, of which some look at other languages only. None where there is none.
    """
    for comparison in comparisons:
        own = (t for t in comparison.tasks if (t.name, t.language) == (BITS_PER_BYTE, run.language))
        if any(own) and roles(run, comparison) is not None:
            return comparison
    return None


@dataclass(frozen=True)
class _Writer:
    palette: Palette
    confidence: float

    def model(self, name: str) -> Part:
        return Part(name, f"model {self.palette.css(name)}")

    def against_baseline(self, task: Task, found: Roles) -> Sentence | None:
        """What adaptation did to the bits per byte of one language."""
        language = language_name(task.language)
        before, after = task.estimate(found.baseline), task.estimate(found.adapted)
        pair = task.pair(found.adapted, found.baseline)
        if pair is None or before is None or after is None:
            return None
        adapted, baseline = self.model(found.adapted), self.model(found.baseline)
        evidence = Part(self._evidence(pair, task) + ".")
        values = self._values(after, before, pair)
        if pair.verdict in TONES:
            word = Part(pair.verdict, "figure")
            held_out = Part(f" predicts held-out {language} text ")
            parts: tuple[Part, ...] = (
                adapted,
                held_out,
                word,
                Part(" than "),
                baseline,
                Part(": "),
                *values,
                evidence,
            )
        else:
            word = Part("No clear difference" if pair.excludes_zero else "No difference", "figure")
            seen = Part(f" was seen on held-out {language} text: ")
            between = (Part(" between "), adapted, Part(" and "), baseline)
            parts = (word, *between, seen, *values, evidence, Part(self._doubt(pair)))
        return Sentence(language, TONES.get(pair.verdict, "level"), parts)

    def against_control(self, task: Task, found: Roles) -> Sentence | None:
        """Whether the vocabulary extension paid for itself against the arm without it."""
        heading = "Vocabulary extension"
        if not found.extended:
            return None
        if not found.control:
            text = "This run has no control arm, so it can't say what the vocabulary extension itself did."
            return Sentence(heading, "level", (Part(text),))
        pair = task.pair(found.adapted, found.control)
        with_it, without = task.estimate(found.adapted), task.estimate(found.control)
        adapted, control = self.model(found.adapted), self.model(found.control)
        language = language_name(task.language)
        if pair is None or with_it is None or without is None:
            parts = (
                adapted,
                Part(" and the control arm "),
                control,
                Part(" were not compared item by item."),
            )
            return Sentence(heading, "level", parts)
        basis = "at this size and equal compute" if found.equal_compute else "at this size"
        opening = {
            "better": ("Extending the vocabulary ", "helped", " with "),
            "worse": ("Extending the vocabulary ", "hurt", " with "),
        }.get(pair.verdict, ("Extending the vocabulary ", "made no difference that was seen", " with "))
        return Sentence(
            heading,
            TONES.get(pair.verdict, "level"),
            (
                Part(opening[0]),
                Part(opening[1], "figure"),
                Part(f"{opening[2]}{language} {basis}: "),
                adapted,
                Part(" against the control arm "),
                control,
                Part(", "),
                *self._values(with_it, without, pair),
                Part(self._evidence(pair, task) + "."),
                Part("" if pair.verdict in TONES else self._doubt(pair)),
            ),
        )

    def _values(self, after: Estimate, before: Estimate, pair: Pair) -> tuple[Part, ...]:
        relative = pair.relative
        if relative is None:
            relative = facts.ratio(pair.difference, before.value)
        direction = "less" if pair.difference < 0 else "more"
        return (
            Part(f"{fixed(after.value)} bits per byte instead of {fixed(before.value)}, "),
            Part(f"{percent(None if relative is None else abs(relative))} {direction}", "figure"),
        )

    def _evidence(self, pair: Pair, task: Task) -> str:
        if pair.low is None or pair.high is None:
            return ""
        zero = "" if pair.excludes_zero else ", which includes zero"
        items = f"; {plural(task.items, 'page')}" if task.items is not None else ""
        level = percent(self.confidence, 0)
        return (
            f" (difference {signed(pair.difference)}, {level} interval "
            f"{signed(pair.low)} to {signed(pair.high)}{zero}{items})"
        )

    def _doubt(self, pair: Pair) -> str:
        """Why no difference is claimed: adjusting for many comparisons, or too little data to see one."""
        if pair.excludes_zero:
            return (
                " The interval of this pair alone excludes zero; adjusted for all comparisons of the run, "
                f"p = {p_value(pair.p_adjusted)}."
            )
        if pair.detectable is None:
            return ""
        return f" These pages would show a difference of {fixed(abs(pair.detectable))} four times in five."
