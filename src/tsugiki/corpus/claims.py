"""Who works at which job: a small file in which the processes of one machine take jobs for themselves.

One number a job: 0 while it is free, then the id of the process that has taken it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NUMBER = struct.Struct("<i")


@contextmanager
def claims_for(count: int) -> Iterator[Path]:
    """A file for `count` jobs, all of them free; afterwards it is gone, and nothing more can be taken."""
    with tempfile.TemporaryDirectory(prefix="tsugiki-") as directory:
        path = Path(directory) / "claims"
        path.write_bytes(bytes(count * _NUMBER.size))
        yield path


def take(path: Path, number: int) -> bool:
    """Whether the job is this process's now; False where another one has it, or the file is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        place = number * _NUMBER.size
        fcntl.lockf(descriptor, fcntl.LOCK_EX, _NUMBER.size, place)
        if any(os.pread(descriptor, _NUMBER.size, place)):
            return False
        os.pwrite(descriptor, _NUMBER.pack(os.getpid()), place)
        return True
    finally:
        os.close(descriptor)  # which gives the lock back


def close(path: Path) -> set[int]:
    """End the taking; gives the ids of the processes that have taken a job."""
    closed = path.with_name("closed")
    path.replace(closed)
    return {number for (number,) in _NUMBER.iter_unpack(closed.read_bytes())} - {0}
