"""How the models learned: curves that compare tokenizers fairly, validation, data mixes, and parity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.report import facts
from tsugiki.report.facts import Row
from tsugiki.report.figures.figure import Draw, Figure, Key, Words, full_width, half_width, model_legend
from tsugiki.report.figures.lines import Point, Series, line_chart, smooth
from tsugiki.report.formatting import count, fixed
from tsugiki.report.run import Palette, Run, Stage
from tsugiki.report.sections.vocabulary import Proof, transformers_proof

_SMOOTHED_SHARE = 20
"""The window of the moving average is a twentieth of the steps: light enough to keep real bumps."""


@dataclass(frozen=True)
class LeftOut:
    """A spike: steps counted from 1, as people do; what a damaged manifest lacks is None."""

    kind: str
    seen_at: float | None
    loss: float | None
    usual_loss: float | None
    back_to: float | None
    steps: float | None

    @classmethod
    def of(cls, row: Row) -> LeftOut:
        """From a row of the manifest."""
        step, first, stop = (facts.number(row, name) for name in ("step", "first", "stop"))
        fell_back = row.get("fell_back") is True
        return cls(
            facts.text(row, "kind") + (", in bfloat16 from here on" if fell_back else ""),
            None if step is None else step + 1,
            facts.number(row, "loss"),
            facts.number(row, "usual_loss"),
            facts.number(row, "back_to"),
            None if stop is None or first is None else stop - first,
        )


@dataclass(frozen=True)
class Speed:
    """Medians over the steps, of one device; None where no step has the figure (a CPU has no MFU).

    memory_bytes: the most that the first device, or the process on a CPU, held.
    """

    tokens_per_second: float | None
    mfu: float | None
    mfu_full_attention: float | None
    memory_bytes: float | None

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Speed:
        """From the rows of steps."""
        names = ("tokens_per_second_per_device", "mfu", "mfu_full_attention", "memory_bytes")
        speeds, *shares, memory = (facts.known(*(facts.number(row, name) for row in rows)) for name in names)
        tokens_per_second, mfu, full = (median(found) if found else None for found in (speeds, *shares))
        return cls(tokens_per_second, mfu, full, max(memory, default=None))


@dataclass(frozen=True)
class TrainingView:
    """One train stage."""

    stage: Stage
    css: str
    sources: tuple[Row, ...]
    parity: tuple[Proof, ...]
    left_out: tuple[LeftOut, ...]
    samples: tuple[Row, ...]
    """The first and the last that were written after each prompt."""
    speed: Speed


@dataclass(frozen=True)
class TrainingSection:
    """All train stages together."""

    stages: tuple[TrainingView, ...]
    curve: Figure | None
    validation: tuple[Figure, ...]
    small: tuple[Figure, ...]


def training(run: Run, palette: Palette) -> TrainingSection | None:
    """The view of all finished train stages; None where there are none."""
    stages = run.of_kind("train")
    if not stages:
        return None
    metrics = {stage.name: _steps(stage) for stage in stages}
    draw = _Curves(palette, metrics)
    small = [
        draw.small("nats", "Loss", "loss", "nats per token",
                   "Not comparable between tokenizers: a longer token carries more."),
        draw.small("gradient", "Gradient norm", "gradient_norm", "L2 norm before clipping",
                   "Spikes here are the first sign of an unstable run."),
        draw.small("float8", "Float8", "float8_sqnr", "dB",
                   "Signal-to-noise ratio of the operand that float8 keeps worst, measured now and then; "
                   "Gaussian numbers have 25 to 31."),
        draw.small("rate", "Learning rate", "learning_rate", "learning rate",
                   "Warm-up, then decay, as the recipe asks."),
        draw.small("speed", "Speed", "tokens_per_second", "tokens per second",
                   "Tokens through the model in a second of training, step by step."),
        draw.small("mfu", "Utilisation", "mfu", "share of the peak (MFU)",
                   "Operations that the model needs, over what the devices could do in bfloat16. A causal "
                   "mask counts as the half of attention that it needs; what is computed twice, once."),
    ]  # fmt: skip
    return TrainingSection(
        stages=tuple(
            TrainingView(
                stage,
                palette.css(stage.name),
                tuple(facts.rows(stage.facts, "sources")),
                tuple(transformers_proof(facts.section(stage.facts, "parity"))),
                tuple(map(LeftOut.of, facts.rows(stage.facts, "left_out"))),
                tuple(_first_and_last(facts.rows(stage.facts, "samples"))),
                Speed.of(metrics[stage.name]),
            )
            for stage in stages
        ),
        curve=draw.main(),
        validation=tuple(_validation(stages, palette)),
        small=tuple(figure for figure in small if figure is not None),
    )


def _first_and_last(rows: Sequence[Row]) -> list[Row]:
    found = []
    for prompt in dict.fromkeys(facts.text(row, "prompt") for row in rows):
        of_prompt = [row for row in rows if facts.text(row, "prompt") == prompt]
        found += of_prompt[:1] + of_prompt[1:][-1:]
    return found


def _steps(stage: Stage) -> list[dict[str, Any]]:
    """The rows of optimizer steps, the last written one of each step (a resumed run repeats some)."""
    try:
        rows = read_metrics(stage.directory / "metrics.jsonl")
    except (UnicodeDecodeError, OSError):  # no content file: nothing vouches for its bytes
        rows = []
    latest = {step: row for row in rows if (step := facts.number(row, "step")) is not None}
    return [latest[step] for step in sorted(latest)]


@dataclass(frozen=True)
class _Curves:
    palette: Palette
    metrics: dict[str, list[dict[str, Any]]]

    def main(self) -> Figure | None:
        """Bits per byte of the training text over tokens, for all stages."""
        series = self._series("bits_per_byte", smoothed=True)
        if not series:
            return None
        words = Words(
            "Training curves in bits per byte",
            "The cost of a byte of training text, over the tokens that the stage has seen; lower is better. "
            "Bits per byte do not depend on the tokenizer, so models with different vocabularies can be "
            "compared where they train on the same mix. The line is a moving average, the faint line "
            "every step.",
            _ends(series),
        )
        draw = _drawer(series, "bits per byte", 330)
        return full_width("curves", words, draw, self._legend(series))

    def small(self, key: str, title: str, field: str, unit: str, explanation: str) -> Figure | None:
        """A small figure of one more measurement of the steps."""
        series = self._series(field, smoothed=field != "learning_rate")
        if not series:
            return None
        words = Words(title, explanation, _ends(series))
        return half_width(key, words, _drawer(series, unit, 230), self._legend(series))

    def _series(self, field: str, *, smoothed: bool) -> list[Series]:
        found = []
        for name, rows in self.metrics.items():
            points = _points(rows, "tokens", field)
            if len(points) < 2:  # noqa: PLR2004 - one point is no curve
                continue
            line = smooth(points, max(3, len(points) // _SMOOTHED_SHARE)) if smoothed else points
            found.append(Series(name, self.palette.css(name), line, points if smoothed else ()))
        return found

    def _legend(self, series: Sequence[Series]) -> tuple[Key, ...]:
        return model_legend([(one.name, one.css) for one in series], line_only=True)


def _points(rows: Sequence[Row], x: str, y: str) -> tuple[Point, ...]:
    pairs = ((facts.number(row, x), facts.number(row, y)) for row in rows)
    return tuple((a, b) for a, b in pairs if a is not None and b is not None)


def _ends(series: Sequence[Series]) -> str:
    """Where each curve begins and ends, in words."""
    measured = [(one.name, one.faint or one.points) for one in series]
    return "; ".join(
        f"{name}: from {fixed(points[0][1])} to {fixed(points[-1][1])} after {count(points[-1][0], 'tokens')}"
        for name, points in measured
    )


def _drawer(series: Sequence[Series], unit: str, height: float) -> Draw:
    return lambda canvas: line_chart(canvas, series, ("tokens seen in the stage", unit), height)


def _validation(stages: Sequence[Stage], palette: Palette) -> list[Figure]:
    curves: dict[str, list[Series]] = {}
    for stage in stages:
        rows = facts.rows(stage.facts, "validation")
        for dataset in dict.fromkeys(facts.text(row, "dataset") for row in rows):
            points = _points(
                [r for r in rows if facts.text(r, "dataset") == dataset], "tokens", "bits_per_byte"
            )
            if points:
                one = Series(stage.name, palette.css(stage.name), points, marked=True)
                curves.setdefault(dataset, []).append(one)
    figures = []
    for index, (dataset, series) in enumerate(curves.items()):
        figures.append(
            half_width(
                f"validation-{index}",
                Words(
                    f"Validation on {dataset}" if dataset else "Validation",
                    "The same held-out pages each time, scored while training went on.",
                    _ends(series),
                ),
                _drawer(series, "bits per byte", 250),
                model_legend([(one.name, one.css) for one in series]),
            )
        )
    return figures
