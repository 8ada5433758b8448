"""References that are not stages: globs, directories, remote addresses, models on the hub.

A relative path is looked for below the working directory, then beside the recipe, then in the directories
above the recipe; the first place where it exists counts.
"""

from __future__ import annotations

import contextlib
import glob
import json
import re
from dataclasses import dataclass
from pathlib import Path

from tsugiki.artifacts.contract import ArtifactType, Reference
from tsugiki.artifacts.files import sha256_of, write_json
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import is_finished, read_manifest
from tsugiki.errors import InputError, StorageError

_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MANY = 200


@dataclass(frozen=True)
class Source:
    """What an outside reference stands for. `paths` is empty for what is not on this machine."""

    reference: Reference
    paths: tuple[Path, ...]
    remote: bool = False


def find_source(reference: Reference, recipe_path: Path) -> Source | None:
    """Resolve a reference that is not a stage; None where nothing is there."""
    if _REMOTE.match(reference.name):
        return Source(reference, (), remote=True)
    for base in (Path(), recipe_path.parent, *recipe_path.resolve().parent.parents):
        pattern = str(base / Path(reference.name).expanduser())
        paths = tuple(Path(match) for match in sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207 (Path.glob refuses absolute patterns)
        if paths:
            return Source(reference, paths)
    if reference.type == ArtifactType.MODEL and _HUB_ID.fullmatch(reference.name):
        return Source(reference, (), remote=True)
    return None


class DigestCache:
    """SHA-256 of input files, remembered by path, size and modification time in one small file."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, list[object]] = {}
        self._changed = False
        if path is not None and path.exists():
            try:
                self._known = json.loads(path.read_text(encoding="utf-8"))
            except json.JSONDecodeError:
                self._known = {}  # only a cache: computed again

    def digest(self, path: Path) -> str:
        """The SHA-256 of a file."""
        stat = path.stat()
        key = str(path.resolve())
        stamp = [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(key)
        if known is not None and known[:2] == stamp:
            return str(known[2])
        digest = sha256_of(path)
        self._known[key] = [*stamp, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Write the cache down if it has a place and something new; a disk that refuses costs time only."""
        if self._path is not None and self._changed:
            with contextlib.suppress(StorageError):
                write_json(self._path, self._known)


def source_identity(source: Source, digests: DigestCache) -> object:
    """What a source contributes to the identity of the stage that reads it: content, never paths.

    A finished artifact: its identity. Files: base name and SHA-256 of each (one hash where they are
    many). Something remote: its address, since its content is not here.
    """
    if source.remote:
        return source.reference.name
    files: list[Path] = []
    for path in source.paths:
        if path.is_dir():
            if is_finished(path):
                return read_manifest(path).identity
            files += [file for file in sorted(path.rglob("*")) if file.is_file()]
        else:
            files.append(path)
    if not files:
        raise InputError(
            f"{source.reference.field}: {source.reference.name} is an empty directory",
            hint="name a directory or glob that holds files",
        )
    entries = {file.name: digests.digest(file) for file in files}
    if len(entries) < len(files):  # equal base names in several directories
        entries = {f"{index}/{file.name}": digests.digest(file) for index, file in enumerate(files)}
    return entries if len(entries) <= _MANY else identity_of(entries)


def source_bytes(source: Source) -> int:
    """The size of all files behind a source, in bytes."""
    sizes = 0
    for path in source.paths:
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        sizes += sum(file.stat().st_size for file in files)
    return sizes
