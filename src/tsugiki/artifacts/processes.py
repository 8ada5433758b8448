"""What a process may use of its machine, and what it does that another one started and waits for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import resource
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_ORPHANED = 75

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_LOOK_SECONDS = 0.5
_WASTE = 1.75
"""How often the most memory in use may be held; training settles at 1.25 to 1.45."""
_SPARE_BYTES = 256 << 20


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


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Keep what is freed for the next allocation, in huge pages, where the C library is glibc 2.33 or later.

    A tensor of 32 MB or more is otherwise mapped anew each time, and the system fills its pages with zeros
    again: at 8 x 4,096 tokens of a 256 wide model 5 million page faults a step, a quarter of its time. The
    price is memory that lies between others and fits nothing new: a quarter to two fifths more in training;
    what goes far beyond is given back (`_give_back_waste`). Measured in `docs/log.md`, 2026-11-26.

    The environment's MALLOC_* and THP_MEM_ALLOC_ENABLE (read by torch at its first large tensor) win where
    they are set. Afterwards malloc's own rules hold, and free memory is given back.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    library = ctypes.CDLL(None)
    is_set = any(name.startswith("MALLOC_") for name in os.environ)
    if is_set or not all(hasattr(library, name) for name in ("mallopt", "mallinfo2", "malloc_trim")):
        yield
        return
    library.mallinfo2.restype = _Allocated
    library.mallopt(_M_MMAP_MAX, 0)
    library.mallopt(_M_TRIM_THRESHOLD, -1)
    leaving = threading.Event()
    watch = threading.Thread(target=_give_back_waste, args=(library, leaving), name="memory", daemon=True)
    watch.start()
    try:
        yield
    finally:
        leaving.set()
        watch.join()
        # the limits up to which glibc's thresholds grow by themselves; set by hand they stay where they are
        library.mallopt(_M_MMAP_MAX, 65_536)
        library.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_M_TRIM_THRESHOLD, 64 << 20)
        library.malloc_trim(0)


class _Allocated(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _give_back_waste(library: ctypes.CDLL, leaving: threading.Event) -> None:
    """Give free memory back whenever what is held goes far beyond the most seen in use.

    A block of the very size that was freed may not fit (aligning it takes some bytes more), and where a small
    block follows each, the heap would grow without end.
    """
    most = after = 0
    while not leaving.wait(_LOOK_SECONDS):
        allocated = library.mallinfo2()
        most = max(most, allocated.uordblks + allocated.hblkhd)
        if _anonymous_bytes() > _WASTE * max(most, after) + _SPARE_BYTES:
            library.malloc_trim(0)
            after = _anonymous_bytes()


def _anonymous_bytes() -> int:
    """Memory held that is no file's."""
    _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text(encoding="ascii").split())
    return (resident - shared) * resource.getpagesize()


def exit_with_parent() -> None:
    """Leave at once when standard input closes: whoever started this process is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(_ORPHANED)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
