"""How to go through a large column of values in pieces that fit into memory, without sorting it on disk.

The values are counted by range first; then each pass reads the column again and takes one range of values.
Nothing is written, and the result is in the order of the values whatever the number of passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsugiki.corpus.neardup import kernels

Blocks = Callable[[], Iterable[npt.NDArray[np.uint64]]]
"""Reads the column anew, block by block."""

LARGEST = (1 << 64) - 1
_BIN_BITS = 14


@dataclass(frozen=True)
class Pass:
    """The values low..high, `count` of them. More than fit only where low is high: those need no sorting."""

    low: int
    high: int
    count: int


def plan_passes(blocks: Blocks, total: int, capacity: int, low: int = 0, high: int = LARGEST) -> list[Pass]:
    """Ascending ranges that cover all values in low..high, each of at most `capacity` values.

    total: how many values there are, as far as known; where they all fit nothing is read. Ranges that are too
    full are counted again more finely, down to a single value.
    """
    if total <= capacity or low == high:
        return [Pass(low, high, total)] if total else []
    shift = max(0, (high - low).bit_length() - _BIN_BITS)
    counts = np.zeros(((high - low) >> shift) + 1, np.int64)
    for block in blocks():
        kernels.count_values(block, np.uint64(low), np.uint64(high), np.uint64(shift), counts)
    passes: list[Pass] = []
    waiting: Pass | None = None
    for index in np.flatnonzero(counts).tolist():
        first = low + (index << shift)
        last = min(high, first + (1 << shift) - 1)
        count = int(counts[index])
        if waiting is not None and waiting.count + count <= capacity:
            waiting = Pass(waiting.low, last, waiting.count + count)
            continue
        passes += [waiting] if waiting is not None else []
        waiting = Pass(first, last, count)
        if count > capacity:
            passes += plan_passes(blocks, count, capacity, first, last)
            waiting = None
    return passes + ([waiting] if waiting is not None else [])
