"""Train stages that differ by their seed alone: curves with intervals over the seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Final

from tsugiki.report import facts
from tsugiki.report.figures.bands import Band, Spot, band_chart
from tsugiki.report.figures.figure import Draw, Figure, Words, full_width, model_legend
from tsugiki.report.formatting import fixed, interval
from tsugiki.report.run import Run, Stage
from tsugiki.student import t_quantile

_SEEDED: Final = re.compile(r"(.+)-\d+")
_COLOURS: Final = 12
_CONFIDENCE: Final = 0.975
"""Of one side: 95 % intervals."""
Point = tuple[float, float, float, float]
Group = tuple[Stage, ...]


@dataclass(frozen=True)
class End:
    """Where a group ended: mean over its seeds, and what it is above the lowest group, seed by seed.

    difference: None for the lowest group itself. ends: of 95 % intervals by Student's t.
    """

    name: str
    css: str
    seeds: int
    mean: float
    ends: tuple[float, float]
    difference: float | None
    difference_ends: tuple[float, float] | None


@dataclass(frozen=True)
class SeedsView:
    """A validation set: its curves, and their ends from the lowest mean on."""

    dataset: str
    figure: Figure
    ends: tuple[End, ...]


def seeds(run: Run) -> tuple[SeedsView, ...]:
    """Curves and their ends for each validation set that at least two groups of stages were measured on."""
    groups = seed_groups(run.of_kind("train"))
    css = {name: f"m{place % _COLOURS}" for place, name in enumerate(groups)}
    curves: dict[str, dict[str, list[Point]]] = {}
    for name, group in groups.items():
        for dataset, points in _curves(group).items():
            curves.setdefault(dataset, {})[name] = points
    drawn = [(dataset, by_name) for dataset, by_name in curves.items() if len(by_name) > 1]
    return tuple(
        SeedsView(
            dataset,
            _figure(place, dataset, by_name, css, groups),
            _ends(dataset, {name: groups[name] for name in by_name}, css),
        )
        for place, (dataset, by_name) in enumerate(drawn)
    )


def seed_groups(stages: Sequence[Stage]) -> dict[str, Group]:
    """Stages called NAME-0, NAME-1, ... whose seeds differ, by NAME; at least two of each."""
    found: dict[str, list[Stage]] = {}
    for stage in stages:
        if match := _SEEDED.fullmatch(stage.name):
            found.setdefault(match[1], []).append(stage)
    return {
        name: tuple(group)
        for name, group in found.items()
        if len(group) > 1 and len({_seed(stage) for stage in group}) == len(group)
    }


def _seed(stage: Stage) -> Any:
    return stage.manifest.config.get("seed") if stage.manifest else None


def _curves(group: Group) -> dict[str, list[Point]]:
    """By validation set: tokens, mean over the seeds, ends of its interval; where all were measured."""
    values: dict[str, dict[float, list[float]]] = {}
    for stage in group:
        for row in facts.rows(stage.facts, "validation"):
            tokens, bits = facts.number(row, "tokens"), facts.number(row, "bits_per_byte")
            if tokens is not None and bits is not None:
                by_tokens = values.setdefault(facts.text(row, "dataset"), {})
                by_tokens.setdefault(tokens, []).append(bits)
    curves = {
        dataset: [_point(tokens, by_tokens[tokens]) for tokens in sorted(by_tokens)]
        for dataset, by_tokens in values.items()
        if all(len(measured) == len(group) for measured in by_tokens.values())
    }
    return {dataset: points for dataset, points in curves.items() if len(points) > 1}


def _ends(dataset: str, groups: Mapping[str, Group], css: Mapping[str, str]) -> tuple[End, ...]:
    """Bits per byte after the last step, and differences from the lowest group where seeds are shared."""
    last = {
        name: {_seed(stage): _last_bits(stage, dataset) for stage in group} for name, group in groups.items()
    }
    means = {name: fmean(bits.values()) for name, bits in last.items()}
    lowest = min(means, key=lambda name: means[name])
    found = []
    for name in sorted(means, key=lambda name: means[name]):
        _, mean, *ends = _point(0.0, list(last[name].values()))
        shared = [seed for seed in last[name] if seed in last[lowest]]
        difference, between = None, None
        if name != lowest and len(shared) > 1:
            _, difference, *between = _point(0.0, [last[name][seed] - last[lowest][seed] for seed in shared])
        found.append(
            End(name, css[name], len(last[name]), mean, (ends[0], ends[1]), difference,
                (between[0], between[1]) if between else None)
        )  # fmt: skip
    return tuple(found)


def _last_bits(stage: Stage, dataset: str) -> float:
    """Of a stage that `_curves` has found measured on the set."""
    rows = [row for row in facts.rows(stage.facts, "validation") if facts.text(row, "dataset") == dataset]
    return [bits for row in rows if (bits := facts.number(row, "bits_per_byte")) is not None][-1]


def _point(x: float, values: Sequence[float]) -> Point:
    mean = fmean(values)
    half = t_quantile(_CONFIDENCE, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return x, mean, mean - half, mean + half


def _figure(
    place: int,
    dataset: str,
    curves: Mapping[str, list[Point]],
    css: Mapping[str, str],
    groups: Mapping[str, Group],
) -> Figure:
    counted = sorted({len(groups[name]) for name in curves})
    words = Words(
        f"Validation on {dataset} over {' or '.join(map(str, counted))} seeds",
        "Bits per byte of the same held-out pages while training went on: means over the seeds, with 95 % "
        "intervals by Student's t over them. Two or three seeds make wide ones, and curves whose bands "
        "overlap may still differ seed by seed. Lower is better.",
        "; ".join(
            f"{name}: {fixed(points[-1][1])} at the end, {interval(points[-1][2], points[-1][3])}"
            for name, points in curves.items()
        ),
    )
    legend = model_legend([(name, css[name]) for name in curves])
    return full_width(f"seeds-{place}", words, _drawer(curves, css), legend)


def _drawer(curves: Mapping[str, list[Point]], css: Mapping[str, str]) -> Draw:
    bands = [Band(css[name], tuple(points)) for name, points in curves.items()]
    ends = [
        Spot(points[-1][0], points[-1][1], css[name], name, f"{name}: {fixed(points[-1][1])} bits per byte")
        for name, points in curves.items()
    ]
    return lambda canvas: band_chart(canvas, ends, bands, ("tokens seen in the stage", "bits per byte"))
