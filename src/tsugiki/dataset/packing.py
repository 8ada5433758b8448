"""Shuffled documents laid end to end and cut into windows of one length.

A window of T inputs needs T + 1 tokens: targets are the inputs moved by one. Consecutive windows of an
epoch overlap by that one token, so every token is predicted once an epoch. The order of documents is drawn
anew each epoch, so the cuts fall elsewhere; what does not fill a last window (fewer than T + 1 tokens) is
left out of that epoch.

Packing keeps the place where documents meet: attention is masked with `document_ids`, and the target that
would be the first token of the next document is never counted (nothing before it says what it will be).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tsugiki.dataset.permutation import Indices, Permutation, derive_key
from tsugiki.dataset.tokens import TokenSource
from tsugiki.errors import DataError

IGNORED = -100
"""A target that is not counted; the value that torch's cross entropy ignores by default."""


@dataclass(frozen=True)
class Window:
    """One row of a batch: T inputs, their targets (IGNORED where not counted) and document numbers."""

    ids_T: NDArray[np.int64]
    targets_T: NDArray[np.int64]
    document_ids_T: NDArray[np.int32]


def window_of(tokens_T1: NDArray[np.int64], document_ids_T1: NDArray[np.int32]) -> Window:
    """Split T + 1 tokens into inputs and targets; a target in another document than its input is IGNORED."""
    same_T = document_ids_T1[1:] == document_ids_T1[:-1]
    return Window(tokens_T1[:-1], np.where(same_T, tokens_T1[1:], IGNORED), document_ids_T1[:-1])


class EpochWindows:
    """The windows of one epoch of one source. Costs 16 bytes a document and one shuffle to set up."""

    def __init__(self, source: TokenSource, sequence_length: int, key: int) -> None:
        self._source = source
        self._length = sequence_length
        shuffle = Permutation(source.documents, derive_key(key, "documents"))
        self._order_D: Indices = shuffle.all()
        self._ends_D: Indices = np.cumsum(source.lengths_D[self._order_D])
        count = windows_per_epoch(source, sequence_length)
        # Neighbouring windows often hold one long document: spread them over the epoch.
        self._windows = Permutation(count, derive_key(key, "windows"))

    def __getitem__(self, position: int) -> Window:
        """The window at `position` (0-based) of the epoch's order."""
        number = int(self._windows(np.asarray([position], dtype=np.int64))[0])
        begin = number * self._length
        tokens_T1 = np.empty(self._length + 1, dtype=np.int64)
        document_ids_T1 = np.empty(self._length + 1, dtype=np.int32)
        place = int(np.searchsorted(self._ends_D, begin, side="right"))
        filled, local = 0, 0
        while filled <= self._length:
            document = self._source.document(int(self._order_D[place]))
            offset = len(document) - (int(self._ends_D[place]) - (begin + filled))
            piece = document[offset : offset + self._length + 1 - filled]
            tokens_T1[filled : filled + len(piece)] = piece
            document_ids_T1[filled : filled + len(piece)] = local
            filled, local, place = filled + len(piece), local + 1, place + 1
        return window_of(tokens_T1, document_ids_T1)


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
