"""Where the benchmarks' files lie on GitHub: commit, size, SHA-256 and licence, from manifest.csv.

manifest.csv was made by reading each file at its commit; `sha256_16` is the first 16 hexadecimal digits of
its SHA-256. `bytes = NOT_VERIFIED`: the file is large and was not read. A row whose task says "example file"
or "example" is one of many of its folder: the commit holds for all of them, the hash for that one.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MANIFEST = Path(__file__).with_name("manifest.csv")


@dataclass(frozen=True)
class Pin:
    """A file at a commit. sha256: the beginning of its hash, "" where nobody knows it; bytes: None then."""

    task: str
    repository: str
    commit: str
    path: str
    bytes: int | None
    sha256: str
    licence: str


@cache
def manifest() -> Mapping[tuple[str, str], Pin]:
    """All rows of manifest.csv by repository and path."""
    with MANIFEST.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (row["repo"], row["path"]): Pin(
            row["task"],
            row["repo"],
            row["commit"],
            row["path"],
            int(row["bytes"]) if row["bytes"].isdigit() else None,
            row["sha256_16"],
            row["licence"],
        )
        for row in rows
    }


def commit_of(repository: str, path: str) -> str | None:
    """The commit that a file is read at: its own row's, or that of a file in the same folder."""
    pins = manifest()
    if (repository, path) in pins:
        return pins[repository, path].commit
    folder = path.rpartition("/")[0]
    near = [pin for pin in pins.values() if pin.repository == repository]
    found = [pin.commit for pin in near if pin.path.rpartition("/")[0] == folder]
    commits = set(found or [pin.commit for pin in near])
    return commits.pop() if len(commits) == 1 else None
