"""How mixtures of experts route text: load by layer and expert, entropies, dead experts, specialisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tsugiki.artifacts.metrics import read_metrics
from tsugiki.report import facts
from tsugiki.report.facts import Row
from tsugiki.report.figures.figure import Draw, Figure, Words, full_width, half_width, model_legend
from tsugiki.report.figures.heatmap import Matrix, heat_map
from tsugiki.report.figures.lines import Series, line_chart, smooth
from tsugiki.report.formatting import fixed, percent
from tsugiki.report.run import Palette, Run, Stage

_MOST_SETS: Final = 6
"""Validation sets of a stage that are drawn; the table has all of them."""
_SMOOTHED_SHARE: Final = 20
Loads = list[list[float]]


@dataclass(frozen=True)
class SetView:
    """How one validation set was routed at the end; shares: of the experts of `RoutingView.layer`."""

    name: str
    language: str
    load_entropy: float | None
    router_entropy: float | None
    dead: int
    shares: tuple[float, ...]


@dataclass(frozen=True)
class BiasView:
    """Bits per byte of a validation set with the routers' biases, and without, as the files are."""

    name: str
    given: float | None
    without: float | None


@dataclass(frozen=True)
class RoutingView:
    """One train stage. layer: the one whose experts tell the sets apart best (its number in the model)."""

    stage: Stage
    css: str
    layers: tuple[int, ...]
    experts: int
    experts_per_token: int
    layer: int | None
    by_dataset: float | None
    by_language: float | None
    by_domain: float | None
    sets: tuple[SetView, ...]
    figures: tuple[Figure, ...]
    biases: tuple[BiasView, ...]
    moved: float | None


@dataclass(frozen=True)
class RoutingSection:
    """All train stages of mixtures together."""

    stages: tuple[RoutingView, ...]
    small: tuple[Figure, ...]


def routing(run: Run, palette: Palette) -> RoutingSection | None:
    """The view of all finished train stages of mixtures of experts; None where there are none."""
    found = [view for stage in run.of_kind("train") if (view := _view(stage, palette)) is not None]
    if not found:
        return None
    stages = [view.stage for view in found]
    small = [
        _over_steps(
            stages,
            palette,
            "load_entropy",
            "share of the largest",
            (
                "Entropy of the load",
                "How evenly a batch's tokens fall on the experts, mean over layers: 1 is even.",
            ),
        ),
        _over_steps(
            stages,
            palette,
            "router_entropy",
            "share of the largest",
            (
                "Entropy of the router",
                "How undecided the router is about a token: 1 means that all experts look alike to it.",
            ),
        ),
        _over_steps(
            stages,
            palette,
            "expert_load_max",
            "times the mean load",
            ("Busiest expert", "The tokens of the most loaded expert over the mean, in the worst layer."),
        ),
        _over_steps(
            stages,
            palette,
            "dead_experts",
            "experts of all layers",
            ("Experts without a token", "Experts that no token of a batch chose."),
        ),
        _specialisation(stages, palette),
    ]
    return RoutingSection(tuple(found), tuple(figure for figure in small if figure is not None))


def _view(stage: Stage, palette: Palette) -> RoutingView | None:
    recorded = facts.section(stage.facts, "routing")
    layers = _integers(recorded.get("layers"))
    experts = int(facts.number(recorded, "experts") or 0)
    if not layers or experts < 1:
        return None
    sets = {name: facts.section(recorded, "sets", name) for name in facts.section(recorded, "sets")}
    loads = {name: _loads(row, len(layers), experts) for name, row in sets.items()}
    last = (facts.rows(recorded, "specialisation") or [{}])[-1]
    by_layer = _numbers(last.get("by_dataset"))
    place = by_layer.index(max(by_layer)) if len(by_layer) == len(layers) else None
    bias = facts.section(stage.facts, "router_bias")
    return RoutingView(
        stage=stage,
        css=palette.css(stage.name),
        layers=layers,
        experts=experts,
        experts_per_token=int(facts.number(recorded, "experts_per_token") or 0),
        layer=None if place is None else layers[place],
        by_dataset=_mean(by_layer),
        by_language=_mean(_numbers(last.get("by_language"))),
        by_domain=_mean(_numbers(last.get("by_domain"))),
        sets=tuple(_set(name, row, loads[name], place or 0) for name, row in sets.items()),
        figures=tuple(_heat_maps(stage, recorded, layers, experts, loads)),
        biases=tuple(
            BiasView(
                facts.text(row, "dataset"),
                facts.number(row, "bits_per_byte"),
                facts.number(row, "bits_per_byte_without_bias"),
            )
            for row in facts.rows(bias, "without")
        ),
        moved=facts.number(bias, "moved_share"),
    )


def _set(name: str, row: Row, load: Loads, place: int) -> SetView:
    return SetView(
        name,
        facts.text(row, "language"),
        _mean(_numbers(row.get("load_entropy"))),
        _mean(_numbers(row.get("router_entropy"))),
        sum(_integers(row.get("dead_experts"))),
        tuple(load[place]) if load else (),
    )


def _heat_maps(
    stage: Stage, recorded: Row, layers: Sequence[int], experts: int, loads: dict[str, Loads]
) -> list[Figure]:
    found = []
    training = _loads(facts.section(recorded, "training"), len(layers), experts)
    drawn = [("the training text", training), *list(loads.items())[:_MOST_SETS]]
    for number, (name, load) in enumerate(drawn):
        if not load:
            continue
        matrix = Matrix(
            rows=tuple(f"layer {layer}" for layer in layers),
            columns=tuple(f"e{expert}" for expert in range(experts)),
            values=tuple(tuple(share * experts - 1 for share in row) for row in load),
            says=tuple(tuple(f"{percent(share)} of the choices" for share in row) for row in load),
        )
        words = Words(
            f"Load of {stage.name} by {name}",
            "The load of each expert against an even one: 0 is even, 1 twice as much, −1 an expert that "
            "nothing chose.",
            _described(layers, load),
        )
        make = full_width if not number else half_width
        found.append(make(f"load-{stage.index}-{number}", words, _drawer(matrix)))
    return found


def _drawer(matrix: Matrix) -> Draw:
    return lambda canvas: heat_map(canvas, matrix)


def _described(layers: Sequence[int], load: Loads) -> str:
    return "; ".join(
        f"layer {layer}: shares from {percent(min(row))} to {percent(max(row))}"
        for layer, row in zip(layers, load, strict=True)
    )


def _over_steps(
    stages: Sequence[Stage], palette: Palette, field: str, unit: str, words: tuple[str, str]
) -> Figure | None:
    series = []
    for stage in stages:
        rows = {step: row for row in _rows(stage) if (step := facts.number(row, "step")) is not None}
        points = [
            (step, value) for step in sorted(rows) if (value := facts.number(rows[step], field)) is not None
        ]
        if len(points) > 1:
            line = smooth(points, max(3, len(points) // _SMOOTHED_SHARE))
            series.append(Series(stage.name, palette.css(stage.name), line, tuple(points)))
    return _lines(f"routing-{field}", Words(*words, _ends(series)), series, unit)


def _specialisation(stages: Sequence[Stage], palette: Palette) -> Figure | None:
    series = []
    for stage in stages:
        points = [
            (step, value)
            for row in facts.rows(stage.facts, "routing", "specialisation")
            if (step := facts.number(row, "step")) is not None
            and (value := _mean(_numbers(row.get("by_dataset")))) is not None
        ]
        if points:
            series.append(Series(stage.name, palette.css(stage.name), tuple(points), marked=True))
    words = Words(
        "Specialisation of the experts",
        "Normalised mutual information between the held-out set of a token and its expert, mean over layers: "
        "0 where all sets use the experts alike.",
        _ends(series),
    )
    return _lines("routing-specialisation", words, series, "normalised mutual information")


def _lines(key: str, words: Words, series: Sequence[Series], unit: str) -> Figure | None:
    if not series:
        return None
    legend = model_legend([(one.name, one.css) for one in series], line_only=True)
    return half_width(key, words, lambda canvas: line_chart(canvas, series, ("step", unit), 230), legend)


def _ends(series: Sequence[Series]) -> str:
    measured = [(one.name, one.faint or one.points) for one in series]
    return "; ".join(
        f"{name}: from {fixed(points[0][1])} to {fixed(points[-1][1])}" for name, points in measured
    )


def _rows(stage: Stage) -> list[dict[str, Any]]:
    try:
        return list(read_metrics(stage.directory / "metrics.jsonl"))
    except (UnicodeDecodeError, OSError):  # no content file: nothing vouches for its bytes
        return []


def _loads(row: Row, layers: int, experts: int) -> Loads:
    """The loads (L, E) of a row; empty where they have another form."""
    table = row.get("load")
    found = [_numbers(values) for values in table] if isinstance(table, list) else []
    return found if len(found) == layers and all(len(values) == experts for values in found) else []


def _numbers(values: Any) -> list[float]:
    """The list of numbers; empty where one of them is none."""
    row = {str(place): value for place, value in enumerate(values if isinstance(values, list) else [])}
    found = [number for place in row if (number := facts.number(row, place)) is not None]
    return found if len(found) == len(row) else []


def _integers(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in _numbers(values))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
