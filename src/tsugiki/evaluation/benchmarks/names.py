"""The tasks that come with Tsugiki, by name; imports nothing, so that a Config can ask."""

from __future__ import annotations

from pathlib import Path

TASKS = Path(__file__).with_name("tasks")


def task_names() -> list[str]:
    """All names, sorted."""
    return sorted(path.stem for path in TASKS.glob("*.yaml"))
