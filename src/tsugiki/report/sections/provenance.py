"""Where every number came from, and how to get it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tsugiki.artifacts.identity import canonical_json
from tsugiki.report import facts
from tsugiki.report.facts import Row
from tsugiki.report.formatting import size
from tsugiki.report.run import Run, Stage

_MACHINE = (
    ("system", "System"),
    ("cpu", "Processor"),
    ("cores", "Cores"),
    ("memory_bytes", "Memory"),
    ("device", "Device"),
)


@dataclass(frozen=True)
class StageRecord:
    """The manifest of a stage, for reading."""

    stage: Stage
    inputs: tuple[tuple[str, str], ...]
    config: str
    counts: str
    payload: str


@dataclass(frozen=True)
class Environment:
    """Machine, software and commit that some stages shared."""

    stages: tuple[str, ...]
    machine: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    commit: str
    dirty: bool
    commands: tuple[str, ...]


@dataclass(frozen=True)
class ProvenanceSection:
    """Everything that identifies the run."""

    records: tuple[StageRecord, ...]
    environments: tuple[Environment, ...]
    steps: tuple[str, ...]


def provenance(run: Run) -> ProvenanceSection:
    """The records of all finished stages, and the environments that they ran in."""
    finished = [stage for stage in run.stages if stage.manifest is not None]
    return ProvenanceSection(
        records=tuple(_record(run, stage) for stage in finished),
        environments=tuple(_environments(finished)),
        steps=tuple(_steps(run, finished)),
    )


def _record(run: Run, stage: Stage) -> StageRecord:
    identities = {one.name: one.manifest.identity for one in run.stages if one.manifest is not None}
    manifest = stage.manifest
    payload = {} if manifest is None else {k: v for k, v in manifest.payload.items() if k != "config"}
    return StageRecord(
        stage=stage,
        inputs=tuple(
            (name, stage.read_identity(name) or identities.get(name, "outside of the run"))
            for name in stage.inputs
        ),
        config=outline(manifest.config if manifest else {}),
        counts=outline(stage.counts),
        payload=outline(payload),
    )


def _environments(stages: list[Stage]) -> list[Environment]:
    groups: dict[str, list[Stage]] = {}
    for stage in stages:
        same = {key: stage.provenance.get(key) for key in ("host", "versions", "commit", "dirty")}
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(stage)
    return [_environment(group) for group in groups.values()]


def _environment(group: list[Stage]) -> Environment:
    first = group[0].provenance
    host = facts.section(first, "host")
    commands = dict.fromkeys(_command(stage.provenance) for stage in group)
    versions = facts.section(first, "versions")
    return Environment(
        stages=tuple(stage.name for stage in group),
        machine=tuple((title, _machine(host, key)) for key, title in _MACHINE if host.get(key) is not None),
        versions=tuple((name, str(versions[name])) for name in sorted(versions)),
        commit=facts.text(first, "commit"),
        dirty=bool(first.get("dirty")),
        commands=tuple(command for command in commands if command),
    )


def _machine(host: Row, key: str) -> str:
    return size(facts.number(host, key)) if key == "memory_bytes" else str(host[key])


def _command(provenance_row: Row) -> str:
    command = provenance_row.get("command")
    if isinstance(command, list):
        return " ".join(str(word) for word in command)
    return command if isinstance(command, str) else ""


def _steps(run: Run, finished: list[Stage]) -> list[str]:
    """Shell lines that make the run again, as far as the manifests tell."""
    commits = dict.fromkeys(facts.text(stage.provenance, "commit") for stage in finished)
    steps = [f"git checkout {commit}" for commit in commits if commit][:1]
    commands = dict.fromkeys(_command(stage.provenance) for stage in finished)
    known = [command for command in commands if command]
    scale = f" --scale {run.scale}" if run.scale else ""
    if any(stage.provenance.get("dirty") for stage in finished):
        steps.append("# the source tree had changes that no commit holds")
    return [*steps, *(known or [f"tsugiki run recipe.yaml{scale}"])]


def outline(value: Any) -> str:
    """Plain data in the look of YAML: deterministic, and readable without knowing JSON."""
    return "\n".join(_lines(value, 0))


def _lines(value: Any, depth: int) -> list[str]:
    pad = "  " * depth
    if isinstance(value, Mapping):
        lines = []
        for key, child in value.items():
            if isinstance(child, Mapping | list) and child and not _short(child):
                lines += [f"{pad}{key}:", *_lines(child, depth + 1)]
            else:
                lines.append(f"{pad}{key}: {_scalar(child)}")
        return lines
    if isinstance(value, list):
        return [f"{pad}- {_scalar(child)}" for child in value]
    return [f"{pad}{_scalar(value)}"]


def _short(value: Any) -> bool:
    """Whether a list is best written on its key's own line."""
    return isinstance(value, list) and len(canonical_json(value)) <= 80  # noqa: PLR2004 - one line of text


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
