"""The graph of a recipe: what reads what, in which order, and whether the types fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from tsugiki.artifacts.contract import ArtifactType, Reference
from tsugiki.errors import Problem, RecipeError, did_you_mean
from tsugiki.workflow.recipe import Recipe
from tsugiki.workflow.sources import Source, find_source


@dataclass(frozen=True)
class Graph:
    """A recipe whose references are all resolved.

    order: stage names, inputs before readers, otherwise as in the file.
    reads: for each stage the stages that it reads. sources: for each stage its inputs from outside.
    """

    recipe: Recipe
    order: tuple[str, ...]
    reads: Mapping[str, tuple[str, ...]]
    sources: Mapping[str, tuple[Source, ...]]

    def ancestors(self, name: str) -> set[str]:
        """`name` and every stage that it needs, directly or not."""
        found: set[str] = set()
        stack = [name]
        while stack:
            stage = stack.pop()
            if stage not in found:
                found.add(stage)
                stack += self.reads[stage]
        return found

    def descendants(self, names: set[str]) -> set[str]:
        """`names` and every stage that reads one of them, directly or not."""
        found = set(names)
        for stage in self.order:
            if found.intersection(self.reads[stage]):
                found.add(stage)
        return found


def build_graph(recipe: Recipe) -> Graph:
    """Resolve every reference of a recipe.

    Raises RecipeError with all problems: missing stages and files, wrong types, cycles.
    """
    problems: list[Problem] = []
    reads: dict[str, tuple[str, ...]] = {}
    sources: dict[str, tuple[Source, ...]] = {}
    for name, stage in recipe.stages.items():
        inside: list[str] = []
        outside: list[Source] = []
        for reference in stage.config.references():
            found = _resolve(recipe, name, reference)
            if isinstance(found, Problem):
                problems.append(found)
            elif isinstance(found, Source):
                outside.append(found)
            else:
                inside.append(found)
        reads[name] = tuple(dict.fromkeys(inside))
        sources[name] = tuple(outside)
    order, cycle = _sorted(recipe, reads)
    problems += cycle
    if problems:
        raise RecipeError(problems)
    return Graph(recipe, order, reads, sources)


def _resolve(recipe: Recipe, stage: str, reference: Reference) -> str | Source | Problem:
    where = recipe.where("stages", stage, *reference.field.split("."))
    target = None if recipe.alone else recipe.stages.get(reference.name)
    if target is not None and reference.type != ArtifactType.FILES:
        produces = target.module.PRODUCES
        if produces == reference.type:
            return reference.name
        fitting = [s.name for s in recipe.stages.values() if reference.type == s.module.PRODUCES]
        return Problem(
            f'stage "{stage}", {reference.field}: "{reference.name}" is a {target.kind} stage, which makes '
            f"{produces.value}; {reference.type.value} is needed here",
            "stages that fit: " + (", ".join(fitting) or "none"),
            where,
        )
    source = find_source(reference, recipe.path)
    if source is not None:
        return source
    if reference.type == ArtifactType.FILES:
        return Problem(
            f'stage "{stage}", {reference.field}: no file matches "{reference.name}"',
            "paths are relative to the working directory or to the recipe; check the spelling",
            where,
        )
    names = [name for name in recipe.stages if name != stage]
    return Problem(
        f'stage "{stage}", {reference.field}: there is no stage and no directory "{reference.name}"',
        did_you_mean(reference.name, names),
        where,
    )


def _sorted(recipe: Recipe, reads: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, ...], list[Problem]]:
    try:
        return tuple(TopologicalSorter(reads).static_order()), []
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        where = recipe.where("stages", error.args[1][0])
        hint = "a stage can't need its own result; remove one of these references"
        return (), [Problem(f"the stages go in a circle: {circle}", hint, where)]
