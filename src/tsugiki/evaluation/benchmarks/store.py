"""The benchmarks' files on disk: a folder of one's own, what `tsugiki evaluate fetch` fetched, the sample.

A file of a repository is looked for as `<folder>/<owner>/<repository>/<path>`, then `<folder>/<task>/<name>`
and `<folder>/<name>`; a file of a hub dataset as `<folder>/<owner>/<dataset>/<path>`; others below `<task>`.
Nothing is ever downloaded here. A file whose hash is pinned (in manifest.csv, or in the folder's pins.json,
which `fetch` writes) must have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tsugiki.artifacts.files import read_json, sha256_of
from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.manifest import manifest
from tsugiki.evaluation.benchmarks.schema import Origin, TaskSpec

SAMPLE = Path(__file__).with_name("sample")
PINS = "pins.json"
PREFIX = 16
"""Hexadecimal digits of a hash that are compared: 64 bits, as in the manifest."""


@dataclass(frozen=True)
class SourceFile:
    """One file: where it is, what it is called at its source, and the subject that it is about, if any."""

    path: Path
    name: str
    subject: str = ""
    sha256: str = ""
    pinned: bool = False


@dataclass(frozen=True)
class Found:
    """The files of a split, with the origin whose format they have."""

    origin: Origin
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class Store:
    """A folder.

    sample: our own handful of items in the sources' formats; they have no pins, and a task of many files need
    not have all of them. accept: beginnings of hashes that are taken in spite of a pin.
    """

    root: Path
    sample: bool = False
    accept: frozenset[str] = field(default=frozenset())

    def find(self, task: TaskSpec, split: str) -> Found:
        """The files of a split, from the first origin that is complete.

        Raises InputError where none is, with what is missing, and where a file is not the pinned one.
        """
        missing = []
        for origin in task.splits[split]:
            wanted = list(_expanded(origin, task))
            found = [(subject, name, self._places(task, origin, name)) for subject, name in wanted]
            there = [(subject, name, paths) for subject, name, paths in found if paths]
            if there and (len(there) == len(found) or self.sample):
                files = [
                    self._checked(origin, path, name, subject)
                    for subject, name, paths in there
                    for path in paths
                ]
                return Found(origin, tuple(files))
            missing.append(_address(origin, [name for _, name, paths in found if not paths]))
        where = "; or ".join(missing)
        raise InputError(
            f'the {split} split of "{task.name}" is not in {self.root}: {where}',
            hint=f"`tsugiki evaluate fetch {self.root} --tasks {task.name}`, or put the files there by hand",
        )

    def paths(self, task: TaskSpec, split: str) -> list[str]:
        """The paths of a split's files below the folder; those of its first origin where none is complete."""
        for origin in task.splits[split]:
            found = [self._places(task, origin, name) for _, name in _expanded(origin, task)]
            if found and all(found):
                return [path.relative_to(self.root).as_posix() for paths in found for path in paths]
        for origin in task.splits[split]:
            home = origin.repository or origin.hub or task.name
            return [f"{home}/{name}" for _, name in _expanded(origin, task)]
        return []

    def _places(self, task: TaskSpec, origin: Origin, name: str) -> list[Path]:
        """The paths of a file, or of the files that a glob names."""
        home = origin.repository or origin.hub
        base = name.rpartition("/")[2]
        tried = [self.root / home / name] if home else []
        tried += [self.root / task.name / base, self.root / base]
        for path in tried:
            if "*" in name:
                if paths := sorted(path.parent.glob(path.name)):
                    return paths
            elif path.is_file():
                return [path]
        return []

    def _checked(self, origin: Origin, path: Path, name: str, subject: str) -> SourceFile:
        digest = sha256_of(path)
        if self.sample:
            return SourceFile(path, name, subject, digest)
        source = origin.repository or origin.hub or ""
        home = self.root / source
        inside = bool(source) and path.is_relative_to(home)
        pin = self._pin(source, path.relative_to(home).as_posix() if inside else name)
        if pin and not digest.startswith(pin) and digest[:PREFIX] not in self.accept:
            raise InputError(
                f"{path} is not the file that the numbers were made with: its SHA-256 begins with "
                f"{digest[:PREFIX]}, {pin} is expected",
                hint="fetch it again at its commit; or, if you trust the new one, "
                f"name its hash in accept_hashes: [{digest[:PREFIX]}]",
            )
        return SourceFile(path, name, subject, digest, pinned=bool(pin))

    def _pin(self, source: str, name: str) -> str:
        """The beginning of the hash that a file must have; "" where nobody knows it."""
        row = manifest().get((source, name))
        if row is not None and row.sha256:
            return row.sha256[:PREFIX]
        pins = self.root / PINS
        if not pins.is_file():
            return ""
        known = read_json(pins)
        entry = known.get(f"{source}/{name}") if isinstance(known, dict) else None
        digest = entry.get("sha256") if isinstance(entry, dict) else None
        return digest[:PREFIX] if isinstance(digest, str) else ""


def sample_store() -> Store:
    """The items that come with Tsugiki: a few a task, written for trying things out."""
    return Store(SAMPLE, sample=True)


def _expanded(origin: Origin, task: TaskSpec) -> Iterator[tuple[str, str]]:
    """(subject, file) for each file; `{subject}` stands for each of the task's subjects."""
    for name in origin.files:
        if "{subject}" in name:
            yield from ((subject, name.replace("{subject}", subject)) for subject in task.subjects)
        else:
            yield "", name


def expanded_files(origin: Origin, task: TaskSpec) -> list[str]:
    """The names of all files of an origin, subjects filled in."""
    return [name for _, name in _expanded(origin, task)]


def _address(origin: Origin, names: Sequence[str]) -> str:
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004
    if origin.repository:
        return f"{listed} of github.com/{origin.repository}"
    return f"{listed} of the hub dataset {origin.hub}" if origin.hub else f"{listed} (no public address)"
