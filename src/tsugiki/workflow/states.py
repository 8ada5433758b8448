"""What is on disk for each stage of a run, and whether it still belongs to the recipe.

runs/<recipe>/
  recipe.yaml  run.json         the recipe as it ran, and its graph (for the report)
  <stage>/manifest.json         there: the stage is finished
  <stage>/job.json  work/       there without a manifest: begun, and can go on
  <stage>/failure.json          the last attempt's error
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tsugiki.artifacts.files import read_json
from tsugiki.artifacts.identity import Difference, differences
from tsugiki.artifacts.manifest import Manifest, is_finished, read_manifest
from tsugiki.errors import InputError
from tsugiki.workflow.graph import Graph
from tsugiki.workflow.identities import Identity

JOB = "job.json"
FAILURE = "failure.json"
LOCK = ".lock"


class State(StrEnum):
    """How a stage stands."""

    DONE = "done"
    DRIFTED = "drifted"
    DAMAGED = "damaged"
    RUNNING = "running"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    WAITING = "waiting"


@dataclass(frozen=True)
class Standing:
    """The state of one stage, and why.

    differences: for a drifted stage, from what it was made from to what the recipe now says.
    begun: an unfinished stage has work on disk that can go on.
    """

    name: str
    kind: str
    state: State
    detail: str = ""
    differences: tuple[Difference, ...] = ()
    manifest: Manifest | None = None
    begun: bool = False


def standings(graph: Graph, directory: Path, identities: Mapping[str, Identity]) -> dict[str, Standing]:
    """The standing of every stage of a run directory (which need not exist)."""
    live = is_locked(directory)
    return {
        name: _standing(graph, name, directory / name, identities[name], live=live) for name in graph.order
    }


def _standing(graph: Graph, name: str, directory: Path, identity: Identity, *, live: bool) -> Standing:
    kind = graph.recipe.stages[name].kind
    if is_finished(directory):
        return _finished(name, kind, directory, identity)
    job = _job(directory)
    if job is None:
        return Standing(name, kind, State.WAITING)
    begun = any((directory / "work").glob("*")) if (directory / "work").is_dir() else False
    failure = directory / FAILURE
    if failure.exists():  # mending the recipe is what a failure asks for: that is no drift
        said = read_json(failure)
        return Standing(name, kind, State.FAILED, str(said["message"]).splitlines()[0], begun=begun)
    if job["identity"] != identity.hash and begun:
        changed = tuple(differences(job["payload"], identity.payload))
        detail = "its unfinished work was begun from something else"
        return Standing(name, kind, State.DRIFTED, detail, changed, begun=True)
    if live:
        return Standing(name, kind, State.RUNNING, str(job.get("progress", "")), begun=begun)
    detail = "killed; goes on from where it was" if begun else "killed before its first checkpoint"
    return Standing(name, kind, State.INTERRUPTED, detail, begun=begun)


def _finished(name: str, kind: str, directory: Path, identity: Identity) -> Standing:
    try:
        manifest = read_manifest(directory)
    except InputError as error:
        return Standing(name, kind, State.DAMAGED, error.message)
    if manifest.identity != identity.hash:
        changed = tuple(differences(manifest.payload, identity.payload))
        detail = ", ".join(difference.field for difference in changed)
        return Standing(name, kind, State.DRIFTED, detail, changed, manifest)
    for file, entry in manifest.files.items():
        path = directory / file
        if not path.is_file() or path.stat().st_size != entry.bytes:
            seen = (
                "is missing" if not path.is_file() else f"has {path.stat().st_size} bytes, not {entry.bytes}"
            )
            return Standing(name, kind, State.DAMAGED, f"{file} {seen}", manifest=manifest)
    return Standing(name, kind, State.DONE, manifest=manifest)


def _job(directory: Path) -> dict[str, Any] | None:
    path = directory / JOB
    if not path.exists():
        return None
    job: dict[str, Any] = read_json(path)
    return job


def is_locked(directory: Path) -> bool:
    """Whether some process is running this run now."""
    path = directory / LOCK
    if not path.exists():
        return False
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


@contextmanager
def locked(directory: Path, *, name: str = LOCK, wait_seconds: float = 15.0) -> Iterator[int]:
    """Hold the run's lock; gives the descriptor, for the worker to inherit.

    The worker holding it too means that after a `kill -9` of the runner nobody starts over a worker
    that is still dying. Raises InputError where another process keeps it for `wait_seconds`.
    """
    import time

    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / name, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + wait_seconds
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise InputError(
                        f"{directory} is in use by another `tsugiki run`",
                        hint="wait for it (`tsugiki status` shows how far it is), or stop it first",
                    ) from error
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)
