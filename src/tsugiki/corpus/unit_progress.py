"""How far the units are that workers are at: each keeps a small file, a thread of the driver reads them all.

Files work the same in this process, in Daft's and on other machines that share the run's directory.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tsugiki.artifacts.durations import about

SUFFIX = ".progress"
_EVERY_SECONDS = 1.0
_SETTLED_SECONDS = 3.0


class UnitProgress:
    """Tells how far a unit is, about once a second; as a context, its file is gone afterwards."""

    def __init__(self, unit: Path, total_bytes: int) -> None:
        self._path = unit.with_suffix(SUFFIX)
        self._total = total_bytes
        self._next = time.monotonic() + _EVERY_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)

    def __call__(self, passed_bytes: int, pages: int) -> None:
        """Note the bytes of input and the pages so far; cheap enough for every page."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY_SECONDS
            with contextlib.suppress(OSError):  # a full disk shows where it matters
                self._path.write_text(f"{min(passed_bytes, self._total)} {pages}", encoding="ascii")


@dataclass
class Amounts:
    """What was done: bytes of input, pages, whole units."""

    bytes: int = 0
    pages: int = 0
    units: int = 0


class Watch:
    """Tells `report` what is done of the units in a directory, once a second and as units end; a context.

    `report` gets the Amounts done since the watch began, and the seconds since workers began to read. It is
    called by one thread at a time.
    """

    def __init__(self, directory: Path, report: Callable[[Amounts, float], None]) -> None:
        self._directory, self._report = directory, report
        self._finished = Amounts()
        self._shown = -1
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        for left in self._directory.glob(f"*{SUFFIX}"):  # by workers that were killed
            left.unlink(missing_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._tell(self._finished)

    def finished(self, size_bytes: int, pages: int) -> None:
        """Count a whole unit."""
        done = self._finished
        self._finished = Amounts(done.bytes + size_bytes, done.pages + pages, done.units + 1)
        self._tell(self._finished)

    def _follow(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            done = self._finished
            begun = Amounts(done.bytes, done.pages, done.units)
            for path in self._directory.glob(f"*{SUFFIX}"):
                with contextlib.suppress(OSError, ValueError):  # gone, or being written
                    size, pages = map(int, path.read_text(encoding="ascii").split())
                    begun.bytes += size
                    begun.pages += pages
            if not begun.bytes:  # processes that start and compile say nothing of the speed
                self._start = time.monotonic()
            self._tell(begun)

    def _tell(self, done: Amounts) -> None:
        with self._lock:
            if done.bytes >= self._shown:  # what other units have begun is not in it: it would go back
                self._shown = done.bytes
                self._report(done, time.monotonic() - self._start)


def speed(pages: int, share: float, seconds: float) -> str:
    """For a line that a person reads: `912 pages/s, 3 min left`; the time left only once it can be told.

    share: how much of the work is done, 0 to 1.
    """
    said = f"{pages / max(seconds, 1e-9):,.0f} pages/s"
    if not share or (seconds < _SETTLED_SECONDS and share < 1):
        return said
    return f"{said}, {about(seconds * max(0.0, 1 - share) / share)} left"
