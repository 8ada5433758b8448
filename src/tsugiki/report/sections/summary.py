"""The strip of key figures below the verdict, the graph, and what the run lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tsugiki.report import facts
from tsugiki.report.comparisons import BITS_PER_BYTE, Comparison
from tsugiki.report.figures.figure import Figure, Words, full_width
from tsugiki.report.figures.graph import Node, graph_chart
from tsugiki.report.formatting import count, duration, fixed, percent, signed_percent, size
from tsugiki.report.languages import language_name
from tsugiki.report.run import Palette, Run, Stage
from tsugiki.report.sections.verdict import Roles, deciding, roles

_LONG = 120
"""Seconds from which a box of the graph shows the larger unit only."""
_MODEL_KINDS = frozenset({"train", "vocabulary", "upcycle", "merge"})


@dataclass(frozen=True)
class Tile:
    """A key figure: what it is, the number, and what it is made of."""

    label: str
    value: str
    note: str
    tone: str = ""


def tiles(run: Run, comparisons: Sequence[Comparison]) -> list[Tile]:
    """The key figures that this run can give, in the order of interest."""
    found: list[Tile] = []
    decisive = deciding(run, comparisons)
    for comparison in [decisive] if decisive else comparisons[:1]:
        part = roles(run, comparison)
        if part is not None:
            found += _score_tiles(comparison, part)
    return [*found, *_vocabulary_tiles(run), *_corpus_tiles(run), *_cost_tiles(run)]


def _score_tiles(comparison: Comparison, part: Roles) -> list[Tile]:
    found = []
    for task in comparison.tasks:
        before, after = task.estimate(part.baseline), task.estimate(part.adapted)
        pair = task.pair(part.adapted, part.baseline)
        if before is None or after is None or pair is None:
            continue
        tone = pair.verdict if pair.verdict in {"better", "worse"} else ""
        language = language_name(task.language)
        if task.name == BITS_PER_BYTE:
            change = pair.relative
            if change is None:
                change = facts.ratio(pair.difference, before.value)
            note = f"{fixed(before.value)} → {fixed(after.value)} bits per byte"
            found.append(Tile(f"{language}, held out", signed_percent(change), note, tone))
        else:
            note = f"{part.baseline}: {percent(before.value)}"
            note += f"; chance: {percent(task.chance, 0)}" if task.chance is not None else ""
            if task.chance is not None and after.low is not None and after.low <= task.chance:
                note += ", not told from guessing"
            found.append(Tile(f"{language} {task.name}", percent(after.value), note, tone))
    return found


def _vocabulary_tiles(run: Run) -> list[Tile]:
    found = []
    for stage in run.of_kind("vocabulary"):
        rows = [row for row in facts.rows(stage.facts, "savings") if row.get("language") == run.language]
        before = sum(facts.known(*(facts.number(row, "tokens_before") for row in rows)))
        after = sum(facts.known(*(facts.number(row, "tokens_after") for row in rows)))
        if before and after:
            note = f"{count(facts.number(stage.facts, 'added'))} tokens added to the vocabulary"
            change = signed_percent(after / before - 1)
            found.append(Tile(f"Tokens for the same {language_name(run.language)} text", change, note))
    return found


def _corpus_tiles(run: Run) -> list[Tile]:
    stages = run.of_kind("corpus")
    if not stages:
        return []
    documents = sum(facts.known(*(facts.number(stage.counts, "documents") for stage in stages)))
    parts = "; ".join(f"{stage.name}: {count(facts.number(stage.counts, 'documents'))}" for stage in stages)
    return [Tile("Pages kept", count(documents), parts)]


def _cost_tiles(run: Run) -> list[Tile]:
    finished = [stage for stage in run.stages if stage.manifest is not None]
    seconds = facts.known(*(facts.number(stage.provenance, "seconds") for stage in finished))
    memory = facts.known(*(facts.number(stage.provenance, "peak_memory_bytes") for stage in finished))
    if not seconds:
        return []
    tokens = sum(facts.known(*(facts.number(stage.counts, "tokens") for stage in run.of_kind("train"))))
    trained = f"{count(tokens, 'tokens')} trained on" if tokens else f"{len(finished)} stages"
    note = f"{trained}; peak memory {size(max(memory))}" if memory else trained
    return [Tile("Time of all stages", duration(sum(seconds)), note)]


def graph(run: Run, palette: Palette) -> Figure:
    """The stages and what they read from one another."""
    nodes = [Node(stage.name, _note(stage), _css(stage, palette), stage.inputs) for stage in run.stages]
    reads = [f"{stage.name} reads {', '.join(stage.inputs)}" for stage in run.stages if stage.inputs]
    return full_width(
        "graph",
        Words(
            "How the stages hang together",
            "Each box is a stage; an arrow runs from a stage to every stage that reads its result. "
            "A model keeps its colour through all figures.",
            "; ".join(reads) or "No stage reads another.",
        ),
        lambda canvas: graph_chart(canvas, nodes),
    )


def _note(stage: Stage) -> str:
    if stage.manifest is None:
        return "not finished"
    seconds = facts.number(stage.provenance, "seconds")
    if seconds is None:
        return stage.kind
    return f"{stage.kind}, {duration(seconds) if seconds < _LONG else duration(seconds).partition(' ')[0]}"


def _css(stage: Stage, palette: Palette) -> str:
    if stage.manifest is None:
        return "unfinished"
    return palette.css(stage.name) if stage.kind in _MODEL_KINDS else "plain"


@dataclass(frozen=True)
class Missing:
    """A stage without a usable result."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Outdated:
    """A finished stage that read what is no longer there: its figures belong to earlier results."""

    name: str
    kind: str
    inputs: tuple[str, ...]


def outdated(run: Run) -> list[Outdated]:
    """The finished stages that read another result of some input than the one the run holds now."""
    found = [(s, tuple(run.outdated_inputs(s))) for s in run.stages if s.manifest is not None]
    return [Outdated(stage.name, stage.kind, inputs) for stage, inputs in found if inputs]


def missing(run: Run) -> list[Missing]:
    """The stages that the recipe names and that have not finished."""
    return [Missing(s.name, s.kind, s.fault or "not started") for s in run.stages if s.manifest is None]
