"""A run directory as the report sees it: its stages, what they left, and how they hang together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tsugiki.artifacts.files import read_json, sha256_of
from tsugiki.artifacts.manifest import Manifest, is_finished, read_manifest
from tsugiki.errors import InputError
from tsugiki.report import facts
from tsugiki.report.facts import Row

RUN: Final = "run.json"
RECIPE: Final = "recipe.yaml"
FAILURE: Final = "failure.json"
_PALETTE_SIZE: Final = 6
_PLAIN_NAME: Final = re.compile(r"[^/\\\0]{1,120}")


@dataclass(frozen=True)
class Stage:
    """One stage of the graph; `manifest` is None where it has not finished, and `fault` says why if known."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    directory: Path
    index: int
    manifest: Manifest | None
    fault: str = ""

    @property
    def counts(self) -> Row:
        """The counts of the manifest; empty where there is none."""
        return self.manifest.counts if self.manifest else {}

    @property
    def facts(self) -> Row:
        """The facts of the manifest; empty where there is none."""
        return self.manifest.facts if self.manifest else {}

    @property
    def provenance(self) -> Row:
        """When, how and where the stage ran; empty where there is no manifest."""
        return self.manifest.provenance if self.manifest else {}

    @property
    def output_bytes(self) -> int:
        """The size of all content files."""
        return sum(entry.bytes for entry in self.manifest.files.values()) if self.manifest else 0

    def changed(self, name: str) -> bool:
        """Whether the content file `name` is there, but not with the bytes that the stage wrote."""
        entry = self.manifest.files.get(name) if self.manifest else None
        path = self.directory / name
        return entry is not None and path.is_file() and sha256_of(path) != entry.sha256

    def read_identity(self, name: str) -> str:
        """The identity that input `name` had when this stage read it; empty where none was recorded."""
        return facts.text(self.manifest.payload, "inputs", name) if self.manifest else ""


@dataclass(frozen=True)
class Run:
    """A run directory, read once."""

    recipe: str
    language: str
    scale: str
    description: str
    recipe_text: str
    stages: tuple[Stage, ...]

    def of_kind(self, kind: str) -> list[Stage]:
        """The finished stages of a kind, in the order of the graph."""
        return [stage for stage in self.stages if stage.kind == kind and stage.manifest is not None]

    def stage(self, name: str) -> Stage | None:
        """The stage of that name, finished or not."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def outdated_inputs(self, stage: Stage) -> list[str]:
        """The stages of this run whose result is no longer the one that `stage` read."""
        now = {one.name: one.manifest.identity if one.manifest else "" for one in self.stages}
        read = {name: stage.read_identity(name) for name in stage.inputs if name in now}
        return [name for name, identity in read.items() if identity and identity != now[name]]

    def lineage(self, name: str) -> frozenset[str]:
        """The models that model `name` descends from, itself among them.

        Data, and stages that are read for a figure only (a compute budget), are no ancestors: the parent is
        what the stage's configuration calls `model` or `models`. Of an unfinished stage every input counts.
        """
        found: set[str] = set()
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting.extend(self._parents(current))
        return frozenset(found)

    def _parents(self, name: str) -> list[str]:
        stage = self.stage(name)
        if stage is None:
            return []
        if stage.manifest is None:
            return list(stage.inputs)
        named = [stage.manifest.config.get("model"), *facts.texts(stage.manifest.config, "models")]
        return [parent for parent in named if isinstance(parent, str)]

    def extended(self, name: str) -> bool:
        """Whether model `name` descends from a vocabulary stage, or is one itself."""
        lineage = self.lineage(name)
        return any(stage.kind == "vocabulary" for stage in self.stages if stage.name in lineage)


@dataclass(frozen=True)
class Palette:
    """One colour and one marker shape for each model, the same in all figures."""

    models: tuple[str, ...]

    def css(self, model: str) -> str:
        """The CSS class of a model (`m0` to `m5`); past six models the colours come round again."""
        return f"m{self.models.index(model) % _PALETTE_SIZE}" if model in self.models else "m5"


def read_run(directory: Path) -> Run:
    """Read `run.json`, `recipe.yaml` and every manifest.

    Raises InputError where run.json is missing or not what the workflow writes. A stage whose manifest can't
    be used counts as unfinished, with the reason.
    """
    path = directory / RUN
    if not path.exists():
        raise InputError(
            f"{directory} is not a run directory: it has no {RUN}",
            hint="name a directory that `tsugiki run` has made, e.g. runs/demo-ja",
        )
    data = read_json(path)
    described = facts.section(data, "stages")
    if not isinstance(data, Mapping) or not described:
        raise InputError(
            f'{path} does not describe a run: no "stages"',
            hint="run the recipe again to have it written anew",
        )
    names = [name for name in facts.texts(data, "order") if name in described]
    names += [name for name in described if name not in names]
    _check_names(path, names)
    recipe_path = directory / RECIPE
    return Run(
        recipe=facts.text(data, "recipe") or directory.resolve().name,
        language=facts.text(data, "language"),
        scale=facts.text(data, "scale"),
        description=facts.text(data, "description"),
        recipe_text=recipe_path.read_text(encoding="utf-8", errors="replace") if recipe_path.exists() else "",
        stages=tuple(_read_stage(directory, name, index, described) for index, name in enumerate(names)),
    )


def _check_names(path: Path, names: list[str]) -> None:
    """A stage's name is the name of a directory below the run: it must not lead anywhere else."""
    for name in names:
        if not _PLAIN_NAME.fullmatch(name) or name in {".", ".."}:
            raise InputError(
                f"{path} names a stage {name!r}, which is not the name of a directory",
                hint="run the recipe again to have the file written anew",
            )


def _read_stage(directory: Path, name: str, index: int, described: Row) -> Stage:
    about = facts.section(described, name)
    place = directory / name
    manifest, fault = None, ""
    if is_finished(place):
        try:
            manifest = read_manifest(place)
        except InputError as error:
            fault = error.message.replace(str(place), name)
    else:
        fault = _failure(place)
    return Stage(
        name=name,
        kind=facts.text(about, "kind") or (manifest.kind if manifest else "unknown"),
        inputs=tuple(facts.texts(about, "inputs")),
        directory=place,
        index=index,
        manifest=manifest,
        fault=fault,
    )


def _failure(place: Path) -> str:
    """What the workflow left about a failed attempt, in a sentence; empty where there is nothing."""
    path = place / FAILURE
    if not path.exists():
        return "started, not finished" if place.exists() else "not started"
    try:
        failure: Any = read_json(path)
    except InputError:
        return "failed; the record of the failure can't be read"
    inner = facts.section(failure, "error") or failure
    return f"failed: {facts.text(inner, 'message') or 'no message was recorded'}"
