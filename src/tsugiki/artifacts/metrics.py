"""`metrics.jsonl`: the append-only record of what a stage measured while it ran.

One JSON object a line. Rows are only ever appended, so a stage that was killed and went on from a
checkpoint writes some steps twice; `read_metrics(..., last_by="step")` keeps the last row of each step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tsugiki.errors import storage_errors


class MetricsLog:
    """Appends rows to one file; a torn last line (a kill in mid-write) is cut off on opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8")
        self.followers: list[Callable[[Mapping[str, Any]], None]] = []
        """Told of every row once it is written."""

    def append(self, **row: Any) -> None:
        """Append one row; the wall-clock time (Unix seconds) is added as `time`."""
        row["time"] = round(time.time(), 3)
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        with storage_errors(self.path):
            self._file.write(line + "\n")
            self._file.flush()
        for tell in self.followers:
            tell(row)

    def close(self) -> None:
        """Close the file; the log can't be used afterwards."""
        self._file.close()


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def read_metrics(path: Path, *, last_by: str | None = None, **equals: Any) -> list[dict[str, Any]]:
    """The rows of a metrics file in which every field of `equals` has that value.

    With `last_by`, of all rows with the same value of that field the last one is kept, and the rows are
    sorted by it. A file that does not exist has no rows. An unfinished last line is passed over.
    """
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if all(row.get(field) == value for field, value in equals.items()):
            rows.append(row)
    if last_by is None:
        return rows
    latest = {row[last_by]: row for row in rows if last_by in row}
    return [latest[key] for key in sorted(latest)]
