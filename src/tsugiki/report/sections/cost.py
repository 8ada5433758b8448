"""What the run cost: time, speed, memory and disk of each stage."""

from __future__ import annotations

from dataclasses import dataclass

from tsugiki.report import facts
from tsugiki.report.figures.bars import Bar, BarRow, bar_chart
from tsugiki.report.figures.figure import Figure, Words, half_width
from tsugiki.report.formatting import duration, size
from tsugiki.report.run import Palette, Run, Stage


@dataclass(frozen=True)
class StageCost:
    """One finished stage."""

    stage: Stage
    seconds: float | None
    peak_memory_bytes: float | None
    attempts: float | None
    work: float | None
    unit: str
    rate: float | None


@dataclass(frozen=True)
class CostSection:
    """All finished stages, with sums where a sum means something."""

    rows: tuple[StageCost, ...]
    seconds: float
    peak_memory_bytes: float | None
    output_bytes: int
    figures: tuple[Figure, ...]


def cost(run: Run, palette: Palette) -> CostSection | None:
    """The cost of every finished stage; None where none has finished."""
    rows = [_cost(stage) for stage in run.stages if stage.manifest is not None]
    if not rows:
        return None
    memory = facts.known(*(row.peak_memory_bytes for row in rows))
    return CostSection(
        rows=tuple(rows),
        seconds=sum(facts.known(*(row.seconds for row in rows))),
        peak_memory_bytes=max(memory) if memory else None,
        output_bytes=sum(row.stage.output_bytes for row in rows),
        figures=tuple(_figures(rows, palette)),
    )


def _cost(stage: Stage) -> StageCost:
    seconds = facts.number(stage.provenance, "seconds")
    unit = "tokens" if facts.number(stage.counts, "tokens") is not None else "documents"
    if stage.kind == "corpus" and facts.number(stage.counts, "records") is not None:
        unit = "records"
    work = facts.number(stage.counts, unit)
    measured = facts.number(stage.counts, "tokens_per_second")
    return StageCost(
        stage=stage,
        seconds=seconds,
        peak_memory_bytes=facts.number(stage.provenance, "peak_memory_bytes"),
        attempts=facts.number(stage.provenance, "attempts"),
        work=work,
        unit=unit if work is not None else "",
        rate=measured if measured is not None else facts.ratio(work, seconds),
    )


def _time_unit(seconds: float) -> tuple[str, float]:
    """The unit in which an axis up to `seconds` has short numbers, and its length in seconds."""
    if seconds > 2 * 3600:
        return "hours", 3600.0
    return ("minutes", 60.0) if seconds > 5 * 60 else ("seconds", 1.0)


def _figures(rows: list[StageCost], palette: Palette) -> list[Figure]:
    figures = []
    css = {
        row.stage.name: palette.css(row.stage.name) if row.stage.name in palette.models else "ink"
        for row in rows
    }
    timed = [(row.stage.name, row.seconds) for row in rows if row.seconds is not None]
    if timed:
        unit, divisor = _time_unit(max(seconds for _, seconds in timed))
        bars = [BarRow(name, (Bar(value / divisor, css[name], duration(value)),)) for name, value in timed]
        described = "; ".join(f"{name}: {duration(value)}" for name, value in timed)
        figures.append(
            half_width(
                "seconds",
                Words(
                    "Time by stage",
                    "Wall-clock time; where a stage was interrupted, of all its attempts.",
                    described,
                ),
                lambda canvas: bar_chart(canvas, bars, unit),
            )
        )
    held = [(row.stage.name, row.peak_memory_bytes) for row in rows if row.peak_memory_bytes is not None]
    if held:
        held_bars = [BarRow(name, (Bar(value / 1e9, css[name], size(value)),)) for name, value in held]
        sizes = "; ".join(f"{name}: {size(value)}" for name, value in held)
        figures.append(
            half_width(
                "memory",
                Words("Peak memory by stage", "The largest resident memory of the stage's process.", sizes),
                lambda canvas: bar_chart(canvas, held_bars, "GB"),
            )
        )
    return figures
