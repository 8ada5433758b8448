"""Signals that processes pass on to those that they have started."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def terminating_with(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass SIGTERM on while this lasts: training finishes its step and keeps it before it ends."""

    def tell(number: int, _frame: object) -> None:
        for process in processes:
            process.send_signal(number)  # which does nothing to one that has ended

    try:
        before = signal.signal(signal.SIGTERM, tell)
    except ValueError:  # only the main thread may set handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
