"""What each stage's result is made from: the payload that is hashed into its identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tsugiki.artifacts.identity import identity_of
from tsugiki.workflow.graph import Graph
from tsugiki.workflow.sources import DigestCache, source_identity


@dataclass(frozen=True)
class Identity:
    """A payload and its hash."""

    payload: Mapping[str, Any]
    hash: str


def stage_identities(graph: Graph, digests: DigestCache) -> dict[str, Identity]:
    """The identity of every stage of the graph.

    An input stage counts with its identity, so a change far up changes everything below it.
    """
    found: dict[str, Identity] = {}
    for name in graph.order:
        stage = graph.recipe.stages[name]
        inputs: dict[str, Any] = {read: found[read].hash for read in graph.reads[name]}
        outside: dict[str, str] = {}
        for source in graph.sources[name]:
            shown = source.reference.name if source.remote else Path(source.reference.name).name
            shown = shown if shown not in inputs else f"{shown} ({source.reference.field})"
            outside[source.reference.name] = shown
            inputs[shown] = source_identity(source, digests)
        payload = {
            "kind": stage.kind,
            "code_version": stage.module.CODE_VERSION,
            "config": _without_paths(stage.config.identity_payload(), outside),
            "inputs": inputs,
        }
        found[name] = Identity(payload, identity_of(payload))
    return found


def _without_paths(value: Any, names: Mapping[str, str]) -> Any:
    """The value with every outside path replaced by its last part: where data lies is not identity."""
    if isinstance(value, dict):
        return {names.get(key, key): _without_paths(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value
