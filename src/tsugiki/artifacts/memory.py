"""How much memory this process may take yet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def free_memory_bytes(root: Path = Path("/")) -> int:
    """Memory that is free or that the system would free, within the limits of this process's control groups.

    Slurm and containers set such limits (cgroup v2: `memory.max` of the group and of those above it); whoever
    takes more is killed. Where the system says nothing of what is free, all that is built in.
    root: where `proc` and `sys` lie.
    """
    free = _available_bytes(root / "proc/meminfo")
    if free is None:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([free, *_left_in_groups(root)])


def _available_bytes(meminfo: Path) -> int | None:
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each group with a limit has left: its limit, less what it holds without the files' cache."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    name = next((line[3:] for line in lines if line.startswith("0::")), None)
    if name is None:
        return
    top = root / "sys/fs/cgroup"
    group = top / name.lstrip("/")
    for directory in (group, *group.parents):
        if directory != top and top not in directory.parents:
            return
        try:
            limit = int((directory / "memory.max").read_text())  # "max" is no limit, and no number
            held = int((directory / "memory.current").read_text())
            kinds = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
            yield max(0, limit - held + int(kinds.get("inactive_file", 0)))
        except (OSError, ValueError):
            continue
