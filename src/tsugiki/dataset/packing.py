"""Shuffled documents laid end to end and cut into windows of one length.

A window of T inputs needs T + 1 tokens: targets are the inputs moved by one. Consecutive windows of an
epoch overlap by that one token, so every token is predicted once an epoch. What does not fill a last window
(fewer than T + 1 tokens) is left out of that epoch.

The order is drawn anew each epoch, so the cuts fall elsewhere: groups of `GROUP_DOCUMENTS` consecutive
documents are shuffled, the documents within each group are, and so are the windows that come of it. Any
window is found from numbers alone: nothing is replayed, and what is remembered is 16 bytes a group.

Packing keeps the place where documents meet: attention is masked with `document_ids`, and the target that
would be the first token of the next document is never counted (nothing before it says what it will be).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tsugiki.dataset.kernels import GROUP_DOCUMENTS, IGNORED, copy_group, cut_window
from tsugiki.dataset.permutation import Permutation, derive_key
from tsugiki.dataset.tokens import TokenSource
from tsugiki.errors import DataError

__all__ = ["IGNORED", "ConcatenatedWindows", "Epoch", "EpochWindows", "Window", "Windows", "window_of"]


@dataclass(frozen=True)
class Window:
    """One row of a batch: T inputs, their targets (IGNORED where not counted) and document numbers."""

    ids_T: NDArray[np.int64]
    targets_T: NDArray[np.int64]
    document_ids_T: NDArray[np.int32]

    @classmethod
    def empty(cls, length: int) -> Window:
        """A row to be filled."""
        return cls(np.empty(length, np.int64), np.empty(length, np.int64), np.empty(length, np.int32))


class Epoch(Protocol):
    """The windows of one pass over a source, in the order of that pass."""

    def fill(self, position: int, row: Window) -> None:
        """Write the window at `position` (0-based) into `row`."""


class Windows(Protocol):
    """A way of packing one source.

    count: windows an epoch. tokens_per_window: mean number of inputs that are tokens, not padding.
    """

    count: int
    tokens_per_window: Fraction

    def epoch(self, key: int) -> Epoch:
        """The windows of one epoch, in an order chosen by `key`."""


def window_of(tokens_T1: NDArray[np.int64], document_ids_T1: NDArray[np.int32]) -> Window:
    """Split T + 1 tokens into inputs and targets; a target in another document than its input is IGNORED."""
    window = Window.empty(len(tokens_T1) - 1)
    cut_window(tokens_T1, document_ids_T1, window.ids_T, window.targets_T, window.document_ids_T)
    return window


class EpochWindows:
    """The windows of one epoch of one source, documents end to end."""

    def __init__(self, source: TokenSource, sequence_length: int, key: int) -> None:
        self._source = source
        self._length = sequence_length
        self._order_G = Permutation(len(source.tokens_G), derive_key(key, "groups")).all()
        self._ends_G = np.cumsum(source.tokens_G[self._order_G])
        self._documents_key = derive_key(key, "documents")
        # Neighbouring windows often hold one long document: spread them over the epoch.
        self._windows = Permutation(windows_per_epoch(source, sequence_length), derive_key(key, "windows"))
        self._tokens_T1 = np.empty(sequence_length + 1, dtype=np.int64)
        self._document_ids_T1 = np.empty(sequence_length + 1, dtype=np.int32)

    def __getitem__(self, position: int) -> Window:
        """The window at `position` (0-based) of the epoch's order."""
        window = Window.empty(self._length)
        self.fill(position, window)
        return window

    def fill(self, position: int, row: Window) -> None:
        """Write the window at `position` into `row`."""
        begin = self._windows.at(position) * self._length
        place = int(np.searchsorted(self._ends_G, begin, side="right"))
        filled, local = 0, 0
        while filled <= self._length:
            group = int(self._order_G[place])
            skip = begin + filled - (int(self._ends_G[place]) - int(self._source.tokens_G[group]))
            filled, local = self._copy(group, skip, filled, local)
            place += 1
        cut_window(self._tokens_T1, self._document_ids_T1, row.ids_T, row.targets_T, row.document_ids_T)

    def _copy(self, group: int, skip: int, filled: int, local: int) -> tuple[int, int]:
        unit = self._source.units[int(self._source.unit_G[group])]
        first = int(self._source.first_G[group])
        filled, local = copy_group(
            unit.tokens,
            unit.offsets,
            first,
            min(GROUP_DOCUMENTS, unit.documents - first),
            np.uint64((self._documents_key + group) % 2**64),
            skip,
            self._tokens_T1,
            self._document_ids_T1,
            filled,
            local,
        )
        return filled, local


class ConcatenatedWindows:
    """Documents end to end, cut where a window is full (`Windows`)."""

    def __init__(self, source: TokenSource, sequence_length: int) -> None:
        self._source = source
        self._length = sequence_length
        self.count = windows_per_epoch(source, sequence_length)
        self.tokens_per_window = Fraction(sequence_length)

    def epoch(self, key: int) -> EpochWindows:
        """The windows of one epoch."""
        return EpochWindows(self._source, self._length, key)


def windows_per_epoch(source: TokenSource, sequence_length: int) -> int:
    """How many whole windows one pass over `source` gives; raises DataError where not even one."""
    count = (source.tokens - 1) // sequence_length
    if count < 1:
        raise DataError(
            f'"{source.name}" has {source.tokens:,} tokens: too few for one window of '
            f"{sequence_length} + 1 tokens",
            hint="use a shorter sequence_length or more text",
        )
    return count
