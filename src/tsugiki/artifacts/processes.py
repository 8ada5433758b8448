"""What a process may use of its machine, and what it does that another one started and waits for."""

from __future__ import annotations

import os
import platform
import re
import resource
import sys
import threading
from pathlib import Path

_ORPHANED = 75


def usable_cores() -> int:
    """Cores that this process may run on, which a scheduler may have bounded."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """The processor as the system names it, or "unknown"."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def peak_memory_bytes() -> int:
    """The largest resident set that this process had.

    Linux counts it anew for a new program in /proc only: `ru_maxrss` begins with what the process that
    started it had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(
            r"^VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii", errors="replace"), re.MULTILINE
        )
        if found:
            return int(found[1]) * 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return own * (1 if sys.platform == "darwin" else 1024)


def exit_with_parent() -> None:
    """Leave at once when standard input closes: whoever started this process is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(_ORPHANED)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
