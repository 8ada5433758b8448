"""What a person sees while a run goes on: bars on a terminal, plain lines elsewhere, nothing for `--json`."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

_LINE_EVERY_SECONDS = 10.0
_PLAIN_BELOW = 10_000
_WHOLE_FROM = 100
_WIDE = 140
"""Columns from which on a terminal has room for a long bar beside a train stage's figures."""


class Display:
    """How the runner tells what happens. Each kind overrides what it has something to say to."""

    def skipped(self, name: str, reason: str) -> None:
        """A stage need not run."""

    def started(self, name: str, kind: str) -> None:
        """A stage begins, or goes on."""

    def progress(self, name: str, done: float, total: float, unit: str, note: str) -> None:
        """A stage has come this far."""

    def finished(self, name: str, seconds: float, summary: str) -> None:
        """A stage has ended well."""

    def stopped(self, name: str, how: str) -> None:
        """A stage has ended early, "failed" or "interrupted"; an error follows."""

    def close(self) -> None:
        """Leave the terminal tidy."""


class Silent(Display):
    """For `--json`: every event passes without a word."""


class Lines(Display):
    """One line an event, and one every ten seconds of a long stage: right for logs and Slurm."""

    def __init__(self) -> None:
        self._last = 0.0

    def skipped(self, name: str, reason: str) -> None:
        _say(f"{name}: {reason}")

    def started(self, name: str, kind: str) -> None:
        self._last = time.monotonic()
        _say(f"{name}: {kind} starts")

    def progress(self, name: str, done: float, total: float, unit: str, note: str) -> None:
        now = time.monotonic()
        if now - self._last >= _LINE_EVERY_SECONDS:
            self._last = now
            share = f"{done / total:4.0%} " if total else ""
            _say(f"{name}: {share}{amount(done)}/{amount(total)} {unit} {note}".rstrip())

    def finished(self, name: str, seconds: float, summary: str) -> None:
        _say(f"{name}: done in {seconds:.1f} s; {summary}")

    def stopped(self, name: str, how: str) -> None:
        _say(f"{name}: {how}")


class Bars(Display):
    """A bar for each stage, on a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("[bold]{task.description:<12}"),
            BarColumn(bar_width=28 if console.width >= _WIDE else 8),
            # the text alone gives way where a line is too long
            TextColumn("{task.fields[text]}", table_column=Column(ratio=1, no_wrap=True)),
            TimeElapsedColumn(),
            console=console,
            expand=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def skipped(self, name: str, reason: str) -> None:
        self._progress.add_task(name, total=1, completed=1, text=f"[dim]{reason}")

    def started(self, name: str, kind: str) -> None:
        self._tasks[name] = self._progress.add_task(name, total=None, text=kind)

    def progress(self, name: str, done: float, total: float, unit: str, note: str) -> None:
        text = f"{amount(done)}/{amount(total)} {escape(unit)} [dim]{escape(note)}"
        self._progress.update(self._tasks[name], total=total or None, completed=done, text=text)

    def finished(self, name: str, seconds: float, summary: str) -> None:
        self._progress.update(
            self._tasks[name], total=1, completed=1, text=f"{escape(summary)} [dim]{seconds:.1f} s"
        )

    def stopped(self, name: str, how: str) -> None:
        self._progress.update(self._tasks[name], text=f"[red]{how}")
        self._progress.stop_task(self._tasks[name])

    def close(self) -> None:
        self._progress.stop()


def choose_display(*, silent: bool) -> Display:
    """Bars where standard error is a terminal, lines where it is not, nothing when silent."""
    if silent:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


def amount(value: float) -> str:
    """A number in three or four digits: 999, 4096, 12.3k, 1.5M, 105B."""
    size, suffix = next(
        (pair for pair in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")) if abs(value) >= pair[0]), (1, "")
    )
    if suffix == "k" and abs(value) < _PLAIN_BELOW:
        size, suffix = 1, ""
    scaled = value / size
    return f"{scaled:.0f}{suffix}" if abs(scaled) >= _WHOLE_FROM else f"{scaled:.3g}{suffix}"


def size(count: float) -> str:
    """`512 MiB`, `1.2 GiB`: binary units, as memory and disks are asked for."""
    for factor, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count / 1024:.3g} KiB"


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()
