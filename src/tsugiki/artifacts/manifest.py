"""`manifest.json`: what an artifact is, what it was made from, and which bytes it consists of.

It is written last and atomically, so a directory without one is unfinished by definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tsugiki.artifacts.contract import ArtifactType
from tsugiki.artifacts.files import read_json, sha256_of, write_json
from tsugiki.artifacts.identity import identity_of
from tsugiki.errors import InputError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1

# Not content: they hold times and hosts, or are partial state, so two equal runs differ in them.
_NOT_CONTENT = frozenset({MANIFEST, "metrics.jsonl", "log.txt", "job.json", "failure.json"})

# Partial state, and training checkpoints that are kept: they hold their own SHA-256s, may be deleted at any
# time, and which ones there are says nothing of the result.
_NOT_CONTENT_DIRECTORIES = ("work/", "checkpoints/", "trackers/")


class FileEntry(BaseModel):
    """One file of an artifact: size in bytes and SHA-256."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """The contents of `manifest.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: ArtifactType
    kind: str
    schema_version: int = SCHEMA_VERSION
    code_version: int
    identity: str
    payload: dict[str, Any]
    """What was hashed into `identity`, kept so that drift can be shown field by field."""
    config: dict[str, Any]
    """The stage's whole resolved configuration, execution fields included."""
    files: dict[str, FileEntry]
    counts: dict[str, float | int]
    facts: dict[str, Any]
    """What the stage proved or found out: parity, funnel, round trips."""
    provenance: dict[str, Any]
    accepted: list[dict[str, Any]] = []
    """Drift that a person accepted (`--accept`): when, and the fields that differed."""


def content_files(directory: Path) -> dict[str, FileEntry]:
    """Size and SHA-256 of every content file below `directory`, by relative path."""
    return {
        name: FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        for name in [path.relative_to(directory).as_posix()]
        if name not in _NOT_CONTENT and not name.startswith(_NOT_CONTENT_DIRECTORIES)
    }


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest: the last act of a stage."""
    write_json(directory / MANIFEST, manifest.model_dump(mode="json"))


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a finished artifact.

    Raises InputError where there is none, where it can't be read, or where it is of a newer schema.
    """
    path = directory / MANIFEST
    if not path.exists():
        raise InputError(
            f"{directory} is not a finished artifact: it has no {MANIFEST}",
            hint="run the stage that makes it, or check the path",
        )
    data = read_json(path)
    if isinstance(data, Mapping) and data.get("schema_version", 0) > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {data['schema_version']}; this Tsugiki knows {SCHEMA_VERSION}",
            hint="upgrade Tsugiki",
        )
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as error:
        raise InputError(
            f"{path} is not a manifest: {error.error_count()} fields are wrong",
            hint="delete the directory and run the stage again",
        ) from error
    if identity_of(manifest.payload) != manifest.identity:
        raise InputError(
            f"{path} was edited: its payload no longer hashes to its identity {manifest.identity}",
            hint="delete the directory and run the stage again",
        )
    return manifest


def is_finished(directory: Path) -> bool:
    """Whether `directory` holds a finished artifact."""
    return (directory / MANIFEST).exists()


def verify_files(directory: Path, manifest: Manifest) -> list[str]:
    """Every way in which the files differ from the manifest, one sentence each; empty if none."""
    present = content_files(directory)
    faults = [f"{name} is missing" for name in manifest.files if name not in present]
    faults += [f"{name} is not in the manifest" for name in present if name not in manifest.files]
    faults += [
        f"{name} has changed: {entry.bytes} bytes, SHA-256 {entry.sha256[:12]}…"
        for name, entry in present.items()
        if name in manifest.files and entry != manifest.files[name]
    ]
    return faults
