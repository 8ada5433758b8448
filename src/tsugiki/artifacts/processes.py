"""What a process may use of its machine, and what it does that another one started and waits for."""

from __future__ import annotations

import os
import threading

_ORPHANED = 75


def usable_cores() -> int:
    """Cores that this process may run on, which a scheduler may have bounded."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def exit_with_parent() -> None:
    """Leave at once when standard input closes: whoever started this process is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(_ORPHANED)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
