"""Writing large stretches of a file past the system's page cache.

Through the cache every byte is copied once more by the processor, which for weights takes about as long as
drawing them; and the disk is idle until the system begins to write. Linux takes writes of whole pages from
whole pages of memory straight to the disk (O_DIRECT, open(2)). Where a system or a file system has no such
way, and for what doesn't fill pages, the cache is used as ever: the bytes of the file are the same.
"""

from __future__ import annotations

import ctypes
import errno
import math
import mmap
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

PAGE_BYTES = 4096
"""What places, sizes and memory have to be multiples of: the largest block of the disks in use."""

_DIRECT_FROM_BYTES = 1 << 20
"""Less than this is sooner copied to the cache than waited for."""
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


class Output:
    """A new file of a known size, any place of which any thread may write.

    Raises OSError as the system does: where the disk has no room for the whole file, before it is written;
    of writing directly only where writing through the cache fails too.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self._direct = -1
        self._takes_pages = False
        try:
            _reserve(self.descriptor, size_bytes)
            if flag := getattr(os, "O_DIRECT", 0):
                self._direct = os.open(path, os.O_WRONLY | flag)
                self._takes_pages = True
        except OSError as error:
            if error.errno in _NO_ROOM:
                self.close()
                path.unlink()
                raise

    def write(self, content: memoryview, place: int) -> int:
        """Write bytes at a place of the file; gives how many of them went through the cache."""
        done = self._write_pages(content, place) if self._takes_pages else 0
        cached = len(content) - done
        while done < len(content):
            done += os.pwrite(self.descriptor, content[done:], place + done)
        return cached

    def _write_pages(self, content: memoryview, place: int) -> int:
        """Write directly what can be; gives how many bytes from the beginning on are written."""
        if len(content) < _DIRECT_FROM_BYTES or not _fills_pages(content, place):
            return 0
        done = 0
        try:
            while done < len(content):
                done += os.pwrite(self._direct, content[done:], place + done)
        except OSError as error:
            # at a full disk, or a size that is not allowed, the other way says so in its own words
            self._takes_pages = error.errno in _NO_ROOM
        return done

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Close the file; may be called again."""
        for descriptor in (self.descriptor, self._direct):
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = self._direct = -1


def _reserve(descriptor: int, size_bytes: int) -> None:
    """Let the disk set a file's room aside, where its file system can.

    Not os.posix_fallocate: where the file system can't, the C library writes into every block instead.
    """
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if fallocate is None:
        return
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if fallocate(descriptor, 0, 0, size_bytes) and ctypes.get_errno() in _NO_ROOM:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def page_buffer(size_bytes: int) -> memoryview:
    """Memory that begins with a page, so that it can be written directly."""
    return memoryview(mmap.mmap(-1, max(size_bytes, 1)))[:size_bytes]


def page_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor, all 0, whose memory begins with a page."""
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(page_buffer(count * dtype.itemsize), dtype=dtype).view(shape)


def _fills_pages(content: memoryview, place: int) -> bool:
    address = np.frombuffer(content, np.uint8).ctypes.data
    return not (place % PAGE_BYTES or len(content) % PAGE_BYTES or address % PAGE_BYTES)
