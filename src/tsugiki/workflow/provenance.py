"""Who made it, with what, where: figures for manifests. None of it is part of an identity."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import tsugiki
from tsugiki.artifacts.processes import processor_name, usable_cores

_PACKAGES = ("torch", "transformers", "tokenizers", "daft", "pyarrow", "numpy", "numba", "fastwarc")


@cache
def provenance() -> dict[str, Any]:
    """Command, commit, versions and machine of this process."""
    commit, dirty = _commit()
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit,
        "dirty": dirty,
        "versions": {"tsugiki": tsugiki.__version__, "python": platform.python_version(), **_versions()},
        "host": {
            "cpu": processor_name(),
            "cores": usable_cores(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> tuple[str | None, bool | None]:
    """The commit of the source tree that runs, and whether it has changes; None outside of a checkout."""
    root = Path(tsugiki.__file__).parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit, bool(_git(root, "status", "--porcelain", "--", str(root)))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], check=True, capture_output=True, text=True, timeout=10
    )
    return done.stdout.strip()
